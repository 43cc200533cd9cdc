"""The dialer against servers on this machine: from a route to a connection that is ready, or one clear error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from scrapy.resolver import CachingHostnameResolver, CachingThreadedResolver, dnscache
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.task import Clock

from scrapy_poolplus.core.errors import (
    CancelledError,
    ConnectError,
    ConnectionLostError,
    ConnectRefusedError,
    Phase,
    PhaseTimeoutError,
    PoolPlusError,
    ResolveError,
    TLSError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, Proxy, Route
from scrapy_poolplus.net.connection import Connection
from scrapy_poolplus.net.dialer import Dial, Dialer
from scrapy_poolplus.net.tls import TLSProfile
from scrapy_poolplus.net.wire import EngineConfig
from tests.peers.engines import RecordingConnectionOwner, SilentEngine
from tests.peers.listening import Accepted, Listening, ServerTLS
from tests.peers.machine import Machine, Names

BOTH = (HttpProtocol.HTTP2, HttpProtocol.HTTP1)
SETTING = 'connect_timeout of "*.example"'


@pytest.fixture
def leaf(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("localhost", "127.0.0.1", "a.example")


def dial(
    host: str,
    port: int,
    *,
    scheme: str = "https",
    protocols: tuple[HttpProtocol, ...] = BOTH,
    bind: tuple[str, int] | None = None,
    timeout: float | None = None,
    machine: Any = None,
) -> Dial:
    """Begin to dial, certificates not verified."""
    from twisted.internet import reactor

    dialer = Dialer(machine or reactor, TLSProfile(), make_engine=SilentEngine)
    route = Route(Origin.of(scheme, host, port), bind=bind)
    return dialer.dial(route, protocols, EngineConfig(), timeout=timeout, setting=SETTING)


def named(*addresses: str, clock: Clock | None = None) -> Machine:
    """The machine where ``a.example`` has these addresses."""
    from twisted.internet import reactor

    return Machine(reactor, Names({"a.example": addresses}), clock)


async def ended(connection: Connection) -> None:
    """Close it, and wait until its socket is gone."""
    gone: Deferred[None] = Deferred()
    connection.when_gone = lambda: gone.callback(None)
    connection.close()
    await gone


async def failure_of(attempt: Dial) -> PoolPlusError:
    with pytest.raises(PoolPlusError) as raised:
        await attempt.result
    return raised.value


# What is agreed on.


@ensureDeferred
async def test_h2_is_spoken_where_the_server_picks_it(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    tls = ServerTLS(leaf, tmp_path, alpn=[b"h2", b"http/1.1"])
    server = listening.start(tls)
    connection = await dial("localhost", server.port).result
    assert connection.protocol is HttpProtocol.HTTP2
    assert tls.offered == [[b"h2", b"http/1.1"]]
    await ended(connection)


@ensureDeferred
async def test_the_order_of_protocols_is_the_order_of_the_offer(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    tls = ServerTLS(leaf, tmp_path, alpn=[b"http/1.1"])
    server = listening.start(tls)
    connection = await dial("localhost", server.port, protocols=BOTH[::-1]).result
    assert connection.protocol is HttpProtocol.HTTP1
    assert tls.offered == [[b"http/1.1", b"h2"]]
    await ended(connection)


@ensureDeferred
async def test_http1_alone_is_offered_alone(listening: Listening, leaf: trustme.LeafCert, tmp_path: Path) -> None:
    tls = ServerTLS(leaf, tmp_path, alpn=[b"h2", b"http/1.1"])
    server = listening.start(tls)
    connection = await dial("localhost", server.port, protocols=(HttpProtocol.HTTP1,)).result
    assert connection.protocol is HttpProtocol.HTTP1
    assert tls.offered == [[b"http/1.1"]]
    await ended(connection)


@ensureDeferred
async def test_a_server_without_alpn_gets_http1(listening: Listening, leaf: trustme.LeafCert, tmp_path: Path) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path))
    connection = await dial("localhost", server.port).result
    assert connection.protocol is HttpProtocol.HTTP1
    await ended(connection)


@ensureDeferred
async def test_a_server_that_picks_nothing_while_only_h2_was_offered_is_an_error(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path, alpn=[b"http/1.1"]))
    error = await failure_of(dial("localhost", server.port, protocols=(HttpProtocol.HTTP2,)))
    assert isinstance(error, TLSError)
    assert str(error) == (
        f"TLS handshake with localhost:{server.port} failed: h2 offered, the server picked none of them"
    )
    await server.all_gone()


@ensureDeferred
async def test_cleartext_is_http1(listening: Listening) -> None:
    server = listening.start()
    connection = await dial("localhost", server.port, scheme="http").result
    assert connection.protocol is HttpProtocol.HTTP1
    assert (connection.tls_version, connection.certificate) == (None, None)
    await ended(connection)


@ensureDeferred
async def test_a_ready_connection_knows_its_peer_certificate_and_times(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path))
    connection = await dial("localhost", server.port).result
    assert str(connection.peer) == "127.0.0.1"
    assert connection.tls_version == "TLSv1.3"
    assert connection.tls_cipher is not None
    assert connection.tls_cipher.startswith("TLS_")
    await ended(connection)
    # Also when the connection is gone: a body may end with it.
    assert connection.certificate is not None
    dumped = connection.certificate.dumpPEM()
    assert dumped.split() == leaf.cert_chain_pems[0].bytes().split()
    assert connection.timings.resolve > 0
    assert connection.timings.connect > 0
    assert connection.timings.tls > 0


@ensureDeferred
async def test_what_a_server_sends_with_its_last_handshake_packet_is_not_lost(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path, alpn=[b"h2"]))
    server.on_accept = lambda accepted: accepted.transport.write(b"settings")
    connection = await dial("localhost", server.port).result
    connection.attach(RecordingConnectionOwner())
    engine = connection._engine
    assert isinstance(engine, SilentEngine)
    connection.write(b"!")
    server.on_data = lambda accepted: accepted.transport.loseConnection()
    gone: Deferred[None] = Deferred()
    connection.when_gone = lambda: gone.callback(None)
    await gone
    assert engine.received == b"settings"


# Names.


@ensureDeferred
@pytest.mark.parametrize("host", ["foo_bar.example", "xn--i-7iq.ws", "a.example.", "-a-.example", "xn--a.example"])
async def test_names_in_ascii_are_looked_up_and_asked_for_as_they_are(
    host: str, listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    from twisted.internet import reactor

    tls = ServerTLS(leaf, tmp_path)
    server = listening.start(tls)
    names = Names({host: ["127.0.0.1"]})
    connection = await dial(host, server.port, machine=Machine(reactor, names)).result
    assert names.asked == [host]
    assert tls.server_names == [host.removesuffix(".").encode()]
    await ended(connection)


@ensureDeferred
async def test_other_names_are_encoded(listening: Listening, leaf: trustme.LeafCert, tmp_path: Path) -> None:
    from twisted.internet import reactor

    tls = ServerTLS(leaf, tmp_path)
    server = listening.start(tls)
    names = Names({"xn--i-7iq.ws": ["127.0.0.1"]})
    connection = await dial("i❤.ws", server.port, machine=Machine(reactor, names)).result
    assert tls.server_names == [b"xn--i-7iq.ws"]
    await ended(connection)


@ensureDeferred
async def test_an_address_is_neither_looked_up_nor_sent_as_server_name(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    from twisted.internet import reactor

    tls = ServerTLS(leaf, tmp_path)
    server = listening.start(tls)
    names = Names({})
    connection = await dial("127.0.0.1", server.port, machine=Machine(reactor, names)).result
    assert names.asked == []
    assert tls.server_names == [None]
    await ended(connection)


@ensureDeferred
async def test_ipv6_addresses_are_dialled(listening: Listening) -> None:
    try:
        server = listening.start(interface="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    connection = await dial("[::1]", server.port, scheme="http").result
    assert str(connection.peer) == "::1"
    await ended(connection)


@ensureDeferred
async def test_a_name_without_address_is_a_resolve_error(listening: Listening) -> None:
    error = await failure_of(dial("a.example", 443, machine=named()))
    assert isinstance(error, ResolveError)
    assert str(error) == "name resolution of a.example failed: no address found"


@ensureDeferred
async def test_a_name_the_system_does_not_know_is_a_resolve_error(listening: Listening) -> None:
    error = await failure_of(dial("dns.resolution.invalid", 443))
    assert isinstance(error, ResolveError)
    assert error.phase is Phase.RESOLVE


@ensureDeferred
@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", ".", "a\0b.example", "b." * 130])
async def test_what_can_be_no_name_is_an_error_at_once(host: str, listening: Listening) -> None:
    # Given to Twisted's resolver, these would never be answered: getaddrinfo raises UnicodeError in its thread.
    error = await failure_of(dial(host, 443))
    assert isinstance(error, ResolveError)
    assert "is not a host name" in str(error)


class Raising:
    """A resolver that fails before it answers."""

    def resolveHostName(self, *args: object) -> None:
        raise LookupError("odd")


class Chatty(Names):
    """A resolver that goes on after it has ended."""

    def resolveHostName(self, receiver: Any, *args: Any) -> None:
        super().resolveHostName(receiver, *args)
        receiver.resolutionComplete()
        raise LookupError("odd")


@ensureDeferred
async def test_an_odd_resolver_gives_a_resolve_error(listening: Listening) -> None:
    from twisted.internet import reactor

    error = await failure_of(dial("a.example", 443, machine=Machine(reactor, Raising())))
    assert isinstance(error, ResolveError)
    assert str(error) == "name resolution of a.example failed: LookupError: odd"
    assert isinstance(error.__cause__, LookupError)


@ensureDeferred
async def test_the_first_answer_of_an_odd_resolver_stands(listening: Listening) -> None:
    from twisted.internet import reactor

    server = listening.start()
    machine = Machine(reactor, Chatty({"a.example": ["127.0.0.1"]}))
    await ended(await dial("a.example", server.port, scheme="http", machine=machine).result)


@pytest.fixture
def empty_dns_cache() -> Any:
    before = dict(dnscache), dnscache.limit
    dnscache.clear()
    yield dnscache
    dnscache.clear()
    dnscache.update(before[0])
    dnscache.limit = before[1]


@ensureDeferred
async def test_scrapys_caching_name_resolver_is_obeyed(listening: Listening, empty_dns_cache: Any) -> None:
    from twisted.internet import reactor

    server = listening.start()
    inner = Names({"a.example": ["127.0.0.1"]})
    machine = Machine(reactor, inner)
    machine.nameResolver = CachingHostnameResolver(machine, 10)  # type: ignore[arg-type]
    for _ in range(2):  # The second answer comes from its cache, and it returns the receiver.
        await ended(await dial("a.example", server.port, scheme="http", machine=machine).result)
    assert inner.asked == ["a.example"]


@ensureDeferred
async def test_scrapys_threaded_resolver_is_obeyed(listening: Listening, empty_dns_cache: Any) -> None:
    from twisted.internet import reactor

    server = listening.start()
    before = reactor.nameResolver
    old = reactor.installResolver(CachingThreadedResolver(reactor, 10, 5.0))  # type: ignore[arg-type]
    try:
        await ended(await dial("localhost", server.port, scheme="http").result)
        assert dict(empty_dns_cache) == {"localhost": "127.0.0.1"}
        error = await failure_of(dial("dns.resolution.invalid", server.port, scheme="http"))
    finally:
        reactor.installResolver(old)
        reactor.installNameResolver(before)
    assert isinstance(error, ResolveError)


# Connecting.


@contextmanager
def unanswering() -> Iterator[int]:
    """A port whose backlog is full: the kernel answers no SYN."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port: int = full.getsockname()[1]
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@ensureDeferred
async def test_a_refused_connection_is_told_at_once(listening: Listening) -> None:
    port = unused_port()
    error = await failure_of(dial("127.0.0.1", port))
    assert isinstance(error, ConnectRefusedError)
    assert error.phase is Phase.CONNECT
    assert str(error) == f"connecting to 127.0.0.1:{port} failed: 127.0.0.1: Connection refused"


