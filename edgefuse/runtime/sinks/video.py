"""Video files, written so that a power cut loses no more than the last two seconds of one."""

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from edgefuse.errors import InputError, unknown_name
from edgefuse.files import check_writable
from edgefuse.images import Image, size_of
from edgefuse.machine import return_memory
from edgefuse.runtime.compose import side_by_side
from edgefuse.runtime.frames import HD_LINES, NOMINAL_FPS, FusedFrame
from edgefuse.runtime.sinks.base import OutputOptions, QuotaReachedError, Sink
from edgefuse.runtime.sinks.naming import DiskQuota, OutputNaming, check_limits, hold

SMALL, LARGE = 16, 16 * 10**6  # side and area, in pixels, at which FFV1 needs fewer or more slices
logger = logging.getLogger(__name__)

KEY_SECONDS = 1.0  # between two key frames, of which each begins a fragment
SYNC_SECONDS = 0.5  # between two requests that the disk shall keep what it has
FINE_CLOCK = 90_000  # ticks per second, about, of a file whose frames have times and a nominal rate
CLOCK = Fraction(1, 1000)  # seconds, for frames with times of their own; Matroska knows no finer one


@dataclass(frozen=True)
class Codec:
    """How a codec is used."""

    encoder: str
    pixels: str
    """Pixel format for colour."""
    grey: str
    """Pixel format for grey images."""
    grey16: str | None = None
    """Pixel format for 16-bit grey images; None: it cannot keep them."""
    options: Mapping[str, str] = field(default_factory=dict)


# Without B-frames and look-ahead a frame is in the file as soon as it is encoded.
CODECS = {
    "h264": Codec(
        "libx264",
        "yuv420p",
        "yuv420p",
        options={"preset": "veryfast", "tune": "zerolatency", "crf": "20"},
    ),
    "h265": Codec(
        "libx265",
        "yuv420p",
        "yuv420p",
        options={"preset": "ultrafast", "tune": "zerolatency", "crf": "24", "x265-params": "log-level=none"},
    ),
    # Key frames only, so that any frame can be sought; checksums in slices, which are coded in parallel.
    "ffv1": Codec(
        "ffv1",
        "bgr0",
        "gray",
        "gray16le",
        options={"level": "3", "g": "1", "slicecrc": "1", "context": "0"},
    ),
    "mjpeg": Codec("mjpeg", "yuvj420p", "yuvj420p", options={"q:v": "3"}),
}
"""Name of the codec → its use. FFV1 is lossless."""

CONTAINERS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("mp4", "h264", {"movflags": "hybrid_fragmented+frag_keyframe+default_base_moof"}),
    ".mkv": ("matroska", "ffv1", {"cluster_time_limit": "1000"}),
    ".avi": ("avi", "mjpeg", {}),
}
"""Suffix → (container, the codec used if none is asked for, options)."""


class _File:
    """What the container is written to: errors of the disk come out as `OSError`, and sizes are known."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        hold(self._file)
        self.size = 0
        self.error: OSError | None = None
        """The first refusal of the disk, of which a container tells with the next frame only."""
        self.given_up = False
        """Nothing is kept any more: what PyAV wants to complete of a file that failed goes nowhere."""
        self._synced = time.monotonic()

    def write(self, data: Any) -> int:
        """Write all of it."""
        if self.given_up:
            return len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            self.error = self.error or error
            raise
        self.size = max(self.size, self._file.tell())
        if time.monotonic() - self._synced > SYNC_SECONDS and hasattr(os, "fdatasync"):
            os.fdatasync(self._file.fileno())
            self._synced = time.monotonic()
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset if self.given_up else self._file.seek(offset, whence)

    def tell(self) -> int:
        return self.size if self.given_up else self._file.tell()

    def close(self) -> None:
        self._file.close()


def _clock(container: str, rate: Fraction | None, timed: bool) -> Fraction:
    """Return the unit of a file's times, in seconds: frames of a steady rate fall on whole numbers of it."""
    if rate is None or (timed and container == "matroska"):
        return CLOCK
    if timed and container == "mp4":
        return 1 / (rate * max(1, round(FINE_CLOCK / rate)))
    return 1 / rate  # AVI has no other


def _tag_colour(context: Any, codec: str, height: int) -> dict[str, Any]:
    """State in a stream what its colours mean, and return how they are converted.

    Players take the matrix of an untagged stream by its height; so do we, for those that ignore tags.
    Codes: ITU-T H.273.
    """
    still = codec == "mjpeg"  # JFIF: BT.601, full range
    hd = height >= HD_LINES and not still
    context.colorspace = 1 if hd else 6
    context.color_primaries = context.color_trc = 1  # as sRGB has them, near enough
    context.color_range = 2 if still else 1
    return {
        "dst_colorspace": Colorspace.ITU709 if hd else Colorspace.ITU601,
        "dst_color_range": ColorRange.JPEG if still else ColorRange.MPEG,
    }


