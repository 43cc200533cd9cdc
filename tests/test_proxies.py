"""Crawls of a real nginx through proxies: which protocol is spoken inside, and where the credentials go."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.exceptions import DownloadConnectionRefusedError, DownloadFailedError

from tests.conftest import RunCrawl, StartNginx
from tests.peers.listening import Listening
from tests.peers.proxies import HttpProxy, SocksProxy
from tests.servers.nginx import Door, Nginx, requests_by_connection

SECURE = pytest.mark.parametrize("door", [Door.TLS, Door.H2], ids=lambda door: door.value)


@pytest_twisted.async_yield_fixture
async def listening() -> AsyncIterator[Listening]:
    """Servers of the test, in this process."""
    from twisted.internet import reactor

    started = Listening(reactor)
    yield started
    await started.stop()


def through(server: Nginx, door: Door, proxy: str, number: int) -> list[Request]:
    return [Request(server.url(door, f"/100?{n}"), meta={"proxy": proxy}) for n in range(number)]


@SECURE
@ensureDeferred
async def test_a_tunnel_carries_what_the_server_picks_and_is_kept(
    run_crawl: RunCrawl, nginx: StartNginx, listening: Listening, door: Door
) -> None:
    server, proxy = nginx(), HttpProxy(listening.start())
    requests = through(server, door, f"http://user:secret@127.0.0.1:{proxy.port}", 20)
    crawled = await run_crawl(requests, CONCURRENT_REQUESTS=1)
    assert [response.status for response in crawled.responses] == [200] * 20
    assert {response.protocol for response in crawled.responses} == {"h2" if door is Door.H2 else "HTTP/1.1"}
    (head,) = proxy.heads
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in head
    assert b"secret" not in b"".join(client.received[len(head) :] for client in proxy.clients)
    server.stop()
    assert len(requests_by_connection(server.log())) == 1


@SECURE
@ensureDeferred
async def test_socks_carries_both_protocols_with_the_name_for_the_proxy_to_look_up(
    run_crawl: RunCrawl, nginx: StartNginx, listening: Listening, door: Door
) -> None:
    pytest.importorskip("socksio", reason="the extra socks is not installed")
    server, proxy = nginx(), SocksProxy(listening.start(), login=(b"user", b"secret"))
    crawled = await run_crawl(through(server, door, f"socks5://user:secret@127.0.0.1:{proxy.port}", 5))
    assert [response.status for response in crawled.responses] == [200] * 5
    assert set(proxy.logins) == {(b"user", b"secret")}
    server.stop()
    assert {entry.protocol for entry in server.log()} == {door.protocol}


@ensureDeferred
async def test_two_users_of_one_proxy_never_share_a_connection_to_it(run_crawl: RunCrawl, nginx: StartNginx) -> None:
    # A server takes the absolute-form as well, and so stands for the proxy here. Scrapy's HTTP11 handler mixes the two.
    server = nginx()
    port = server.url(Door.CLEARTEXT, "/").rpartition(":")[2].rstrip("/")
    requests = [
        Request(f"http://shop.example/100?{n}", meta={"proxy": f"http://session-{n % 2}:x@127.0.0.1:{port}"})
        for n in range(8)
    ]
    crawled = await run_crawl(requests, CONCURRENT_REQUESTS=1)
    assert [response.status for response in crawled.responses] == [200] * 8
    server.stop()
    users: dict[int, set[int]] = {}
    for entry in server.log():
        users.setdefault(entry.connection, set()).add(int(entry.target.rpartition("?")[2]) % 2)
        assert entry.host == "shop.example"
    assert sorted(users.values(), key=min) == [{0}, {1}]


@ensureDeferred
async def test_many_proxies_keep_no_more_sockets_than_the_cap(
    run_crawl: RunCrawl, nginx: StartNginx, listening: Listening
) -> None:
    server, proxy = nginx(), HttpProxy(listening.start())
    requests = [
        Request(server.url(Door.TLS, f"/100?{n}"), meta={"proxy": f"http://user{n}:x@127.0.0.1:{proxy.port}"})
        for n in range(100)
    ]
    crawled = await run_crawl(requests, POOLPLUS_MAX_CONNECTIONS=20)
    assert len(crawled.responses) == 100
    assert crawled.stats["poolplus/connections/open_max"] <= 20
    assert crawled.stats["poolplus/connections/closed/evicted"] >= 80


@ensureDeferred
async def test_a_refusal_names_the_proxy_and_the_status_and_not_the_credentials(
    run_crawl: RunCrawl, nginx: StartNginx, listening: Listening
) -> None:
    proxy = HttpProxy(listening.start(), b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    server = nginx()
    requests = through(server, Door.H2, f"http://user:secret@127.0.0.1:{proxy.port}", 1)
    crawled = await run_crawl(requests, RETRY_ENABLED=False)
    (error,) = crawled.failures
    assert isinstance(error, DownloadFailedError)
    assert "407" in str(error)
    assert f"127.0.0.1:{proxy.port}" in str(error)
    assert "secret" not in str(error)


@ensureDeferred
async def test_a_proxy_that_is_not_there_refuses(run_crawl: RunCrawl, nginx: StartNginx, listening: Listening) -> None:
    port = listening.start().port
    await listening.stop()
    crawled = await run_crawl(through(nginx(), Door.H2, f"http://127.0.0.1:{port}", 1), RETRY_ENABLED=False)
    (error,) = crawled.failures
    assert isinstance(error, DownloadConnectionRefusedError)
