"""Bringing the checkpoints that the paper's authors released into our networks.

They are plain `state_dict`s under other names, with linear layers where we have 1×1 convolutions.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from edgefuse.errors import ModelError, unknown_name
from edgefuse.train.checkpoint import Checkpoint
from edgefuse.train.models import build_model

__all__ = ["RELEASED", "import_released"]

# (pattern of the released name, our name), tried in order.
CNN_NAMES = [
    (r"inchange\.", r"stem."),
    (r"fus_(\d)\.linear([12])\.0\.", r"skip_\1.linear\2."),
    (r"fus_(\d)\.eca\.conv\.", r"skip_\1.gate.conv."),
    (r"dense_(\d)\.dense_block\.(\d)\.change\.", r"dense_\1.\2.layers."),
    (r"(down|up)_(\d)\.(?:down|up)sampler\.", r"\1_\2."),
    (r"outchange\.", r"head."),
]
TRANSFORMER_NAMES = [
    (r"proj\.", r"stem."),
    (r"fuse_(\d)\.linear([12])\.0\.", r"skip_\1.linear\2."),
    (r"fuse_(\d)\.eca\.conv\.linear\.", r"skip_\1.gate."),
    (r"trans_(\d)\.transformer_layers\.0\.attn\.norm\.", r"layer_\1.norm_1."),
    (r"trans_(\d)\.transformer_layers\.0\.attn\.fn\.t$", r"layer_\1.attention.t"),
    (r"trans_(\d)\.transformer_layers\.0\.attn\.fn\.group_qkv\.", r"layer_\1.attention.qkv."),
    (r"trans_(\d)\.transformer_layers\.0\.attn\.fn\.group_fus\.", r"layer_\1.attention.merge."),
    (r"trans_(\d)\.transformer_layers\.0\.ff\.norm\.", r"layer_\1.norm_2."),
    (r"trans_(\d)\.transformer_layers\.0\.ff\.fn\.net\.0\.", r"layer_\1.mlp.0."),
    (r"trans_(\d)\.transformer_layers\.0\.ff\.fn\.net\.3\.", r"layer_\1.mlp.2."),
    (r"(down|up)_(\d)\.(?:down|up)sampler\.", r"\1_\2."),
    (r"final\.", r"head."),
]
RELEASED = {"cnn": CNN_NAMES, "transformer": TRANSFORMER_NAMES, "gan": CNN_NAMES}
CONSTANTS = re.compile(r"\.mask$")


def import_released(path: Path, model: str) -> Checkpoint:
    """Read a released checkpoint as one of ours.

    Args:
        path: the authors' file, such as `CNN.model`. Nothing in it is executed.
        model: the network in it, a name in `RELEASED`.

    Returns:
        The checkpoint, at step 0, with an empty configuration: how it was trained is not in the file.

    Raises:
        ModelError: missing or damaged, an unknown network, or weights of another one.
    """
    if model not in RELEASED:
        raise ModelError(unknown_name("released network", model, RELEASED))
    if not path.is_file():
        raise ModelError(f"no such checkpoint: {path}")
    try:
        released = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything at all on damaged files
        raise ModelError(f"{path} is not a readable checkpoint ({type(error).__name__})") from None
    if not isinstance(released, dict) or not all(isinstance(value, Tensor) for value in released.values()):
        raise ModelError(f"{path} is not a plain state_dict, as the released checkpoints are")

    renamed = {_rename(k, model): v for k, v in released.items() if not CONSTANTS.search(k)}
    own = build_model(model).state_dict()
    if renamed.keys() != own.keys():
        odd = min(renamed.keys() ^ own.keys())
        raise ModelError(f"{path} is not a released {model!r}: {odd!r} is in one of the two networks only")
    for name, value in renamed.items():
        if value.numel() != own[name].numel():
            raise ModelError(f"{path} is not a released {model!r}: {name!r} has {tuple(value.shape)}")
    return Checkpoint(model, {name: renamed[name].reshape(own[name].shape) for name in own}, 0, {})


def _rename(name: str, model: str) -> str:
    for pattern, ours in RELEASED[model]:
        renamed, count = re.subn("^" + pattern, ours, name)
        if count:
            return renamed
    return name