class Encoder:
    """Encodes images of one shape and pixel type into one new file.

    Args:
        path: the file, which must not exist; its suffix is one of `CONTAINERS`.
        codec: one of `CODECS`.
        image: like every image: `[H, W]` or `[H, W, 3]` BGR, uint8, H and W even; FFV1 takes any size, and
            uint16 `[H, W]`.
        fps: frames per second; None: nobody knows.
        timed: every frame has a time of its own.
        tags: texts to put into the file.

    Raises:
        OSError: the file cannot be written.
        av.FFmpegError: container and codec do not fit, or the codec refuses the size.
    """

    def __init__(
        self,
        path: Path,
        codec: str,
        image: NDArray[Any],
        fps: float | None,
        *,
        timed: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        container, _, options = CONTAINERS[path.suffix.lower()]
        self.frames = 0
        self.kept = 0
        """Frames that are in the file for certain, whatever becomes of the later ones."""
        self._encoded = 0  # bytes
        use = CODECS[codec]
        self._given = "bgr24" if image.ndim == 3 else "gray16le" if image.dtype == np.uint16 else "gray"
        self._pixels = {"bgr24": use.pixels, "gray": use.grey, "gray16le": use.grey16}[self._given]
        self._file = _File(path)
        rate = Fraction(fps or NOMINAL_FPS).limit_denominator(1001)
        self._timed = timed or fps is None
        self._base = _clock(container, rate if fps is not None else None, self._timed)
        self._last = -1
        self._key_due = 0
        self._path, self._logged_late = path, False
        self._converter = VideoReformatter()
        try:
            self._container = av.open(
                self._file, "w", format=container, options={**options, "flush_packets": "1"}
            )
            self._container.metadata.update(dict(tags or {}))
            stream: Any = self._container.add_stream(use.encoder, rate=rate)
        except BaseException:
            self._file.close()
            path.unlink(missing_ok=True)
            raise
        self._stream = stream
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = self._pixels
        stream.time_base = stream.codec_context.time_base = self._base
        if fps is not None:
            stream.codec_context.gop_size = max(1, round(fps * KEY_SECONDS))
        stream.options = dict(use.options)
        self._colour: dict[str, Any] = {}
        if str(self._pixels).startswith("yuv"):
            self._colour = _tag_colour(stream.codec_context, codec, image.shape[0])
        if codec == "ffv1":
            height, width = image.shape[:2]
            slices = 1 if min(height, width) < SMALL else 16 if height * width > LARGE else 4
            stream.options = {**use.options, "slices": str(slices)}
            stream.codec_context.thread_count = min(4, os.cpu_count() or 1)
            stream.thread_type = "SLICE"

    @property
    def size(self) -> int:
        """Bytes so far, those included that wait for the end of their fragment."""
        return max(self._file.size, self._encoded)

    @property
    def file_size(self) -> int:
        """Bytes that are in the file."""
        return self._file.size

    def write(self, image: NDArray[Any], seconds: float) -> int:
        """Encode one image and return its time in the file, in units of its clock.

        `seconds` from the start of the file are used if frames have times of their own.

        Raises:
            OSError: the disk is full or gone.
            av.FFmpegError: the codec refuses.
        """
        if self._pixels == "bgr0":  # by way of four channels, which is faster
            four = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
            frame = av.VideoFrame.from_ndarray(four, "bgra").reformat(format="bgr0")
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), self._given)
            if self._colour:
                frame = self._converter.reformat(frame, format=self._pixels, **self._colour)
        due = round(seconds / self._base) if self._timed else self.frames
        # A frame from just before the start of the recording is shown at its start, which is no news.
        if 0 <= due < self._last - 1 and not self._logged_late:
            self._logged_late = True
            logger.warning(
                "%s: frames come faster than the rate of the file, so they are shown late; use .mp4 or .mkv",
                self._path,
            )
        self._last = max(due, self._last + 1)
        frame.pts, frame.time_base = self._last, self._base
        if self._last >= self._key_due:
            frame.pict_type = PictureType.I
            self._key_due = self._last + round(KEY_SECONDS / self._base)
        before = self._file.size
        self._mux(frame)
        if self._file.size > before:  # a fragment is written when the next one begins
            self.kept = self.frames
        self.frames += 1
        return self._last

    def _mux(self, frame: av.VideoFrame | None) -> None:
        packets = self._stream.encode(frame)
        self._encoded += sum(packet.size for packet in packets)
        try:
            self._container.mux(packets)
        except av.FFmpegError as error:
            raise self._file.error or error from None
        if self._file.error is not None:
            raise self._file.error

    def close(self) -> None:
        """Complete the file. Raises as `write`, after the file is closed."""
        try:
            if self.frames:
                self._mux(None)
            self._container.close()
            if self._file.error is not None:
                raise self._file.error
            self.kept = self.frames
        except BaseException:
            self._file.given_up = True
            with suppress(av.FFmpegError, OSError):  # or it would be tried when the container is collected
                self._container.close()
            raise
        finally:
            self._file.close()


