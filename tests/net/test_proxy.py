"""Tunnels through small proxies in this process: what they are told, what of it goes no further, and how they refuse."""

from __future__ import annotations

import logging
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from scrapy_poolplus.core.errors import (
    ConnectionLostError,
    ConnectRefusedError,
    Phase,
    PhaseTimeoutError,
    PoolPlusError,
    ResolveError,
    TLSError,
    TunnelError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, Proxy, Route
from scrapy_poolplus.net.connection import Connection
from scrapy_poolplus.net.dialer import Dial, Dialer
from scrapy_poolplus.net.proxy import ConnectTalk, SocksTalk, TunnelAnswer
from scrapy_poolplus.net.tls import TLSProfile
from scrapy_poolplus.net.wire import EngineConfig
from tests.peers.engines import RecordingConnectionOwner, SilentEngine
from tests.peers.listening import Accepted, Listening, Server, ServerTLS
from tests.peers.machine import Machine, Names
from tests.peers.proxies import ESTABLISHED, HttpProxy, SocksProxy

BOTH = (HttpProtocol.HTTP2, HttpProtocol.HTTP1)
LOGIN = (b"user", b"pass:word")
SECRET = b64encode(b":".join(LOGIN))
BASIC = b"Basic " + SECRET
NAMES = Names({"p.example": ["127.0.0.1"]})


def dial(
    target: str, port: int, proxy: Proxy, *, scheme: str = "https", verify: bool = False, clock: Clock | None = None
) -> Dial:
    """Begin to dial through `proxy`; only ``p.example`` can be looked up here."""
    from twisted.internet import reactor

    machine = Machine(reactor, NAMES, clock)
    dialer = Dialer(machine, TLSProfile(verify=verify), make_engine=SilentEngine)
    route = Route(Origin.of(scheme, target, port), proxy=proxy)
    return dialer.dial(route, BOTH, EngineConfig(), timeout=10.0, setting="connect_timeout")


def via(proxy: HttpProxy | SocksProxy | Server, scheme: str = "http", authorization: bytes | None = None) -> Proxy:
    return Proxy(scheme, "p.example", proxy.port, authorization)


async def ended(connection: Connection) -> None:
    gone: Deferred[None] = Deferred()
    connection.when_gone = lambda: gone.callback(None)
    connection.close()
    await gone


async def failure_of(attempt: Dial) -> PoolPlusError:
    with pytest.raises(PoolPlusError) as raised:
        await attempt.result
    return raised.value


@pytest.fixture
def origin_tls(authority: trustme.CA, tmp_path: Path) -> ServerTLS:
    return ServerTLS(authority.issue_cert("a.example"), tmp_path, alpn=[b"h2", b"http/1.1"])


@pytest.fixture
def origin(listening: Listening, origin_tls: ServerTLS) -> Server:
    return listening.start(origin_tls)


@pytest.fixture
def proxy_tls(authority: trustme.CA, tmp_path: Path) -> ServerTLS:
    return ServerTLS(authority.issue_cert("p.example"), tmp_path, alpn=[b"http/1.1"])


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.fixture(autouse=True)
def credentials_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET.decode() not in caplog.text
    assert LOGIN[1].decode() not in caplog.text


# HTTP CONNECT.


@ensureDeferred
async def test_h2_is_spoken_through_a_tunnel(listening: Listening, origin: Server, origin_tls: ServerTLS) -> None:
    proxy = HttpProxy(listening.start())
    connection = await dial("a.example", origin.port, via(proxy)).result
    assert connection.protocol is HttpProtocol.HTTP2
    assert origin_tls.server_names == [b"a.example"]
    assert connection.certificate is not None
    assert proxy.heads == [
        f"CONNECT a.example:{origin.port} HTTP/1.1\r\nHost: a.example:{origin.port}\r\n\r\n".encode()
    ]
    assert connection.timings.tunnel > 0
    await ended(connection)


@ensureDeferred
async def test_bytes_go_both_ways_through_a_tunnel(listening: Listening, origin: Server) -> None:
    origin.on_data = lambda accepted: accepted.transport.write(b"back")
    proxy = HttpProxy(listening.start())
    connection = await dial("a.example", origin.port, via(proxy)).result
    connection.attach(RecordingConnectionOwner())
    engine: Any = connection._engine
    answered: Deferred[None] = Deferred()
    received = engine.receive

    def receive(data: bytes, now: float) -> None:
        received(data, now)
        answered.callback(None)

    engine.receive = receive
    connection.write(b"there")
    await answered
    assert (origin.connections[0].received, engine.received) == (b"there", b"back")
    assert (connection.bytes_sent, connection.bytes_received) == (5, 4)
    await ended(connection)


@ensureDeferred
async def test_credentials_go_to_the_proxy_and_no_further(listening: Listening, origin: Server) -> None:
    proxy = HttpProxy(listening.start())
    attempt = dial("a.example", origin.port, via(proxy, authorization=BASIC))
    connection = await attempt.result
    connection.write(b"!")
    await origin.spoken_to()
    assert b"\r\nProxy-Authorization: " + BASIC + b"\r\n" in proxy.heads[0]
    assert origin.connections[0].received == b"!"
    for shown in (repr(connection), attempt.describe(), repr(via(proxy, authorization=BASIC))):
        assert SECRET.decode() not in shown
    await ended(connection)


@ensureDeferred
async def test_an_answer_may_come_in_any_number_of_packets(listening: Listening, origin: Server) -> None:
    from twisted.internet import reactor

    proxy = HttpProxy(listening.start())

    def trickle(client: Any, answer: bytes) -> None:
        client.transport.setTcpNoDelay(True)
        client.transport.write(answer[:1])
        if answer[1:]:
            reactor.callLater(0, trickle, client, answer[1:])

    proxy.say = trickle
    connection = await dial("a.example", origin.port, via(proxy)).result
    assert connection.protocol is HttpProtocol.HTTP2
    await ended(connection)


@ensureDeferred
async def test_the_headers_of_the_answer_are_kept(listening: Listening, origin: Server) -> None:
    proxy = HttpProxy(listening.start(), b"HTTP/1.1 200 OK\r\nX-Exit: 192.0.2.1\r\nContent-Length: 5\r\n\r\n")
    connection = await dial("a.example", origin.port, via(proxy)).result
    assert connection.tunnel == TunnelAnswer(200, ((b"X-Exit", b"192.0.2.1"), (b"Content-Length", b"5")))
    await ended(connection)


@ensureDeferred
async def test_wrong_credentials_are_an_error_that_names_proxy_and_status(listening: Listening) -> None:
    proxy = HttpProxy(listening.start(), b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\nno")
    error = await failure_of(dial("a.example", 443, via(proxy, authorization=BASIC)))
    assert isinstance(error, TunnelError)
    assert error.phase is Phase.TUNNEL
    assert str(error) == (
        f"proxy tunnel to a.example:443 via proxy http://p.example:{proxy.port} failed: "
        "the proxy answered 407 Proxy Authentication Required"
    )


@ensureDeferred
@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"nonsense", b"HTTP/1.1 OK\r\n\r\n", b"HTTPS rules\r\n\r\n", b"\x15\x03\x01"]
)
async def test_an_answer_that_is_no_http_is_an_error_that_shows_it(answer: bytes, listening: Listening) -> None:
    proxy = HttpProxy(listening.start(), answer)
    error = await failure_of(dial("a.example", 443, via(proxy)))
    assert isinstance(error, TunnelError)
    assert repr(answer.decode("latin-1").strip())[1:-1] in str(error)


