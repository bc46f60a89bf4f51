"""What a source of frames is, how long it may be silent, and how it is asked for by text."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from edgefuse.errors import EdgefuseError, SourceError, unknown_name
from edgefuse.runtime.frames import Frame, Role


@dataclass(frozen=True)
class SilencePolicy:
    """What it means when a camera gives no new picture. All times in seconds.

    Attributes:
        stutter: without a frame, or for three frame periods if that is longer: more than a stutter.
        shutter: the longest shutter calibration: until then, a missing or repeated picture is no fault.
        read: without a frame: the source gives up, and the camera is reopened.
        stuck_read: beyond `read`: the thread that reads is stuck in a library, and is replaced.
        stuck_open: the same in opening. Libraries have shorter timeouts.
        frozen: with a picture that stands still beyond `shutter`: the camera is reopened.
        grace: from the start, in which a camera may come up before the other one is shown alone.
    """

    stutter: float = 0.5
    shutter: float = 0.0
    read: float = 2.0
    stuck_read: float = 3.0
    stuck_open: float = 12.0
    frozen: float = 3.0
    grace: float = 2.0

    def quiet(self, fps: float) -> float:
        """Return after how many seconds without a frame a camera of this rate does more than stutter."""
        return max(self.stutter, 3.0 / fps)


SILENCE: dict[Role, SilencePolicy] = {"ir": SilencePolicy(shutter=3.0, read=3.5), "vis": SilencePolicy()}
"""The policies in use; thermal cameras close a shutter now and then."""


class Source(Protocol):
    """A camera, a stream or a recording: an iterator of frames that is closed after use.

    One thread reads; another one may close. The constructor opens; if it raises, nothing stays open.

    A source that may be back later raises `LostError`, from its constructor or from `read`: whoever wants
    to continue closes and reopens it. Any other `SourceError` would come again.
    """

    name: str
    """To print: what was asked for, without passwords."""
    live: bool
    """True: frames come when they come and are lost if nobody reads. False: every frame waits."""
    fps: float
    """Nominal frames per second, over 0."""
    length: int | None
    """Frames in the recording, where that is known, if only about."""
    limit: float = SILENCE["vis"].read
    """Seconds that `read` may take. A library that is stuck can exceed them."""

    extra: ClassVar[str | None] = None
    reopens: ClassVar[bool] = False
    own_options: ClassVar[tuple[str, ...]] = ()

    synchronised: bool = False
    """Times are those at which the frames were captured, counted from a zero that is common to both
    cameras of a recording: they, and not the numbers of the frames, say what belongs together."""

    steady: bool = True
    """The rate says when each frame of a recording comes; False: only the times of the frames do."""

    def read(self) -> Frame | None:
        """Wait for the next frame, for up to about `limit` seconds, and return it; None after the last one.

        Its size and pixel type can differ from those of the frame before: cameras restart.

        Raises:
            FrameError: this frame of a recording cannot be read, and the next one may be asked for.
            LostError: the camera or stream ended, stalled or was cut off.
            SourceError: it gives no usable frame.
        """

    def close(self) -> None:
        """Give the device or file back. Can be called twice."""
        return

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SourceKind(Protocol):
    """A class of sources, as it stands in `SOURCES`: it says itself what it opens."""

    texts: str
    """What asks for it, for people: `cam0, /dev/video2`."""
    extra: str | None
    """The extra of the package that it needs; None: none."""
    reopens: bool
    """Whether it may be lost, and come back when it is reopened: a camera, a stream."""
    own_options: tuple[str, ...]
    """Options that it takes itself although `Placed` knows some of that name."""

    def accepts(self, target: str) -> bool:
        """Whether this text, without its options, asks for it."""

    def __call__(self, spec: Any, role: Role) -> Source:
        """Open it: the constructor. Raises `SourceError`."""


SECRET = re.compile(r"pas|psw|psd|pw|pin|token|key|secret|auth|cred|sig|session", re.IGNORECASE)
HARMLESS = re.compile(
    r"ch|channel|sub-?type|stream|unicast|proto|profile|width|height|size|resolution|fps|quality|codec|format"
    r"|transport|timeout|u|user|user-?name|crop|rotate|flip|scale|shift|bits",
    re.IGNORECASE,
)
"""Fields of a URL whose values are shown, as short numbers are; any other may hold a secret."""
# Some cameras take the password in the path: /user=admin&password=…&channel=1
FIELD_IN_PATH = re.compile(r"([a-z0-9-]*)=([^/&;]*?)(?=[/&;]|_[a-z]+=|$)", re.IGNORECASE)
# … or between slashes, behind the user's name or as a token: /live/admin/s3cret/1
USER_IN_PATH = re.compile(r"admin|root|users?|login|operator|guest", re.IGNORECASE)
TOKEN = re.compile(r"(?=.*\d)(?=.*[a-z]).{6,}", re.IGNORECASE)
HARMLESS_IN_PATH = re.compile(
    r".*(preview|profile|stream|channel|track|media|video|onvif|h26[45]|mpeg|live|cam|axis|main|unicast).*"
    r"|[a-z]{1,2}[-_.]?\d+([-_.]\d+)*|\d+|.*\.(ts|m3u8|mp4|mkv|avi|sdp|cgi|amp|jpe?g)",
    re.IGNORECASE,
)
REFERENCE = re.compile(r"\$\{(file:)?([^}]+)\}")
OPTIONS_OF_A_PIPELINE = re.compile(r"(.*![^#!]*)#([^#!\s]*)", re.DOTALL)
HOST = re.compile(
    r"[\w.-]+:\d+(?=[/?]|$)"  # camera:554/…
    r"|\d+(\.\d+){3}(?=[/?]|$)"  # 10.0.0.5/…
    r"|[\w-]+(\.[\w-]+)*\.[a-z]{2,}(?=/)"  # camera.local/…
    r"|[^:/@\s?]+:[^\\]*@"  # me:pw@…
    r"|[^/\\@\s?]+@[\w.-]+(?=:\d|/)"  # pw@camera/…
)
"""How a URL begins whose scheme is missing."""
MISTYPED_SCHEME = re.compile(r"[a-z]{3,5}(:[/\\]{0,2}|//)|//", re.IGNORECASE)
VALUE_IN_A_PIPELINE = re.compile(
    rf"([\w-]*(?:{SECRET.pattern}|header|cookie)[\w-]*\s*=\s*(?:\([a-z]+\)\s*)?)"
    r"(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|(?:\\.|\S)+)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Spec:
    """The text that asks for a source, taken apart: `cam0?size=640x480&fps=30`."""

    name: str
    """The whole text, safe to print."""
    target: str
    """What stands before the options: `cam0`."""
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Take a specification apart.

        Options stand behind `?`; in a URL, whose query belongs to the server, and in a pipeline behind `#`.

        Raises:
            SourceError: empty, an option without a value or given twice.
        """
        text = text.strip()
        if not text:
            raise SourceError(
                "the source is empty: give a camera such as cam0, a file, a folder, a URL or sim"
            )
        name = safe_name(text)
        if "://" in text or text.startswith("gst:"):
            text = REFERENCE.sub(lambda found: _secret(found, name, quoted="://" in text), text)
        if "?" in text and _exists(text):  # a file with ? in its name
            return cls(name, text, {})
        if text.startswith("gst:"):
            options_too = OPTIONS_OF_A_PIPELINE.fullmatch(text)
            target, query = options_too.groups() if options_too else (text, "")
        else:
            target, _, query = text.partition("#" if "://" in text else "?")
            if "://" in text and "@" in query:
                raise SourceError(f"{name}: a # in a password must be written as %23")
        options: dict[str, str] = {}
        for part in filter(None, query.split("&")):
            key, equals, value = part.partition("=")
            if not equals or not value:
                what = f"option {key!r}" if key in name else "an option"
                raise SourceError(f"{name}: {what} has no value, write NAME=VALUE")
            if key in options:
                raise SourceError(f"{name}: option {key!r} is given twice")
            options[key] = value
        return cls(name, target, options)

    def split(self, keys: Collection[str]) -> "tuple[Spec, Spec]":
        """Return the specification with only the options of these names, and the one without them."""
        inside = {key: text for key, text in self.options.items() if key in keys}
        outside = {key: text for key, text in self.options.items() if key not in keys}
        return replace(self, options=inside), replace(self, options=outside)

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


