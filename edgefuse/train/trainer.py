"""A network in training: one step after the other, and the state to continue from."""

import copy
import hashlib
import math
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgefuse.errors import InputError
from edgefuse.spec import LEVELS
from edgefuse.train.augment import corrupt
from edgefuse.train.config import TrainConfig
from edgefuse.train.losses import Batch, active_losses, total_loss
from edgefuse.train.machine import DistributedContext
from edgefuse.train.models import FusionNetwork, build_model
from edgefuse.train.models.discriminator import Discriminator

Module = TypeVar("Module", bound=nn.Module)
TARGET = 0.8
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A network with its optimiser, the moving average of its weights and, for `gan`, its adversary.

    Memory format is channels-last: on a CPU a step of the CNN takes two thirds of the time.

    Args:
        config: what to train, how. Its first weights follow from the seed.
        context: the processes that take each step together.
        teacher: the network whose pictures are wanted; None: what the losses ask for.
    """

    def __init__(
        self, config: TrainConfig, context: DistributedContext, teacher: FusionNetwork | None = None
    ) -> None:
        self.config, self.context = config, context
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.default_generator.manual_seed(config.seed)
            network = build_model(config.model)
            adversary = Adversary(config.patch) if network.adversarial else None
        self.uses_levels = network.uses_levels
        network.to(context.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(network).eval().requires_grad_(False)
        self.network = _in_step(network, context).train()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.teacher = None if teacher is None else teacher.to(context.device).eval().requires_grad_(False)
        self.adversary: Adversary | None = None
        if adversary is not None:
            self.adversary = _in_step(adversary.to(context.device), context)
            self.opponent = torch.optim.Adam(self.adversary.parameters(), lr=config.learning_rate)
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=config.precision == "fp16")
        self.losses = active_losses(
            config.losses, teacher=teacher is not None, adversarial=adversary is not None
        )
        self._forward = torch.compile(self.network) if config.compile else self.network

    def step(
        self, patches: Tensor, step: int, stop: bool = False, counts: NDArray[np.float64] | None = None
    ) -> tuple[dict[str, Tensor], bool]:
        """Do step number `step`.

        Args:
            patches: uint8 `[B, 2, P, P]` (infrared, visible luma), this process's share of the step's.
            step: counted from 0.
            stop: this process wants to stop.
            counts: `[B, 2, 256]` of the grey levels of the pictures that the patches are parts of, for
                networks that use levels; None: the patches are whole pictures.

        Returns:
            The losses by name, and whether any process wants to stop; both equal in all processes.
        """
        x, sources, levels, wanted_levels, noisy = self._inputs(patches, counts, step)
        ir, vis = sources[:, :1], sources[:, 1:]
        with torch.autocast(
            x.device.type, DTYPES[self.config.precision], enabled=self.config.precision != "fp32"
        ):
            fused = self._forward(x, levels) if self.uses_levels else self._forward(x)
        fused = fused.float()

        critic: dict[str, Tensor] = {}
        score = None
        if self.adversary is not None:
            critic = self._discriminator_step(self.adversary, fused, ir, vis, step)
            score = self.adversary.score(fused)
        target = None
        if self.teacher is not None:
            with torch.no_grad():
                more = (wanted_levels,) if self.teacher.uses_levels else ()
                target = self.teacher(sources, *more).clamp(0, 1).float()
        batch = Batch(fused, ir, vis, target, noisy, score)
        total, terms = total_loss(batch, self.config.losses, self.losses)
        losses = {"total": total, **terms, **critic}
        wish = torch.tensor(float(stop), device=x.device)
        *means, wished = self._optimizer_step(self.optimiser, total, [*losses.values(), wish], step)
        self._update_average(step)
        return dict(zip(losses, means, strict=True)), bool(wished > 0)

    def _inputs(
        self, patches: Tensor, counts: NDArray[np.float64] | None, step: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return what the network sees and what the losses see, in [0, 1], the levels of both, and which of
        the images `[B]` the network sees with a noisy infrared."""
        if not self.config.corrupt and not self.uses_levels:
            x = (patches.to(self.context.device).float() / 255).contiguous(memory_format=torch.channels_last)
            none = x.new_zeros(len(x), len(LEVELS))
            return x, x, none, none, none[:, 0]
        seed, first = (self.config.seed, step), self.context.rank * self.config.batch
        inputs = corrupt(
            patches.cpu(),
            counts,
            self.config.corrupt,
            seed,
            first,
            relevel=self.uses_levels and self.config.corrupt > 0,
        )
        seen, wanted, *rest = (part.to(self.context.device).float() for part in inputs)
        x = (seen / 255).contiguous(memory_format=torch.channels_last)
        return x, wanted / 255, *rest  # type: ignore[return-value]

    def _discriminator_step(
        self, adversary: "Adversary", fused: Tensor, ir: Tensor, vis: Tensor, step: int
    ) -> dict[str, Tensor]:
        adversary.requires_grad_(True)
        first = (step * self.context.size + self.context.rank) * self.config.batch
        loss, logs = adversary.loss(fused, ir, vis, first)
        # Its running statistics decide what the network learns from it: all processes have the same.
        statistics = [buffer for buffer in adversary.buffers() if buffer.is_floating_point()]
        for mine, mean in zip(
            statistics, self._optimizer_step(self.opponent, loss, statistics, step), strict=True
        ):
            mine.copy_(mean)
        adversary.requires_grad_(False)
        return logs

    def _optimizer_step(
        self, optimiser: torch.optim.Optimizer, loss: Tensor, logs: list[Tensor], step: int
    ) -> list[Tensor]:
        """Take one step down the mean loss of all processes; return the means of their logs."""
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        for group in optimiser.param_groups:
            group["lr"] = self.config.learning_rate * learning_rate_factor(step, self.config.steps)
        optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        means = self.context.all_reduce_mean(
            [p.grad for p in parameters] + [value.detach() for value in logs]
        )
        for parameter, gradient in zip(parameters, means, strict=False):
            parameter.grad = gradient
        # Unscaled after the exchange: an overflow anywhere makes every process skip the step.
        self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        if not self.scaler.is_enabled() and not torch.isfinite(norm):  # the scaler skips such a step
            raise InputError(f"a gradient became infinite in step {step + 1}: lower learning_rate or clip")
        self.scaler.step(optimiser)
        self.scaler.update()
        return means[len(parameters) :]

    def _update_average(self, step: int) -> None:
        # At first the average follows fast: the random weights at the start should not stay in it.
        decay = min(self.config.ema, (1 + step) / (10 + step)) if self.config.ema else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
            for mine, theirs in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
                mine.copy_(theirs)

    def initialise(self, weights: dict[str, Tensor]) -> None:
        """Take over a network's weights."""
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def fingerprint(self) -> str:
        """Return a hash of the teacher's weights; without one, nothing."""
        if self.teacher is None:
            return ""
        weights = self.teacher.state_dict().values()
        return hashlib.sha256(b"".join(w.cpu().numpy().tobytes() for w in weights)).hexdigest()

    def state_dict(self) -> dict[str, Any]:
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
        """Continue from averaged weights and what `state_dict` returned with them."""
        self.averaged.load_state_dict(averaged)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.adversary is not None:
            self.adversary.load_state_dict(state["adversary"])
            self.opponent.load_state_dict(state["opponent"])


