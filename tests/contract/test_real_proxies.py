"""Sections 10 and 11 of the contract through the proxies that people run, each a process of its own."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request
from scrapy.core.downloader.handlers.http11 import TunnelError
from scrapy.exceptions import DownloadConnectionRefusedError, DownloadFailedError

from tests.servers.proxies import REAL_PROXIES, Dante, Microsocks, RealProxy, Squid, SquidTLS, Tinyproxy

from .certificates import authority
from .crawls import crawl
from .marks import beyond_stock, over_tls
from .peers import echo, works
from .running import Transport
from .test_errors import closed_port

LOGIN = ("user", "secret-password")
WRONG = ("user", "wrong-password")
NO_H2 = beyond_stock("knows no proxies over h2", on=["h2"], strict=False)
MARKS: dict[type[RealProxy], list[pytest.MarkDecorator]] = {
    SquidTLS: [beyond_stock("no TLS in TLS", on=["https1", "h2"], strict=False)],
    Microsocks: [beyond_stock("knows no SOCKS", strict=False)],
    Dante: [beyond_stock("knows no SOCKS", strict=False)],
}
pytestmark = NO_H2


def kinds(*these: type[RealProxy]) -> pytest.MarkDecorator:
    parameters = [pytest.param(one, id=one.__name__.lower(), marks=MARKS.get(one, [])) for one in these]
    return pytest.mark.parametrize("program", parameters)


every_program = kinds(*REAL_PROXIES)
with_users = kinds(*(one for one in REAL_PROXIES if one.takes_logins))
http_programs = kinds(Squid, SquidTLS, Tinyproxy)
socks_programs = kinds(Microsocks, Dante)

Start = Callable[..., RealProxy]


@pytest.fixture(scope="module")
def real() -> Iterator[Start]:
    """`real(Class, login=None)`: one that runs, the same for the same arguments."""
    running: dict[tuple[type[RealProxy], tuple[str, str] | None], RealProxy] = {}

    def start(program: type[RealProxy], login: tuple[str, str] | None = None) -> RealProxy:
        if program.path() is None:
            pytest.skip(f"{program.program} is not installed (Debian: apt-get install {program.package})")
        if program.scheme.startswith("socks"):
            pytest.importorskip("socksio", reason="the extra socks is not installed")
        if (program, login) not in running:
            running[program, login] = program(authority(), login)
            running[program, login].start()
        return running[program, login]

    yield start
    for proxy in running.values():
        proxy.stop()


def asked(proxy: RealProxy, url: str, login: tuple[str, str] | None = None, **arguments: Any) -> Request:
    """A request as the handler gets it from the middlewares."""
    request = Request(url, **arguments)
    request.meta["proxy"] = proxy.address
    authorization = proxy.authorization(login)
    if authorization is not None:
        request.headers["Proxy-Authorization"] = authorization
    return request


async def reach(transport: Transport, download: Any, serve: Any, proxy: RealProxy) -> None:
    peer = serve(transport, echo)
    url = peer.url("/a?b=c", host="localhost")
    for _ in range(3):
        response = await download(asked(proxy, url))
        assert (response.status, response.url, response.protocol) == (200, url, transport.protocol)
        assert json.loads(response.body)["target"] == "/a?b=c"
    assert len(peer.requests) == 3
    assert {tuple(request.authorities) for request in peer.requests} == {(f"localhost:{peer.port}".encode(),)}
    assert all(b"proxy-authorization" not in request.names for request in peer.requests)
    if transport.secure:
        # One tunnel, kept; what a proxy does for http:// is its own affair.
        assert len(peer.connections) == 1
        assert peer.names == [b"localhost"]
    secret = proxy.authorization()
    if secret is not None:
        seen = b"".join(connection.received for connection in peer.connections)
        assert secret not in seen
        assert LOGIN[1].encode() not in seen


@every_program
async def test_every_target_is_reached(
    transport: Transport, download: Any, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    await reach(transport, download, serve, real(program))


@with_users
async def test_every_target_is_reached_with_a_login_which_stays_with_the_proxy(
    transport: Transport, download: Any, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    await reach(transport, download, serve, real(program, LOGIN))


@http_programs
async def test_wrong_credentials_are_answered_with_407(
    transport: Transport, download: Any, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    peer, proxy = serve(transport, works), real(program, LOGIN)
    # tinyproxy answers 401 to wrong credentials, and 407 to none.
    expected = "407|401"
    if transport.secure:
        with pytest.raises((TunnelError, DownloadFailedError), match=expected) as caught:
            await download(asked(proxy, peer.url("/", host="localhost"), WRONG))
        assert proxy.address in str(caught.value)
        assert WRONG[1] not in str(caught.value)
    else:
        response = await download(asked(proxy, peer.url("/", host="localhost"), WRONG))
        assert str(response.status) in expected
    assert peer.connections == []
    assert (await download(asked(proxy, peer.url("/", host="localhost")))).body == b"Works"


@socks_programs
async def test_wrong_credentials_are_a_refused_connection(
    transport: Transport, download: Any, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    peer, proxy = serve(transport, works), real(program, LOGIN)
    for login in (WRONG, None):
        request = asked(proxy, peer.url("/", host="localhost"), login)
        if login is None:
            del request.headers["Proxy-Authorization"]
        with pytest.raises(DownloadConnectionRefusedError) as caught:
            await download(request)
        assert proxy.address in str(caught.value)
        assert WRONG[1] not in str(caught.value)
    assert peer.connections == []


@every_program
@over_tls
async def test_a_target_that_refuses_is_told_with_the_proxys_name(
    transport: Transport, download: Any, real: Start, program: type[RealProxy]
) -> None:
    proxy = real(program)
    expected = DownloadConnectionRefusedError if program.scheme.startswith("socks") else DownloadFailedError
    with pytest.raises((TunnelError, expected)) as caught:
        await download(asked(proxy, f"https://localhost:{closed_port()}/"))
    assert proxy.address in str(caught.value)


@with_users
async def test_a_redirected_request_goes_through_it_with_the_credentials_again(
    transport: Transport, kind: str, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    proxy, peer = real(program, LOGIN), serve(transport, works)
    there = peer.url("/there", host="localhost")
    other = serve(transport, lambda exchange: exchange.respond(302, [(b"Location", there.encode())]))
    request = Request(other.url("/", host="localhost"), meta={"proxy": proxy.url()})
    ended = await crawl(kind, transport, [request])
    assert [(response.url, response.body) for response in ended.responses] == [(there, b"Works")]
    assert all(b"proxy-authorization" not in one.names for one in (*peer.requests, *other.requests))


@every_program
async def test_its_connections_are_used_for_no_direct_request(
    transport: Transport, download: Any, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    peer, proxy = serve(transport, works), real(program)
    url = peer.url("/", host="localhost")
    for request in (asked(proxy, url), Request(url), asked(proxy, url), Request(url)):
        assert (await download(request)).body == b"Works"
    if transport.secure or program.scheme.startswith("socks"):
        assert len(peer.connections) == 2


@every_program
@pytest.mark.skipif(sys.platform != "linux", reason="reads the connections of this machine from /proc")
async def test_the_bind_address_is_that_of_the_connection_to_it(
    transport: Transport, downloads: Any, serve: Any, real: Start, program: type[RealProxy]
) -> None:
    peer, proxy = serve(transport, works), real(program)
    download = downloads(transport, DOWNLOAD_BIND_ADDRESS="127.0.0.2")
    for address in (None, "127.0.0.3"):
        meta = {"bindaddress": address} if address else {}
        assert (await download(asked(proxy, peer.url("/", host="localhost"), meta=meta))).body == b"Works"
    # tinyproxy keeps no connection for http://.
    if program is not Tinyproxy or transport.secure:
        assert {"127.0.0.2", "127.0.0.3"} <= connected_to(proxy)


def connected_to(proxy: RealProxy) -> set[str]:
    """Local addresses of the connections to it."""
    remote = f"{_as_kernel_writes(proxy.host)}:{proxy.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = [line[1].partition(":")[0] for line in lines if line[2] == remote and line[3] == "01"]
    return {socket.inet_ntoa(bytes.fromhex(address)[:: 1 if sys.byteorder == "big" else -1]) for address in local}


def _as_kernel_writes(host: str) -> str:
    return socket.inet_aton(host)[:: 1 if sys.byteorder == "big" else -1].hex().upper()
