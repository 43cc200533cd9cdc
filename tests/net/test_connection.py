"""A connection between its transport, its engine and its owner, all in memory and on a Clock."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address as TwistedIPv4Address
from twisted.internet.address import IPv6Address as TwistedIPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, ISystemHandle
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from scrapy_poolplus.core.errors import ConnectionLostError, Phase, PoolClosedError, RemoteProtocolError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.connection import Connection
from scrapy_poolplus.net.http1 import Http1Engine
from scrapy_poolplus.net.tls import Agreed
from scrapy_poolplus.net.wire import EngineConfig, EngineOwner, EngineTransport, WireRequest
from tests.peers.engines import RecordingConnectionOwner, SilentEngine
from tests.peers.memory import Journal, RecordingExchange

REQUEST = WireRequest(b"GET", b"https", b"a.example", b"/")


class TCPTransport:
    """The part of Twisted's TCP transport that is used; keeps what was done with it."""

    def __init__(self, journal: Journal, peer: TwistedIPv4Address | TwistedIPv6Address) -> None:
        self.journal = journal
        self.peer = peer
        self.written = b""
        self.no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getPeer(self) -> TwistedIPv4Address | TwistedIPv6Address:
        return self.peer

    def write(self, data: bytes) -> None:
        self.written += data
        self.journal.append(("transport", "write", data))

    def loseConnection(self) -> None:
        self.journal.append(("transport", "lose", None))

    def abortConnection(self) -> None:
        self.journal.append(("transport", "abort", None))


@dataclass
class Opened:
    """Opening that makes the connection ready at once, as the dialer does."""

    losses: list[tuple[Failure, Failure]] = field(default_factory=list)
    agreed: list[Agreed | None] = field(default_factory=list)

    def opened(self, agreed: Agreed | None) -> None:
        self.agreed.append(agreed)

    def lost(self, reason: Failure, beneath: Failure) -> None:
        self.losses.append((reason, beneath))


class Scene:
    """A connection in cleartext, its transport connected."""

    def __init__(
        self,
        protocol: HttpProtocol = HttpProtocol.HTTP1,
        *,
        ready: bool = True,
        attached: bool = True,
        peer: TwistedIPv4Address | TwistedIPv6Address | None = None,
    ) -> None:
        self.journal: Journal = []
        self.clock = Clock()
        self.opening = Opened()
        self.transport = TCPTransport(self.journal, peer or TwistedIPv4Address("TCP", "192.0.2.7", 443))
        self.owner = RecordingConnectionOwner(self.journal)
        self.connection = Connection(
            self.clock, "a.example:443", EngineConfig(), self.opening, secure=False, make_engine=self._make
        )
        self.connection.makeConnection(self.transport)
        if ready:
            self.connection.ready(protocol, None)
            if attached:
                self.attach()

    def _make(
        self, protocol: HttpProtocol, transport: EngineTransport, owner: EngineOwner, config: EngineConfig
    ) -> SilentEngine:
        self.engine = SilentEngine(protocol, transport, owner, config, self.journal)
        return self.engine

    def attach(self) -> None:
        self.connection.attach(self.owner)

    def lose(self, error: Exception) -> None:
        self.connection.connectionLost(Failure(error))

    def start(self) -> RecordingExchange:
        exchange = RecordingExchange(journal=self.journal)
        self.connection.start(REQUEST, exchange)
        return exchange

    def said(self, *who: str) -> list[str]:
        return [what for name, what, _ in self.journal if name in who]


def test_a_cleartext_connection_is_open_when_tcp_is_connected() -> None:
    scene = Scene(ready=False)
    assert scene.opening.agreed == [None]
    assert scene.transport.no_delay


def test_a_tls_connection_is_not_open_before_its_handshake_has_ended() -> None:
    opening = Opened()
    connection = Connection(Clock(), "a.example:443", EngineConfig(), opening, secure=True)
    connection.makeConnection(TCPTransport([], TwistedIPv4Address("TCP", "192.0.2.7", 443)))
    assert opening.agreed == []
    assert IHandshakeListener.providedBy(connection)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (TwistedIPv4Address("TCP", "192.0.2.7", 443), IPv4Address("192.0.2.7")),
        (TwistedIPv6Address("TCP", "2001:db8::1", 443), IPv6Address("2001:db8::1")),
    ],
)
def test_the_peer_address_is_kept(
    peer: TwistedIPv4Address | TwistedIPv6Address, expected: IPv4Address | IPv6Address
) -> None:
    assert Scene(peer=peer).connection.peer == expected


