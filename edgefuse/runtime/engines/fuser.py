"""Fuser: two uint8 images in, one out. What happens around the network stands here, once."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import Align, Resize, show_visible_outside
from edgefuse.errors import InputError
from edgefuse.images import Image, check_image, luma, replace_luma, size_of
from edgefuse.levels import measure_levels
from edgefuse.rig import as_align
from edgefuse.runtime.engines import Engine, check_threads, open_engine
from edgefuse.spec import ModelSpec
from edgefuse.thermal import as_infrared, find_palette, is_coloured
from edgefuse.weights import DEFAULT_MODEL

__all__ = ["Fuser", "network_input"]

Levels = NDArray[np.float32]


class Fuser:
    """Fuses an infrared and a visible image.

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
                it, such as smoothed over time; None: it is measured on this pair.

        Returns:
            uint8 of exactly the visible image's shape: the fused luma with the visible image's colours; `out`
            if it is given.

        Raises:
            InputError: another type, shape or size than above, not the size the model is fixed to, or
                colours in infrared beside a grey visible image: the two are swapped.
        """
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
        self._check_size(vis)
        height, width = vis.shape
        self._buffer = network_input(ir, vis, self.spec.size_divisor, self._buffer)
        return self._run({"sources": self._buffer}, ir, vis, levels)[0, 0, :height, :width]

    def _fuse_images(self, ir: Image, vis: Image, levels: Levels | None, rgb: bool = False) -> Image:
        """Fuse with a graph that does all that stands around the network by itself."""
        self._check_size(vis)
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
            inputs["levels"] = (measure_levels(ir, vis) if levels is None else levels)[None]
        return self.engine.run(inputs)

    def _check_size(self, vis: Image) -> None:
        size = self.spec.size
        if size is not None and size != (vis.shape[1], vis.shape[0]):
            raise InputError(
                f"the model file is fixed to {size[0]}x{size[1]} and the image is {size_of(vis)}: "
                f"export it with --size {size_of(vis)}, or without --size for any size"
            )


def _check_order(ir: Image, vis: Image) -> None:
    grey = vis.ndim == 2 or not is_coloured(vis)
    if grey and is_coloured(ir) and find_palette(ir) is None:
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
