"""The live page as an ASGI application: pictures, state, health, metrics, and starting a recording.

Its HTTP is that of uvicorn, except that nobody may take their time, nor all the connections.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

import edgefuse
from edgefuse.errors import EdgefuseError, InputError
from edgefuse.runtime.alignment import Alignment
from edgefuse.runtime.live import Report
from edgefuse.runtime.serve import Recorded, Recorder
from edgefuse.runtime.serve.access import Access, Address
from edgefuse.runtime.serve.metrics import Limits, Recent, health_of, metrics_of
from edgefuse.runtime.serve.views import PALETTES, VIEWS, Preview, View
from edgefuse.runtime.timing import STAGES

logger = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
MAX_VIEWERS = 40
DEFAULT_WIDTH = 960
POLL_SECONDS = 0.02
WAIT_SECONDS = 2.0  # for a newer frame
BODY_SECONDS = 5.0  # that the body of a request may take
MAX_BODY = 4096
WRONG_TOKENS_PER_MINUTE = 30  # of one client, before it is told to wait
MAX_CLIENTS = 1000  # that wrong tokens are counted of
REFUSALS = {
    400: "the Host header is malformed",
    401: "give the token that edgefuse printed, as in ?token=…",
    403: "a request from another site",
    421: "a name that is not of this machine",
    429: "too many wrong tokens, wait a minute",
}


class Control(Protocol):
    """What the page can see and do."""

    preview: Preview
    model: str
    engine: str

    def report(self) -> Report:
        """Return the state of the run."""

    @property
    def alignment(self) -> Alignment | None:
        """What the alignment is adjusted with; None: there is no rig file."""

    recorder: Recorder
    limits: Limits

    def record(self, on: bool) -> Recorded:
        """Start or end a recording. Raises `EdgefuseError`."""


def make_app(control: Control, access: Access) -> Callable[..., Any]:
    """Return the application."""
    pages = _Pages(control)
    routes = [Route(path, pages.file) for path in FILES]
    routes += [
        Route("/snapshot.jpg", pages.snapshot),
        Route("/stream.mjpg", pages.stream),
        Route("/api/state", pages.state),
        Route("/api/recording", pages.recording, methods=["POST"]),
        Route("/api/alignment", pages.alignment, methods=["POST"]),
        Route("/favicon.ico", lambda _: Response(status_code=204)),
        Route("/healthz", pages.healthz),
        Route("/metrics", pages.metrics),
    ]
    return _Guard(Starlette(routes=routes), access)


class _Guard:
    """Refuses who may not."""

    def __init__(self, app: Callable[..., Any], access: Access) -> None:
        self._app, self._access = app, access
        self._wrong: dict[str, list[float]] = {}  # times by client
        self._failures: set[type[Exception]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        try:
            await (self._refusal(scope) or self._app)(scope, receive, send)
        except Exception as error:
            if (kind := type(error)) not in self._failures:  # once each, so that no client fills the log
                self._failures.add(kind)
                logger.exception("a request to the page failed")

    def _refusal(self, scope: Any) -> Response | None:
        status = self._access.refuses(scope)
        if status is None:
            if (target := self._access.location_with_cookie(scope)) is not None:
                return Response(status_code=303, headers={"Location": target[0], "Set-Cookie": target[1]})
            return None
        if status == 401 and self._is_guessing((scope.get("client") or ("", 0))[0]):
            status = 429
        return Response(f"refused: {REFUSALS[status]}", status, media_type="text/plain")

    def _is_guessing(self, client: str) -> bool:
        """Count a wrong token, and return whether there were too many. A right one is never held up by this:
        any web site can make its visitors' browsers send wrong ones."""
        now = time.monotonic()
        recent = [at for at in self._wrong.pop(client, []) if at > now - 60][-WRONG_TOKENS_PER_MINUTE:]
        self._wrong[client] = [*recent, now]
        if len(self._wrong) > MAX_CLIENTS:
            del self._wrong[next(iter(self._wrong))]  # who was silent for longest
        return len(recent) >= WRONG_TOKENS_PER_MINUTE


