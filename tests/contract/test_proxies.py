"""Proxies (contract, section 10), and the local address of connections to them (section 11)."""

from __future__ import annotations

import gc
import json
import logging
from collections import Counter
from typing import Any

import pytest
from scrapy import Request, signals
from scrapy.core.downloader.handlers.http11 import TunnelError
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
)
from scrapy.resolver import CachingHostnameResolver, dnscache

from scrapy_poolplus.core.events import ConnectionOpened, PoolEvent
from scrapy_poolplus.shared import shared_pool
from tests.peers.proxies import credentials

from .crawls import crawl
from .marks import beyond_stock, over_cleartext, over_tls, poolplus_only
from .peers import echo, works
from .proxying import Kind, Login, StartProxy, proxies
from .resolving import no_host_is_found, resolved_to_loopback
from .running import H2, HTTP, Transport, gather, the_reactor, until
from .test_errors import closed_port

__all__ = ["proxies"]

NO_H2 = beyond_stock("knows no proxies over h2", on=["h2"], strict=False)
NO_TLS_IN_TLS = beyond_stock("no TLS in TLS", on=["https1", "h2"], strict=False)
NO_SOCKS = beyond_stock("knows no SOCKS", strict=False)
pytestmark = NO_H2

LOGIN = Login()
WRONG = Login("user", "wrong")

_SOCKS = [pytest.param(kind, marks=NO_SOCKS, id=kind.value) for kind in (Kind.SOCKS5, Kind.SOCKS5H)]
_HTTP = [pytest.param(Kind.HTTP, id="http-proxy"), pytest.param(Kind.HTTPS, marks=NO_TLS_IN_TLS, id="https-proxy")]
every_kind = pytest.mark.parametrize("kind_of_proxy", _HTTP + _SOCKS)
http_kinds = pytest.mark.parametrize("kind_of_proxy", _HTTP)
socks_kinds = pytest.mark.parametrize("kind_of_proxy", _SOCKS)
with_and_without_login = pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])


# 10.1, 10.2, 10.8: every kind of target through every kind of proxy


@every_kind
@with_and_without_login
async def test_every_target_is_reached_through_every_kind_of_proxy(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind, login: Login | None
) -> None:
    peer, via = serve(transport, echo), proxies(kind_of_proxy, login)
    url = peer.url("/a?b=c", host="localhost")
    responses = [await download(via.request(url)) for _ in range(3)]
    for response in responses:
        assert response.status == 200
        assert response.url == url
        assert response.protocol == transport.protocol
        assert json.loads(response.body)["target"] == "/a?b=c"
    assert len(peer.requests) == 3
    assert len(via.connections) == len(peer.connections) == 1
    assert peer.requests[0].authorities == [f"localhost:{peer.port}".encode()]
    if transport.secure:
        assert peer.names == [b"localhost"]
    if transport.secure or kind_of_proxy.socks:
        assert via.tunnels() == [f"localhost:{peer.port}"]


@over_cleartext
@http_kinds
@pytest.mark.parametrize("path", ["", "/", "/a?b=c#d"])
async def test_an_http_target_is_asked_for_by_its_absolute_uri(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind, path: str
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy)
    url = peer.url(path, host="localhost")
    response = await download(via.request(url))
    assert response.url.partition("#")[0] == url.partition("#")[0]
    (head,) = via.proxy.heads
    target = f"http://localhost:{peer.port}{path.partition('#')[0]}"
    assert head.split()[1].decode() in {target, target + "/"}
    assert b"\r\nHost: localhost:%d\r\n" % peer.port in head


async def test_a_proxy_without_scheme_is_an_http_proxy(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy
) -> None:
    peer, via = serve(transport, works), proxies(Kind.HTTP)
    response = await download(peer.url("/"), meta={"proxy": f"127.0.0.1:{via.proxy.port}"})
    assert response.body == b"Works"
    assert len(via.connections) == 1


@over_tls
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\nVia: 1.1 p\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_any_200_opens_the_tunnel_whatever_else_it_says(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, answer: bytes
) -> None:
    peer, via = serve(transport, works), proxies(Kind.HTTP, answer=answer)
    assert (await download(via.request(peer.url("/")))).body == b"Works"


@over_tls
async def test_the_answer_to_connect_may_come_in_several_packets(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy
) -> None:
    peer, via = serve(transport, works), proxies(Kind.HTTP)

    def say(client: Any, answer: bytes) -> None:
        client.transport.write(answer[:1])
        if rest := answer[1:]:
            the_reactor().callLater(0, say, client, rest)

    via.proxy.say = say
    assert (await download(via.request(peer.url("/")))).body == b"Works"


