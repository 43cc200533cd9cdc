"""One exchange on an HTTP/2 connection: how far it is, and what its response may be (RFC 9113 8.1).

A stream judges and counts; it calls nobody and sends nothing. The engine does.
"""

from __future__ import annotations

from dataclasses import dataclass

from h2.errors import ErrorCodes

from scrapy_poolplus.core.errors import BodyLengthError, ConnectionLostError, Phase, PoolPlusError
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.http2_flow import ReceiveWindow
from scrapy_poolplus.net.http2_head import MalformedError, announced_length, checked_fields, response_head
from scrapy_poolplus.net.wire import BodyEnd, Exchange, Headers, Outcome, ResponseHead, WireRequest

MAX_INTERIM = 32
"""1xx responses before the final one. A few 103 are usual; an endless row of them is an attack."""

COMPLETE = Outcome(end=BodyEnd.COMPLETE)

PROOF_BY_CODE: dict[int, Progress] = {
    ErrorCodes.REFUSED_STREAM: Progress.REFUSED,
    ErrorCodes.ENHANCE_YOUR_CALM: Progress.REFUSED_CALM,
    ErrorCodes.HTTP_1_1_REQUIRED: Progress.HTTP1_REQUIRED,
}
"""What an error code proves where no part of the response has come (RFC 9113 7, 8.7)."""


def code_name(code: int) -> str:
    """``REFUSED_STREAM``; the number where there is no such code."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code:#x}"


@dataclass(slots=True, eq=False)
class Stream:
    """`id` is 0 until the head is on its way; `window` is what the peer may still send; `uploaded` and `received` are
    bytes of the bodies, `wire_sent` and `wire_received` of the stream's HEADERS and DATA frames."""

    request: WireRequest
    exchange: Exchange
    window: ReceiveWindow
    id: int = 0
    uploaded: int = 0
    head: ResponseHead | None = None
    received: int = 0
    interim: int = 0
    wire_sent: int = 0
    wire_received: int = 0

    @property
    def phase(self) -> Phase:
        """Where it is."""
        if not self.id:
            return Phase.SEND
        return Phase.FIRST_BYTE if self.head is None else Phase.BODY

    @property
    def progress(self) -> Progress:
        """What is proved when the connection ends now."""
        if not self.id:
            return Progress.NOT_SENT
        return Progress.SENT if self.head is None else Progress.STARTED

    @property
    def uploading(self) -> bool:
        """Whether some of the request is still to be sent."""
        return self.uploaded < len(self.request.body)

    def read(self, headers: Headers, *, end: bool) -> ResponseHead | None:
        """The final head when it comes; None for an interim one, and for trailers, which are checked and passed over.
        `end`: the block ends the stream. Raises MalformedError."""
        if self.head is not None:
            if not end:
                raise MalformedError("a second response head, or trailers that do not end the stream")
            checked_fields(headers)
            return None
        status, fields = response_head(headers)
        if status < 200:
            self.interim += 1
            if end:
                raise MalformedError(f"status {status} ends the stream")
            if self.interim > MAX_INTERIM:
                raise MalformedError(f"more than {MAX_INTERIM} interim responses")
            return None
        length = 0 if self._bodiless(status) else announced_length(fields)
        self.head = ResponseHead(status, fields, length, "h2")
        return self.head

    def take(self, payload: bytes) -> tuple[bytes, Outcome | None]:
        """What of `payload` belongs to the body, and how the response ends where it is more than was announced."""
        assert self.head is not None
        if self._bodiless(self.head.status):
            # Where there can be no body the head is the response: what the server adds to it is not wanted.
            return b"", COMPLETE
        room = len(payload) if self.head.length is None else self.head.length - self.received
        self.received += min(len(payload), room)
        if len(payload) <= room:
            return payload, None
        return payload[:room], self.truncated("and more came")

    def ended(self) -> Outcome:
        """The peer has ended the stream."""
        assert self.head is not None
        if self.head.length is not None and self.received < self.head.length:
            return self.truncated("when the stream ended")
        return COMPLETE

    def truncated(self, how: str) -> Outcome:
        """The body is not what was announced."""
        length = self.head.length if self.head is not None else None
        of = "of unknown length" if length is None else f"of {length} bytes"
        message = f"{self.received} bytes of a body {of}, {how}"
        return Outcome(error=BodyLengthError(message, phase=Phase.BODY), end=BodyEnd.TRUNCATED)

    def lost(self, error: PoolPlusError, *, said: str, calm: bool) -> Outcome:
        """The transport is gone. `said`: the peer's last words; `calm`: they asked for calm, so what was not answered
        is not asked again at once."""
        if not isinstance(error, ConnectionLostError):
            return Outcome(error=error, progress=self.progress)
        if error.clean and self.head is not None:
            return self.truncated("when the connection was closed")
        text = f"{error} (after {said})" if said else str(error)
        own = ConnectionLostError(text, phase=self.phase, clean=error.clean)
        own.__cause__ = error.__cause__
        progress = Progress.REFUSED_CALM if calm and self.progress is Progress.SENT else self.progress
        return Outcome(error=own, progress=progress)

    def _bodiless(self, status: int) -> bool:
        return self.request.method == b"HEAD" or status in (204, 304)
