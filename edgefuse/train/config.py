"""The settings of a training run."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgefuse.errors import InputError
from edgefuse.settings import check, setting
from edgefuse.thermal_config import ThermalConfig

PYRAMID = "pyramid"
"""Teacher without weights, `edgefuse.train.target`."""

Paradigm = Literal["sptp", "uptp", "aptp"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class LossConfig:
    """Weights of Eqs. 6 and 7 with the paper's values (Sec. 4.1), and what the paper leaves open."""

    intensity: float = setting(1.0, "Weight of the intensity loss.", least=0, below=float("inf"))
    gradient: float = setting(1.0, "Weight of the gradient loss, α.", least=0, below=float("inf"))
    ssim: float = setting(0.2, "Weight of the SSIM loss, β.", least=0, below=float("inf"))
    adversarial: float = setting(
        0.01, "Weight of the adversarial loss, λ, for gan.", least=0, below=float("inf")
    )
    fallback: float = setting(
        0.0,
        "With a teacher: weight of the SSIM with the visible image where infrared is noisy. What noise has "
        "taken from infrared cannot be recovered; the visible image is the next best.",
        least=0,
        below=float("inf"),
    )
    others: dict[str, float] = setting(
        {}, "Weights of other losses in edgefuse.train.losses.LOSSES, by name."
    )
    gradient_scale: Literal["image", "batch", "none"] = setting(
        "image",
        "How gradients are scaled to 0..1 before they are compared: by image, by batch (the authors' code), "
        "or none.",
    )
    gradient_target: Literal["weighted", "larger"] = setting(
        "weighted",
        "Target gradient: the sources' gradients weighted by their size as in Eq. 5, or the larger one.",
    )
    intensity_power: float = setting(
        1.0,
        "Power of the intensities that weigh the sources: 1 is Eq. 3; higher: the brighter one counts more.",
        above=0,
        most=8,
    )
    ssim_weights: Literal["image", "batch"] = setting(
        "image",
        "How the sources are weighted in the SSIM loss (Eq. 4): by image, or by the mean over the batch (the "
        "authors' code).",
    )

    def __post_init__(self) -> None:
        check(self)
        for name, weight in self.others.items():
            if not 0 <= weight < float("inf"):
                raise InputError(f"losses.others.{name} is {weight}, it must be at least 0")

    def weight(self, name: str) -> float:
        """Return the weight of the loss of that name, 0 where none is given."""
        weight: float = getattr(self, name) if name in WEIGHTS else self.others.get(name, 0.0)
        return weight

    def with_weights(self, weights: dict[str, float]) -> "LossConfig":
        """Return a copy with other weights of losses, by name."""
        own: dict[str, Any] = {name: value for name, value in weights.items() if name in WEIGHTS}
        others = {name: value for name, value in weights.items() if name not in WEIGHTS}
        return replace(self, **own, others={**self.others, **others})


