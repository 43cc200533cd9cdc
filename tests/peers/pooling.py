"""A dialer and connections for the pool's tests: nothing happens by itself, the test says what the network does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from scrapy_poolplus.core.errors import CancelledError, ConnectionLostError, Phase, PoolPlusError
from scrapy_poolplus.core.events import CloseReason, PoolEvent
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.core.sessions import ANY, Claim
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Exchange, Outcome, ResponseHead, Timings, WireRequest
from scrapy_poolplus.pool import ConnectionPool

LOST = ConnectionLostError("the connection was lost", phase=Phase.FIRST_BYTE)


class FakeConnection:
    """Stands for net.connection.Connection; the test plays its engine."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self.protocol = protocol
        self.peer = self.certificate = self.tls_version = self.tls_cipher = None
        self.timings = Timings()
        self.tunnel = None
        self.resumed = False
        self.bytes_sent = self.bytes_received = 0
        self.when_gone: Callable[[], None] | None = None
        self.owner: Any = None
        self.exchanges: list[Exchange] = []
        self.requests: list[WireRequest] = []
        self.ended = ""
        self.deadline: float | None = None
        self.expired = 0

    def attach(self, owner: Any) -> None:
        self.owner = owner

    def start(self, request: WireRequest, exchange: Exchange) -> None:
        self.requests.append(request)
        self.exchanges.append(exchange)

    def cancel(self, exchange: Exchange) -> None:
        self.exchanges.remove(exchange)
        if self.protocol is HttpProtocol.HTTP1:
            self.owner.draining(CloseReason.REQUEST_ENDED)
        exchange.done(Outcome(CancelledError("cancelled", phase=Phase.BODY), progress=Progress.ENDED))

    def next_deadline(self) -> float | None:
        return self.deadline

    def expire(self) -> None:
        self.expired += 1
        self.deadline = None

    def close(self) -> None:
        self.ended = self.ended or "closed"
        self._drop()

    def abort(self, error: PoolPlusError | None = None) -> None:
        self.ended = "aborted"
        self._drop()

    def _drop(self) -> None:
        left, self.exchanges = self.exchanges, []
        for exchange in left:
            exchange.done(Outcome(LOST, progress=Progress.SENT))

    # What the network does.

    def gone(self) -> None:
        """The socket is gone after a close."""
        assert self.when_gone is not None
        self.when_gone()

    def respond(self, body: bytes = b"body", status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answer the oldest request."""
        exchange = self.exchanges.pop(0)
        exchange.sent()
        exchange.head(ResponseHead(status, list(headers), len(body), "HTTP/1.1"))
        exchange.data(body)
        exchange.done(Outcome(end=BodyEnd.COMPLETE))

    def lose(self, progress: Progress, error: PoolPlusError = LOST) -> None:
        """The peer is gone."""
        self.owner.draining(CloseReason.PEER_CLOSED)
        left, self.exchanges = self.exchanges, []
        for exchange in left:
            exchange.done(Outcome(error, progress=progress))
        self.owner.closed(error, CloseReason.PEER_CLOSED)

    def refuse(self, progress: Progress) -> None:
        """Refuse the oldest request."""
        self.exchanges.pop(0).done(Outcome(LOST, progress=progress))


class FakeDial:
    """Stands for net.dialer.Dial."""

    def __init__(self, route: Route, protocols: tuple[HttpProtocol, ...], timeout: float | None, setting: str) -> None:
        self.route = route
        self.protocols = protocols
        self.timeout = timeout
        self.setting = setting
        self.phase = Phase.TLS
        self.cancelled = False
        self.result: Deferred[Any] = Deferred()

    def describe(self) -> str:
        return f"TLS handshake with {self.route.origin.netloc}"

    def cancel(self) -> None:
        self.cancelled = True

    def connect(self, protocol: HttpProtocol = HttpProtocol.HTTP1, *, deadline: float | None = None) -> FakeConnection:
        connection = FakeConnection(protocol)
        connection.deadline = deadline
        self.result.callback(connection)
        return connection

    def fail(self, error: PoolPlusError) -> None:
        self.result.errback(error)


@dataclass
class RecordingSink:
    """Stands for the handler: what it heard, in order."""

    heard: list[Any] = field(default_factory=list)
    on_end: Callable[[], None] | None = None
    on_data: Callable[[], None] | None = None

    def dispatched(self, connection: Any) -> None:
        self.heard.append("dispatched")

    def dress(self, wire: WireRequest, session: str, *, kept: bool) -> WireRequest:
        return wire

    def sent(self, now: float) -> None:
        self.heard.append("sent")

    def head(self, head: ResponseHead, now: float) -> None:
        self.heard.append(head.status)

    def data(self, chunk: bytes) -> None:
        self.heard.append(chunk)
        if self.on_data is not None:
            self.on_data()

    def end(self, end: BodyEnd, error: Any) -> None:
        self.heard.append(end)
        if self.on_end is not None:
            self.on_end()

    def failed(self, error: PoolPlusError) -> None:
        self.heard.append(error)


class Bench:
    """A pool on a clock, with everything that it talks to."""

    def __init__(self, *, max_connections: int = 100, dial_timeout: float = 30.0, **policy: Any) -> None:
        self.clock = Clock()
        self.dials: list[FakeDial] = []
        self.events: list[PoolEvent] = []
        self.policy = Policy(**policy)
        self.pool = ConnectionPool(
            clock=self.clock,
            dialer=self,
            uniform=lambda: 0.0,
            max_connections=max_connections,
            dial_timeout=dial_timeout,
            observers=[(self.events.append, None)],
        )

    def dial(
        self,
        route: Route,
        protocols: tuple[HttpProtocol, ...],
        config: EngineConfig,
        *,
        timeout: float | None,
        setting: str,
        resolve_ttl: float | None = None,
    ) -> Any:
        dial = FakeDial(route, protocols, timeout, setting)
        self.dials.append(dial)
        return dial

    def ask(
        self,
        host: str = "a.example",
        *,
        method: bytes = b"GET",
        seconds: float = 60.0,
        label: str | None = None,
        own: Policy | None = None,
        claim: Claim = ANY,
    ) -> tuple[Any, RecordingSink]:
        """Ask for a page; returns the ticket and its sink."""
        sink = RecordingSink()
        wire = WireRequest(method, b"https", host.encode(), b"/")
        key = PoolKey(Route(Origin.of("https", host)), label)
        return self.pool.request(wire, key, self.policy, sink, seconds=seconds, own=own, claim=claim), sink

    def names(self) -> list[str]:
        """The events so far, by name."""
        return [type(event).__name__ for event in self.events]