def test_the_engine_of_the_agreed_protocol_begins_when_an_owner_is_attached() -> None:
    scene = Scene(HttpProtocol.HTTP2, attached=False)
    assert scene.journal == []
    scene.attach()
    assert scene.engine.protocol is HttpProtocol.HTTP2
    assert scene.said("engine") == ["begin"]


def test_http1_is_spoken_by_our_own_engine() -> None:
    scene = Scene(ready=False)
    connection = Connection(scene.clock, "a.example:80", EngineConfig(), Opened(), secure=False)
    connection.makeConnection(scene.transport)
    connection.ready(HttpProtocol.HTTP1, None)
    connection.attach(scene.owner)
    connection.start(REQUEST, RecordingExchange())
    assert isinstance(connection._engine, Http1Engine)
    assert scene.transport.written.startswith(b"GET / HTTP/1.1\r\n")


def test_bytes_that_came_before_the_owner_are_not_lost() -> None:
    scene = Scene(attached=False)
    scene.connection.dataReceived(b"set")
    scene.connection.dataReceived(b"tings")
    scene.attach()
    scene.connection.dataReceived(b"!")
    assert scene.engine.received == b"settings!"


def test_bytes_are_counted_both_ways() -> None:
    scene = Scene()
    scene.connection.dataReceived(b"12345")
    scene.connection.write(b"123")
    assert (scene.connection.bytes_received, scene.connection.bytes_sent) == (5, 3)
    assert scene.transport.written == b"123"


def test_time_is_handed_to_the_engine() -> None:
    scene = Scene()
    scene.clock.advance(7)
    exchange = scene.start()
    scene.connection.expire()
    scene.connection.cancel(exchange)
    assert scene.journal[1:4] == [("engine", "start", 7.0), ("engine", "expire", 7.0), ("engine", "cancel", 7.0)]


def test_the_next_deadline_is_the_engines_while_the_connection_is_open() -> None:
    scene = Scene()
    assert scene.connection.next_deadline() is None
    scene.engine.deadline = 30.0
    assert scene.connection.next_deadline() == 30.0
    scene.connection.close()
    assert scene.connection.next_deadline() is None


def test_many_flushes_that_are_asked_for_in_a_turn_are_one() -> None:
    scene = Scene()
    for _ in range(3):
        scene.connection.flush_soon()
    assert "flush" not in scene.said("engine")
    scene.clock.advance(0)
    assert scene.said("engine").count("flush") == 1
    scene.connection.flush_soon()
    scene.clock.advance(0)
    assert scene.said("engine").count("flush") == 2


def test_capacity_is_passed_on_and_draining_once() -> None:
    scene = Scene()
    scene.connection.capacity(4)
    scene.connection.draining(CloseReason.GOAWAY)
    scene.connection.draining(CloseReason.NOT_REUSABLE)
    assert scene.journal[1:] == [("owner", "capacity", 4), ("owner", "draining", CloseReason.GOAWAY)]


@pytest.mark.parametrize(
    ("reason", "clean", "why", "text"),
    [
        (ConnectionDone(), True, CloseReason.PEER_CLOSED, "a.example:443 closed the connection"),
        (ConnectionLost(), False, CloseReason.CONNECTION_RESET, "a.example:443 was lost in a non-clean way"),
        (
            SSL.Error([("SSL routines", "", "tlsv13 alert certificate required")]),
            False,
            CloseReason.PROTOCOL_ERROR,
            "TLS on the connection to a.example:443 failed: tlsv13 alert certificate required",
        ),
        (OSError(113, "No route"), False, CloseReason.CONNECTION_RESET, "OSError: [Errno 113] No route"),
    ],
)
def test_a_loss_is_told_in_our_own_words(reason: Exception, clean: bool, why: CloseReason, text: str) -> None:
    scene = Scene()
    exchange = scene.start()
    scene.lose(reason)
    assert scene.owner.end is not None
    error, close_reason = scene.owner.end
    assert isinstance(error, ConnectionLostError)
    assert (error.clean, close_reason) == (clean, why)
    assert text in str(error)
    assert exchange.outcome is not None
    assert exchange.outcome.error is error