@ensureDeferred
async def test_the_address_that_answers_is_used(listening: Listening) -> None:
    server = listening.start(interface="127.0.0.3")
    connection = await dial("a.example", server.port, scheme="http", machine=named("127.0.0.2", "127.0.0.3")).result
    assert str(connection.peer) == "127.0.0.3"
    await ended(connection)


@ensureDeferred
async def test_the_bind_address_is_what_the_server_sees(listening: Listening) -> None:
    server = listening.start()
    connection = await dial("127.0.0.1", server.port, scheme="http", bind=("127.0.0.2", 0)).result
    await server.until(lambda: bool(server.connections))
    assert server.connections[0].transport.getPeer().host == "127.0.0.2"
    await ended(connection)


@ensureDeferred
async def test_addresses_of_another_family_than_the_bind_address_are_dropped(listening: Listening) -> None:
    server = listening.start()
    machine = named("::1", "127.0.0.1")
    connection = await dial("a.example", server.port, scheme="http", bind=("127.0.0.2", 0), machine=machine).result
    assert str(connection.peer) == "127.0.0.1"
    await ended(connection)


@ensureDeferred
async def test_no_address_of_the_bind_addresss_family_is_an_error_that_says_so(listening: Listening) -> None:
    error = await failure_of(dial("a.example", 443, bind=("::1", 0), machine=named("127.0.0.1")))
    assert isinstance(error, ResolveError)
    assert str(error) == "a.example has no IPv6 address, and the bind address ::1 can reach no other"


