"""What of a session the proxy and the network see: its proxy user, its local address."""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter, defaultdict
from typing import Any

import pytest
from scrapy import Request, signals
from scrapy.exceptions import CannotResolveHostError
from twisted.internet.error import CannotListenError

from scrapy_poolplus import ConnectionRotationMiddleware, SessionFollowMiddleware
from scrapy_poolplus.core.events import PoolEvent, RequestDispatched
from scrapy_poolplus.shared import shared_pool
from tests.peers.listening import Accepted
from tests.peers.proxies import SocksProxy

from .crawls import Ended, crawl
from .marks import poolplus_only
from .peers import works
from .proxying import Kind, Login, StartProxy, Via, proxies
from .running import Transport

__all__ = ["proxies"]

pytestmark = poolplus_only("sessions are ours")

ROTATION = {
    "DOWNLOADER_MIDDLEWARES": {ConnectionRotationMiddleware: 690},
    "SPIDER_MIDDLEWARES": {SessionFollowMiddleware: 50},
    "CONCURRENT_REQUESTS": 4,
}
EACH = 3
every_kind = pytest.mark.parametrize("kind_of_proxy", [Kind.HTTP, Kind.HTTPS, Kind.SOCKS5], ids=lambda one: one.value)


async def crawled(
    kind: str, transport: Transport, requests: list[Request], *, policy: dict[str, Any], **settings: Any
) -> tuple[Ended, list[RequestDispatched]]:
    """A crawl with sessions of three requests, and when each of its requests was sent on which connection."""
    events: list[PoolEvent] = []
    ended = await crawl(
        kind,
        transport,
        requests,
        settings={**ROTATION, "POOLPLUS_ROTATION": EACH, "POOLPLUS_POLICY": {"jitter": 0, **policy}, **settings},
        receivers=[(signals.spider_opened, lambda spider: shared_pool(spider.crawler).observe(events.append))],
    )
    assert [response.status for response in ended.responses] == [200] * len(requests), ended.errors
    return ended, [event for event in events if isinstance(event, RequestDispatched)]


@every_kind
async def test_the_proxy_user_is_another_one_for_each_session(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy, Login("me", "secret"))
    via.accept_anyone()
    requests = [Request(peer.url(f"/{n}"), meta={"proxy": via.url()}) for n in range(12)]
    _, sent = await crawled(kind, transport, requests, policy={"proxy_user": "me-session-{session}-cc-de"})
    sessions = Counter(event.session for event in sent)
    assert len(sessions) >= 4
    assert max(sessions.values()) <= EACH
    expected = {f"me-session-{session.replace('-', '')}-cc-de:secret".encode() for session in sessions if session}
    told = {b64decode(login) for login in via.logins()}
    # A successor may have been dialled ahead that nothing was left for.
    assert expected <= told
    assert all(re.fullmatch(rb"me-session-[0-9a-f]+-cc-de:secret", login) for login in told)
    # Never two on one connection, and none on two: nothing here closes one early.
    used = [connection for connection in via.connections if connection in _talked_on(via)]
    assert [len(via.logins_on(connection)) for connection in used] == [1] * len(told)
    assert all(b"proxy-authorization" not in request.names for request in peer.requests)


async def test_a_pinned_session_keeps_its_proxy_user_over_all_its_connections(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy
) -> None:
    peer, via = serve(transport, works), proxies(Kind.HTTP)
    requests = [
        Request(
            peer.url(f"/{n}"),
            headers={} if transport.is_h2 else {"Connection": "close"},
            meta={"proxy": via.url(), "poolplus_session": f"account-{n % 2}"},
        )
        for n in range(8)
    ]
    _, sent = await crawled(kind, transport, requests, policy={"proxy_user": "{session}"})
    users = {b64decode(login) for login in via.logins()}
    assert len(users) == len({event.session for event in sent}) == 2
    assert all(re.fullmatch(rb"[0-9a-f]+:", user) for user in users)


async def test_requests_without_a_session_go_as_the_user_of_the_url(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy
) -> None:
    login = Login("me", "secret")
    peer, via = serve(transport, works), proxies(Kind.HTTP, login)
    requests = [Request(peer.url("/"), meta={"proxy": via.url()})]
    await crawled(kind, transport, requests, policy={"proxy_user": "{session}"}, POOLPLUS_ROTATION="off")
    assert set(via.logins()) == {login.encoded}


