"""Fuser: two uint8 images in, one out. What happens around the network stands here, once."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import Align, Resize, show_visible_outside
from edgefuse.errors import InputError, first_line
from edgefuse.images import MIN_SIDE, Image, check_image, luma, measure_levels, replace_luma
from edgefuse.palettes import has_palette, is_coloured
from edgefuse.rig import as_align
from edgefuse.runtime.engines import Engine, check_threads, export_command, open_engine
from edgefuse.runtime.engines.base import as_device_array, is_device_array
from edgefuse.spec import ModelSpec
from edgefuse.thermal import as_infrared
from edgefuse.weights import DEFAULT_MODEL

Levels = NDArray[np.float32]


class Fuser:
    """Fuses an infrared and a visible image.

    Both images may be on the GPU instead, as arrays of torch, CuPy or whatever has DLPack or
    `__cuda_array_interface__`: then nothing is copied to the host and back. What fills them must be done. The
    model must be an end-to-end graph, the sizes equal, `align` None, and `levels` given if it takes them; the
    answer is a `DeviceArray`, or `out`.

    Buffers are kept between calls, so one Fuser serves one thread. `close`, or the end of a `with`, gives the
    engine's memory back.

    Args:
        model: name of a shipped model, path of a file from `edgefuse export`, or an `Engine`.
        threads: CPU threads for one frame; None: all cores.
        engine: name in `ENGINES`; None: the first that can be used here.
        rebuild: False: TensorRT raises rather than build an engine that fits this machine.
        align: brings infrared onto the visible image, or the name of a rig file; None: it is resized. A
            `Session` aligns by itself.

    Raises:
        ModelError: unknown model, or a file that is damaged or not ours.
        BackendError: no inference engine is installed, or not this one.
    """

    def __init__(
        self,
        model: str | Path | Engine = DEFAULT_MODEL,
        threads: int | None = None,
        engine: str | None = None,
        *,
        rebuild: bool = True,
        align: Align | str | Path | None = None,
    ) -> None:
        check_threads(threads)
        self.engine: Engine = (
            open_engine(model, engine, threads, rebuild=rebuild) if isinstance(model, str | Path) else model
        )
        self._buffer: NDArray[np.float32] | None = None
        self._align = as_align(align) or Resize()

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        return self.engine.spec

    def __enter__(self) -> "Fuser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the engine's memory back. Can be called twice."""
        self.engine.close()

    def __call__(
        self,
        ir: NDArray[Any],
        vis: Image,
        *,
        rgb: bool = False,
        out: Image | None = None,
        levels: Levels | None = None,
    ) -> Image:
        """Fuse one pair.

        Args:
            ir: infrared, uint8 `[H, W]` or `[H, W, 3]` (a known palette is removed, else its luma taken),
                white = hot, of any size. 16-bit counts are taken as a single image. For a video, whose greys
                are not to jump, make one `edgefuse.thermal.ThermalAgc()` and give what it returns for each
                frame, as `live` does.
            vis: visible, uint8 `[H, W]` or `[H, W, 3]` BGR, at least 16×16, odd sizes too.
            rgb: the visible image is RGB, and so is the answer.
            out: gets the answer: uint8, of the visible image's shape.
            levels: how bright both are, for models that take it (`spec.levels`), as `measure_levels` gives
                it; None: they are measured on this pair.

        Returns:
            uint8 of exactly the visible image's shape: the fused luma with the visible image's colours; `out`
            if it is given.

        Raises:
            InputError: another type, shape or size than above, not the size the model is fixed to, or
                colours in infrared beside a grey visible image: the two are swapped.
        """
        if is_device_array(ir) or is_device_array(vis):
            return self._fuse_on_device(ir, vis, rgb, out, levels)
        check_image("visible", vis)
        if isinstance(ir, np.ndarray) and ir.dtype == np.uint16:
            ir = as_infrared(ir)
        check_image("infrared", ir)
        if ir.ndim == 3:
            _check_order(ir, vis)
            ir = as_infrared(ir)
        if out is not None and (out.dtype, out.shape) != (vis.dtype, vis.shape):
            raise InputError(
                f"out is {out.dtype} of shape {out.shape}, it must be as the visible image: uint8 {vis.shape}"
            )
        aligned = self._align(ir, vis.shape[:2])
        grey = cv2.cvtColor(vis, cv2.COLOR_RGB2GRAY) if rgb and vis.ndim == 3 else luma(vis)
        if self.spec.levels and levels is None:
            levels = measure_levels(aligned.image, grey, aligned.valid)
        if self.spec.end_to_end:
            fused = self._fuse_images(aligned.image, vis, levels, rgb)
        else:
            fused = replace_luma(vis, grey, self.fuse_luma(aligned.image, grey, levels=levels))
        fused = show_visible_outside(fused, vis, aligned.valid)
        if out is None:
            return fused
        np.copyto(out, fused)
        return out

    def _fuse_on_device(self, ir: Any, vis: Any, rgb: bool, out: Any, levels: Levels | None) -> Any:
        """Fuse two images that lie where the engine computes."""
        spec = self.spec
        if not spec.end_to_end or rgb != (spec.colours == "rgb"):
            wanted = export_command(spec, "--graph end_to_end", "--rgb" if rgb else "")
            raise InputError(
                f"images on a GPU need a graph that takes them as they are: make one with {wanted}"
            )
        if spec.levels and levels is None:
            raise InputError(f"{spec.model} takes levels, which are not measured on a GPU: give levels=…")
        if not isinstance(self._align, Resize):
            raise InputError("images on a GPU cannot be aligned here: give aligned ones, and align=None")
        if isinstance(ir, np.ndarray) or isinstance(vis, np.ndarray):
            raise InputError("one image is NumPy's and the other one is not: give both in the same way")
        ours, theirs = as_device_array(ir, "infrared"), as_device_array(vis, "visible")
        if ours.device != theirs.device:
            raise InputError(
                f"infrared is in the memory of {ours.device} and visible in that of {theirs.device}: "
                "give both where the engine computes"
            )
        height, width = (*theirs.shape, 0, 0)[:2]
        for name, array, shapes in (
            ("infrared", ours, ((height, width), (height, width, 1))),
            ("visible", theirs, ((height, width, 3),)),
        ):
            if array.dtype != np.uint8 or array.shape not in shapes:
                raise InputError(
                    f"{name} is {array.dtype} {list(array.shape)}, it must be uint8 "
                    f"{list(shapes[0]) if len(theirs.shape) == 3 else '[H, W, 3]'}"
                )
        if min(height, width) < MIN_SIDE:
            raise InputError(f"the images are {width}x{height}, at least {MIN_SIDE}x{MIN_SIDE} is needed")
        self._check_size((width, height))
        inputs: dict[str, Any] = {
            "ir": ours.reshape((1, height, width, 1)),
            "vis": theirs.reshape((1, height, width, 3)),
        }
        if levels is not None and spec.levels:
            inputs["levels"] = self._levels_input(levels)
        target = None if out is None else as_device_array(out, "out")
        if target is not None and (target.dtype, target.shape) != (theirs.dtype, theirs.shape):
            raise InputError(f"out is {target.dtype} {list(target.shape)}, it must be as the visible image")
        if target is not None and not target.writable:
            raise InputError("out is read-only: give an array that can be written")
        fused = self.engine.run_on_device(inputs, target and target.reshape((1, *theirs.shape)))
        return fused.reshape(theirs.shape) if out is None else out

    def fuse_luma(self, ir: Image, vis: Image, *, levels: Levels | None = None) -> Image:
        """Fuse two grey images uint8 `[H, W]` of equal size into one."""
        if self.spec.end_to_end:
            return self._fuse_images(ir, vis, levels)
        # Rounds and saturates in one pass; the network's answer is never negative.
        return cv2.convertScaleAbs(self._fuse_planes(ir, vis, levels), alpha=255.0)

    def fuse_unrounded(self, ir: Image, vis: Image, *, levels: Levels | None = None) -> NDArray[np.float32]:
        """Fuse two grey images uint8 `[H, W]` of equal size into one as the network gives it.

        Returns:
            float32 `[H, W]`, 0..255; whole numbers from an end-to-end graph, which rounds by itself.
        """
        if self.spec.end_to_end:
            return self._fuse_images(ir, vis, levels).astype(np.float32)
        return self._fuse_planes(ir, vis, levels) * np.float32(255)

    def _fuse_planes(self, ir: Image, vis: Image, levels: Levels | None) -> NDArray[np.float32]:
        self._check_size((vis.shape[1], vis.shape[0]))
        height, width = vis.shape
        self._buffer = network_input(ir, vis, self.spec.size_divisor, self._buffer)
        return self._run({"sources": self._buffer}, ir, vis, levels)[0, 0, :height, :width]

    def _fuse_images(self, ir: Image, vis: Image, levels: Levels | None, rgb: bool = False) -> Image:
        """Fuse with a graph that does all that stands around the network by itself."""
        self._check_size((vis.shape[1], vis.shape[0]))
        turned = rgb != (self.spec.colours == "rgb")
        if vis.ndim == 2:
            colour = cv2.cvtColor(vis, cv2.COLOR_GRAY2BGR)
        else:
            colour = cv2.cvtColor(vis, cv2.COLOR_BGR2RGB) if turned else np.ascontiguousarray(vis)
        inputs = {"ir": np.ascontiguousarray(ir)[None, :, :, None], "vis": colour[None]}
        fused = self._run(inputs, ir, vis, levels)[0]
        if vis.ndim == 2:
            return np.ascontiguousarray(fused[:, :, 0])
        return cv2.cvtColor(fused, cv2.COLOR_RGB2BGR) if turned else fused

    def _run(
        self, inputs: dict[str, NDArray[Any]], ir: Image, vis: Image, levels: Levels | None
    ) -> NDArray[Any]:
        if self.spec.levels:
            levels = measure_levels(ir, vis) if levels is None else levels
            inputs["levels"] = self._levels_input(levels)
        return self.engine.run(inputs)

    def _levels_input(self, levels: Levels) -> Levels:
        """Return as many of the levels as the model takes, for a batch of one."""
        count = self.spec.level_count
        try:
            found = np.asarray(levels, np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"levels must be {count} numbers: {first_line(error)}") from None
        if found.ndim != 1 or len(found) < count or not np.isfinite(found).all():
            raise InputError(f"levels are {found.tolist()}, they must be {count} numbers, see measure_levels")
        return found[None, :count]

    def _check_size(self, given: tuple[int, int]) -> None:
        """Raise unless width and height are those that the graph is fixed to."""
        if self.spec.size is not None and self.spec.size != given:
            fixed, size = ("x".join(map(str, sides)) for sides in (self.spec.size, given))
            raise InputError(
                f"the model file is fixed to {fixed} and the image is {size}: "
                f"export it with --size {size}, or without --size for any size"
            )


def _check_order(ir: Image, vis: Image) -> None:
    grey = vis.ndim == 2 or not is_coloured(vis)
    if grey and is_coloured(ir) and not has_palette(ir):
        raise InputError(
            "the infrared image is coloured and the visible one is grey: are they swapped? If not, give "
            "infrared as a grey image, white = hot"
        )


def network_input(
    ir: Image, vis: Image, divisor: int, buffer: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Make a network's input out of two grey images uint8 `[H, W]`.

    Args:
        ir: infrared.
        vis: visible luma, of the same size.
        divisor: the right and lower edges are repeated until H and W are multiples of this.
        buffer: an earlier answer, overwritten if it has the right size.

    Returns:
        float32 `[1, 2, H, W]` in [0, 1]; infrared is channel 0.
    """
    height, width = vis.shape
    shape = (1, 2, height + -height % divisor, width + -width % divisor)
    x = buffer if buffer is not None and buffer.shape == shape else np.empty(shape, np.float32)
    for channel, image in zip(x[0], (ir, vis), strict=True):
        np.multiply(image, np.float32(1 / 255), out=channel[:height, :width])
        channel[:height, width:] = channel[:height, width - 1 : width]
        channel[height:] = channel[height - 1]
    return x