# Twisted does not close that socket, which ends with its last reference all the same.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@ensureDeferred
async def test_a_bind_address_that_is_not_ours_is_an_error_that_names_it(listening: Listening) -> None:
    server = listening.start()
    error = await failure_of(dial("127.0.0.1", server.port, bind=("192.0.2.1", 0)))
    assert type(error) is ConnectError
    assert "the bind address cannot be used (Cannot assign requested address)" in str(error)


@ensureDeferred
async def test_an_ipv6_zone_that_does_not_exist_is_an_error(listening: Listening) -> None:
    error = await failure_of(dial("fe80::1%nosuch", 443))
    assert type(error) is ConnectError


# The TLS handshake.


@ensureDeferred
async def test_a_reset_right_after_accept_is_a_lost_connection_in_the_tls_phase(listening: Listening) -> None:
    server = listening.start()
    server.on_accept = lambda accepted: accepted.transport.abortConnection()
    error = await failure_of(dial("127.0.0.1", server.port))
    assert isinstance(error, ConnectionLostError)
    assert (error.phase, error.clean) == (Phase.TLS, False)
    assert str(error) == (
        f"TLS handshake with 127.0.0.1:{server.port} failed: the peer reset the connection, or it broke"
    )


@ensureDeferred
async def test_an_orderly_close_in_the_handshake_is_told_apart_from_a_reset(listening: Listening) -> None:
    server = listening.start()
    server.on_data = lambda accepted: accepted.transport.loseConnection()
    error = await failure_of(dial("127.0.0.1", server.port))
    assert isinstance(error, ConnectionLostError)
    assert (error.phase, error.clean) == (Phase.TLS, True)
    assert str(error).endswith("failed: the peer closed the connection")