class Adversary(nn.Module):
    """The discriminator's side of the game, with the least-squares losses of Mao et al. (ICCV 2017).

    What is real? Nobody has ever seen a true fused image, and with unpaired inputs no source shows the
    scene that the fused one shows. So the discriminator judges single images: does this look as if it came
    from one of the two cameras? Half of its real examples are infrared, half visible, and nothing asks that
    they show what the fused ones show. L_adv is its mean score of the fused images, which the generator
    raises: seams, ghosts and washed-out contrast are what gives a mixture away.

    Why this form? The published discriminator ends in a tanh, so a logistic loss does not apply, and a
    Wasserstein critic would need an unbounded score. Regressing ±0.8 instead of ±1 keeps the tanh where it
    has a slope: a discriminator that is sure of itself still tells the generator what to change. For
    its own step it sees real and fused images in one batch, so batch norm cannot tell them apart by batch;
    the generator's step uses the running statistics.

    Args:
        patch: side of the images, in pixels.
    """

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.discriminator = Discriminator(patch)

    def score(self, fused: Tensor) -> Tensor:
        """Return the scores `[B]` of `[B, 1, P, P]`, through which the generator learns."""
        return self.discriminator.eval()(fused)

    def loss(
        self, fused: Tensor, ir: Tensor, vis: Tensor, first: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the discriminator's own loss, and it by name with the mean scores of real and fused images.

        All are `[B, 1, P, P]`. `first` is the position of their first row among all rows of all steps:
        infrared images stand for the real ones at even positions, visible ones at odd ones.
        """
        even = torch.arange(first, first + len(ir), device=ir.device).remainder(2).eq(0)
        real = torch.where(even.view(-1, 1, 1, 1), ir, vis)
        scores = self.discriminator.train()(torch.cat((real, fused.detach())))
        of_real, of_fused = scores.chunk(2)
        loss = ((of_real - TARGET) ** 2).mean() / 2 + ((of_fused + TARGET) ** 2).mean() / 2
        return loss, {"discriminator": loss, "score_real": of_real.mean(), "score_fused": of_fused.mean()}


def _in_step(module: Module, context: DistributedContext) -> Module:
    """Let batch norm see the patches of all processes, on GPUs.

    There is none that does for CPUs: there each process norms by its own, and rank 0's statistics are kept.
    """
    if context.size > 1 and context.device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return module


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: 2 % linear warm-up, then a cosine down to 1 %."""
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
