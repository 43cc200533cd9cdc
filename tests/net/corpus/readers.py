"""Four readers of one response, brought to one verdict: ours, h11, twisted.web and httptools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import httptools
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, ResponseDone
from twisted.web._newclient import Request as TwistedRequest
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as TwistedHeaders

from scrapy_poolplus.core.errors import ConnectionLostError, Phase
from scrapy_poolplus.net.http1 import Http1Engine
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, WireRequest
from tests.peers.memory import MemoryTransport, RecordingExchange, RecordingOwner

LIMIT = 65_536


@dataclass(frozen=True)
class Verdict:
    """What a reader made of the bytes. `end`: complete, at close (by the connection's), cut (an error after the head),
    error (before it), waits (for more). `keep`: whether another request may follow. `headers`: sorted, lower case."""

    status: int | None
    body: bytes
    end: str
    keep: bool
    headers: tuple[tuple[bytes, bytes], ...] = ()


NOTHING = Verdict(None, b"", "error", keep=False)
WAITS = Verdict(None, b"", "waits", keep=False)


def _sorted(headers: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(sorted((name.lower(), value) for name, value in headers))


def ours(method: bytes, *pieces: bytes, closes: bool) -> Verdict:
    owner = RecordingOwner()
    engine = Http1Engine(MemoryTransport(), owner, EngineConfig(max_header_list_size=LIMIT))
    exchange = RecordingExchange()
    engine.start(WireRequest(method, b"http", b"a.example", b"/"), exchange, 0.0)
    for piece in pieces:
        engine.receive(piece, 0.0)
    if closes:
        engine.lost(ConnectionLostError("closed", phase=Phase.FIRST_BYTE, clean=True), 0.0)
    ended, head = exchange.outcome, exchange.response
    if head is None:
        return WAITS if ended is None else NOTHING
    if ended is None:
        end = "waits"
    elif ended.error is None:
        end = "complete" if ended.end is BodyEnd.COMPLETE else "at close"
    else:
        end = "cut"
    keep = end == "complete" and owner.drained is None
    return Verdict(head.status, exchange.body, end, keep, _sorted(head.headers))


def by_h11(method: bytes, data: bytes, *, closes: bool) -> Verdict:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a.example")]))
    connection.send(h11.EndOfMessage())
    head: h11.Response | None = None
    body = b""
    end = "waits"
    closed = False
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                end = "at close" if closed else "complete"
                break
            elif event is h11.NEED_DATA and closes and not closed:
                closed = True
                connection.receive_data(b"")
            elif not isinstance(event, h11.InformationalResponse):
                break
    except h11.RemoteProtocolError:
        end = "cut" if head else "error"
    if head is None:
        return NOTHING if end == "error" or closes else WAITS
    keep = end == "complete" and connection.their_state is h11.DONE and not connection.trailing_data[0]
    return Verdict(head.status_code, body, end, keep, _sorted(head.headers.raw_items()))


class _TwistedBody(Protocol):
    def __init__(self) -> None:
        self.body = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.body += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reason = reason


def by_twisted(method: bytes, data: bytes, *, closes: bool) -> Verdict:
    kept: list[object] = []
    responses: list[Any] = []
    failures: list[Failure] = []
    body = _TwistedBody()
    protocol = HTTP11ClientProtocol(kept.append)
    transport = StringTransport()
    protocol.makeConnection(transport)
    headers = TwistedHeaders({b"Host": [b"a.example"]})
    asked = protocol.request(TwistedRequest(method, b"/", headers, None, persistent=True))

    def got(response: Any) -> None:
        responses.append(response)
        response.deliverBody(body)

    asked.addCallbacks(got, failures.append)
    protocol.dataReceived(data)
    reason_before = body.reason
    if closes or transport.disconnecting:
        protocol.connectionLost(Failure(ConnectionDone()))
    if not responses:
        return NOTHING if failures else WAITS
    response = responses[0]
    if body.reason is None:
        end = "waits"
    elif body.reason.check(ResponseDone):
        end = "complete" if reason_before else "at close"
    else:
        end = "at close" if body.reason.check(PotentialDataLoss) else "cut"
    raw = [
        (name, value)
        for held in (response.headers, getattr(protocol, "_conn_headers", TwistedHeaders()))
        for name, values in held.getAllRawHeaders()
        for value in values
    ]
    return Verdict(response.code, body.body, end, bool(kept) and end == "complete", _sorted(raw))


class _HttptoolsMessage:
    def __init__(self) -> None:
        self.parser: Any = None
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.keep = False
        self.complete = False
        self.leftover = False

    def on_message_begin(self) -> None:
        if self.complete:
            self.leftover = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status is None:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self.parser.get_status_code()
        if status < 200:
            self.headers = []
        else:
            self.status = status

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body += body

    def on_message_complete(self) -> None:
        if self.status is not None and not self.complete:
            self.complete = True
            self.keep = self.parser.should_keep_alive()


def by_httptools(method: bytes, data: bytes, *, closes: bool) -> Verdict:
    """It is told of no close and of no method: compare it with what others say before the close."""
    message = _HttptoolsMessage()
    parser = httptools.HttpResponseParser(message)
    message.parser = parser
    end = "waits"
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        message.leftover = True
        end = "cut" if message.status else "error"
    if message.status is None:
        return NOTHING if end == "error" else WAITS
    if message.complete:
        end = "complete"
    keep = message.complete and message.keep and not message.leftover
    return Verdict(message.status, message.body, end, keep, _sorted(message.headers))


Reader = Callable[..., Verdict]
OTHERS: dict[str, Reader] = {"h11": by_h11, "twisted": by_twisted, "httptools": by_httptools}