class _Pages:
    def __init__(self, control: Control) -> None:
        self._control = control
        self._recent = Recent()
        self._viewers = 0

    async def file(self, request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response((STATIC / name).read_bytes(), media_type=kind)

    async def snapshot(self, request: Request) -> Response:
        """One picture; with `after=N`, as soon as there is another one than number N."""
        view = _view_of(request)
        after = request.query_params.get("after", "")
        preview = self._control.preview
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            frame = preview.frame
            if frame is not None and (not after or (str(frame.index) != after and preview.is_due(view))):
                break
            if time.monotonic() > deadline or not after or preview.closed:
                return Response(status_code=204 if after else 503)
            await asyncio.sleep(POLL_SECONDS)
        made = await run_in_threadpool(preview.jpeg, view, capped=True)
        if made is None:
            return Response(status_code=503)
        return Response(made[1], media_type="image/jpeg", headers={"X-Frame": str(made[0])})

    async def stream(self, request: Request) -> Any:
        """Pictures without end (multipart/x-mixed-replace), as fast as this viewer takes them."""
        view = _view_of(request)
        if self._viewers >= MAX_VIEWERS:
            return Response(f"there are {MAX_VIEWERS} viewers already", 503, media_type="text/plain")
        return _Stream(self, view)

    async def state(self, _: Request) -> Response:
        report = await run_in_threadpool(self._control.report)
        preview = self._control.preview
        frame = preview.frame
        shown = None
        if frame is not None:
            size = [frame.fused.shape[1], frame.fused.shape[0]]
            age = time.monotonic() - preview.at
            shown = {"index": frame.index, "state": frame.state, "age_s": age, "size": size}
        state = {
            "version": edgefuse.__version__,
            "model": self._control.model,
            "engine": self._control.engine,
            "fps": preview.fps,
            "frame": shown,
            "recording": self._control.recorder.recording,
            "recording_problem": self._control.recorder.problem,
            "viewers": self._viewers,
            "views": list(VIEWS),
            "palettes": list(PALETTES),
            "stages": STAGES,
            "alignment": self._control.alignment and self._control.alignment.state(),
            "report": report,
        }
        return Response(msgspec.json.encode(state), media_type="application/json")

    async def recording(self, request: Request) -> Response:
        """Start or end a recording: `{"on": true}`."""

        def do(command: _Recording) -> dict[str, Any]:
            return asdict(self._control.record(command.on))

        return await _obey(request, _Recording, do)

    async def alignment(self, request: Request) -> Response:
        """Move infrared: `{"x": 1, "y": 0, "distance": 20}`; with `"refine": true`, then to where the edges
        agree; with `"save": true`, write the rig file."""

        def do(command: _Move) -> dict[str, Any]:
            alignment = self._control.alignment
            if alignment is None:
                raise InputError("there is no rig file to adjust: give --rig FILE")
            alignment.move(command.x, command.y, command.distance)
            frame = self._control.preview.frame
            if command.refine:
                if frame is None or frame.state != "fused":
                    raise InputError("there is no picture of both cameras to refine by")
                alignment.refine(frame)
            if command.save:
                alignment.save(frame)
            return {"alignment": alignment.state()}

        return await _obey(request, _Move, do)

    async def healthz(self, _: Request) -> Response:
        report = await run_in_threadpool(self._control.report)
        health = health_of(report, self._control.engine, self._age(), self._recent, self._control.limits)
        status = 200 if health.ok else 503
        return Response(msgspec.json.encode(asdict(health)), status, media_type="application/json")

    async def metrics(self, _: Request) -> Response:
        report = await run_in_threadpool(self._control.report)
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(metrics_of(report, self._age()), headers={"Content-Type": kind})

    def _age(self) -> float | None:
        preview = self._control.preview
        return None if preview.frame is None else time.monotonic() - preview.at


class _Recording(msgspec.Struct, forbid_unknown_fields=True):
    on: bool


class _Move(msgspec.Struct, forbid_unknown_fields=True):
    x: float
    y: float
    distance: float | None = None
    save: bool = False
    refine: bool = False


async def _obey(request: Request, kind: Any, do: Callable[[Any], dict[str, Any]]) -> Response:
    """Do what a small JSON body says, and answer with what it came to."""
    try:
        body = await asyncio.wait_for(_small_body(request), BODY_SECONDS)
    except asyncio.TimeoutError:
        return Response("too slow", 408, media_type="text/plain", headers={"Connection": "close"})
    if body is None:
        return Response("too large", 413, media_type="text/plain")
    try:
        command = msgspec.json.decode(body, type=kind)
        result = await run_in_threadpool(do, command)
    except msgspec.MsgspecError as error:
        return Response(f"not understood: {error}", 400, media_type="text/plain")
    except EdgefuseError as error:
        return Response(str(error), 409, media_type="text/plain")
    return Response(msgspec.json.encode(result), media_type="application/json")


async def _small_body(request: Request) -> bytes | None:
    """Return the body of a request; None: it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return body


class _Stream:
    """A multipart answer that ends when the viewer goes."""

    def __init__(self, pages: _Pages, view: View) -> None:
        self._pages, self._view = pages, view

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        self._pages._viewers += 1
        gone = asyncio.ensure_future(receive())
        try:
            kind = b"multipart/x-mixed-replace; boundary=frame"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            last = -1
            preview = self._pages._control.preview
            while not preview.closed and (not gone.done() or gone.result()["type"] != "http.disconnect"):
                if gone.done():
                    gone = asyncio.ensure_future(receive())
                frame = preview.frame
                if frame is not None and frame.index != last and preview.is_due(self._view):
                    made = await run_in_threadpool(preview.jpeg, self._view)
                    if made is None:
                        break
                    last, jpeg = made
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    body = head.encode() + jpeg + b"\r\n"
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.sleep(POLL_SECONDS)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self._pages._viewers -= 1


def _view_of(request: Request) -> View:
    from starlette.exceptions import HTTPException

    asked = request.query_params
    view, palette, width = asked.get("view", "fused"), asked.get("palette", "inferno"), asked.get("width", "")
    is_width = width.isascii() and width.isdecimal() and len(width) < 6
    if view not in VIEWS or palette not in PALETTES or (width and not is_width):
        known = f"known views are {', '.join(VIEWS)}, palettes {', '.join(PALETTES)}; width is in pixels"
        raise HTTPException(400, known)
    return View(view, int(width or DEFAULT_WIDTH), palette)


REQUEST_SECONDS = 5.0
"""For the head of a request, from its first byte on, or from the connection on."""
SEND_SECONDS = 5.0
"""For taking what was sent, such as a picture."""
MAX_CONNECTIONS = 128
MAX_OF_CLIENT = 48  # of one address of another machine, which may be a proxy with all viewers behind it
MAX_REMOTE = 112  # of other machines together; the rest is left to this one, such as for its health check


class ImpatientProtocol(H11Protocol):
    """Cuts off who does not complete the head of a request, or does not take the answer, and who has too many
    connections: a hundred of them would keep all others out."""

    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: D102
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # "paused" from the first byte that the client did not take
        if self._is_one_too_many():
            self.connections.discard(self)  # a burst of them counts no longer
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        super().connection_lost(exc)
        self._stop()
        self.resume_writing()

    def pause_writing(self) -> None:  # noqa: D102
        super().pause_writing()
        # Not `close`, which waits until the client has taken the rest: it is one of those that this ends.
        self._writing = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:  # noqa: D102
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def _is_one_too_many(self) -> bool:
        peers = [getattr(other, "client", None) for other in self.connections]  # with this one's
        clients = [peer[0] for peer in peers if peer]
        own = self.client[0] if self.client else ""
        remote = [client for client in clients if not _is_this_machine(client)]
        return own in remote and (len(remote) > MAX_REMOTE or remote.count(own) > MAX_OF_CLIENT)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()  # the head is complete
        elif self._reading is None:
            self._reading = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def _is_this_machine(client: str) -> bool:
    return Address(client.removeprefix("::ffff:"), 0).local
