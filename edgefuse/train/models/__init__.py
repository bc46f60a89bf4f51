"""The networks, by name. Each maps `[B, 2, H, W]` (infrared, visible luma) to `[B, 1, H, W]`."""

from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from torch import nn

from edgefuse.errors import ModelError, unknown_name
from edgefuse.train.models.cnn import CNN
from edgefuse.train.models.gan import GAN
from edgefuse.train.models.nano import Nano
from edgefuse.train.models.transformer import Transformer

__all__ = [
    "ADVERSARIAL",
    "CNN",
    "GAN",
    "MODELS",
    "Nano",
    "Transformer",
    "build_model",
    "multiple_of",
    "parameter_count",
]

MODELS: dict[str, Callable[[], nn.Module]] = {
    "nano": Nano,
    "nano-l": partial(Nano, channels=48, depth=7, restores=False),
    "cnn": CNN,
    "transformer": Transformer,
    "gan": GAN,
}
ADVERSARIAL = frozenset({"gan"})
"""Those that train against a discriminator."""


class _HasMultiple(Protocol):
    multiple: int


def build_model(name: str) -> nn.Module:
    """Return a new network with random weights from torch's global generator.

    Raises:
        ModelError: unknown name.
    """
    if name not in MODELS:
        raise ModelError(unknown_name("model", name, MODELS))
    return MODELS[name]()


def multiple_of(model: nn.Module) -> int:
    """Return what the height and width of the model's input must be a multiple of, in pixels."""
    return cast(_HasMultiple, model).multiple


def parameter_count(model: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(p.numel() for p in model.parameters())
