"""The networks, by name. Each is a `FusionNetwork`."""

from edgefuse.errors import ModelError
from edgefuse.plugins import Registry
from edgefuse.train.models.base import FusionNetwork, parameter_count
from edgefuse.train.models.cnn import CNN, GAN
from edgefuse.train.models.nano import Nano
from edgefuse.train.models.transformer import Transformer

__all__ = [
    "CNN",
    "GAN",
    "MODELS",
    "FusionNetwork",
    "Nano",
    "Transformer",
    "build_model",
    "parameter_count",
]

MODELS: Registry[type[FusionNetwork]] = Registry(
    "model",
    "edgefuse.models",
    {"nano": Nano, "cnn": CNN, "transformer": Transformer, "gan": GAN},
    ModelError,
)


def build_model(name: str) -> FusionNetwork:
    """Return a new network with random weights from torch's global generator.

    Raises:
        ModelError: unknown name.
    """
    return MODELS.named(name)()