@ensureDeferred
async def test_a_server_that_speaks_no_tls_is_a_tls_error_with_openssls_reason(listening: Listening) -> None:
    server = listening.start()

    def answer(accepted: Accepted) -> None:
        accepted.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server.on_data = answer
    error = await failure_of(dial("127.0.0.1", server.port))
    assert isinstance(error, TLSError)
    assert f"TLS handshake with 127.0.0.1:{server.port} failed: " in str(error)
    assert "wrong version number" in str(error) or "packet length" in str(error)


@ensureDeferred
async def test_the_result_comes_after_dial_has_returned(listening: Listening) -> None:
    attempt = dial("a.example", 443, machine=named())
    assert not attempt.result.called
    await failure_of(attempt)


# After the handshake: what the end of a real TLS connection means.


async def spoken(attempt: Dial) -> tuple[Connection, RecordingConnectionOwner, Deferred[None]]:
    """An attached connection that has sent a byte, its owner, and a Deferred for the end of its socket."""
    connection = await attempt.result
    owner = RecordingConnectionOwner()
    gone: Deferred[None] = Deferred()
    connection.when_gone = lambda: gone.callback(None)
    connection.attach(owner)
    connection.write(b"!")
    return connection, owner, gone


@ensureDeferred
@pytest.mark.parametrize(
    ("end", "clean", "why"),
    [
        (lambda accepted: accepted.transport.loseConnection(), True, CloseReason.PEER_CLOSED),
        # A FIN without close_notify: many servers never send one.
        (lambda accepted: accepted.transport.transport.loseConnection(), True, CloseReason.PEER_CLOSED),
        (lambda accepted: accepted.transport.abortConnection(), False, CloseReason.CONNECTION_RESET),
        (lambda accepted: accepted.transport.transport.write(b"no TLS"), False, CloseReason.PROTOCOL_ERROR),
    ],
    ids=["close_notify", "FIN", "RST", "garbage"],
)
async def test_how_a_tls_connection_ends_is_told_apart(
    *, end: Any, clean: bool, why: CloseReason, listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path))
    server.on_data = end
    _, owner, gone = await spoken(dial("localhost", server.port))
    await gone
    assert owner.end is not None
    error, reason = owner.end
    assert isinstance(error, ConnectionLostError)
    assert (error.clean, reason) == (clean, why)


