"""Cameras and servers on the network, read by PyAV: RTSP, MJPEG over HTTP, MPEG-TS over UDP or TCP."""

from urllib.parse import urlsplit
from urllib.request import url2pathname

import av

from edgefuse.errors import LostError, SourceError, counted, unknown_name
from edgefuse.runtime.frames import Frame, Role
from edgefuse.runtime.sources.base import SILENCE, Source
from edgefuse.runtime.sources.decoder import Decoded, Decoder, rate_of
from edgefuse.runtime.sources.text import Spec, positive_number

SCHEMES = frozenset({"http", "https", "rtmp", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
REFUSED = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.ProtocolNotFoundError)
"""Answers that another attempt will not change. A server that has no such stream, or sends what is none, may
have it in a moment: it starts before its cameras do."""
MOST_UNTIMED = 25
"""Frames without a time, after which there will be none with one."""
MOST_PATIENCE = 10.0
"""Seconds to answer; a thread that takes longer to open counts as stuck, and is replaced."""


class NetworkStream(Source):
    """A URL. Its options stand behind `#`: `rtsp://host/live#transport=udp`.

    `transport` of RTSP is `tcp` (nothing is lost on the way) or `udp`; `fps` is stated where the server
    does not; `timeout` is how many seconds the server may take to answer the opening, up to 10.
    """

    texts = "rtsp://…, http://…, udp://…"
    reopens = True
    live = True
    length = None
    open_seconds = 5.0

    @staticmethod
    def accepts(target: str) -> bool:
        """Whether the target looks like a URL."""
        return "://" in target

    def __init__(self, spec: Spec, role: Role) -> None:
        options = spec.read_options({"transport": _transport, "fps": positive_number, "timeout": _patience})
        scheme = _check(spec)
        self.name, self.limit = spec.name, SILENCE[role].read
        patience = options.get("timeout", self.open_seconds)
        # Little is looked at in advance, or a stream that is back would take another second to open.
        settings = {"analyzeduration": "300000", "fpsprobesize": "3"}
        if scheme in ("rtsp", "rtsps"):
            settings |= {
                "rtsp_transport": options.get("transport", "tcp"),
                "allowed_media_types": "video",
            }
        if scheme == "udp":
            settings |= {"overrun_nonfatal": "1", "fifo_size": "50000"}
        try:
            self._decoder = Decoder(spec.target, role, (patience, self.limit), settings, prompt=True)
        except av.error.ExitError:
            raise LostError(f"{self.name} does not answer within {patience:g} s") from None
        except REFUSED as error:
            raise SourceError(
                f"{self.name} cannot be used ({error.strerror}): check user and password"
            ) from None
        except av.FFmpegError as error:
            raise LostError(f"{self.name} cannot be opened: {error.strerror}") from None
        except SourceError as error:
            raise LostError(f"{self.name} {error}") from None
        self.fps = options.get("fps") or rate_of(self._decoder.container, self._decoder.stream, self.name)
        self._next = 0
        self._offset: float | None = None  # server's clock minus ours

    def read(self) -> Frame | None:
        """Return the next frame, stamped on the server's clock where the protocol has one.

        Raises:
            LostError: the stream ended, stalled or was cut off.
        """
        while True:
            decoded = self._decode()
            index = self._next + decoded.lost
            self._next = index + 1
            if decoded.seconds is not None:
                self._offset = decoded.seconds - decoded.arrived
                return Frame(decoded.image, index, decoded.seconds, decoded.arrived)
            # An RTSP server sends its first frames without a time. They are left out: on our clock, they
            # would seem to be hours away from the others.
            if self._offset is not None or index >= MOST_UNTIMED or not self._decoder.clock.timed:
                self._offset = self._offset or 0.0
                return Frame(decoded.image, index, decoded.arrived + self._offset, decoded.arrived)

    def _decode(self) -> Decoded:
        try:
            decoded = self._decoder.read(self.limit)
        except (av.error.ExitError, TimeoutError):
            raise LostError(f"{self.name}: no picture for {self.limit:g} s") from None
        except av.FFmpegError as error:
            raise LostError(
                f"{self.name} was lost after {counted(self._next, 'frame')}: {error.strerror}"
            ) from None
        if decoded is None:
            raise LostError(f"{self.name} ended after {counted(self._next, 'frame')}")
        return decoded

    def close(self) -> None:
        """Hang up."""
        self._decoder.close()


def _check(spec: Spec) -> str:
    """Return the scheme of a URL that can be meant."""
    try:
        url = urlsplit(spec.target)
        host, _ = url.hostname, url.port
    except ValueError:  # whose text can hold a part of the password
        raise SourceError(
            f"{spec.name} is not a valid URL: write scheme://host:port/path, and a / or ? in a password "
            "as %2F or %3F"
        ) from None
    if url.scheme == "file":
        raise SourceError(f"{spec.name}: give a file by its path: {url2pathname(url.path)}")
    if url.scheme not in SCHEMES:
        raise SourceError(f"{spec.name}: {unknown_name('URL scheme', url.scheme, SCHEMES)}")
    if not host and url.scheme not in ("udp", "rtp", "tcp", "srt"):  # these can listen: udp://:5000
        raise SourceError(f"{spec.name} names no host")
    return url.scheme


def _patience(text: str) -> float:
    return positive_number(text, most=MOST_PATIENCE)


def _transport(text: str) -> str:
    if text not in ("tcp", "udp"):
        raise ValueError(unknown_name("transport", text, ["tcp", "udp"]))
    return text
