"""The networks, by name. Each is a `FusionNetwork`."""

from edgefuse.errors import InputError, ModelError
from edgefuse.packages import Registry, load_file
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
    "add_model",
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


def add_model(text: str) -> str:
    """Return a network's name; that of `FILE.py:CLASS` is entered in `MODELS` before.

    Raises:
        InputError: no such file or class, or a class that is no `FusionNetwork`.
    """
    if (found := load_file(text)) is None:
        return text
    name, network = found
    if not (isinstance(network, type) and issubclass(network, FusionNetwork)):
        raise InputError(f"{text} is not a network: derive it from edgefuse.train.models.FusionNetwork")
    MODELS[name] = network
    return name
