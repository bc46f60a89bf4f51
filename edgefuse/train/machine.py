"""What trains: the processes that torchrun started, the arithmetic of the machine.

Every process computes the gradients of its own patches; their mean is the gradient of all patches. With
networks of less than a megabyte one exchange per step is enough, and it also carries the losses and the
wish to stop, so that all processes log the same and end after the same step.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch import distributed as dist

from edgefuse.errors import InputError
from edgefuse.train.config import Precision, TrainConfig
from edgefuse.train.models import build_model


@dataclass(frozen=True)
class DistributedContext:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def all_reduce_mean(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the means of tensors over the processes, exchanged as one float32 vector."""
        if self.size == 1:
            return tensors
        flat = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


SINGLE_PROCESS = DistributedContext()


@contextmanager
def distributed() -> Iterator[DistributedContext]:
    """Join the processes that torchrun started, for the time of the block; without it, just this one.

    Raises:
        InputError: more processes than GPUs, on a machine that has any.
    """
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    if cuda and local >= torch.cuda.device_count():
        raise InputError(
            f"process {local + 1} of this machine has no GPU, there are {torch.cuda.device_count()}: "
            "lower --nproc-per-node"
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if "WORLD_SIZE" not in os.environ:
        yield DistributedContext(device=device)
        return
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def describe_processes(config: TrainConfig) -> str:
    """Say in one line what several processes do together."""
    text = f"{config.processes} processes, {config.processes * config.batch} patches a step in all"
    if any(isinstance(module, nn.BatchNorm2d) for module in build_model(config.model).modules()):
        shared = torch.cuda.is_available()
        text += "; batch norm: " + (
            "over all patches"
            if shared
            else "each process norms by its own patches, the first one's are kept"
        )
    return text


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
