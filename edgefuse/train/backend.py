"""A network that is still in torch, behind the same Protocol as the inference engines."""

import numpy as np
import torch
from numpy.typing import NDArray

from edgefuse.spec import ModelSpec
from edgefuse.train.models import FusionNetwork

__all__ = ["TorchBackend"]


class TorchBackend:
    """Runs a network in evaluation mode, so that `Fuser(TorchBackend(...))` fuses with it.

    Args:
        model: the network; its training mode is left as it is.
        name: what it is called in its spec.
    """

    device = "torch"

    def __init__(self, model: FusionNetwork, name: str) -> None:
        self.model = model
        self.spec = ModelSpec(model=name, multiple=model.size_divisor)

    @torch.inference_mode()
    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map `[1, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused `[1, 1, H, W]` in [0, 1]."""
        was_training = self.model.training
        device = next(self.model.parameters()).device
        fused = self.model.eval()(torch.from_numpy(x).to(device)).clamp(0, 1).float()
        self.model.train(was_training)
        return fused.cpu().numpy()
