"""Which arithmetic a machine can train in."""

import torch

from edgefuse.errors import InputError
from edgefuse.train.config import Precision

__all__ = ["resolve_precision"]


def resolve_precision(name: Precision) -> Precision:
    """Return the precision to compute in; for `auto`, bf16 where the processor has arithmetic for it.

    Raises:
        InputError: fp16 without a GPU.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _cpu_has_bf16()
        return "bf16" if fast else "fp32"
    if name == "fp16" and not cuda:
        raise InputError("fp16 training needs a GPU, and torch sees none: use fp32, or bf16")
    return name


def _cpu_has_bf16() -> bool:
    # Older releases of torch cannot tell.
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