@ensureDeferred
@pytest.mark.parametrize(
    "echo",
    [
        b"got " + BASIC,
        b"HTTP/1.1 403 no " + SECRET + b" here\r\n\r\n",
        b"HTTP/1.1 403 no pass:word here\r\n\r\n",
        ESTABLISHED + b"for user:pass:word",
    ],
)
async def test_credentials_that_a_proxy_repeats_are_not_shown(
    echo: bytes, listening: Listening, origin: Server
) -> None:
    proxy = HttpProxy(listening.start(), echo)
    error = await failure_of(dial("a.example", origin.port, via(proxy, authorization=BASIC)))
    assert isinstance(error, TunnelError)
    assert SECRET.decode() not in str(error)
    assert "word" not in str(error)
    assert "***" in str(error)


@ensureDeferred
async def test_bytes_after_the_answer_and_before_tls_are_an_error(listening: Listening, origin: Server) -> None:
    proxy = HttpProxy(listening.start(), ESTABLISHED + b"welcome")
    error = await failure_of(dial("a.example", origin.port, via(proxy)))
    assert isinstance(error, TunnelError)
    assert str(error).endswith("failed: after its answer, and before TLS began, the proxy sent 'welcome'")


@ensureDeferred
async def test_later_bytes_that_are_no_tls_are_a_tls_error(listening: Listening) -> None:
    server = listening.start()
    # As a proxy that opens a tunnel to something else.
    server.on_data = lambda client: client.transport.write(
        ESTABLISHED if client.received.endswith(b"\r\n\r\n") else b"not TLS at all"
    )
    error = await failure_of(dial("a.example", 443, via(server)))
    assert isinstance(error, TLSError)
    assert f"TLS handshake with a.example:443 via proxy http://p.example:{server.port} failed: " in str(error)


