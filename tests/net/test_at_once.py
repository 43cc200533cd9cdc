"""What is written is with the kernel when ``write`` returns, and nothing is lost, doubled or overtaken where it cannot be.

Over real sockets, with a reactor that does only what a test asks of it: these hold for the parts of Twisted's transports
that the shortcut looks at, with the oldest and the newest Twisted of tox.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, ISystemHandle, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Client, Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.net import at_once as room
from scrapy_poolplus.net.at_once import AtOnce, at_once, how_tcp_ended
from scrapy_poolplus.net.connection import Connection as PoolConnection
from scrapy_poolplus.net.tls import Agreed, ClientTLS, TLSProfile
from scrapy_poolplus.net.wire import EngineConfig


class Descriptors(Clock):
    """A reactor that knows who wants to write, and lets them when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[Connection] = set()
        self.lost: list[object] = []

    def addWriter(self, writer: Connection) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Connection) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: Connection) -> None:
        pass

    removeReader = addReader

    def turn(self) -> None:
        for writer in list(self.writers):
            why = writer.doWrite()
            if why is not None:
                self.writers.discard(writer)
                self.lost.append(why)


class Tcp(Client):
    """As the reactor makes them, without connecting, and with what a pair of sockets has not."""

    def __init__(self, skt: socket.socket, protocol: Protocol, reactor: Descriptors) -> None:
        Connection.__init__(self, skt, protocol, reactor)

    def connectionLost(self, reason: Failure) -> None:
        Connection.connectionLost(self, reason)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.7", 80)


class Pair:
    """A transport and the other end of its socket."""

    def __init__(self, protocol: Protocol | None = None) -> None:
        ours, self.peer = socket.socketpair()
        for end in (ours, self.peer):
            end.setblocking(False)
        # A send buffer that a test can fill.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.ours = ours
        self.reactor = Descriptors()
        self.below = Tcp(ours, protocol or Protocol(), self.reactor)
        self.below.connected = 1
        self.transport = at_once(self.below)

    def received(self) -> bytes:
        """All that has come in at the peer."""
        data = b""
        while True:
            try:
                more = self.peer.recv(1 << 16)
            except BlockingIOError:
                return data
            if not more:
                return data
            data += more

    def close(self) -> None:
        self.ours.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


class Opened:
    """Opening that does nothing of what it hears."""

    def opened(self, agreed: Agreed | None) -> None:
        assert agreed is None

    def lost(self, reason: Failure, beneath: Failure) -> None:
        pytest.fail(str(reason))


def test_what_is_written_has_left_without_a_turn_of_the_reactor(pair: Pair) -> None:
    pair.transport.write(b"GET / HTTP/1.1\r\n\r\n")
    assert pair.received() == b"GET / HTTP/1.1\r\n\r\n"
    assert not pair.reactor.writers


def test_what_the_socket_does_not_take_follows_in_order(pair: Pair) -> None:
    first, second = b"a" * 300_000, b"b" * 10
    pair.transport.write(first)
    pair.transport.write(second)
    assert pair.reactor.writers == {pair.below}
    received = pair.received()
    assert 0 < len(received) < len(first)
    for _ in range(1000):
        if not pair.reactor.writers:
            break
        pair.reactor.turn()
        received += pair.received()
    assert received == first + second
    pair.transport.write(b"c")
    assert pair.received() == b"c"


@given(st.lists(st.one_of(st.none(), st.integers(0, 200_000)), max_size=12))
def test_nothing_is_lost_doubled_or_overtaken(steps: list[int | None]) -> None:
    """A number is a write of so many bytes, None a turn in which the peer reads."""
    pair = Pair()
    try:
        sent, received = b"", b""
        for number, step in enumerate(steps):
            if step is None:
                pair.reactor.turn()
                received += pair.received()
            else:
                data = bytes([number]) * step
                sent += data
                pair.transport.write(data)
        for _ in range(10_000):
            received += pair.received()
            if not pair.reactor.writers:
                break
            pair.reactor.turn()
        assert received + pair.received() == sent
    finally:
        pair.close()


def test_a_connection_that_is_lost_is_told_of_by_the_reactor_and_not_within_the_write(pair: Pair) -> None:
    pair.peer.close()
    pair.transport.write(b"x")
    assert pair.reactor.lost == []
    assert pair.reactor.writers == {pair.below}
    pair.reactor.turn()
    assert len(pair.reactor.lost) == 1


