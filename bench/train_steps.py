"""Train for some steps, plainly or our way, and print how long a step took, the memory and the losses.

    python -m bench.train_steps {plain,ours} MODEL PRECISION STEPS THREADS

A process of its own for each, since what training tells the allocator holds for the whole process.
"""

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.plain_networks import plain
from edgefuse.machine import keep_heap
from edgefuse.train.config import TrainConfig
from edgefuse.train.machine import SINGLE_PROCESS
from edgefuse.train.trainer import Trainer, learning_rate_factor

BATCH, PATCH = 8, 128
EPS = 1e-8


def patches(step: int) -> Tensor:
    """The same for both: smooth random pictures, uint8 `[BATCH, 2, PATCH, PATCH]`."""
    generator = torch.Generator().manual_seed(step)
    coarse = torch.rand(BATCH, 2, PATCH // 4, PATCH // 4, generator=generator)
    fine = F.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    grain = 0.05 * torch.randn(fine.shape, generator=generator)
    return ((fine + grain).clamp(0, 1) * 255).to(torch.uint8)


def sobel(x: Tensor) -> Tensor:
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    weight = torch.stack((kernel, kernel.T)).unsqueeze(1)
    g = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight)
    magnitude = torch.sqrt(g[:, :1] ** 2 + g[:, 1:] ** 2 + EPS)
    low, high = magnitude.amin((2, 3), keepdim=True), magnitude.amax((2, 3), keepdim=True)
    return (magnitude - low) / (high - low).clamp_min(4 / 255)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    taps = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (torch.outer(taps, taps) / taps.sum() ** 2).float()[None, None]

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (5, 5, 5, 5), mode="reflect"), window)

    ma, mb = blur(a), blur(b)
    va, vb, vab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return similarity.mean((1, 2, 3))


def plain_loss(fused: Tensor, ir: Tensor, vis: Tensor) -> Tensor:
    """Eqs. 2 to 6 as they are printed, with the defaults of `LossConfig`."""
    p = ir / (ir + vis + EPS)
    intensity = (fused - (p * ir + (1 - p) * vis)).abs().mean()
    g_ir, g_vis, g = sobel(ir), sobel(vis), sobel(fused)
    weight = g_ir / (g_ir + g_vis + EPS)
    gradient = (g - (weight * g_ir + g_vis / (g_ir + g_vis + EPS) * g_vis)).abs().mean()
    s_ir, s_vis = ssim(ir, fused), ssim(vis, fused)
    a, b = s_ir.clamp_min(0), s_vis.clamp_min(0)
    structure = (1 - (a / (a + b + EPS) * s_ir + b / (a + b + EPS) * s_vis)).abs().mean()
    return intensity + gradient + 0.2 * structure


class Plain:
    """A plain loop's step."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        # The same first weights as ours.
        self.network = plain(Trainer(config, SINGLE_PROCESS).network).train()
        self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)

    def step(self, uint8: Tensor, step: int) -> float:
        x = uint8.float() / 255
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * learning_rate_factor(step, self.config.steps)
        loss = plain_loss(self.network(x), x[:, :1], x[:, 1:])
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimiser.step()
        return loss.item()


class Ours:
    """Our step, as `edgefuse train` takes it."""

    def __init__(self, config: TrainConfig) -> None:
        keep_heap()
        self.trainer = Trainer(config, SINGLE_PROCESS)

    def step(self, uint8: Tensor, step: int) -> float:
        losses, _ = self.trainer.step(uint8, step)
        return float(losses["total"])


def main(kind: str, model: str, precision: Any, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    # Far more steps than are taken: in its warm-up the learning rate is so low that both stay together.
    config = TrainConfig(model=model, steps=100_000, batch=BATCH, patch=PATCH, precision=precision)
    taker = Plain(config) if kind == "plain" else Ours(config)
    seconds, losses = [], []
    for step in range(steps):
        x = patches(step)
        start = time.perf_counter()
        losses.append(taker.step(x, step))
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # The first step also sets up the engine's kernels.
    print(json.dumps({"seconds": float(np.min(seconds[1:])), "peak_mb": round(peak), "losses": losses}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