@over_tls
@poolplus_only("Scrapy's own handler takes the bytes for TLS")
async def test_bytes_after_the_answer_to_connect_are_an_error(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy
) -> None:
    via = proxies(Kind.HTTP, answer=b"HTTP/1.1 200 OK\r\n\r\n<html>no tunnel</html>")
    with pytest.raises(DownloadFailedError, match="no tunnel"):
        await download(via.request(serve(transport, works).url("/")))


# 10.3


@every_kind
async def test_credentials_go_to_the_proxy_and_never_to_the_target(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy, LOGIN)
    for _ in range(2):
        await download(via.request(peer.url("/")))
    # On the CONNECT or the SOCKS greeting of the one tunnel; on each request that the proxy reads itself.
    by_request = not transport.secure and not kind_of_proxy.socks
    assert via.logins() == [LOGIN.encoded] * (2 if by_request else 1)
    for request in peer.requests:
        assert b"proxy-authorization" not in request.names
    seen = b"".join(connection.received for connection in peer.connections)
    for secret in (LOGIN.encoded, LOGIN.password.encode()):
        assert secret not in seen


@over_cleartext
@socks_kinds
async def test_an_http_target_behind_socks_is_not_told_the_credentials_either(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy, LOGIN)
    await download(via.request(peer.url("/x")))
    (connection,) = peer.connections
    assert connection.received.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"proxy-authorization" not in connection.received.lower()


@every_kind
async def test_no_credentials_are_sent_where_none_are_given(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy)
    await download(via.request(peer.url("/")))
    assert via.logins() == []


