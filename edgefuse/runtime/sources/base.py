"""What a source of frames is, and how one is asked for by text."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from numpy.typing import NDArray

from edgefuse.errors import EdgefuseError, SourceError, unknown_name

__all__ = ["Frame", "Role", "Source", "Spec", "positive_number", "safe_name"]

Role: TypeAlias = Literal["ir", "vis"]

SECRET = re.compile(r"pass|pwd|token|key|secret|auth", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one camera."""

    image: NDArray[Any]
    """As the source has it: uint8 or uint16, `[H, W]` or `[H, W, 3]` BGR."""
    index: int
    """Number of the frame, from 0; a gap means frames that the source itself lost."""
    timestamp: float
    """Seconds on the source's clock: `time.monotonic()` of the capture for a live source (with the camera's
    own clock error, if it has one), the position in the recording for a recorded one."""
    captured: float
    """`time.monotonic()` in seconds when the frame came into being for this program: latencies start here."""


class Source(Protocol):
    """A camera, a stream or a recording: an iterator of frames that is closed after use.

    One thread reads. The constructor opens; if it raises, nothing stays open.
    """

    name: str
    """To print: what was asked for, without passwords."""
    live: bool
    """True: frames come when they come and are lost if nobody reads. False: every frame waits."""
    fps: float
    """Nominal frames per second, over 0."""
    length: int | None
    """Frames in the recording, where that is known."""

    def read(self) -> Frame | None:
        """Wait for the next frame and return it; None after the last one.

        Raises:
            SourceError: the source was lost or gives no usable frame.
        """

    def close(self) -> None:
        """Give the device or file back. Can be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Spec:
    """The text that asks for a source, taken apart: `cam0?size=640x480&fps=30`."""

    name: str
    """The whole text, safe to print."""
    target: str
    """What stands before the options: `cam0`."""
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a specification apart. A URL keeps its query: it has no options of ours.

        Raises:
            SourceError: empty, an option without a value or given twice.
        """
        text = text.strip()
        if not text:
            raise SourceError(
                "the source is empty: give a camera such as cam0, a file, a folder, a URL or sim"
            )
        name = safe_name(text)
        if "://" in text:
            return cls(name, text, {})
        target, _, query = text.partition("?")
        options: dict[str, str] = {}
        for part in filter(None, query.split("&")):
            key, equals, value = part.partition("=")
            if not equals or not value:
                raise SourceError(f"{name}: option {part!r} has no value, write {key}=VALUE")
            if key in options:
                raise SourceError(f"{name}: option {key!r} is given twice")
            options[key] = value
        return cls(name, target, options)

    def read_options(self, readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """Return the given options, each read by its reader, all others absent.

        Raises:
            SourceError: an option without a reader, or one that its reader refuses.
        """
        values = {}
        for key, text in self.options.items():
            if key not in readers:
                raise SourceError(f"{self.name}: {unknown_name('option', key, readers)}")
            try:
                values[key] = readers[key](text)
            except (EdgefuseError, ValueError) as error:
                raise SourceError(f"{self.name}: option {key}: {error}") from None
        return values


def positive_number(text: str) -> float:
    """Read a number over 0 and up to 10,000, such as a frame rate.

    Raises:
        ValueError: no number, or outside.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not 0 < value <= 10_000:
        raise ValueError(f"{text!r} is outside 0 to 10000")
    return value


def safe_name(text: str) -> str:
    """Return the text of a source with the passwords of a URL replaced by ***.

    >>> safe_name("rtsp://me:hunter2@10.0.0.5/live?token=abc&channel=1")
    'rtsp://me:***@10.0.0.5/live?token=***&channel=1'
    """
    if "://" not in text:
        return text
    try:
        url = urlsplit(text)
    except ValueError:  # not a URL after all: nothing of it is worth the risk but the scheme
        return text.partition("://")[0] + "://…"
    user, at, host = url.netloc.rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":***"
    query = url.query
    if SECRET.search(query):
        fields = parse_qsl(query, keep_blank_values=True)
        query = urlencode([(k, "***" if SECRET.search(k) else v) for k, v in fields], safe="*")
    return urlunsplit((url.scheme, f"{user}{at}{host}", url.path, query, ""))