def test_a_loss_is_told_as_draining_then_to_the_exchanges_then_as_closed() -> None:
    scene = Scene()
    scene.start()
    scene.lose(ConnectionDone())
    assert [(who, what) for who, what, _ in scene.journal[2:]] == [
        ("owner", "draining"),
        ("engine", "lost"),
        ("exchange", "done"),
        ("owner", "closed"),
    ]


def test_the_owner_may_close_the_connection_while_its_loss_is_told() -> None:
    scene = Scene()
    exchange = RecordingExchange(on_done=scene.connection.close)
    scene.connection.start(REQUEST, exchange)
    scene.lose(ConnectionDone())
    assert exchange.outcome is not None
    assert scene.owner.end is None
    assert scene.said("transport") == []
    assert scene.clock.getDelayedCalls() == []


def test_a_request_on_a_lost_connection_is_told_not_sent_in_a_later_turn() -> None:
    scene = Scene()
    scene.lose(ConnectionDone())
    exchange = scene.start()
    assert exchange.outcome is None
    scene.clock.advance(0)
    assert exchange.outcome is not None
    assert exchange.outcome.progress is Progress.NOT_SENT
    assert "closed the connection" in str(exchange.outcome.error)
    assert "start" not in scene.said("engine")


def test_a_connection_lost_before_it_had_an_owner_is_reported_after_attach() -> None:
    scene = Scene(attached=False)
    scene.lose(ConnectionLost())
    scene.attach()
    assert scene.owner.end is None
    scene.clock.advance(0)
    assert scene.owner.end is not None
    assert scene.owner.end[1] is CloseReason.CONNECTION_RESET
    assert "begin" not in scene.said("engine")


def test_an_owner_that_closes_on_a_late_report_still_hears_that_the_socket_is_gone() -> None:
    scene = Scene(attached=False)
    scene.lose(ConnectionLost())
    scene.attach()
    gone: list[str] = []

    def close(reason: CloseReason) -> None:
        scene.connection.when_gone = lambda: gone.append("gone")
        scene.connection.close()

    scene.owner.draining = close  # type: ignore[method-assign]
    scene.clock.advance(0)
    assert gone == ["gone"]


def test_close_says_goodbye_and_loses_the_transport() -> None:
    scene = Scene()
    scene.connection.close()
    assert scene.said("engine", "transport")[1:] == ["goodbye", "write", "flush", "lose", "lost"]


def test_close_aborts_after_a_second_of_grace() -> None:
    scene = Scene()
    scene.connection.close()
    scene.clock.advance(0.99)
    assert "abort" not in scene.said("transport")
    scene.clock.advance(0.02)
    assert scene.said("transport")[-1] == "abort"
    scene.lose(ConnectionAborted())
    assert scene.clock.getDelayedCalls() == []


def test_a_loss_leaves_no_timer() -> None:
    scene = Scene()
    scene.connection.flush_soon()
    scene.lose(ConnectionLost())
    assert scene.clock.getDelayedCalls() == []


def test_an_answered_close_leaves_no_timer() -> None:
    scene = Scene()
    scene.connection.flush_soon()
    scene.connection.close()
    scene.lose(ConnectionDone())
    assert scene.clock.getDelayedCalls() == []
    assert "abort" not in scene.said("transport")


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_owner_hears_nothing_after_it_ended_the_connection(end: str) -> None:
    scene = Scene()
    getattr(scene.connection, end)()
    heard = scene.said("owner")
    scene.connection.dataReceived(b"late")
    scene.connection.capacity(3)
    scene.connection.draining(CloseReason.GOAWAY)
    scene.connection.failed(RemoteProtocolError("late", phase=Phase.BODY), CloseReason.PROTOCOL_ERROR)
    scene.lose(ConnectionDone())
    assert heard == scene.said("owner") == []
    assert scene.engine.received == b""


@pytest.mark.parametrize("end", ["close", "abort"])
def test_exchanges_in_flight_are_told_when_the_owner_ends_the_connection(end: str) -> None:
    scene = Scene()
    exchange = scene.start()
    getattr(scene.connection, end)()
    assert exchange.outcome is not None
    assert "closed by us" in str(exchange.outcome.error)


