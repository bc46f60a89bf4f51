"""Fuser: two uint8 images in, one out. What happens around the network stands here, once."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgefuse.align import Align, Resize, show_visible_outside
from edgefuse.errors import BackendError, InputError
from edgefuse.images import Image, check_image, luma, replace_luma, size_of
from edgefuse.rig import as_align
from edgefuse.runtime.backends import Backend, DeployBackend, check_threads, load_backend
from edgefuse.spec import ModelSpec
from edgefuse.weights import DEFAULT_MODEL, model_file

__all__ = ["Fuser", "network_input"]


class Fuser:
    """Fuses an infrared and a visible image.

    Buffers are kept between calls, so one Fuser serves one thread.

    Args:
        model: name of a shipped model, path of an ONNX file from `edgefuse export`, or a `Backend`.
        threads: CPU threads for one frame; None: all cores.
        engine: `onnxruntime`, `openvino` or `tensorrt`; None: the first of them that is installed.
        provider: of ONNX Runtime, `cpu`, `cuda` or `tensorrt`; None: the GPU if it can be used.
        align: brings infrared onto the visible image, or the name of a rig file; None: it is resized. A
            `Session` aligns by itself.
        rebuild: False: TensorRT raises rather than build an engine that fits this machine.

    Raises:
        ModelError: unknown model, or a file that is damaged or not ours.
        BackendError: no inference engine is installed, or not this one.
    """

    def __init__(
        self,
        model: str | Path | Backend = DEFAULT_MODEL,
        threads: int | None = None,
        engine: str | None = None,
        *,
        provider: str | None = None,
        rebuild: bool = True,
        align: Align | str | Path | None = None,
    ) -> None:
        check_threads(threads)
        self.backend: Backend = (
            load_backend(model_file(model), engine, threads, provider=provider, rebuild=rebuild)
            if isinstance(model, str | Path)
            else model
        )
        self._buffer: NDArray[np.float32] | None = None
        self._align = as_align(align) or Resize()

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        return self.backend.spec

    def __call__(self, ir: Image, vis: Image) -> Image:
        """Fuse one pair.

        Args:
            ir: infrared, uint8 `[H, W]` or `[H, W, 3]` (its luma is taken), white = hot, of any size.
            vis: visible, uint8 `[H, W]` or `[H, W, 3]` BGR, at least 16×16, odd sizes too.

        Returns:
            uint8 of exactly the visible image's shape: the fused luma with the visible image's colours.

        Raises:
            InputError: another type, shape or size than above, or not the size the model is fixed to.
        """
        check_image("infrared", ir)
        check_image("visible", vis)
        aligned = self._align(luma(ir), vis.shape[:2])
        if self.spec.graph == "deploy":
            fused = self._fuse_images(aligned.image, vis)
        else:
            grey = luma(vis)
            fused = replace_luma(vis, grey, self.fuse_luma(aligned.image, grey))
        return show_visible_outside(fused, vis, aligned.valid)

    def fuse_luma(self, ir: Image, vis: Image) -> Image:
        """Fuse two grey images uint8 `[H, W]` of equal size into one."""
        if self.spec.graph == "deploy":
            return self._fuse_images(ir, vis)
        # Rounds and saturates in one pass; the network's answer is never negative.
        return cv2.convertScaleAbs(self._answer(ir, vis), alpha=255.0)

    def fuse_unrounded(self, ir: Image, vis: Image) -> NDArray[np.float32]:
        """Fuse two grey images uint8 `[H, W]` of equal size into one as the network gives it.

        Returns:
            float32 `[H, W]`, 0..255; whole numbers from a deploy graph, which rounds by itself.
        """
        if self.spec.graph == "deploy":
            return self._fuse_images(ir, vis).astype(np.float32)
        return self._answer(ir, vis) * np.float32(255)

    def _answer(self, ir: Image, vis: Image) -> NDArray[np.float32]:
        self._check_size(vis)
        height, width = vis.shape
        self._buffer = network_input(ir, vis, self.spec.multiple, self._buffer)
        return self.backend.run(self._buffer)[0, 0, :height, :width]

    def _fuse_images(self, ir: Image, vis: Image) -> Image:
        """Fuse with a graph that does all that stands around the network by itself."""
        if not isinstance(self.backend, DeployBackend):
            raise BackendError(f"{self.backend.device} runs no deploy graphs: export with --graph core")
        self._check_size(vis)
        rgb = self.spec.colours == "rgb"
        if vis.ndim == 2:
            colour = cv2.cvtColor(vis, cv2.COLOR_GRAY2BGR)
        else:
            colour = cv2.cvtColor(vis, cv2.COLOR_BGR2RGB) if rgb else np.ascontiguousarray(vis)
        fused = self.backend.run_images(np.ascontiguousarray(ir)[None, :, :, None], colour[None])[0]
        if vis.ndim == 2:
            return np.ascontiguousarray(fused[:, :, 0])
        return cv2.cvtColor(fused, cv2.COLOR_RGB2BGR) if rgb else fused

    def _check_size(self, vis: Image) -> None:
        size = self.spec.size
        if size is not None and size != (vis.shape[1], vis.shape[0]):
            raise InputError(
                f"the model file is fixed to {size[0]}x{size[1]} and the image is {size_of(vis)}: "
                f"export it with --size {size_of(vis)}, or without --size for any size"
            )


def network_input(
    ir: Image, vis: Image, multiple: int, buffer: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Make a network's input out of two grey images uint8 `[H, W]`.

    Args:
        ir: infrared.
        vis: visible luma, of the same size.
        multiple: the right and lower edges are repeated until H and W are multiples of this.
        buffer: an earlier answer, overwritten if it has the right size.

    Returns:
        float32 `[1, 2, H, W]` in [0, 1]; infrared is channel 0.
    """
    height, width = vis.shape
    shape = (1, 2, height + -height % multiple, width + -width % multiple)
    x = buffer if buffer is not None and buffer.shape == shape else np.empty(shape, np.float32)
    for channel, image in zip(x[0], (ir, vis), strict=True):
        np.multiply(image, np.float32(1 / 255), out=channel[:height, :width])
        channel[:height, width:] = channel[:height, width - 1 : width]
        channel[height:] = channel[height - 1]
    return x