@ensureDeferred
@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("loseConnection", "the proxy closed the connection without an answer"),
        ("abortConnection", "the proxy reset the connection without an answer"),
    ],
)
async def test_a_proxy_that_hangs_up_is_a_tunnel_error(end: str, text: str, listening: Listening) -> None:
    server = listening.start()
    server.on_data = lambda client: getattr(client.transport, end)()
    error = await failure_of(dial("a.example", 443, via(server)))
    assert isinstance(error, TunnelError)
    assert str(error).endswith(text)


@ensureDeferred
async def test_a_proxy_that_hangs_up_in_its_answer_is_an_error_that_shows_it(listening: Listening) -> None:
    proxy = HttpProxy(listening.start(), b"HTTP/1.1 50")

    def say(client: Any, answer: bytes) -> None:
        client.transport.write(answer)
        client.transport.loseConnection()

    proxy.say = say
    error = await failure_of(dial("a.example", 443, via(proxy)))
    assert str(error).endswith("the proxy closed the connection after 'HTTP/1.1 50'")


@ensureDeferred
async def test_a_refused_proxy_is_a_refused_connection_that_names_the_proxy(listening: Listening) -> None:
    server = listening.start()
    await listening.stop()
    error = await failure_of(dial("a.example", 443, via(server)))
    assert isinstance(error, ConnectRefusedError)
    assert str(error).startswith(f"connecting to proxy http://p.example:{server.port} failed: 127.0.0.1: ")


@ensureDeferred
async def test_a_proxy_that_cannot_be_resolved_is_a_resolve_error_that_names_it(listening: Listening) -> None:
    error = await failure_of(dial("a.example", 443, Proxy("http", "nosuch.example", 80)))
    assert isinstance(error, ResolveError)
    assert str(error) == "name resolution of nosuch.example failed: no address found"


@ensureDeferred
async def test_a_silent_proxy_times_out_with_the_proxy_named_and_leaves_no_socket(listening: Listening) -> None:
    server = listening.start()
    clock = Clock()
    attempt = dial("a.example", 443, via(server, authorization=BASIC), clock=clock)
    clock.advance(0)
    await server.spoken_to()
    assert attempt.phase is Phase.TUNNEL
    clock.advance(10.0)
    error = await failure_of(attempt)
    assert isinstance(error, PhaseTimeoutError)
    assert str(error) == (
        f"proxy tunnel to a.example:443 via proxy http://p.example:{server.port} took longer than 10.0 s"
        " (connect_timeout)"
    )
    await server.all_gone()
    assert clock.getDelayedCalls() == []