@ensureDeferred
async def test_a_server_that_wants_a_client_certificate_is_told_by_its_alert(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    # In TLS 1.3 the client has finished its handshake before the server rejects it.
    def demand(context: SSL.Context) -> None:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *args: True)

    server = listening.start(ServerTLS(leaf, tmp_path, configure=demand))
    _, owner, gone = await spoken(dial("localhost", server.port))
    await gone
    assert owner.end is not None
    assert "alert certificate required" in str(owner.end[0])


@ensureDeferred
async def test_a_peer_that_never_answers_the_goodbye_is_cut_off_after_a_second(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path))
    server.on_data = lambda accepted: accepted.transport.pauseProducing()
    clock = Clock()
    attempt = dial("a.example", server.port, machine=named("127.0.0.1", clock=clock))
    clock.advance(0)
    connection, _, gone = await spoken(attempt)
    await server.spoken_to()
    connection.close()
    clock.advance(0.99)
    assert not gone.called
    clock.advance(0.01)
    await gone
    assert clock.getDelayedCalls() == []


# Time and cancel.


@ensureDeferred
async def test_a_stalled_tls_handshake_times_out_with_phase_place_number_and_setting(listening: Listening) -> None:
    server = listening.start()
    clock = Clock()
    attempt = dial("a.example", server.port, timeout=10.0, machine=named("127.0.0.1", clock=clock))
    clock.advance(0)
    await server.spoken_to()
    assert attempt.phase is Phase.TLS
    assert attempt.describe() == f"TLS handshake with a.example:{server.port}"
    clock.advance(9.9)
    assert not attempt.result.called
    clock.advance(0.1)
    error = await failure_of(attempt)
    assert isinstance(error, PhaseTimeoutError)
    assert str(error) == (f"TLS handshake with a.example:{server.port} took longer than 10.0 s ({SETTING})")
    assert (error.phase, error.seconds, error.setting) == (Phase.TLS, 10.0, SETTING)
    assert clock.getDelayedCalls() == []
    await server.all_gone()


@ensureDeferred
async def test_an_address_that_never_answers_times_out_as_connecting(listening: Listening) -> None:
    from twisted.internet import reactor

    with unanswering() as port:
        clock = Clock()
        attempt = dial("a.example", port, timeout=2.5, machine=named("127.0.0.1", clock=clock))
        clock.advance(0)
        await _turn(reactor)
        clock.advance(2.5)
        error = await failure_of(attempt)
    assert isinstance(error, PhaseTimeoutError)
    assert str(error) == f"connecting to a.example:{port} took longer than 2.5 s ({SETTING})"
    assert clock.getDelayedCalls() == []


class Mute:
    """A resolver that never answers while the test looks; `receiver` answers when the test says so."""

    receiver: Any = None

    def resolveHostName(self, receiver: Any, *args: object) -> None:
        self.receiver = receiver


@ensureDeferred
async def test_a_resolver_that_never_answers_times_out(listening: Listening) -> None:
    from twisted.internet import reactor

    clock = Clock()
    mute = Mute()
    attempt = dial("a.example", 443, timeout=0.35, machine=Machine(reactor, mute, clock))
    clock.advance(0)
    clock.advance(0.35)
    error = await failure_of(attempt)
    assert str(error) == f"name resolution of a.example took longer than 0.35 s ({SETTING})"
    mute.receiver.resolutionComplete()  # Too late, and nobody's matter.
    assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_a_ready_connection_has_no_timer_left(listening: Listening) -> None:
    server = listening.start()
    clock = Clock()
    attempt = dial("a.example", server.port, scheme="http", timeout=5.0, machine=named("127.0.0.1", clock=clock))
    clock.advance(0)
    connection = await attempt.result
    assert clock.getDelayedCalls() == []
    attempt.cancel()  # Too late: it is somebody's.
    assert connection.protocol is HttpProtocol.HTTP1
    connection.abort()
    await server.until(lambda: bool(server.connections))
    await server.all_gone()


