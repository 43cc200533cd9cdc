"""The HTTP/1.1 engine: one request at a time on one transport (RFC 9112).

Each request has a parser of its own, so no byte of one response can reach the next. What comes while nothing was asked
for ends the connection, and so does all that leaves in doubt where a response ended.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

from scrapy_poolplus.core.errors import (
    BodyLengthError,
    CancelledError,
    ConnectionLostError,
    LocalProtocolError,
    Phase,
    PoolPlusError,
    RemoteProtocolError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.http1_parser import ResponseParser, State, persistent
from scrapy_poolplus.net.wire import (
    BodyEnd,
    EngineConfig,
    EngineOwner,
    EngineTransport,
    Exchange,
    Outcome,
    WireRequest,
)

JOINED_BODY = 65_536
"""Bytes up to which a body is joined to its head, for one TLS record and one packet; a longer one is not copied."""

_TOKEN_CHARACTERS = b"!#$%&'*+-.^_`|~" + (string.digits + string.ascii_letters).encode()
_NO_SPACE = re.compile(rb"[^\x00-\x20\x7f]+")
_NOT_IN_VALUE = re.compile(rb"[\r\n\0]")
_FRAMED_BY_US = frozenset({b"host", b"content-length", b"transfer-encoding"})
_ALWAYS_WITH_LENGTH = frozenset({b"POST", b"PUT", b"PATCH"})

_COMPLETE = Outcome(end=BodyEnd.COMPLETE)
_CLOSE_DELIMITED = Outcome(end=BodyEnd.CLOSE_DELIMITED)


class Http1Engine:
    """Engine of ``net/wire.py`` for HTTP/1.1; capacity 1. It has no deadlines of its own."""

    __slots__ = (
        "_asked_to_close",
        "_ended",
        "_exchange",
        "_heard",
        "_limit",
        "_owner",
        "_parser",
        "_received",
        "_refusal",
        "_sent",
        "_transport",
    )

    protocol = HttpProtocol.HTTP1

    def __init__(self, transport: EngineTransport, owner: EngineOwner, config: EngineConfig) -> None:
        self._transport = transport
        self._owner = owner
        self._limit = config.max_header_list_size
        self._exchange: Exchange | None = None
        self._parser: ResponseParser | None = None
        self._refusal: Outcome | None = None
        self._asked_to_close = False
        self._heard = False
        self._sent = 0
        self._received = 0
        self._ended = False
        """Nothing may be started, and nothing that still comes is looked at."""

    def begin(self, now: float) -> None:
        """HTTP/1.1 has no preface."""

    def start(self, request: WireRequest, exchange: Exchange, now: float) -> None:
        """Write the request, head and body. One that is no HTTP is never written: it ends with LocalProtocolError at
        the next ``flush``, with Progress.ENDED because no other connection could take it either. Nor is one for which
        something has come already: the server has closed, or would answer it with bytes of somebody else's response.
        It ends with Progress.NOT_SENT, and the connection with it."""
        assert self._exchange is None, "HTTP/1.1 carries one request at a time"
        assert not self._ended, "nothing may be started on a connection that ends"
        self._exchange = exchange
        self._sent = self._received = 0
        try:
            head, self._asked_to_close = _request_head(request)
        except LocalProtocolError as error:
            self._refuse(Outcome(error=error, progress=Progress.ENDED))
            return
        if self._transport.unread():
            text = f"{request.place} had closed the connection, or sent what nobody had asked for"
            self._refuse(Outcome(error=ConnectionLostError(text, phase=Phase.SEND), progress=Progress.NOT_SENT))
            self._end(CloseReason.PEER_CLOSED)
            return
        self._heard = False
        self._parser = ResponseParser(request.method, request.place, self._limit, request.login)
        body = request.body
        self._sent = len(head) + len(body)
        if len(body) <= JOINED_BODY:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        exchange.sent()

    def receive(self, data: bytes, now: float) -> None:
        """Read some of the response."""
        parser, exchange = self._parser, self._exchange
        if parser is None or exchange is None:
            self._unsolicited(data)
            return
        self._heard = True
        self._received += len(data)
        headless = parser.head is None
        body = parser.feed(data)
        if headless and parser.head is not None:
            exchange.head(parser.head)
            if self._exchange is not exchange:
                return
        if body:
            exchange.data(body)
            if self._exchange is not exchange:
                return
        if parser.state is State.DONE:
            if not parser.reusable or self._asked_to_close:
                self._end(CloseReason.NOT_REUSABLE)
            self._finish(_COMPLETE)
        elif parser.error is not None:
            self._end(CloseReason.PROTOCOL_ERROR)
            truncated = isinstance(parser.error, BodyLengthError)
            self._finish(Outcome(error=parser.error, end=BodyEnd.TRUNCATED if truncated else None))
            self._owner.failed(parser.error, CloseReason.PROTOCOL_ERROR)

    def cancel(self, exchange: Exchange, now: float) -> None:
        """End the exchange, and with it the connection: its response may still come (RFC 9112 9.5)."""
        if exchange is not self._exchange:
            return
        if self._refusal is None:
            self._end(CloseReason.REQUEST_ENDED)
        error = CancelledError("the response was not wanted any more", phase=self._phase())
        self._finish(Outcome(error=error, progress=Progress.ENDED))

    def lost(self, error: PoolPlusError, now: float) -> None:
        """End the exchange. A body that the close delimits is complete as far as anyone can tell, however the
        connection ended: many servers close without close_notify, or reset; Scrapy's own handler takes it too."""
        self._ended = True
        if self._exchange is not None:
            self._finish(self._refusal or self._lost_outcome(error))

    def flush(self, now: float) -> None:
        """Answer a request that could not be sent. Requests themselves are written at once."""
        if self._refusal is not None:
            self._finish(self._refusal)

    def goodbye(self, now: float) -> None:
        """HTTP/1.1 has no farewell."""

    def next_deadline(self) -> float | None:
        """None: there are no pings here; the pool times the phases."""
        return None

    def expire(self, now: float) -> None:
        """There are no deadlines."""

    def _refuse(self, outcome: Outcome) -> None:
        """Answer the request that was not sent, in a turn of its own."""
        self._refusal = outcome
        self._owner.flush_soon()

    def _phase(self) -> Phase:
        if self._refusal is not None:
            return Phase.SEND
        return Phase.FIRST_BYTE if self._parser is None or self._parser.head is None else Phase.BODY

    def _end(self, reason: CloseReason) -> None:
        if not self._ended:
            self._ended = True
            self._owner.draining(reason)

    def _finish(self, outcome: Outcome) -> None:
        """Last of all, and with a clean slate: ``done`` may start the next request."""
        exchange = self._exchange
        assert exchange is not None
        self._exchange = self._parser = self._refusal = None
        exchange.carried(self._sent, self._received)
        exchange.done(outcome)

    def _unsolicited(self, data: bytes) -> None:
        """A late or uncalled-for response would be taken for the next request's: the connection ends.

        Unless it has ended already, or a request waits to be refused: that one is answered first.
        """
        if self._ended:
            return
        # Load balancers say 408 to an idle connection before they close it: no fault, only a close (golang #19943).
        reason = CloseReason.PEER_CLOSED if data[8:12] == b" 408" else CloseReason.PROTOCOL_ERROR
        self._end(reason)
        if self._refusal is not None:
            self._finish(self._refusal)
        text = f"{len(data)} bytes came that no request had asked for: {data[:60]!r}"
        self._owner.failed(RemoteProtocolError(text, phase=Phase.FIRST_BYTE), reason)

    def _lost_outcome(self, error: PoolPlusError) -> Outcome:
        parser = self._parser
        assert parser is not None
        if not isinstance(error, ConnectionLostError):
            return Outcome(error=error, progress=Progress.STARTED if self._heard else Progress.SENT)
        if parser.head is None:
            lost = ConnectionLostError(str(error), phase=Phase.FIRST_BYTE, clean=error.clean)
            return Outcome(error=lost, progress=Progress.STARTED if self._heard else Progress.SENT)
        if parser.state is State.UNTIL_CLOSE:
            return _CLOSE_DELIMITED
        text = f"{parser.missing()}: {error}"
        if error.clean:
            return Outcome(error=BodyLengthError(text, phase=Phase.BODY), end=BodyEnd.TRUNCATED)
        return Outcome(error=ConnectionLostError(text, phase=Phase.BODY), progress=Progress.STARTED)


