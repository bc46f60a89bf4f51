"""HTTP as uvicorn speaks it, except that nobody may take their time, nor all the connections."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefuse.runtime.serve.access import Address

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