@ensureDeferred
async def test_silence_in_the_tls_handshake_behind_a_tunnel_times_out(listening: Listening) -> None:
    origin = listening.start()
    proxy = HttpProxy(listening.start())
    clock = Clock()
    attempt = dial("a.example", origin.port, via(proxy), clock=clock)
    clock.advance(0)
    await origin.spoken_to()
    clock.advance(10.0)
    error = await failure_of(attempt)
    assert isinstance(error, PhaseTimeoutError)
    assert error.phase is Phase.TLS
    assert f"TLS handshake with a.example:{origin.port} via proxy http://p.example:{proxy.port} took" in str(error)
    await origin.all_gone()


@ensureDeferred
@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_cancel_in_the_tunnel_leaves_no_socket(
    *, over_tls: bool, listening: Listening, proxy_tls: ServerTLS
) -> None:
    server = listening.start(proxy_tls if over_tls else None)
    attempt = dial("a.example", 443, via(server, "https" if over_tls else "http"))
    await server.spoken_to()
    attempt.cancel()
    await server.all_gone()


@ensureDeferred
async def test_an_unknown_kind_of_proxy_is_a_tunnel_error(listening: Listening) -> None:
    error = await failure_of(dial("a.example", 443, Proxy("socks4", "p.example", 1080)))
    assert isinstance(error, TunnelError)
    assert "socks4 is not http, https, socks5 or socks5h" in str(error)


@ensureDeferred
async def test_an_http_origin_behind_an_http_proxy_needs_no_tunnel(listening: Listening) -> None:
    server = listening.start()
    connection = await dial("a.example", 80, via(server, authorization=BASIC), scheme="http").result
    connection.write(b"GET http://a.example/")
    await server.spoken_to()
    assert server.connections[0].received == b"GET http://a.example/"
    assert connection.tunnel is None
    await ended(connection)


# TLS with the proxy.


@ensureDeferred
async def test_tls_is_spoken_inside_tls(
    trusted: None, listening: Listening, origin: Server, origin_tls: ServerTLS, proxy_tls: ServerTLS
) -> None:
    proxy = HttpProxy(listening.start(proxy_tls))
    connection = await dial("a.example", origin.port, via(proxy, "https", BASIC), verify=True).result
    assert connection.protocol is HttpProtocol.HTTP2
    assert (proxy_tls.server_names, origin_tls.server_names) == ([b"p.example"], [b"a.example"])
    assert (proxy_tls.offered, origin_tls.offered) == ([[b"http/1.1"]], [[b"h2", b"http/1.1"]])
    assert b"Proxy-Authorization: " + BASIC in proxy.heads[0]
    connection.write(b"!")
    await origin.spoken_to()
    assert origin.connections[0].received == b"!"
    await ended(connection)


def lose(accepted: Accepted) -> None:
    """Orderly, with close_notify where TLS is spoken."""
    accepted.transport.loseConnection()


def lose_tcp(accepted: Accepted) -> None:
    """A FIN without close_notify."""
    accepted.transport.transport.loseConnection()


def reset_tcp(accepted: Accepted) -> None:
    accepted.transport.transport.abortConnection()


