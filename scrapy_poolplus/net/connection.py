"""Connection: one transport and its engine, chosen when the handshake has ended.

The dialer makes it and the pool owns it. It counts bytes, keeps what is the same for every response (peer address,
certificate, TLS version), hands bytes to the engine and closes in two steps: an orderly goodbye, and an abort after
a second of grace, because a TLS peer may never answer close_notify (twisted #5619, #8902).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import Certificate
from twisted.python.failure import Failure
from zope.interface import implementer

from scrapy_poolplus.core.errors import ConnectionLostError, Phase, PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.at_once import at_once, how_tcp_ended
from scrapy_poolplus.net.tls import Agreed, how_it_ended, openssl_text, socket_below
from scrapy_poolplus.net.wire import (
    Engine,
    EngineConfig,
    EngineOwner,
    EngineTransport,
    Exchange,
    Outcome,
    Timings,
    WireRequest,
)

if TYPE_CHECKING:
    from scrapy_poolplus.net.proxy import TunnelAnswer

GRACE = 1.0
"""Seconds that an orderly close may take."""

MakeEngine = Callable[[HttpProtocol, EngineTransport, EngineOwner, EngineConfig], Engine]


class ConnectionOwner(Protocol):
    """What the pool hears of a connection that it was given."""

    def capacity(self, streams: int) -> None:
        """The peer now allows this many streams at once."""

    def draining(self, reason: CloseReason) -> None:
        """Nothing new may be started here; what is in flight may finish. Called at most once."""

    def closed(self, error: PoolPlusError, reason: CloseReason) -> None:
        """It is gone. Called exactly once unless the pool closed or aborted it itself; all its exchanges have been told."""


class Opening(Protocol):
    """What the dialer hears of a connection that it makes: one of the two, once."""

    def opened(self, agreed: Agreed | None) -> None:
        """The handshake has ended; None in cleartext. The connection is not usable before ``ready`` was called."""

    def lost(self, reason: Failure, beneath: Failure) -> None:
        """The transport was lost before. `beneath`: how the transport below TLS ended."""


class State(Enum):
    """Of a connection; it only goes down this list."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"
    """Closed by its owner or given up by its engine; the socket may live on for the time of grace."""
    GONE = "gone"


def make_engine(protocol: HttpProtocol, transport: EngineTransport, owner: EngineOwner, config: EngineConfig) -> Engine:
    """The engine that speaks `protocol`. h2 is loaded only where it is spoken."""
    if protocol is HttpProtocol.HTTP2:
        from scrapy_poolplus.net.http2 import Http2Engine  # noqa: PLC0415

        return Http2Engine(transport, owner, config)
    from scrapy_poolplus.net.http1 import Http1Engine  # noqa: PLC0415

    return Http1Engine(transport, owner, config)


