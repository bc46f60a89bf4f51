"""A network in training: one step after the other, and the state to go on from."""

import copy
import hashlib
import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edgefuse.errors import InputError
from edgefuse.train.adversary import Adversary
from edgefuse.train.augment import spoil
from edgefuse.train.config import TrainConfig
from edgefuse.train.losses import distillation_losses, fusion_losses
from edgefuse.train.models import ADVERSARIAL, build_model
from edgefuse.train.parallel import Team

__all__ = ["Learner", "rate"]

Module = TypeVar("Module", bound=nn.Module)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """A network with its optimiser, the moving average of its weights and, for `gan`, its adversary.

    Memory format is channels-last: on a CPU a step of the CNN takes two thirds of the time.

    Args:
        config: what to train, how. The weights it begins with follow from the seed.
        team: the processes that take each step together.
        teacher: the network whose pictures are wanted; None: what the losses ask for.
    """

    def __init__(self, config: TrainConfig, team: Team, teacher: nn.Module | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.team = config, team
        network = build_model(config.model).to(team.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.network = _in_step(network, team).train()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.teacher = None if teacher is None else teacher.to(team.device).eval().requires_grad_(False)
        self.adversary: Adversary | None = None
        if config.model in ADVERSARIAL:
            self.adversary = _in_step(Adversary(config.patch).to(team.device), team)
            self.opponent = torch.optim.Adam(self.adversary.parameters(), lr=config.learning_rate)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=config.precision == "fp16")
        self._forward = torch.compile(self.network) if config.compile else self.network

    def step(self, patches: Tensor, step: int, stop: bool = False) -> tuple[dict[str, Tensor], bool]:
        """Do step number `step`.

        Args:
            patches: uint8 `[B, 2, P, P]` (infrared, visible luma), this process's share of the step's.
            step: counted from 0.
            stop: this process wants to stop.

        Returns:
            The losses by name, and whether any process wants to stop; both equal in all processes.
        """
        x, ir, vis, noisy = self._inputs(patches, step)
        with torch.autocast(
            x.device.type, DTYPES[self.config.precision], enabled=self.config.precision != "fp32"
        ):
            fused = self._forward(x)
        fused = fused.float()

        told: dict[str, Tensor] = {}
        opinion = None
        if self.adversary is not None:
            told = self._teach(self.adversary, fused, ir, vis, step)
            opinion = self.adversary.opinion(fused)
        if self.teacher is not None:
            total, terms = self._lessons(self.teacher, fused, ir, vis, noisy)
        else:
            total, terms = fusion_losses(fused, ir, vis, self.config.losses, opinion)
        losses = {"total": total, **terms, **told}
        wish = torch.tensor(float(stop), device=x.device)
        *means, wished = self._descend(self.optimiser, total, [*losses.values(), wish], step)
        self._average(step)
        return dict(zip(losses, means, strict=True)), bool(wished > 0)

    def _inputs(self, patches: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the network sees, infrared and visible luma as the losses see them, in [0, 1], and
        which of the images `[B]` it sees with a noisy infrared."""
        seen = wanted = patches
        noisy = torch.zeros(len(patches), dtype=torch.bool)
        if self.config.corrupt:
            first = self.team.rank * self.config.batch
            seen, wanted, noisy = spoil(patches.cpu(), self.config.corrupt, (self.config.seed, step), first)
        x, sources = (part.to(self.team.device).float() / 255 for part in (seen, wanted))
        x = x.contiguous(memory_format=torch.channels_last)
        return x, sources[:, :1], sources[:, 1:], noisy.to(x.device)

    def _lessons(
        self, teacher: nn.Module, fused: Tensor, ir: Tensor, vis: Tensor, noisy: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            wanted = teacher(torch.cat((ir, vis), dim=1)).clamp(0, 1)
        return distillation_losses(fused, wanted, vis, noisy.float(), self.config.losses)

    def _teach(
        self, adversary: Adversary, fused: Tensor, ir: Tensor, vis: Tensor, step: int
    ) -> dict[str, Tensor]:
        adversary.requires_grad_(True)
        first = (step * self.team.size + self.team.rank) * self.config.batch
        loss, told = adversary.loss(fused, ir, vis, first)
        # Its running statistics decide what the network learns from it: all processes have the same.
        statistics = [buffer for buffer in adversary.buffers() if buffer.is_floating_point()]
        for mine, mean in zip(statistics, self._descend(self.opponent, loss, statistics, step), strict=True):
            mine.copy_(mean)
        adversary.requires_grad_(False)
        return told

    def _descend(
        self, optimiser: torch.optim.Optimizer, loss: Tensor, told: list[Tensor], step: int
    ) -> list[Tensor]:
        """Take one step down the mean loss of all processes; return the means of what they tell."""
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for group in optimiser.param_groups:
            group["lr"] = self.config.learning_rate * rate(step, self.config.steps)
        optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        means = self.team.average([p.grad for p in parameters] + [value.detach() for value in told])
        for parameter, gradient in zip(parameters, means, strict=False):
            parameter.grad = gradient
        # Unscaled after the exchange: an overflow anywhere makes every process skip the step.
        self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):  # the scaler skips such a step
            raise InputError(f"a gradient became infinite in step {step + 1}: lower --lr or --clip")
        self.scaler.step(optimiser)
        self.scaler.update()
        return means[len(parameters) :]

    def _average(self, step: int) -> None:
        # At first the average follows fast: the random weights that it begins with should not stay in it.
        decay = min(self.config.ema, (1 + step) / (10 + step)) if self.config.ema else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
            for mine, theirs in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
                mine.copy_(theirs)

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Take over a network's weights."""
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def fingerprint(self) -> str:
        """Return a hash of the teacher's weights; without one, nothing."""
        if self.teacher is None:
            return ""
        weights = self.teacher.state_dict().values()
        return hashlib.sha256(b"".join(w.cpu().numpy().tobytes() for w in weights)).hexdigest()

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs beside the averaged weights, as tensors and plain values."""
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        if self.adversary is not None:
            state |= {"adversary": self.adversary.state_dict(), "opponent": self.opponent.state_dict()}
        return state

    def restore(self, averaged: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from averaged weights and what `state` returned with them."""
        self.averaged.load_state_dict(averaged)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
            self.opponent.load_state_dict(state["opponent"])


def _in_step(module: Module, team: Team) -> Module:
    """Let batch norm see the patches of all processes, on GPUs.

    There is none that does for CPUs: there each process norms by its own, and rank 0's statistics are kept.
    """
    if team.size > 1 and team.device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return module


def rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: 2 % linear warm-up, then a cosine down to 1 %."""
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