@ensureDeferred
@pytest.mark.parametrize(
    ("scheme", "origin_ends", "proxy_ends", "clean"),
    [
        ("http", lose, lose, True),
        ("http", lose_tcp, lose, True),
        ("https", lose, lose, True),
        ("https", lose_tcp, lose, True),
        ("https", lose_tcp, lose_tcp, True),
        ("https", lose_tcp, reset_tcp, False),
    ],
)
async def test_how_a_tunnel_ends_is_told_as_without_one(
    *,
    scheme: str,
    origin_ends: Any,
    proxy_ends: Any,
    clean: bool,
    listening: Listening,
    origin: Server,
    proxy_tls: ServerTLS,
) -> None:
    origin.on_data = origin_ends
    proxy = HttpProxy(listening.start(proxy_tls if scheme == "https" else None))
    proxy.hang_up = proxy_ends
    connection = await dial("a.example", origin.port, via(proxy, scheme)).result
    owner = RecordingConnectionOwner()
    gone: Deferred[None] = Deferred()
    connection.when_gone = lambda: gone.callback(None)
    connection.attach(owner)
    connection.write(b"!")
    await gone
    assert owner.end is not None
    error, reason = owner.end
    assert isinstance(error, ConnectionLostError)
    assert (error.clean, reason) == (clean, CloseReason.PEER_CLOSED if clean else CloseReason.CONNECTION_RESET)
    assert f"a.example:{origin.port} via proxy {via(proxy, scheme)} " in str(error)


@ensureDeferred
async def test_an_http_origin_behind_a_tls_proxy_has_no_certificate(listening: Listening, proxy_tls: ServerTLS) -> None:
    server = listening.start(proxy_tls)
    connection = await dial("a.example", 80, via(server, "https"), scheme="http").result
    assert (connection.protocol, connection.certificate) == (HttpProtocol.HTTP1, None)
    connection.write(b"GET http://a.example/")
    await server.spoken_to()
    assert server.connections[0].received == b"GET http://a.example/"
    await ended(connection)


@ensureDeferred
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_tls_proxy_that_is_not_trusted_gets_no_credentials(
    scheme: str, listening: Listening, proxy_tls: ServerTLS
) -> None:
    server = listening.start(proxy_tls)
    attempt = dial("a.example", 443, via(server, "https", BASIC), scheme=scheme, verify=True)
    error = await failure_of(attempt)
    assert isinstance(error, TLSError)
    assert f"proxy https://p.example:{server.port}" in str(error)
    assert "certificate verify failed: unable to get local issuer certificate" in str(error)
    await server.all_gone()
    assert server.connections[0].received == b""


@ensureDeferred
async def test_a_tls_proxy_with_a_wrong_name_gets_no_credentials(
    trusted: None, listening: Listening, origin_tls: ServerTLS
) -> None:
    server = listening.start(origin_tls)
    error = await failure_of(dial("a.example", 443, via(server, "https", BASIC), verify=True))
    assert isinstance(error, TLSError)
    assert 'failed: TLS with the proxy: certificate is not valid for "p.example": ' in str(error)
    await server.all_gone()
    assert server.connections[0].received == b""


@ensureDeferred
async def test_a_tls_proxy_that_speaks_no_tls_is_a_tls_error(listening: Listening) -> None:
    server = listening.start()
    server.on_data = lambda client: client.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    error = await failure_of(dial("a.example", 443, via(server, "https")))
    assert isinstance(error, TLSError)
    assert "failed: TLS with the proxy: " in str(error)


# SOCKS5.


@ensureDeferred
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_socks_proxies_resolve_the_names(scheme: str, listening: Listening, origin: Server) -> None:
    proxy = SocksProxy(listening.start())
    NAMES.asked.clear()
    connection = await dial("a.example", origin.port, via(proxy, scheme)).result
    assert connection.protocol is HttpProtocol.HTTP2
    assert proxy.methods == [b"\x00"]
    assert proxy.targets == [(3, b"a.example", origin.port)]
    assert NAMES.asked == ["p.example"]
    await ended(connection)


@ensureDeferred
@pytest.mark.parametrize(
    ("target", "kind", "address"),
    [("192.0.2.1", 1, bytes([192, 0, 2, 1])), ("[2001:db8::1]", 4, bytes.fromhex("20010db8" + "0" * 23 + "1"))],
)
async def test_addresses_go_to_a_socks_proxy_as_addresses(
    target: str, kind: int, address: bytes, listening: Listening, origin: Server
) -> None:
    proxy = SocksProxy(listening.start())
    connection = await dial(target, origin.port, via(proxy, "socks5")).result
    assert proxy.targets == [(kind, address, origin.port)]
    await ended(connection)


