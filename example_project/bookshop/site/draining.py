"""HTTP/2 connections that close after so many requests the way nginx's `keepalive_requests` does.

hypercorn's own limit closes h2's state machine with the GOAWAY: the streams that it has just promised to finish are
never answered (0.18), which no client can repair. Here the connection says GOAWAY with the last request that it takes
(RFC 9113 6.8), answers every one up to it and leaves later ones unprocessed. It is the client's to close then; one that
does not is closed by the keep-alive timeout. (nginx closes at once and reads on for a while; asyncio's TLS cannot do that,
and a reset could overtake the last answer.)

`H2Protocol` is not a documented interface of hypercorn: the test of this module names the behaviour that it relies on.
"""

from __future__ import annotations

from contextlib import suppress

import h2.errors
import h2.events
import h2.exceptions
import hypercorn.protocol
from hypercorn.events import RawData
from hypercorn.protocol.h2 import H2Protocol
from hyperframe.frame import GoAwayFrame


def drain_after(requests: int) -> None:
    """Let every HTTP/2 connection of this process take so many requests and no more."""

    class Draining(DrainingH2Protocol):
        max_requests = requests

    hypercorn.protocol.H2Protocol = Draining  # type: ignore[attr-defined]


class DrainingH2Protocol(H2Protocol):
    """hypercorn's HTTP/2 connection with a limit that loses nothing which was accepted."""

    max_requests: int
    _last_stream: int | None = None

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if self._above_last(event):
                if isinstance(event, h2.events.RequestReceived):
                    # A client may say its own GOAWAY in the same breath; h2 sends nothing after it.
                    with suppress(h2.exceptions.ProtocolError):
                        self.connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                    await self._flush()
            else:
                await super()._handle_events([event])

    def _above_last(self, event: h2.events.Event) -> bool:
        stream = getattr(event, "stream_id", None)
        return self._last_stream is not None and stream is not None and stream > self._last_stream

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        await super()._create_stream(request)
        if self.keep_alive_requests == self.max_requests:
            self._last_stream = request.stream_id
            # Past h2, which would refuse to send anything after it; whole frames only go out, so it stands between two.
            await self._flush()
            await self.send(RawData(data=GoAwayFrame(0, last_stream_id=request.stream_id).serialize()))