@pytest.fixture
def reset() -> Iterator[socket.socket]:
    """A socket whose peer has reset the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        peer, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert select.select([ours], [], [], 30)[0]
        ours.setblocking(False)
        yield ours


def turns_until_lost(reactor: Descriptors, below: Tcp) -> None:
    """Reading before writing, as reactors do."""
    for _ in range(3):
        why = below.doRead() or (below.doWrite() if below in reactor.writers else None)
        if why is not None:
            below.connectionLost(Failure(why))
            return
    pytest.fail("the end of the connection was not met")


@pytest.mark.parametrize("secure", [False, True])
def test_a_reset_that_sending_meets_is_no_orderly_close(reset: socket.socket, secure: bool) -> None:
    lost: list[tuple[object, object]] = []

    class Told(Opened):
        def lost(self, reason: Failure, beneath: Failure) -> None:
            lost.append((type(reason.value), type(beneath.value)))

    reactor = Descriptors()
    connection = PoolConnection(reactor, "a.example:80", EngineConfig(), Told(), secure=secure)
    handshake = ClientTLS(TLSProfile()).handshake("a.example", 443, [HttpProtocol.HTTP1])
    below = Tcp(reset, handshake.wrap(connection, Clock()) if secure else connection, reactor)
    below.connected = 1
    below.protocol.makeConnection(below)
    if secure:
        # The handshake's first message met it.
        turns_until_lost(reactor, below)
        assert lost == [(ConnectionLost, ConnectionLost)]
    else:
        connection.ready(HttpProtocol.HTTP1, None)
        connection.write(b"GET")
        turns_until_lost(reactor, below)
        assert connection._loss is not None
        assert connection._loss[1] is CloseReason.CONNECTION_RESET


@pytest.mark.parametrize(
    ("met", "told"),
    [
        (errno.ECONNRESET, ConnectionLost),
        (errno.ETIMEDOUT, ConnectionLost),
        (errno.EHOSTUNREACH, ConnectionLost),
        (errno.EPIPE, ConnectionDone),
        (errno.ENOBUFS, ConnectionDone),
        (errno.EAGAIN, ConnectionDone),
    ],
)
def test_an_error_that_sending_meets_says_how_the_connection_ended(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, met: int, told: type[Exception]
) -> None:
    def failing(_data: bytes) -> int:
        raise OSError(met, "met while sending")

    monkeypatch.setattr(pair.transport, "_send", failing)
    pair.transport.write(b"x")
    assert pair.reactor.writers == {pair.below}
    assert how_tcp_ended(pair.transport, Failure(ConnectionDone())).type is told
    assert how_tcp_ended(pair.transport, Failure(ConnectionAborted())).type is ConnectionAborted


def test_after_an_abort_nothing_is_said(pair: Pair) -> None:
    pair.transport.abortConnection()
    pair.transport.write(b"x")
    assert pair.received() == b""
    assert not pair.reactor.writers


def test_a_handshake_that_is_given_up_at_its_end_says_nothing_more() -> None:
    """Not its last message, which would tell the peer that it was accepted, and no close_notify."""

    class Refusing(Protocol):
        completed = False

        def handshakeCompleted(self) -> None:
            self.completed = True
            self.transport.abortConnection()

    protocol = implementer(IHandshakeListener)(Refusing)()
    tls = ClientTLS(TLSProfile()).handshake("a.example", 443, [HttpProtocol.HTTP1]).wrap(protocol, Clock())
    pair = Pair(tls)
    context = SSL.Context(SSL.TLS_METHOD)
    trustme.CA().issue_cert("a.example").configure_cert(context)
    server = SSL.Connection(context, None)
    server.set_accept_state()
    try:
        tls.makeConnection(pair.below)
        server.bio_write(pair.received())
        with pytest.raises(SSL.WantReadError):
            server.do_handshake()
        tls.dataReceived(server.bio_read(65536))
        assert protocol.completed
        assert pair.received() == b""
    finally:
        pair.close()


def test_after_it_was_told_to_close_twisted_has_the_last_word(pair: Pair) -> None:
    pair.transport.loseConnection()
    pair.transport.write(b"x")
    assert pair.received() == b""
    pair.reactor.turn()
    assert pair.received() == b"x"


def test_a_producer_is_asked_for_more_by_twisted(pair: Pair) -> None:
    class Pulled:
        asked = 0

        def resumeProducing(self) -> None:
            self.asked += 1

        def stopProducing(self) -> None:
            pass

    producer = Pulled()
    pair.transport.registerProducer(producer, False)
    asked = producer.asked
    pair.transport.write(b"x")
    pair.reactor.turn()
    assert pair.received() == b"x"
    assert producer.asked > asked
    pair.transport.unregisterProducer()


def test_nothing_is_written_to_a_connection_that_is_gone(pair: Pair) -> None:
    pair.below.connected = 0
    pair.transport.write(b"x")
    assert pair.received() == b""
    assert not pair.reactor.writers


def test_it_passes_for_the_transport_that_it_is_before(pair: Pair) -> None:
    assert isinstance(pair.transport, AtOnce)
    assert ITCPTransport.providedBy(pair.transport)
    assert ISystemHandle.providedBy(pair.transport)
    assert pair.transport.getHandle() is pair.ours


def test_a_transport_of_another_kind_is_left_as_it_is(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    other = StringTransport()
    assert at_once(other) is other
    pair.below.TLS = True
    assert at_once(pair.below) is pair.below
    pair.below.TLS = False
    assert at_once(pair.below) is not pair.below
    monkeypatch.setattr(room, "_LOOKED_AT", (*room._LOOKED_AT, "what a later Twisted may have renamed"))
    assert at_once(pair.below) is pair.below


def test_tls_sends_at_once_too() -> None:
    handshake = ClientTLS(TLSProfile()).handshake("shop.example", 443, [HttpProtocol.HTTP1])
    tls = handshake.wrap(Protocol(), Clock())
    pair = Pair(tls)
    try:
        tls.makeConnection(pair.below)
        hello = pair.received()
        assert hello[:1] == b"\x16"
        assert b"shop.example" in hello
        assert not pair.reactor.writers
    finally:
        pair.close()


def test_a_connection_in_cleartext_does(pair: Pair) -> None:
    connection = PoolConnection(pair.reactor, "a.example:80", EngineConfig(), Opened(), secure=False)
    connection.makeConnection(pair.below)
    connection.write(b"GET")
    assert pair.received() == b"GET"
    assert connection.bytes_sent == 3