@ensureDeferred
async def test_a_socks_proxy_is_told_user_and_password_when_it_asks(listening: Listening, origin: Server) -> None:
    proxy = SocksProxy(listening.start(), login=LOGIN)
    connection = await dial("a.example", origin.port, via(proxy, "socks5", BASIC)).result
    assert (proxy.methods, proxy.logins) == ([b"\x00\x02"], [LOGIN])
    await ended(connection)


@ensureDeferred
async def test_a_socks_proxy_that_does_not_ask_is_told_no_password(listening: Listening, origin: Server) -> None:
    proxy = SocksProxy(listening.start())
    connection = await dial("a.example", origin.port, via(proxy, "socks5", BASIC)).result
    assert proxy.logins == []
    await ended(connection)


@ensureDeferred
async def test_an_http_origin_is_reached_in_cleartext_through_socks(listening: Listening) -> None:
    origin = listening.start()
    proxy = SocksProxy(listening.start())
    proxy.bound += b"early"  # In one packet with the proxy's last word.
    connection = await dial("a.example", origin.port, via(proxy, "socks5"), scheme="http").result
    assert connection.certificate is None
    connection.attach(RecordingConnectionOwner())
    connection.write(b"GET /")
    await origin.spoken_to()
    engine: Any = connection._engine
    assert engine.received == b"early"
    assert origin.connections[0].received == b"GET /"
    await ended(connection)


@ensureDeferred
@pytest.mark.parametrize(
    ("authorization", "text"),
    [
        (b"Basic " + b64encode(b"user:wrong"), "wrong user name or password"),
        (None, "it wants a login"),
    ],
)
async def test_wrong_socks_credentials_are_a_refused_connection(
    authorization: bytes | None, text: str, listening: Listening
) -> None:
    proxy = SocksProxy(listening.start(), login=LOGIN)
    error = await failure_of(dial("a.example", 443, via(proxy, "socks5", authorization)))
    assert isinstance(error, ConnectRefusedError)
    assert str(error) == (
        f"proxy tunnel to a.example:443 via proxy socks5://p.example:{proxy.port} was refused: {text}"
    )


@ensureDeferred
@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (5, ConnectRefusedError, "the proxy answered 5: connection refused"),
        (1, TunnelError, "the proxy answered 1: general failure"),
        (2, TunnelError, "the proxy answered 2: not allowed by its rules"),
        (4, TunnelError, "the proxy answered 4: host unreachable"),
        (99, TunnelError, "the proxy answered 99: unknown"),
    ],
)
async def test_a_socks_proxys_refusals_are_told_by_code_and_meaning(
    code: int, kind: type[PoolPlusError], text: str, listening: Listening
) -> None:
    proxy = SocksProxy(listening.start(), reply=code)
    proxy.bound = b""  # Some send no address with a refusal.
    error = await failure_of(dial("a.example", 443, via(proxy, "socks5")))
    assert type(error) is kind
    assert str(error).endswith(text)