@ensureDeferred
async def test_a_cancel_before_it_has_begun_leaves_nothing(listening: Listening) -> None:
    clock = Clock()
    attempt = dial("a.example", 443, timeout=5.0, machine=named("127.0.0.1", clock=clock))
    attempt.cancel()
    assert clock.getDelayedCalls() == []
    assert attempt.result.called


@ensureDeferred
async def test_a_cancel_while_a_name_is_resolved_leaves_nothing(listening: Listening) -> None:
    from twisted.internet import reactor

    clock = Clock()
    mute = Mute()
    attempt = dial("a.example", 443, timeout=5.0, machine=Machine(reactor, mute, clock))
    clock.advance(0)
    heard = failure_of(attempt)
    waiting = Deferred.fromCoroutine(heard)
    attempt.cancel()
    error = await waiting
    assert isinstance(error, CancelledError)
    assert str(error) == "name resolution of a.example was cancelled"
    mute.receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", 443))
    for _ in range(2):
        mute.receiver.resolutionComplete()
    assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_a_cancel_while_connecting_leaves_no_socket(listening: Listening) -> None:
    from twisted.internet import reactor

    with unanswering() as port:
        clock = Clock()
        attempt = dial("a.example", port, timeout=5.0, machine=named("127.0.0.1", clock=clock))
        clock.advance(0)
        await _turn(reactor)
        assert attempt.phase is Phase.CONNECT
        attempt.cancel()
        assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_a_cancel_in_the_tls_handshake_leaves_no_socket(listening: Listening) -> None:
    server = listening.start()
    clock = Clock()
    attempt = dial("a.example", server.port, timeout=5.0, machine=named("127.0.0.1", clock=clock))
    clock.advance(0)
    await server.spoken_to()
    assert attempt.phase is Phase.TLS
    attempt.cancel()
    attempt.cancel()
    assert clock.getDelayedCalls() == []
    await server.all_gone()


async def _turn(reactor: Any) -> None:
    turned: Deferred[None] = Deferred()
    reactor.callLater(0, turned.callback, None)
    await turned


# How long a name is kept.


class Cached(Names):
    """A resolver whose cache never expires by itself, as Scrapy's."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        super().__init__(names)
        self.cache: set[str] = set()

    def resolveHostName(self, receiver: IResolutionReceiver, host: str, port: int = 0, *args: object) -> None:
        before = len(self.asked)
        super().resolveHostName(receiver, host, port, *args)
        if host in self.cache:
            del self.asked[before:]
        self.cache.add(host)


@ensureDeferred
async def test_a_name_is_looked_up_anew_once_its_time_to_live_is_over(listening: Listening) -> None:
    from twisted.internet import reactor

    server, clock = listening.start(), Clock()
    names = Cached({"a.example": ["127.0.0.1"], "p.example": ["127.0.0.1"]})
    dialer = Dialer(
        Machine(reactor, names, clock),
        TLSProfile(),
        make_engine=SilentEngine,
        forget_name=names.cache.discard,
    )
    names.cache |= {"a.example", "p.example"}  # By somebody else, who knows when.

    async def looked_up(ttl: float | None, proxy: Proxy | None = None) -> list[str]:
        names.asked.clear()
        route = Route(Origin.of("http", "a.example", server.port), proxy=proxy)
        dial = dialer.dial(route, BOTH, EngineConfig(), timeout=None, setting=SETTING, resolve_ttl=ttl)
        clock.advance(0)
        await ended(await dial.result)
        return list(names.asked)

    assert await looked_up(None) == []
    assert await looked_up(60) == ["a.example"]
    clock.advance(59)
    assert await looked_up(60) == []
    clock.advance(1)
    assert await looked_up(60) == ["a.example"]
    assert await looked_up(0) == ["a.example"]
    # Through a proxy it is the proxy's name that is looked up, and no other.
    assert await looked_up(60, Proxy("http", "p.example", server.port)) == ["p.example"]
    assert await looked_up(60) == []
