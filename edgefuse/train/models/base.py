"""What every network that fuses is, and how one that is still in torch runs beside the engines."""

import copy
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgefuse.runtime.engines.base import Arrays, Engine
from edgefuse.spec import LEVELS, ModelSpec


class FusionNetwork(nn.Module):
    """Maps `[B, 2, H, W]` (infrared, visible luma) in [0, 1] to the fused luma `[B, 1, H, W]`, about [0, 1].

    A new network derives from this and gets an entry in `edgefuse.train.models.MODELS`.
    """

    size_divisor: ClassVar[int] = 1
    """Height and width of the input must be multiples of this, in pixels."""
    adversarial: ClassVar[bool] = False
    """It trains against a discriminator."""
    white_levels: ClassVar[tuple[float, ...]] = (1.0,)
    """What `reparameterize` can make white in the input and the answer."""
    uses_levels: ClassVar[bool] = False
    """`forward` also takes how bright both pictures are, `[B, 5]`: see `edgefuse.images`."""
    white_level: float = 1.0
    """What white is; 255 in a copy that takes and gives grey levels."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Fuse the sources, `x`; a network that uses them takes `levels`, too."""
        raise NotImplementedError

    def reparameterize(self, white_level: float = 1.0) -> "FusionNetwork":
        """Return a copy for deployment, in evaluation mode, that answers the same, and faster if it can.

        Args:
            white_level: what white is for the copy, one of `white_levels`; 255 saves passes over the image.
        """
        assert white_level in self.white_levels
        return copy.deepcopy(self).eval()


def parameter_count(model: nn.Module) -> int:
    """Return the number of trained weights."""
    return sum(p.numel() for p in model.parameters())


class TorchEngine(Engine):
    """Runs a network in evaluation mode, so that `Fuser(TorchEngine(...))` fuses with it.

    Args:
        model: the network; its training mode is left as it is.
        name: what it is called in its spec.
    """

    device = "torch"

    def __init__(self, model: FusionNetwork, name: str) -> None:
        self.model = model
        self.spec = ModelSpec(name, model.size_divisor, levels=model.uses_levels, level_count=len(LEVELS))

    @torch.inference_mode()
    def run(self, inputs: Arrays) -> NDArray[np.float32]:
        """Map `sources` and, if the network takes them, `levels` to the fused luma, see `ModelSpec`."""
        was_training = self.model.training
        device = next((p.device for p in self.model.parameters()), None)
        given = [torch.from_numpy(inputs[tensor.name]).to(device) for tensor in self.spec.inputs()]
        fused = self.model.eval()(*given).clamp(0, 1).float()
        self.model.train(was_training)
        return fused.cpu().numpy()