@ensureDeferred
async def test_without_socksio_the_error_names_the_package(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setitem(sys.modules, "socksio.socks5", None)
    error = await failure_of(dial("a.example", 443, Proxy("socks5", "p.example", 1080)))
    assert isinstance(error, TunnelError)
    assert "socksio: pip install socksio" in str(error)


# The talks alone, without I/O.


def pieces(answer: bytes) -> Iterator[list[bytes]]:
    """`answer` whole, byte by byte, and cut in two at each place."""
    yield [answer]
    yield [answer[number : number + 1] for number in range(len(answer))]
    for cut in range(1, len(answer)):
        yield [answer[:cut], answer[cut:]]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ESTABLISHED, TunnelAnswer(200)),
        (b"HTTP/1.0 200\r\n\r\n", TunnelAnswer(200)),
        (b"HTTP/1.1 204 Fine\nA: b\n\n", TunnelAnswer(204, ((b"A", b"b"),))),
        (b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", TunnelAnswer(200)),
        (
            b"HTTP/1.1 200 OK\r\nA: one\r\n two\r\nno colon\r\nB:\r\n\r\n",
            TunnelAnswer(200, ((b"A", b"one two"), (b"B", b""))),
        ),
    ],
)
def test_connect_takes_an_answer_however_it_is_cut(answer: bytes, expected: TunnelAnswer) -> None:
    for cut in pieces(answer):
        talk = ConnectTalk("a.example", 443, None, "here")
        for piece in cut:
            assert talk.answer is None
            assert talk.heard(piece) == b""
        assert talk.answer == expected


def test_connect_brackets_an_ipv6_address() -> None:
    assert (
        ConnectTalk("2001:db8::1", 443, None, "").first().startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [")
    )


def test_credentials_with_a_line_break_are_not_sent() -> None:
    with pytest.raises(TunnelError, match="the credentials hold a line break"):
        ConnectTalk("a.example", 443, b"Basic x\r\nEvil: 1", "here").first()


@pytest.mark.parametrize("endless", [b"HTTP/1.1 200 " + b"x" * 70_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000])
def test_an_endless_answer_to_connect_is_an_error(endless: bytes) -> None:
    talk = ConnectTalk("a.example", 443, None, "here")
    with pytest.raises(TunnelError, match="here failed: the head of the proxy's answer is longer than 65536 bytes"):
        talk.heard(endless)


@pytest.mark.parametrize(
    "bound", [b"\x01\x01\x02\x03\x04\0\x50", b"\x04" + b"\0" * 18, b"\x03\x05a.bcd\0\x50", b"\x03\0\0\x50"]
)
def test_socks_takes_its_replies_however_they_are_cut(bound: bytes) -> None:
    for cut in pieces(b"\x05\x02\x01\x00\x05\x00\x00" + bound + b"rest"):
        talk = SocksTalk("a.example", 443, BASIC, "here")
        assert talk.first() == b"\x05\x02\x00\x02"
        sent = b"".join(talk.heard(piece) for piece in cut)
        assert sent == b"\x01\x04user\x09pass:word" + b"\x05\x01\x00\x03\x09a.example\x01\xbb"
        assert talk.answer == TunnelAnswer()
        assert talk.left_over() == b"rest"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad", "the proxy answered 'HTTP/1.1 400 Bad', which is not SOCKS5"),
        (b"\x05\x01", "the proxy chose login method 1, which was not offered"),
        (b"\x05\x02", "the proxy chose login method 2, which was not offered"),
        (b"\x05\x00\x05\x00\x00\x07\x00", "the proxy answered with an address of unknown type 7"),
    ],
)
def test_a_socks_proxy_that_breaks_the_protocol_is_a_tunnel_error(answer: bytes, text: str) -> None:
    talk = SocksTalk("a.example", 443, None, "here")
    talk.first()
    with pytest.raises(TunnelError) as raised:
        talk.heard(answer)
    assert str(raised.value) == f"here failed: {text}"


@pytest.mark.parametrize(
    ("authorization", "text"),
    [
        (b"Bearer token", "SOCKS5 takes a user name and a password (Basic), no other credentials"),
        (b"Basic !", "SOCKS5 takes a user name and a password (Basic), no other credentials"),
        (
            b"Basic " + b64encode(b"u" * 256 + b":p"),
            "the user name or the password is longer than 255 bytes (RFC 1929)",
        ),
    ],
)
def test_credentials_that_socks_cannot_carry_are_an_error(authorization: bytes, text: str) -> None:
    with pytest.raises(TunnelError) as raised:
        SocksTalk("a.example", 443, authorization, "here")
    assert str(raised.value) == f"here failed: {text}"