class VideoOut(Sink):
    """Writes a video: the fused picture, or infrared | visible | fused.

    Codecs need even sides: an odd width or height is made even by repeating the last column or row. When the
    pictures change their size, or from grey to colour, as after a camera's return, another file begins.

    The files can be played at any moment; their names are those of `OutputNaming`.

    Args:
        path: the suffix chooses the container, see `CONTAINERS`.
        fps: frames per second of the file; None: nobody knows, as of cameras.
        timed: frames come at times of their own, whatever the rate; without a rate, they always do.
        triptych: write infrared | visible | fused in place of the fused picture alone.
        codec: one of `CODECS`; None: that of the suffix.
        segment: seconds of each part; None: one file.
        max_size: bytes of all files; with parts, the oldest are removed, without, the output ends there.

    Raises:
        InputError: unknown suffix or codec, a value out of range, or no folder to write to.
    """

    texts = f"a video ({', '.join(CONTAINERS)})"
    options = frozenset({"codec", "segment", "max_size"})
    in_main_thread = False

    @staticmethod
    def accepts(out: str) -> bool:
        """Whether the text is a file with the suffix of a video."""
        is_folder = out.endswith("/") or Path(out).is_dir()
        return "://" not in out and Path(out).suffix.lower() in CONTAINERS and not is_folder

    @classmethod
    def open(cls, out: str, options: OutputOptions) -> "VideoOut":
        """Write a video file."""
        return cls(
            out,
            options.fps,
            options.triptych,
            timed=True,
            codec=options.codec,
            segment=options.segment,
            max_size=options.max_size,
        )

    def __init__(
        self,
        path: str | Path,
        fps: float | None,
        triptych: bool = False,
        *,
        timed: bool = False,
        codec: str | None = None,
        segment: float | None = None,
        max_size: int | None = None,
    ) -> None:
        self._path = Path(path)
        self.name = str(path)
        suffix = self._path.suffix.lower()
        if suffix not in CONTAINERS:
            raise InputError(
                f"cannot write {path}: the suffix of a video must be one of {', '.join(CONTAINERS)} "
                "(a folder, for a PNG per frame, ends in /)"
            )
        self._codec = codec or CONTAINERS[suffix][1]
        if self._codec not in CODECS:
            raise InputError(unknown_name("codec", self._codec, CODECS))
        check_limits(segment, max_size)
        check_writable(self._path)
        self._fps, self._triptych, self._segment = fps, triptych, segment
        self._timed = timed or fps is None
        ring = segment is not None
        self._quota = DiskQuota(self._path.parent, self.name, max_size, ring)
        self._series = OutputNaming(self._path, ring, self._quota)
        self._encoder: Encoder | None = None
        self._shape: tuple[int, ...] = ()
        self._start = 0.0
        self._frames = 0
        self._failed = False  # the present file is not what it was to be

    def write(self, frame: FusedFrame) -> None:
        """Encode one frame.

        Raises:
            InputError: the disk is full, or the codec refuses.
            OSError: the disk is gone.
            QuotaReachedError: `max_size` is reached.
        """
        try:
            self._write(frame)
        except QuotaReachedError:
            raise
        except BaseException:
            self._failed = True
            raise

    def _write(self, frame: FusedFrame) -> None:
        image = side_by_side(frame.ir, frame.vis, frame.fused) if self._triptych else frame.fused
        image = _even(image)
        seconds = frame.timestamp if self._timed or not self._fps else self._frames / self._fps
        if self._encoder is not None and self._is_over(self._encoder, image, seconds):
            self.close()
        if self._encoder is None:
            self._shape, self._start = image.shape, seconds
            self._encoder = self._open(image)
        self._quota.admit(self._encoder.size)
        try:
            self._encoder.write(image, seconds - self._start)
        except av.FFmpegError as error:
            raise InputError(f"{self.name}: {self._codec} refuses the picture: {error.strerror}") from None
        self._frames += 1

    def _is_over(self, encoder: Encoder, image: Image, seconds: float) -> bool:
        """Return whether the present file cannot take this picture, or has had enough."""
        if image.shape != self._shape:
            kind = "grey" if image.ndim == 2 else "colour"
            logger.warning(
                "%s: the pictures are now %s, %s: a new file begins", self.name, size_of(image), kind
            )
            return True
        if self._segment is not None and seconds - self._start >= self._segment:
            return True
        return self._quota.largest_part is not None and encoder.size >= self._quota.largest_part

    def _open(self, image: Image) -> Encoder:
        try:
            return Encoder(self._series.begin(), self._codec, image, self._fps, timed=self._timed)
        except (av.FFmpegError, ValueError) as error:
            raise InputError(
                f"cannot write {self.name}: a {size_of(image)} {self._codec} video cannot be made: {error}"
            ) from None

    def close(self) -> None:
        """Complete the file and give it its name, whatever happened to it. Raises as `write`."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        whole = False
        try:
            encoder.close()
            whole = not self._failed
        except av.FFmpegError as error:
            raise InputError(f"{self.name} could not be completed: {error.strerror}") from None
        finally:
            self.lost_on_failure += encoder.frames - encoder.kept
            self._series.end(encoder.file_size if encoder.frames else 0, whole)
            return_memory()


def _even(image: Image) -> Image:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return image
