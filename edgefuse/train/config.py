"""What a training run is told, in one frozen dataclass."""

from dataclasses import asdict, dataclass, field
from types import UnionType
from typing import Any, get_args, get_type_hints

from edgefuse.errors import InputError, ModelError, unknown_name
from edgefuse.train.losses import LossConfig
from edgefuse.train.models import ADVERSARIAL, MODELS
from edgefuse.train.pairing import PARADIGMS

__all__ = ["PRECISIONS", "TrainConfig"]

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights that come out. Defaults follow the paper where it speaks."""

    model: str = "nano"
    paradigm: str = "aptp"
    ir: tuple[str, ...] = ()
    """Infrared folders; none: the simulated rig."""
    vis: tuple[str, ...] = ()
    base: int | None = None
    """Images a side that pairs are drawn from; None: all."""
    pairs: int | None = None
    """Pairs per epoch; None: all pairs of the paradigm, at most 15,000 as in the paper."""
    aligned: float = 0.0
    """Share of the pairs that is drawn from the aligned ones, which are few among all combinations."""
    steps: int = 6000
    batch: int = 8
    """Patches per step of each process."""
    processes: int = 1
    """Processes that train together; the step they take is that of one with the sum of their batches."""
    patch: int = 128
    """Side of a patch, in pixels."""
    spoil: float = 0.0
    """Share of the patches that the network sees spoilt, while the losses look at the clean ones."""
    learning_rate: float = 1e-3
    """At its peak; a linear warm-up of 2 % of the steps leads to it, a cosine from it to 1 %."""
    clip: float = 1.0
    """Largest norm of all gradients together."""
    ema: float = 0.999
    """Decay of the moving average of the weights, which is what is kept; 0: the last weights."""
    precision: str = "fp32"
    """Arithmetic of the network; the losses are always computed in fp32."""
    compile: bool = False
    """Compile the network with torch.compile."""
    losses: LossConfig = field(default_factory=LossConfig)
    val_ir: tuple[str, ...] = ()
    """Folders of infrared images to validate on, aligned with those of `val_vis` by stem."""
    val_vis: tuple[str, ...] = ()
    hold_out: int = 0
    """Aligned pairs of the training folders to validate on instead; they are not trained on."""
    seed: int = 0
    teacher: str | None = None
    """Checkpoint or shipped model whose picture of the clean images is wanted; None: as `losses` say."""
    init: str | None = None
    """Checkpoint or shipped model whose weights to begin with; None: random ones."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ModelError(unknown_name("model", self.model, MODELS))
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}, it must be from 0 to 2^63 - 1")
        if self.paradigm not in PARADIGMS:
            raise InputError(unknown_name("paradigm", self.paradigm, PARADIGMS))
        if bool(self.ir) != bool(self.vis):
            raise InputError("give both --ir and --vis, or neither to train on the simulated rig")
        if bool(self.val_ir) != bool(self.val_vis) or (self.val_ir and self.hold_out):
            raise InputError("validate on --val-ir and --val-vis, or on --hold-out training pairs")
        if self.aligned and self.paradigm == "uptp":
            raise InputError("uptp never draws aligned pairs: leave --aligned out, or train with aptp")
        if self.teacher is not None and self.model in ADVERSARIAL:
            raise InputError(f"{self.model} learns from its discriminator: leave --teacher out")
        if self.losses.fallback and (self.teacher is None or not self.spoil):
            raise InputError(
                "--fallback counts beside a teacher on spoilt patches: give --teacher and --spoil"
            )
        if self.precision not in PRECISIONS:
            raise InputError(unknown_name("precision", self.precision, PRECISIONS))
        if self.hold_out < 0:
            raise InputError(f"hold out is {self.hold_out}, it must be at least 0")
        for name in ("steps", "batch", "processes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.patch < 16 or self.patch % 16:
            raise InputError(f"patch is {self.patch}, it must be a multiple of 16")
        if self.pairs is not None and self.pairs < 1:
            raise InputError(f"pairs is {self.pairs}, it must be at least 1")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning rate is {self.learning_rate}, it must be between 0 and 1")
        if not self.clip > 0:
            raise InputError(f"clip is {self.clip}, it must be above 0")
        for name in ("spoil", "aligned"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, it must be from 0 to 1")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is {self.ema}, it must be at least 0 and below 1")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Read what `to_dict` wrote.

        Raises:
            ModelError: a key that this version does not know.
            InputError: a value of another type or out of its range.
        """
        losses = values.get("losses", {})
        if not isinstance(losses, dict):
            raise InputError(f"losses is {losses!r}, settings by name are needed")
        plain = {name: value for name, value in values.items() if name != "losses"}
        return cls(**_fitting(cls, plain), losses=LossConfig(**_fitting(LossConfig, losses)))


def _fitting(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values, lists as tuples, if they are of the types that a dataclass's fields have.

    Raises:
        ModelError: a name that is not a field's.
        InputError: a value of another type.
    """
    hints = get_type_hints(kind)
    if unknown := values.keys() - hints.keys():
        raise ModelError(
            f"unknown training settings {', '.join(sorted(unknown))}: known are {', '.join(sorted(hints))}"
        )
    for name, value in values.items():
        hint = hints[name]
        if not any(
            _fits(value, kind) for kind in (get_args(hint) if isinstance(hint, UnionType) else [hint])
        ):
            raise InputError(f"{name.replace('_', ' ')} is {value!r}, which is no setting of that kind")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _fits(value: object, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (str, bool, type(None)):
        return isinstance(value, kind)
    return isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