def positive_number(text: str, most: float = 10_000.0) -> float:
    """Read a number over 0 and up to `most`, such as a frame rate.

    Raises:
        ValueError: no number, or outside.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not 0 < value <= most:
        raise ValueError(f"{text!r} is outside 0 to {most:g}")
    return value


def seconds(text: str) -> float:
    """Read a number of seconds, 0 or more.

    Raises:
        ValueError: no number, negative, or over a year.
    """
    return positive_number(text, most=31_536_000.0) if text.strip("0.") else 0.0


def yes_or_no(text: str) -> bool:
    """Read `1` or `yes` as True, `0` or `no` as False.

    Raises:
        ValueError: anything else.
    """
    try:
        return {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} must be 1 or 0") from None


def safe_name(text: str) -> str:
    """Return the text of a source with what may be a password in a URL replaced by ***.

    >>> safe_name("rtsp://me:hunter2@10.0.0.5/live?token=abc&channel=1")
    'rtsp://me:***@10.0.0.5/live?token=***&channel=1'
    """
    if text.startswith("gst:"):
        text = VALUE_IN_A_PIPELINE.sub(r"\1***", text)
        return re.sub(r"[a-z]+://[^\s\"']+", lambda url: _safe_url(url[0]), text, flags=re.IGNORECASE)
    if "://" in text:
        return _safe_url(text)
    scheme = MISTYPED_SCHEME.match(text)
    if scheme or (HOST.match(text) and not _exists(text.partition("/")[0])):
        begin = scheme[0] if scheme else ""
        return begin + _safe_url("url://" + text.removeprefix(begin)).removeprefix("url://")
    before, mark, fields = text.partition("?")  # the options of a camera or a file, which are ours
    return before + mark + "&".join(_safe_option(field) for field in fields.split("&"))


def _secret(found: "re.Match[str]", name: str, quoted: bool) -> str:
    """Return what `${NAME}` (of the environment) or `${file:PATH}` stands for."""
    try:
        value = Path(found[2]).read_text("utf-8").strip() if found[1] else os.environ[found[2]]
    except KeyError:
        raise SourceError(f"{name}: the environment has no variable {found[2]}") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{name}: cannot read {found[2]}: {getattr(error, 'strerror', error)}") from None
    return quote(value, safe="") if quoted else value


def _safe_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    try:
        url = urlsplit(text)
    except ValueError:  # not a URL after all: nothing of it is worth the risk but the scheme
        return f"{scheme}://…"
    if "@" in rest and "@" not in url.netloc:  # a password with / ? or # in it
        return f"{scheme}://***@{rest.rpartition('@')[2]}"
    user, at, host = url.netloc.rpartition("@")
    if user:  # without a colon it may be a password alone
        user = user.partition(":")[0] + ":***" if ":" in user else "***"
    query, options = (_safe_fields(part) for part in (url.query, url.fragment))
    path = _safe_path(FIELD_IN_PATH.sub(lambda found: _safe_field(found[0]), url.path))
    return urlunsplit((url.scheme, f"{user}{at}{host}", path, query, options))


def _safe_path(path: str) -> str:
    parts = path.split("/")
    for n, part in enumerate(parts):
        behind_user = n > 0 and USER_IN_PATH.fullmatch(parts[n - 1]) is not None
        token = TOKEN.fullmatch(part) is not None and "***" not in part
        escaped = "%" in part.replace("%20", "")  # what it is can hide there: live%3Fpw%3D…
        if escaped or ((behind_user or token) and not HARMLESS_IN_PATH.fullmatch(part)):
            parts[n] = "***"
        elif ":" in part:
            parts[n] = part.partition(":")[0] + ":***"
    return "/".join(parts)


def _safe_fields(text: str) -> str:
    """Return the fields of a URL's query with the values of all but harmless ones replaced."""
    return "".join(part if part in "&;" else _safe_field(part) for part in re.split("([&;])", text))


def _safe_field(field: str) -> str:
    key, mark, value = field.partition("=")
    if not mark:
        return key if HARMLESS_IN_PATH.fullmatch(key) else "***"
    number = re.fullmatch(r"\d{0,3}|true|false|yes|no|on|off", value) and not _is_secret(key)
    shown = number or (HARMLESS.fullmatch(key) and re.fullmatch(r"[\w.,-]{1,20}", value))
    return field if shown or not value else f"{key}=***"


def _safe_option(field: str) -> str:
    key, _, value = field.partition("=")
    return f"{key}=***" if value and _is_secret(key) else field


def _is_secret(key: str) -> bool:
    return key.lower() == "p" or SECRET.search(unquote(key)) is not None


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a path, or a NUL in it
        return False