async def test_proxy_user_needs_a_proxy_that_takes_one(
    transport: Transport, downloads: Any, serve: Any, proxies: StartProxy
) -> None:
    peer, via = serve(transport, works), proxies(Kind.HTTP)
    download = downloads(transport, POOLPLUS_POLICY={"proxy_user": "{session}"})
    request = Request(peer.url("/"), meta={"proxy": via.address}, headers={"Proxy-Authorization": "Bearer secret"})
    with pytest.raises(ValueError, match='proxy_user of "POOLPLUS_POLICY" takes a proxy with a user name') as caught:
        await download(request)
    assert "secret" not in str(caught.value)
    assert via.address in str(caught.value)


def _talked_on(via: Via) -> list[Accepted]:
    """Its connections on which a login was told."""
    if isinstance(via.proxy, SocksProxy):
        return via.connections[: len(via.proxy.logins)]
    return list(via.proxy.by_client)


def clients(peer: Any) -> Counter[str]:
    return Counter(connection.client_host for connection in peer.connections)


ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]


async def test_sessions_are_spread_over_the_bind_addresses_in_turn(transport: Transport, kind: str, serve: Any) -> None:
    peer = serve(transport, works)
    requests = [Request(peer.url(f"/{n}")) for n in range(18)]
    _, sent = await crawled(
        kind, transport, requests, policy={"bind_addresses": ADDRESSES}, DOWNLOAD_BIND_ADDRESS="127.0.0.9"
    )
    assert len({event.session for event in sent}) >= 6
    spread = clients(peer)
    assert set(spread) == set(ADDRESSES)
    assert max(spread.values()) - min(spread.values()) <= 1


async def test_a_session_keeps_its_bind_address_over_all_its_connections(
    transport: Transport, kind: str, serve: Any
) -> None:
    peer = serve(transport, works)
    requests = [
        Request(
            peer.url(f"/{n % 2}"),
            dont_filter=True,
            headers={} if transport.is_h2 else {"Connection": "close"},
            meta={"poolplus_session": f"account-{n % 2}"},
        )
        for n in range(8)
    ]
    await crawled(kind, transport, requests, policy={"bind_addresses": ADDRESSES})
    of_account: dict[bytes, set[str]] = defaultdict(set)
    for exchange in peer.exchanges:
        of_account[exchange.request.target].add(exchange.connection.client_host)
    assert [len(addresses) for addresses in of_account.values()] == [1, 1]
    assert of_account[b"/0"] != of_account[b"/1"]


async def test_without_rotation_connections_are_spread_and_the_requests_own_address_comes_first(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    policy = {"bind_addresses": ADDRESSES, "max_requests_per_connection": 1, "preconnect": False}
    download = downloads(transport, POOLPLUS_POLICY=policy, DOWNLOAD_BIND_ADDRESS="127.0.0.9")
    for _ in range(3):
        await download(peer.url("/"))
    assert clients(peer) == dict.fromkeys(ADDRESSES, 1)
    await download(peer.url("/"), meta={"bindaddress": "127.0.0.7"})
    assert peer.connections[-1].client_host == "127.0.0.7"


async def test_bind_addresses_of_both_families_are_used_for_the_peers_that_they_reach(
    transport: Transport, downloads: Any, serve: Any, proxies: StartProxy
) -> None:
    peer = serve(transport, works)
    policy = {"bind_addresses": ["::1", "127.0.0.2"], "max_requests_per_connection": 1, "preconnect": False}
    download = downloads(transport, POOLPLUS_POLICY=policy)
    for _ in range(2):
        assert (await download(peer.url("/"))).body == b"Works"
    assert set(clients(peer)) == {"127.0.0.2"}


async def test_an_ipv6_peer_sees_the_bind_address_of_its_family_whose_ever_turn_it_is(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    peer = _serve_ipv6(serve, transport)
    policy = {"bind_addresses": ["127.0.0.2", "::1"], "max_requests_per_connection": 1, "preconnect": False}
    download = downloads(transport, POOLPLUS_POLICY=policy, DOWNLOAD_BIND_ADDRESS="127.0.0.9")
    for _ in range(3):
        assert (await download(peer.url("/", "[::1]"))).body == b"Works"
    assert clients(peer) == {"::1": 3}


async def test_an_ipv6_peer_out_of_reach_of_every_bind_address_is_an_error_that_names_one(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    peer = _serve_ipv6(serve, transport)
    download = downloads(transport, POOLPLUS_POLICY={"bind_addresses": ADDRESSES})
    with pytest.raises(CannotResolveHostError, match=r"has no IPv4 address, and the bind address 127\.0\.0\.[234] "):
        await download(peer.url("/", "[::1]"))
    assert peer.accepted == 0


def _serve_ipv6(serve: Any, transport: Transport) -> Any:
    try:
        return serve(transport, works, interface="::1")
    except CannotListenError:
        pytest.skip("this machine has no ::1 to listen on")