WEIGHTS = ("intensity", "gradient", "ssim", "adversarial", "fallback")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides which weights come out. Defaults follow the paper where it gives values."""

    model: str = setting("nano", "Network: nano, cnn, transformer, gan, my.py:Net.", metavar="NAME")
    paradigm: Paradigm = setting(
        "aptp",
        "How images are paired: sptp (equal file stems), uptp (different stems), aptp (all combinations; no "
        "aligned pairs needed).",
        metavar="NAME",
    )
    ir: tuple[str, ...] = setting(
        (), "Infrared folder, or video; repeatable.", unset="simulated", metavar="PATH"
    )
    vis: tuple[str, ...] = setting(
        (), "Visible folder, or video; repeatable.", unset="simulated", metavar="PATH"
    )
    infrared: ThermalConfig = field(default_factory=ThermalConfig)
    bits: int | None = setting(
        None, "Bits that visible 16-bit images use, such as 12.", unset="as the files say", least=8, most=16
    )
    rig: str | None = setting(
        None,
        "Rig file of `edgefuse calibrate`: every infrared image, validation's too, is aligned by it; both "
        "cameras' images are cut to the overlap.",
        metavar="FILE",
        unset="images are taken as they are",
    )
    base: int | None = setting(None, "Images to use per camera.", unset="all", least=1)
    base_of: Literal["images", "patches"] = setting(
        "images",
        "What base counts: images, of which every step cuts out other patches; or patches, one of each "
        "image, fixed and never mirrored, as in the paper.",
    )
    pairs: int | None = setting(
        None, "Pairs drawn per epoch.", unset="all possible, at most 15,000 as in the paper", least=1
    )
    aligned: float = setting(
        0.0,
        "Share of the pairs drawn from the aligned ones (equal stems), of which all combinations hold few.",
        least=0,
        most=1,
    )
    val_ir: tuple[str, ...] = setting((), "Infrared folder to validate on; repeatable.", metavar="PATH")
    val_vis: tuple[str, ...] = setting(
        (), "Visible folder to validate on, paired by stem; repeatable.", metavar="PATH"
    )
    hold_out: int = setting(0, "Aligned training pairs to keep for validation.", least=0)
    steps: int = setting(6000, "Training steps.", least=1)
    batch: int = setting(8, "Patches per step (of each process).", least=1)
    patch: int = setting(128, "Side of a patch in pixels, a multiple of 16.", least=16)
    corrupt: float = setting(
        0.0,
        "Share of the patches that the network sees with noise, blur, misalignment, another gain or one "
        "camera missing, while the losses look at the clean ones.",
        formerly="spoil",
        least=0,
        most=1,
    )
    learning_rate: float = setting(
        1e-3,
        "Learning rate after a warm-up of 2 % of the steps; a cosine leads to 1 % of it.",
        above=0,
        below=1,
    )
    clip: float = setting(1.0, "Largest norm of all gradients together.", above=0)
    ema: float = setting(
        0.999, "Decay of the moving average of the weights, which is saved; 0: no average.", least=0, below=1
    )
    teacher: str | None = setting(
        None,
        "Checkpoint or shipped model whose fusion of the clean images is the target, instead of the losses; "
        "pyramid: a fusion in closed form (see edgefuse.train.target).",
    )
    init: str | None = setting(
        None, "Checkpoint or shipped model whose weights to start from.", unset="random weights"
    )
    seed: int = setting(0, "Same seed and machine: same weights.", least=0, below=2**63)
    losses: LossConfig = field(default_factory=LossConfig)
    precision: Precision = setting(
        "auto", "Arithmetic of the network; auto: bf16 where the processor has it, else fp32. fp16: GPU only."
    )
    compile: bool = setting(False, "Compile the network with torch.compile.")
    threads: int | None = setting(None, "CPU threads.", unset="all cores", least=1)
    checkpoint_minutes: float = setting(5.0, "Minutes between two checkpoints.", least=0)
    sample_every: int = setting(500, "Steps between two validations and pictures of sample fusions.", least=1)
    processes: int = setting(1, "Processes that train together; set by torchrun.", least=1)

    def __post_init__(self) -> None:
        check(self)
        from edgefuse.train.models import (  # with torch, which the command line's help lacks
            MODELS,
        )

        network = MODELS.named(self.model)
        if bool(self.ir) != bool(self.vis):
            raise InputError("give both --ir and --vis, or neither to train on the simulated rig")
        if self.rig and not self.ir:
            raise InputError("rig aligns images from files: give --ir and --vis too")
        if bool(self.val_ir) != bool(self.val_vis) or (self.val_ir and self.hold_out):
            raise InputError("validate on --val-ir and --val-vis, or on hold_out training pairs")
        if self.aligned and self.paradigm == "uptp":
            raise InputError("uptp never draws aligned pairs: leave aligned out, or train with aptp")
        if self.teacher is not None and network.adversarial:
            raise InputError(f"{self.model} learns from its discriminator: leave teacher out")
        if self.losses.fallback and (self.teacher is None or not self.corrupt):
            raise InputError("losses.fallback needs a teacher and corrupted patches: set teacher and corrupt")
        if self.patch % 16:
            raise InputError(f"patch is {self.patch}, it must be a multiple of 16")