def _request_head(request: WireRequest) -> tuple[bytes, bool]:
    """The head as it goes out, and whether it asks the server to close. Raises LocalProtocolError: a header that ends
    its own line would write the rest of the message, or the next one (RFC 9112 2.2, 11.1)."""
    method, target, authority = request.method, request.target, request.authority
    if not method or method.translate(None, _TOKEN_CHARACTERS):
        raise _unsendable(f"method {method!r}")
    if not _NO_SPACE.fullmatch(target):
        raise _unsendable(f"request target {target!r}")
    if not _NO_SPACE.fullmatch(authority):
        raise _unsendable(f"host {authority!r}")
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + authority]
    asked_to_close = False
    for name, value in request.headers:
        lowered = _lowered(name)
        if not lowered:
            raise _unsendable(f"header name {name!r}")
        if lowered in _FRAMED_BY_US:
            continue
        if lowered == b"connection":
            asked_to_close = asked_to_close or not persistent(value.lower(), http11=True)
        lines.append(name + b": " + value)
    if request.body or method in _ALWAYS_WITH_LENGTH or request.announce_length:
        lines.append(b"Content-Length: %d" % len(request.body))
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    # Values are checked all at once: no line end but ours, no NUL.
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        names = [name for name, value in request.headers if _NOT_IN_VALUE.search(value)]
        raise _unsendable(f"CR, LF or NUL in the value of {names}")  # The value is not shown: it may be a password.
    return head, asked_to_close


@lru_cache(maxsize=1024)
def _lowered(name: bytes) -> bytes:
    """The name of a header in lower case; empty where it is no name. A crawl has few different ones."""
    return b"" if name.translate(None, _TOKEN_CHARACTERS) else name.lower()


def _unsendable(what: str) -> LocalProtocolError:
    return LocalProtocolError(f"the request cannot be sent as HTTP: {what}", phase=Phase.SEND)
