"""A network that is still in torch, as an engine beside the others."""

import numpy as np
import torch
from numpy.typing import NDArray

from edgefuse.runtime.engines.base import Arrays, Engine
from edgefuse.spec import ModelSpec
from edgefuse.train.models import FusionNetwork

__all__ = ["TorchEngine"]


class TorchEngine(Engine):
    """Runs a network in evaluation mode, so that `Fuser(TorchEngine(...))` fuses with it.

    Args:
        model: the network; its training mode is left as it is.
        name: what it is called in its spec.
    """

    device = "torch"

    def __init__(self, model: FusionNetwork, name: str) -> None:
        self.model = model
        self.spec = ModelSpec(name, model.size_divisor, levels=model.uses_levels)

    @torch.inference_mode()
    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Map `sources` and, if the network takes them, `levels` to the fused luma, see `ModelSpec`."""
        was_training = self.model.training
        device = next((p.device for p in self.model.parameters()), None)
        given = [torch.from_numpy(inputs[tensor.name]).to(device) for tensor in self.spec.inputs()]
        fused = self.model.eval()(*given).clamp(0, 1).float()
        self.model.train(was_training)
        return fused.cpu().numpy()