async def test_a_direct_request_is_not_sent_proxy_authorization(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    await download(peer.url("/"), headers={"Proxy-Authorization": LOGIN.authorization})
    assert b"proxy-authorization" not in peer.requests[0].names


@every_kind
async def test_one_proxy_is_never_told_the_credentials_of_another(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer = serve(transport, works)
    first, second, third = (
        proxies(kind_of_proxy, login) for login in (Login("one", "first"), Login("two", "second"), None)
    )
    requests = [
        Request(peer.url(f"/{n}"), meta={"proxy": via.url()}) for n in range(3) for via in (first, second, third)
    ]
    ended = await crawl(kind, transport, requests)
    assert [response.status for response in ended.responses] == [200] * 9
    assert set(first.logins()) == {Login("one", "first").encoded}
    assert set(second.logins()) == {Login("two", "second").encoded}
    assert third.logins() == []


# 10.4


@over_tls
@http_kinds
async def test_wrong_credentials_for_an_https_target_are_an_error_with_the_status(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy, LOGIN)
    for login in (WRONG, WRONG):
        with pytest.raises((TunnelError, DownloadFailedError), match="407") as caught:
            await download(via.request(peer.url("/"), login))
        assert "wrong" not in str(caught.value)
    assert (await download(via.request(peer.url("/"), LOGIN))).body == b"Works"
    assert len(peer.connections) == 1


@over_cleartext
@http_kinds
async def test_wrong_credentials_for_an_http_target_give_the_407(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy, LOGIN)
    response = await download(via.request(peer.url("/"), WRONG))
    assert response.status == 407
    assert response.headers["Proxy-Authenticate"] == b'Basic realm="tests"'
    assert peer.connections == []


@socks_kinds
async def test_wrong_credentials_for_socks_are_a_refused_connection(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy, LOGIN)
    with pytest.raises(DownloadConnectionRefusedError):
        await download(via.request(peer.url("/"), WRONG))


@over_tls
async def test_a_refused_tunnel_is_retried_by_a_crawl_with_the_credentials(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy
) -> None:
    # scrapy#7601: another handler lost them at the first retry.
    peer, via = serve(transport, works), proxies(Kind.HTTP, LOGIN)
    request = Request(peer.url("/"), meta={"proxy": via.url(WRONG)})
    ended = await crawl(kind, transport, [request], settings={"RETRY_ENABLED": True})
    (error,) = ended.errors
    assert "407" in str(error)
    assert via.logins() == [WRONG.encoded] * 3


# 10.5


@over_tls
@http_kinds
async def test_an_answer_to_connect_that_is_no_http_is_an_error_that_shows_it(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    via = proxies(kind_of_proxy, answer=b"220 mail.example ESMTP\r\n\r\n")
    via.proxy.answer = b"220 mail.example ESMTP\r\n\r\n"
    with pytest.raises((TunnelError, DownloadFailedError), match=r"mail\.example ESMTP"):
        await download(via.request(serve(transport, works).url("/")))


# 10.6


@every_kind
async def test_a_proxy_that_refuses_connections(
    transport: Transport, download: Any, serve: Any, kind_of_proxy: Kind
) -> None:
    proxy = f"{kind_of_proxy.value}://127.0.0.1:{closed_port()}"
    with pytest.raises(DownloadConnectionRefusedError) as caught:
        await download(serve(transport, works).url("/"), meta={"proxy": proxy})
    assert proxy in str(caught.value)


@every_kind
async def test_a_proxy_whose_name_cannot_be_resolved(
    transport: Transport, download: Any, serve: Any, kind_of_proxy: Kind
) -> None:
    meta = {"proxy": f"{kind_of_proxy.value}://dns.resolution.invalid."}
    with no_host_is_found() as asked, pytest.raises(CannotResolveHostError, match=r"dns\.resolution\.invalid"):
        await download(serve(transport, works).url("/"), meta=meta)
    assert asked == ["dns.resolution.invalid."]


@poolplus_only("the port is seen in the text of our error")
@pytest.mark.parametrize(
    ("proxy", "port"),
    [("127.0.0.77", 80), ("http://127.0.0.77", 80), ("https://127.0.0.77", 443), ("socks5://127.0.0.77", 1080)],
)
async def test_a_proxy_without_port_has_the_port_of_its_scheme(
    transport: Transport, download: Any, serve: Any, proxy: str, port: int
) -> None:
    with pytest.raises(DownloadConnectionRefusedError, match=rf"127\.0\.0\.77:{port}"):
        await download(serve(transport, works).url("/"), meta={"proxy": proxy})


# 10.7


@every_kind
async def test_a_redirected_request_goes_through_the_proxy_with_its_credentials_again(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    def moved(exchange: Any) -> None:
        if exchange.request.target == b"/moved":
            exchange.respond(302, [(b"Location", b"/there")])
        else:
            # The next request needs a connection, and so a login, of its own.
            exchange.respond(headers=[] if transport.is_h2 else [(b"Connection", b"close")], body=b"Works")

    peer, via = serve(transport, moved), proxies(kind_of_proxy, LOGIN)
    other = serve(transport, lambda exchange: exchange.respond(302, [(b"Location", peer.url("/moved").encode())]))
    ended = await crawl(kind, transport, [Request(other.url("/"), meta={"proxy": via.url()})])
    (response,) = ended.responses
    assert response.url == peer.url("/there")
    assert set(via.logins()) == {LOGIN.encoded}
    by_request = not transport.secure and not kind_of_proxy.socks
    assert len(via.logins()) == (3 if by_request else 2)
    assert len(via.connections) == len(peer.connections) + len(other.connections) == 2
    assert all(b"proxy-authorization" not in request.names for request in peer.requests + other.requests)


@over_tls
@pytest.mark.parametrize("to", [Kind.HTTP], ids=["http-proxy"])
async def test_a_request_whose_proxy_changes_brings_nothing_of_the_last_one(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy, to: Kind
) -> None:
    peer = serve(transport, works)
    first, second = proxies(to, LOGIN), proxies(to)

    class Changes:
        """A middleware as users write it: another proxy for each retry."""

        def process_request(self, request: Request) -> None:
            request.meta["proxy"] = second.url() if request.meta.get("retry_times") else first.url(WRONG)

    ended = await crawl(
        kind,
        transport,
        [peer.url("/")],
        settings={"RETRY_ENABLED": True, "DOWNLOADER_MIDDLEWARES": {Changes: 740}},
    )
    assert [response.body for response in ended.responses] == [b"Works"]
    assert first.logins() == [WRONG.encoded]
    assert second.logins() == []


# 10.9


@every_kind
async def test_a_connection_of_one_proxy_is_used_for_no_other_and_not_directly(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer = serve(transport, works)
    one, two = proxies(kind_of_proxy), proxies(kind_of_proxy)
    for _ in range(2):
        for request in (one.request(peer.url("/")), two.request(peer.url("/")), Request(peer.url("/"))):
            assert (await download(request)).body == b"Works"
    assert len(one.connections) == len(two.connections) == 1
    assert len(peer.connections) == 3


@every_kind
async def test_m10_two_users_of_one_proxy_are_never_mixed_on_a_connection(
    transport: Transport, kind: str, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    # FIELD M10, scrapy PR#6495: for http targets Scrapy's own handler sends both users over one connection.
    peer, via = serve(transport, works), proxies(kind_of_proxy, LOGIN)
    via.accept_anyone()
    users = [Login(f"session-{n}", "secret") for n in range(2)]
    requests = [
        Request(peer.url(f"/{n}"), headers={"X-User": users[n % 2].user}, meta={"proxy": via.url(users[n % 2])})
        for n in range(8)
    ]
    ended = await crawl(kind, transport, requests, settings={"CONCURRENT_REQUESTS": 1})
    assert [response.status for response in ended.responses] == [200] * 8
    assert len(via.connections) == len(peer.connections) == 2
    for connection in peer.connections:
        carried = [exchange.request for exchange in peer.exchanges if exchange.connection is connection]
        assert len({request.values(b"x-user")[0] for request in carried}) == 1
    assert set(via.logins()) == {user.encoded for user in users}
    for connection in via.connections:
        assert len(via.logins_on(connection)) == 1


@pytest.mark.parametrize("transport", [HTTP, H2], ids=["http", "h2"])
@poolplus_only("Scrapy's own handler keeps a connection for each proxy")
async def test_m11_a_thousand_proxies_stay_under_the_cap_and_leave_nothing_behind(
    transport: Transport, downloads: Any, serve: Any, proxies: StartProxy
) -> None:
    # FIELD M11, scrapy#2653: 200 proxies, 200 sockets; one user counted 80,000. The addresses are all of this machine.
    cap, warm, number = 16, 200, 1_000
    peer, via = serve(transport, works), proxies(Kind.HTTP, interface="0.0.0.0")
    download = downloads(transport, POOLPLUS_MAX_CONNECTIONS=cap)

    async def batch(first: int) -> None:
        hosts = [f"127.1.{n // 250}.{n % 250 + 1}" for n in range(first, first + cap)]
        metas = [{"proxy": f"http://{host}:{via.proxy.port}"} for host in hosts]
        for response in await gather(*(download(peer.url("/"), meta=meta) for meta in metas)):
            assert response.body == b"Works"

    for first in range(0, number, cap):
        await batch(first)
        if first <= warm < first + cap:
            begun = _ours()
    await until(lambda: len(via.open_connections()) <= cap, "evicted connections are closed")
    ended = _ours()
    assert len(via.connections) == first + cap >= number
    assert download.crawler.stats.get_value("poolplus/connections/open_max") <= cap
    grown = {name: count - begun[name] for name, count in ended.items() if count > begun[name] + cap}
    assert not grown, grown


def _ours() -> Counter[str]:
    """How many objects of our own are alive, by class."""
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("scrapy_poolplus"))


# 10.10, and what users write wrongly


@pytest.mark.parametrize("scheme", ["ftp", "socks4", "quic"])
@poolplus_only("Scrapy's own handler takes every other scheme for http")
async def test_a_kind_of_proxy_that_is_not_known_is_not_implemented(
    transport: Transport, download: Any, serve: Any, scheme: str
) -> None:
    peer = serve(transport, works)
    with pytest.raises(NotImplementedError, match=f"{scheme}.*http, https, socks5, socks5h") as caught:
        await download(peer.url("/"), meta={"proxy": f"{scheme}://user:secret@127.0.0.1:1"})
    assert "secret" not in str(caught.value)
    assert peer.connections == []


@pytest.mark.parametrize(
    "proxy",
    [
        "http://",
        "http://:8080",
        "http://user:secret@",
        "http://user:secret@p.example:port",
        "http://p.example:65536",
        "http://user:secret/1@p.example:80",
        "http://user:1/secret@p.example:80",
        "user:secret#1@p.example:80",
        "http://user:secret@[::1:80",
        "http://user:secret\N{FULLWIDTH COMMERCIAL AT}x@p.example:80",
    ],
)
@poolplus_only("Scrapy's own handler raises various exceptions")
async def test_a_malformed_proxy_url_is_an_error_at_once(
    transport: Transport, download: Any, serve: Any, proxy: str
) -> None:
    peer = serve(transport, works)
    with pytest.raises(ValueError, match="proxy URL") as caught:
        await download(peer.url("/"), meta={"proxy": proxy})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert peer.connections == []


# What must never be told


FAULTS = {
    "refused": None,
    "forbidden": lambda client: client.transport.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    "closes": lambda client: client.transport.loseConnection(),
    "resets": lambda client: client.transport.abortConnection(),
    "no HTTP": lambda client: client.transport.write(b"nonsense of some length\r\n\r\n"),
    "repeats": lambda client: client.transport.write(b"HTTP/1.1 407 You said: " + client.received + b"\r\n\r\n"),
    "repeats all": lambda client: client.transport.write(client.received),
    "stalls": lambda client: None,
}


@over_tls
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind_of_proxy", [Kind.HTTP, Kind.HTTPS, Kind.SOCKS5], ids=lambda one: one.value)
@poolplus_only("the time-out is one of our settings")
async def test_a_fault_of_a_proxy_is_told_in_time_with_its_name_and_without_credentials(
    transport: Transport,
    kind: str,
    serve: Any,
    proxies: StartProxy,
    kind_of_proxy: Kind,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    via = proxies(kind_of_proxy, Login("hidden-user", "hidden-password"))
    act = FAULTS[fault]
    if act is None:
        await via.stop_listening()
    else:
        via.on_data(act)
    events: list[PoolEvent] = []
    ended = await crawl(
        kind,
        transport,
        [Request(serve(transport, works).url("/"), meta={"proxy": via.url()})],
        settings={"POOLPLUS_POLICY": {"connect_timeout": 0.5}, "RETRY_ENABLED": True, "RETRY_TIMES": 1},
        receivers=[(signals.spider_opened, lambda spider: shared_pool(spider.crawler).observe(events.append))],
    )
    (error,) = ended.errors
    # What a SOCKS proxy repeats reads as a login that it refuses.
    refused = fault == "refused" or (fault == "repeats all" and kind_of_proxy.socks)
    expected = DownloadConnectionRefusedError if refused else DownloadFailedError
    assert type(error) is (DownloadTimeoutError if fault == "stalls" else expected)
    assert via.address in str(error)
    told = [caplog.text, str(error), repr(error), repr(error.__cause__), repr(ended.stats), repr(events)]
    assert events
    for secret in ("hidden", Login("hidden-user", "hidden-password").encoded.decode()):
        assert not [text for text in told if secret in text]
    assert all(connection.end is not None for connection in via.connections)


UNTUNNELLED = {name: FAULTS[name] for name in ("refused", "closes", "resets", "no HTTP", "repeats all", "stalls")} | {
    "repeats the login": lambda client: client.transport.write(credentials(client.received)[0] + b"\r\n\r\n"),
    "repeats it as a field": lambda client: client.transport.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: no\r\n" + credentials(client.received)[0] + b"\r\n\r\n"
    ),
    "repeats it as a length": lambda client: client.transport.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: " + credentials(client.received)[0] + b"\r\n\r\n"
    ),
}


@over_cleartext
@http_kinds
@pytest.mark.parametrize("fault", UNTUNNELLED)
@poolplus_only("the time-out is one of our settings")
async def test_a_fault_of_a_proxy_that_answers_for_the_target_is_told_like_one_in_a_tunnel(
    transport: Transport,
    kind: str,
    serve: Any,
    proxies: StartProxy,
    kind_of_proxy: Kind,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    via = proxies(kind_of_proxy, Login("hidden-user", "hidden-password"))
    act = UNTUNNELLED[fault]
    if act is None:
        await via.stop_listening()
    else:
        via.on_data(act)
    ended = await crawl(
        kind,
        transport,
        [Request(serve(transport, works).url("/"), meta={"proxy": via.url()})],
        # For once connected, a proxy that is silent is a target that is silent.
        settings={"POOLPLUS_POLICY": {"first_byte_timeout": 0.5}, "RETRY_ENABLED": False},
    )
    (error,) = ended.errors
    expected = {"refused": DownloadConnectionRefusedError, "stalls": DownloadTimeoutError}
    assert type(error) is expected.get(fault, DownloadFailedError)
    assert via.address in str(error)
    told = [caplog.text, str(error), repr(error), repr(error.__cause__), repr(ended.stats)]
    for secret in ("hidden", Login("hidden-user", "hidden-password").encoded.decode()):
        assert not [text for text in told if secret in text]


# Headers of the CONNECT answer


@over_tls
@http_kinds
@poolplus_only("Scrapy's own handler drops them (scrapy#3329)")
async def test_the_headers_with_which_a_tunnel_was_opened_can_be_read(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nX-Exit-IP: 192.0.2.1\r\nvia: 1.1 a\r\nVia: 1.1 b\r\n\r\n"
    peer, via = serve(transport, works), proxies(kind_of_proxy, answer=answer)
    opened: list[PoolEvent] = []
    shared_pool(download.crawler).observe(opened.append)
    for _ in range(2):
        response_of = via.request(peer.url("/"))
        await download(response_of)
        assert response_of.meta["_poolplus_proxy_headers"] == {"X-Exit-Ip": ["192.0.2.1"], "Via": ["1.1 a", "1.1 b"]}
    (event,) = [event for event in opened if isinstance(event, ConnectionOpened)]
    assert event.proxy_headers == ((b"X-Exit-IP", b"192.0.2.1"), (b"via", b"1.1 a"), (b"Via", b"1.1 b"))
    # A retry, or a redirect, that goes another way.
    direct = Request(peer.url("/"), meta={"_poolplus_proxy_headers": response_of.meta["_poolplus_proxy_headers"]})
    await download(direct)
    assert "_poolplus_proxy_headers" not in direct.meta


@poolplus_only("Scrapy's own handler drops them (scrapy#3329)")
@over_tls
async def test_the_headers_of_an_earlier_tunnel_are_gone_when_a_dial_fails(
    transport: Transport, download: Any, serve: Any
) -> None:
    request = Request(
        f"{transport.scheme}://127.0.0.1:{closed_port()}/", meta={"_poolplus_proxy_headers": {"X-Exit-Ip": ["a"]}}
    )
    with pytest.raises(DownloadConnectionRefusedError):
        await download(request)
    assert "_poolplus_proxy_headers" not in request.meta


# Names, section 1.10: what the proxy looks up, and what is looked up here


@every_kind
async def test_only_the_name_of_the_proxy_is_looked_up_here(
    transport: Transport, download: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy)
    request = via.request(peer.url("/", host="target.example"))
    request.meta["proxy"] = via.address.replace("127.0.0.1", "proxy.example")
    with resolved_to_loopback() as asked:
        assert (await download(request)).body == b"Works"
    assert asked == ["proxy.example"]


@pytest.mark.parametrize(("ttl", "lookups"), [(None, 1), (3600, 1), (0, 3)])
@poolplus_only("the time to live is one of our settings")
async def test_resolve_ttl_bounds_scrapys_cache(
    transport: Transport, downloads: Any, serve: Any, ttl: float | None, lookups: int
) -> None:
    peer = serve(transport, works)
    download = downloads(
        transport, POOLPLUS_POLICY={"resolve_ttl": ttl, "max_requests_per_connection": 1, "preconnect": False}
    )
    name = f"ttl-{lookups}-{transport.name}.example"
    with resolved_to_loopback() as asked:
        # Scrapy installs it once in a process, for good.
        CachingHostnameResolver(the_reactor(), 10_000).install_on_reactor()
        try:
            for _ in range(3):
                await download(peer.url("/", host=name))
        finally:
            dnscache.pop(name, None)
    assert len(peer.connections) == 3
    assert asked == [name] * lookups


# 11 with proxies


@every_kind
async def test_the_bind_address_is_that_of_the_connection_to_the_proxy(
    transport: Transport, downloads: Any, serve: Any, proxies: StartProxy, kind_of_proxy: Kind
) -> None:
    peer, via = serve(transport, works), proxies(kind_of_proxy)
    download = downloads(transport, DOWNLOAD_BIND_ADDRESS="127.0.0.2")
    for address in (None, "127.0.0.3", ("127.0.0.3", 0), None):
        meta = {"bindaddress": address} if address else {}
        assert (await download(via.request(peer.url("/"), meta=meta))).body == b"Works"
    clients = [connection.transport.getPeer().host for connection in via.connections]
    assert clients == ["127.0.0.2", "127.0.0.3"]


@poolplus_only("Scrapy's own handler ignores the family")
async def test_a_proxy_of_another_family_than_the_bind_address_is_a_clear_error(
    transport: Transport, download: Any, serve: Any
) -> None:
    meta = {"proxy": "http://127.0.0.1:1", "bindaddress": "::1"}
    with pytest.raises(CannotResolveHostError, match=r"127\.0\.0\.1 has no IPv6 address.*::1"):
        await download(serve(transport, works).url("/"), meta=meta)