@implementer(IHandshakeListener)
class Connection(TwistedProtocol):
    """A transport with an HTTP engine.

    `protocol` is known once it is ready. `bytes_sent` and `bytes_received` count above TLS. `when_gone` is called
    when the socket is gone, which may be after the logical close. `tunnel`: what the proxy said when it opened one.
    """

    transport: ITCPTransport

    def __init__(
        self,
        reactor: IReactorTime,
        place: str,
        config: EngineConfig,
        opening: Opening,
        *,
        secure: bool,
        make_engine: MakeEngine = make_engine,
    ) -> None:
        self.protocol = HttpProtocol.HTTP1
        self.peer: IPv4Address | IPv6Address | None = None
        self.certificate: Certificate | None = None
        self.tls_version: str | None = None
        self.tls_cipher: str | None = None
        self.resumed = False
        self.tunnel: TunnelAnswer | None = None
        self.timings = Timings()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.when_gone: Callable[[], None] | None = None
        self._socket: socket.socket | None = None
        self._reactor = reactor
        self._place = place
        self._config = config
        self._opening: Opening | None = opening
        self._secure = secure
        self._make_engine = make_engine
        self._state = State.OPENING
        self._engine: Engine | None = None
        self._owner: ConnectionOwner | None = None
        self._said_draining = False
        self._early: list[bytes] = []
        self._loss: tuple[ConnectionLostError, CloseReason] | None = None
        self._flush: IDelayedCall | None = None
        self._grace: IDelayedCall | None = None

    def __repr__(self) -> str:
        speaks = self.protocol.value if self._state is not State.OPENING else "?"
        return f"<Connection {self._place} {speaks} {self._state.name} sent {self.bytes_sent} received {self.bytes_received}>"

    # The dialer's side.

    def ready(self, protocol: HttpProtocol, agreed: Agreed | None) -> None:
        """What was agreed on is accepted: from now on the connection can be attached."""
        self._state = State.OPEN
        self._opening = None
        self.protocol = protocol
        if agreed is not None:
            self.certificate, self.tls_version, self.tls_cipher = agreed.certificate, agreed.version, agreed.cipher
            self.resumed = agreed.resumed

    # The pool's side.

    def attach(self, owner: ConnectionOwner) -> None:
        """Begin to speak, and report to `owner`; nothing is reported before this returns except by the engine itself.

        A connection that was lost meanwhile is reported in the next turn.
        """
        assert self._engine is None
        self._owner = owner
        self._engine = self._make_engine(self.protocol, self, self, self._config)
        if self._state is not State.OPEN:
            self._reactor.callLater(0, self._report_late)
            return
        self._engine.begin(self._reactor.seconds())
        early, self._early = self._early, []
        for data in early:
            self._receive(data)

    def start(self, request: WireRequest, exchange: Exchange) -> None:
        """Send a request. On a connection that is gone the exchange is told so in the next turn, as NOT_SENT."""
        assert self._engine is not None
        if self._state is State.OPEN:
            self._engine.start(request, exchange, self._reactor.seconds())
            return
        error = self._loss[0] if self._loss else self._closed_by_us()
        self._reactor.callLater(0, exchange.done, Outcome(error=error, progress=Progress.NOT_SENT))

    def cancel(self, exchange: Exchange) -> None:
        """The response is not wanted any more."""
        if self._engine is not None:
            self._engine.cancel(exchange, self._reactor.seconds())

    def next_deadline(self) -> float | None:
        """When ``expire`` is to be called, or None."""
        return self._engine.next_deadline() if self._engine is not None and self._state is State.OPEN else None

    def expire(self) -> None:
        """The deadline has passed."""
        if self._engine is not None and self._state is State.OPEN:
            self._engine.expire(self._reactor.seconds())

    def close(self) -> None:
        """Say goodbye and close; abort after GRACE. The owner hears nothing more; exchanges still in flight are told."""
        self._owner = None
        if self._state is State.OPENING:
            self.abort()
        if self._state is not State.OPEN:
            return
        self._state = State.CLOSED
        self._stop_flush()
        now = self._reactor.seconds()
        if self._engine is not None:
            self._engine.goodbye(now)
            self._engine.flush(now)
        self._grace = self._reactor.callLater(GRACE, self._grace_over)
        self.transport.loseConnection()
        if self._engine is not None:
            self._engine.lost(self._closed_by_us(), now)

    def abort(self, error: PoolPlusError | None = None) -> None:
        """End it at once. Exchanges in flight are told `error` first; the owner hears nothing more."""
        self._owner = None
        if self._state in (State.OPENING, State.OPEN):
            self._state = State.CLOSED
            self._opening = None
            if self._engine is not None:
                self._engine.lost(error or self._closed_by_us(), self._reactor.seconds())
        self._abort_transport()

    # The engine's side: EngineTransport and EngineOwner.

    def write(self, data: bytes) -> None:
        """Send."""
        self.bytes_sent += len(data)
        self.transport.write(data)

    def unread(self) -> bool:
        """Whether the socket has something that the reactor has not read yet. It reads once a turn, which may be long
        in a busy crawl; the rest of the time a server that has closed looks as if it still were there."""
        if self._socket is None:
            return False
        try:
            seen = self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        # Before the first response it may be what TLS 1.3 says after its handshake, or a peer of another kind that greets:
        # bytes of another exchange it cannot be.
        return not seen or self.bytes_received > 0

    def capacity(self, streams: int) -> None:
        """The peer allows so many streams."""
        if self._owner is not None:
            self._owner.capacity(streams)

    def draining(self, reason: CloseReason) -> None:
        """Nothing new here."""
        if self._owner is not None and not self._said_draining:
            self._said_draining = True
            self._owner.draining(reason)

    def failed(self, error: PoolPlusError, reason: CloseReason) -> None:
        """The engine has given up, and has told its exchanges."""
        if self._state is not State.OPEN:
            return
        self._state = State.CLOSED
        self._abort_transport()
        self._tell_closed(error, reason)

    def flush_soon(self) -> None:
        """Flush once before this turn ends."""
        if self._flush is None and self._state is State.OPEN:
            self._flush = self._reactor.callLater(0, self._flush_now)

    # The transport's side: Twisted's names.

    def connectionMade(self) -> None:
        """TCP is connected, and the tunnel is open where there is one."""
        self.transport = at_once(self.transport)
        self.transport.setTcpNoDelay(True)
        self._socket = socket_below(self.transport)
        self.peer = ip_address(self.transport.getPeer().host)
        if not self._secure and self._opening is not None:
            self._opening.opened(None)

    def handshakeCompleted(self) -> None:
        """TLS is ready. `opened` may hand the connection on, so that it is attached before the first byte comes in."""
        # Before Twisted 26.4 ClientTLSOptions, which a user's own policy may use, rejects a wrong name by ending the
        # connection from within the handshake, which completes all the same. connectionLost tells why.
        if self._opening is not None and not self.transport.disconnecting:
            self._opening.opened(Agreed.of(self.transport.getHandle()))

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the peer, above TLS."""
        self.bytes_received += len(data)
        if self._engine is not None:
            self._receive(data)
        elif self._state is State.OPEN:
            self._early.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        state, self._state = self._state, State.GONE
        self._socket = None
        self._stop_flush()
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        reason = how_tcp_ended(self.transport, reason)
        beneath = how_it_ended(self.transport, reason)
        if state is State.OPENING and self._opening is not None:
            opening, self._opening = self._opening, None
            opening.lost(reason, beneath)
        elif state is State.OPEN:
            self._loss = _loss(self._place, reason, beneath)
            if self._engine is not None:
                self._report_loss()
        self._tell_gone()

    # Inside.

    def _receive(self, data: bytes) -> None:
        if self._state is State.OPEN:
            assert self._engine is not None
            self._engine.receive(data, self._reactor.seconds())

    def _flush_now(self) -> None:
        self._flush = None
        assert self._engine is not None
        self._engine.flush(self._reactor.seconds())

    def _stop_flush(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def _report_loss(self) -> None:
        """First that nothing may be started here, then the exchanges, then the end."""
        if self._loss is None:
            return
        error, reason = self._loss
        self.draining(reason)
        assert self._engine is not None
        self._engine.lost(error, self._reactor.seconds())
        self._tell_closed(error, reason)

    def _report_late(self) -> None:
        self._report_loss()
        if self._state is State.GONE:
            self._tell_gone()

    def _tell_gone(self) -> None:
        gone, self.when_gone = self.when_gone, None
        if gone is not None:
            gone()

    def _tell_closed(self, error: PoolPlusError, reason: CloseReason) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.closed(error, reason)

    def _grace_over(self) -> None:
        self._grace = None
        self._abort_transport()

    def _abort_transport(self) -> None:
        # A TLS transport that is lost has no OpenSSL connection any more and would raise AttributeError.
        if self._state is not State.GONE and self.transport is not None:
            self._stop_flush()
            self.transport.abortConnection()

    def _closed_by_us(self) -> ConnectionLostError:
        return ConnectionLostError(f"the connection to {self._place} was closed by us", phase=Phase.FIRST_BYTE)


def _loss(place: str, reason: Failure, beneath: Failure) -> tuple[ConnectionLostError, CloseReason]:
    """What the end of a transport means. A FIN without close_notify is an orderly close, as in browsers: many servers
    never send one, and a body with a length or chunks shows itself whether it is whole."""
    error = reason.value
    phase = Phase.FIRST_BYTE
    if isinstance(error, SSL.Error):
        text = f"TLS on the connection to {place} failed: {openssl_text(error)}"
        lost, why = ConnectionLostError(text, phase=phase), CloseReason.PROTOCOL_ERROR
    elif isinstance(error, ConnectionDone) or (
        isinstance(error, ConnectionLost) and isinstance(beneath.value, ConnectionDone)
    ):
        lost = ConnectionLostError(f"{place} closed the connection", phase=phase, clean=True)
        why = CloseReason.PEER_CLOSED
    elif isinstance(error, ConnectionLost):
        text = f"the connection to {place} was lost in a non-clean way (reset by the peer or broken)"
        lost, why = ConnectionLostError(text, phase=phase), CloseReason.CONNECTION_RESET
    else:
        text = f"the connection to {place} was lost: {type(error).__name__}: {error}"
        lost, why = ConnectionLostError(text, phase=phase), CloseReason.CONNECTION_RESET
    lost.__cause__ = error
    return lost, why