def test_abort_tells_the_error_it_was_given_before_the_socket_goes() -> None:
    scene = Scene()
    exchange = scene.start()
    error = PoolClosedError("the pool was closed", phase=Phase.FIRST_BYTE)
    scene.connection.abort(error)
    assert exchange.outcome is not None
    assert exchange.outcome.error is error
    assert [what for _, what, _ in scene.journal[-2:]] == ["done", "abort"]


@pytest.mark.parametrize("second", ["close", "abort"])
@pytest.mark.parametrize("first", ["close", "abort"])
def test_ending_twice_is_ending_once(first: str, second: str) -> None:
    scene = Scene()
    getattr(scene.connection, first)()
    getattr(scene.connection, second)()
    assert scene.said("engine").count("lost") == 1
    assert scene.said("transport").count("lose") <= 1
    scene.lose(ConnectionAborted())
    getattr(scene.connection, second)()
    assert scene.clock.getDelayedCalls() == []
    assert "closed" not in scene.said("owner")


def test_a_lost_transport_is_not_aborted() -> None:
    # A TLS transport raises AttributeError then (its OpenSSL connection is None).
    scene = Scene()
    scene.lose(ConnectionDone())
    scene.connection.abort()
    assert scene.said("transport") == []


def test_an_engine_that_gives_up_has_its_transport_aborted_and_the_owner_told() -> None:
    scene = Scene()
    error = RemoteProtocolError("nonsense", phase=Phase.FIRST_BYTE)
    scene.connection.failed(error, CloseReason.PROTOCOL_ERROR)
    assert scene.said("transport") == ["abort"]
    assert scene.owner.end == (error, CloseReason.PROTOCOL_ERROR)
    scene.lose(ConnectionAborted())
    assert scene.said("owner").count("closed") == 1


@pytest.mark.parametrize("end", [None, "close", "abort"])
def test_when_gone_is_called_when_the_socket_is_gone(end: str | None) -> None:
    scene = Scene()
    gone: list[str] = []
    scene.connection.when_gone = lambda: gone.append("gone")
    if end is not None:
        getattr(scene.connection, end)()
    assert gone == []
    scene.lose(ConnectionDone())
    assert gone == ["gone"]


def test_a_loss_while_opening_is_the_openings_matter() -> None:
    scene = Scene(ready=False)
    scene.lose(ConnectionLost())
    assert [(type(reason.value), type(beneath.value)) for reason, beneath in scene.opening.losses] == [
        (ConnectionLost, ConnectionLost)
    ]


def test_an_aborted_opening_reports_nothing() -> None:
    scene = Scene(ready=False)
    scene.connection.abort()
    assert scene.said("transport") == ["abort"]
    scene.lose(ConnectionAborted())
    assert scene.opening.losses == []


def test_repr_shows_place_protocol_state_and_bytes() -> None:
    scene = Scene(HttpProtocol.HTTP2)
    scene.connection.dataReceived(b"123")
    assert repr(scene.connection) == "<Connection a.example:443 h2 OPEN sent 0 received 3>"
    scene.connection.close()
    assert repr(scene.connection) == "<Connection a.example:443 h2 CLOSED sent 7 received 3>"


# What the reactor has not read yet


@implementer(ISystemHandle)
class SocketTransport(TCPTransport):
    """Over a real socket, which nobody reads."""

    def __init__(self, journal: Journal, handle: socket.socket) -> None:
        super().__init__(journal, TwistedIPv4Address("TCP", "192.0.2.7", 443))
        self.handle = handle

    def getHandle(self) -> socket.socket:
        return self.handle


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_what_waits_in_the_socket_is_seen(used: bool) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        connection = Connection(Clock(), "a.example:80", EngineConfig(), Opened(), secure=False)
        connection.makeConnection(SocketTransport([], ours))
        connection.ready(HttpProtocol.HTTP1, None)
        connection.attach(RecordingConnectionOwner())
        if used:
            connection.start(REQUEST, RecordingExchange())
            connection.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert not connection.unread()
        theirs.sendall(b"bytes")
        # A peer that greets, or TLS 1.3, speaks before the first response.
        assert connection.unread() is used
        ours.recv(5)
        assert not connection.unread()
        theirs.close()
        assert connection.unread()
        connection.connectionLost(Failure(ConnectionDone()))
        assert not connection.unread(), "the socket is not ours any more"
