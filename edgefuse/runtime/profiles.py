"""Optimisation profiles: the smallest, usual and largest shape that a GPU engine is built for."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgefuse.errors import InputError
from edgefuse.images import parse_size

__all__ = ["Profile", "Shape", "SizeRange", "make_profiles", "provider_options"]

Shape = tuple[int, ...]
"""Dimensions of a tensor; -1 where the graph leaves one open."""


@dataclass(frozen=True)
class Profile:
    """Shapes that one input may have: kernels are tuned for `opt` and serve all between the ends."""

    min: Shape
    opt: Shape
    max: Shape


@dataclass(frozen=True)
class SizeRange:
    """Image sizes (width, height) and batch that an engine must serve, where its graph leaves them open.

    Raises:
        InputError: an end that is not positive, or not in ascending order.
    """

    min: tuple[int, int] = (64, 64)
    opt: tuple[int, int] = (640, 480)
    max: tuple[int, int] = (1920, 1088)
    batch: int = 1
    """Largest batch; the usual one is 1."""

    def __post_init__(self) -> None:
        for side, low, usual, high in zip(("width", "height"), self.min, self.opt, self.max, strict=True):
            if not 0 < low <= usual <= high:
                raise InputError(
                    f"the {side}s {low}, {usual}, {high} of the profile are not positive and ascending: "
                    "give them as smallest, usual, largest"
                )
        if self.batch < 1:
            raise InputError(f"the profile's batch is {self.batch}, it must be at least 1")

    def __str__(self) -> str:
        """Return the sizes as `parse` takes them, such as `64x64,640x480,1920x1088`."""
        return ",".join(f"{width}x{height}" for width, height in (self.min, self.opt, self.max))

    @classmethod
    def parse(cls, text: str, batch: int = 1) -> "SizeRange":
        """Read `smallest,usual,largest`, such as `320x256,640x480,1280x1024`; one size stands for all.

        Raises:
            InputError: text of another form.
        """
        sizes = [parse_size(part) for part in text.split(",")]
        if len(sizes) == 1:
            sizes *= 3
        if len(sizes) != 3:
            raise InputError(
                f"the sizes {text!r} are {len(sizes)}, not three: give smallest,usual,largest, "
                "such as 320x256,640x480,1280x1024"
            )
        smallest, usual, largest = sizes
        return cls(smallest, usual, largest, batch)


def make_profiles(inputs: Mapping[str, Shape], sizes: SizeRange, multiple: int = 1) -> dict[str, Profile]:
    """Return a profile for each input with an open dimension.

    Args:
        inputs: shape of each input, `[N, C, H, W]` or, where the last one is 1 or 3, `[N, H, W, C]`.
        sizes: what the open dimensions may be.
        multiple: sizes are rounded up to multiples of this; of a deploy graph, which pads inside, 1.

    Raises:
        InputError: an input without four dimensions, or open in another place than batch, height and width.
    """
    profiles = {}
    for name, shape in inputs.items():
        if -1 not in shape:
            continue
        rows, columns = (1, 2) if shape[-1] in (1, 3) else (2, 3)
        if len(shape) != 4 or any(shape[d] < 0 for d in {1, 2, 3} - {rows, columns}):
            raise InputError(
                f"input {name!r} is {list(shape)}: no profile is known for it, export with --size"
            )
        ends = []
        for (width, height), batch in ((sizes.min, 1), (sizes.opt, 1), (sizes.max, sizes.batch)):
            wanted = {0: batch, rows: height + -height % multiple, columns: width + -width % multiple}
            ends.append(tuple(wanted[d] if side < 0 else side for d, side in enumerate(shape)))
        profiles[name] = Profile(*ends)
    return profiles


def provider_options(profiles: Mapping[str, Profile]) -> dict[str, str]:
    """Write profiles as ONNX Runtime's TensorRT provider takes them, `name:1x2x480x640,…`; none: nothing."""
    if not profiles:
        return {}
    ends = {"min": "trt_profile_min_shapes", "opt": "trt_profile_opt_shapes", "max": "trt_profile_max_shapes"}
    return {
        option: ",".join(f"{n}:{'x'.join(map(str, getattr(p, end)))}" for n, p in profiles.items())
        for end, option in ends.items()
    }
