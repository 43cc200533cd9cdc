"""ConnectionInfo: where a response came from, and that its times and bytes are those of a clock and of a server."""

from __future__ import annotations

import gc
import weakref
from dataclasses import asdict
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.http import HtmlResponse, Response
from twisted.python.failure import Failure

from scrapy_poolplus import ConnectionInfo, connection_info
from scrapy_poolplus.core.errors import ConnectRefusedError, Phase
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.wire import BodyEnd, Outcome, ResponseHead, Timings
from scrapy_poolplus.tracing import EMPTY, Trace, remember
from tests.conftest import RunCrawl, StartNginx
from tests.peers.pooling import Bench
from tests.servers.nginx import Door, Logged

TIMES = ("waited", "dns", "connect", "tls", "sent", "first_byte", "received")


def times(info: ConnectionInfo) -> dict[str, float | None]:
    return {name: getattr(info, name) for name in TIMES}


def steps(bench: Bench, connection: Any, *, sent: float, first_byte: float, received: float) -> None:
    """An exchange in steps of these seconds."""
    exchange = connection.exchanges.pop(0)
    bench.clock.advance(sent)
    exchange.sent()
    bench.clock.advance(first_byte)
    exchange.head(ResponseHead(200, [], None, "h2"))
    bench.clock.advance(received)
    exchange.carried(120, 3_400)
    exchange.done(Outcome(end=BodyEnd.COMPLETE))


def test_the_first_request_of_a_connection_waited_for_its_dial() -> None:
    bench = Bench()
    ticket, _ = bench.ask()
    bench.clock.advance(4.0)
    connection = bench.dials[0].connect(HttpProtocol.HTTP2)
    connection.timings = Timings(resolve=0.5, connect=1.0, tunnel=0.25, tls=2.0)
    steps(bench, connection, sent=0.125, first_byte=0.5, received=0.75)
    info = Trace(ticket).info()
    assert times(info) == {
        "waited": 0.25,
        "dns": 0.5,
        "connect": 1.25,
        "tls": 2.0,
        "sent": 0.125,
        "first_byte": 0.5,
        "received": 0.75,
    }
    assert (info.id, info.request_number, info.reused, info.age) == (1, 1, False, 0.0)
    assert (info.bytes_sent, info.bytes_received, info.protocol, info.replays) == (120, 3_400, "h2", 0)


def test_a_later_request_has_no_share_in_the_dial() -> None:
    bench = Bench()
    bench.ask()
    bench.clock.advance(1.0)
    connection = bench.dials[0].connect(HttpProtocol.HTTP2)
    connection.timings = Timings(connect=1.0)
    bench.clock.advance(2.0)
    ticket, _ = bench.ask()
    connection.exchanges.pop(0)
    steps(bench, connection, sent=0.0, first_byte=0.5, received=0.0)
    info = Trace(ticket).info()
    assert times(info) == dict.fromkeys(TIMES, 0.0) | {"first_byte": 0.5}
    assert (info.request_number, info.reused, info.age) == (2, True, 2.0)


def test_only_the_part_of_a_dial_that_a_request_waited_for_is_its_own() -> None:
    bench = Bench()
    first, _ = bench.ask()
    bench.clock.advance(1.5)
    ticket, _ = bench.ask()
    first.cancel()
    bench.clock.advance(1.0)
    connection = bench.dials[0].connect()
    connection.timings = Timings(resolve=1.0, connect=1.0, tls=0.5)
    steps(bench, connection, sent=0.0, first_byte=0.0, received=0.0)
    info = Trace(ticket).info()
    assert (info.waited, info.dns, info.connect, info.tls) == (0.0, 0.0, 0.5, 0.5)


def test_of_a_request_that_never_had_a_connection_only_the_wait_is_known() -> None:
    bench = Bench()
    ticket, _ = bench.ask()
    bench.clock.advance(3.0)
    bench.dials[0].fail(ConnectRefusedError("refused", phase=Phase.CONNECT))
    assert Trace(ticket).info() == ConnectionInfo(waited=3.0, replays=0)


def test_a_replayed_request_tells_of_its_last_connection() -> None:
    bench = Bench()
    ticket, _ = bench.ask()
    first = bench.dials[0].connect()
    bench.clock.advance(1.0)
    first.exchanges.pop(0).done(
        Outcome(ConnectRefusedError("lost before it was sent", phase=Phase.SEND), progress=Progress.NOT_SENT)
    )
    connection = first if first.exchanges else bench.dials[-1].connect()
    steps(bench, connection, sent=0.0, first_byte=2.0, received=0.0)
    info = Trace(ticket).info()
    assert (info.replays, info.first_byte) == (1, 2.0)


def test_a_phase_that_did_not_end_lasted_until_the_request_did() -> None:
    bench = Bench()
    ticket, _ = bench.ask()
    connection = bench.dials[0].connect()
    connection.exchanges[0].sent()
    bench.clock.advance(7.0)
    ticket.cancel()
    info = Trace(ticket).info()
    assert (info.sent, info.first_byte, info.received) == (0.0, 7.0, None)


@pytest.mark.parametrize("of", [Request("https://a.example"), Response("https://a.example"), HtmlResponse("data:,")])
def test_what_did_not_come_through_the_pool_has_empty_fields(of: Request | Response) -> None:
    assert connection_info(of) is EMPTY
    assert set(asdict(EMPTY).values()) == {None}


def test_a_replaced_response_and_a_copied_request() -> None:
    bench = Bench()
    ticket, _ = bench.ask()
    steps(bench, bench.dials[0].connect(), sent=0.0, first_byte=0.0, received=0.0)
    request = Request("https://a.example", meta={"mine": 1})
    remember(request, Trace(ticket))
    response = Response(request.url, request=request).replace(body=b"changed")
    assert connection_info(response).id == 1
    assert connection_info(request.copy()) is EMPTY, "the next request went its own way"
    assert request.meta == {"mine": 1}


def test_nothing_is_kept_when_the_request_is_gone() -> None:
    bench = Bench()
    ticket, _ = bench.ask()
    steps(bench, bench.dials[0].connect(), sent=0.0, first_byte=0.0, received=0.0)
    request, trace = Request("https://a.example"), Trace(ticket)
    remember(request, trace)
    gone = weakref.ref(request)
    del request
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("door", Door, ids=lambda door: door.value)
@ensureDeferred
async def test_bytes_and_places_are_those_that_the_server_saw(
    run_crawl: RunCrawl, nginx: StartNginx, door: Door
) -> None:
    server = nginx()
    urls = [server.url(door, f"/{size}?{n}") for n in range(4) for size in (0, 100, 16 << 10, 1 << 20)]
    crawled = await run_crawl(urls, CONCURRENT_REQUESTS=3)
    server.stop()
    log = {entry.target: entry for entry in server.log()}
    seen: dict[int, set[int]] = {}
    for response in crawled.responses:
        info = connection_info(response)
        entry = log["/" + response.url.split("/", 3)[3]]
        assert (info.request_number, info.peer_address) == (entry.nth, "127.0.0.1")
        assert info.reused is (entry.nth > 1)
        assert (info.tls_version is None, info.tls_cipher is None) == (door is Door.CLEARTEXT,) * 2
        assert all(seconds is not None and seconds >= 0 for seconds in times(info).values())
        if entry.nth > 1:
            assert (info.dns, info.connect, info.tls) == (0.0, 0.0, 0.0)
        same_bytes(info, entry, door)
        seen.setdefault(info.id or 0, set()).add(entry.connection)
    assert len(crawled.responses) == 16
    assert all(len(connections) == 1 for connections in seen.values()), "one number is one connection"


def same_bytes(info: ConnectionInfo, entry: Logged, door: Door) -> None:
    """Over HTTP/1.1 the server counts the same bytes. Over h2 its figures leave out some of the framing."""
    assert info.bytes_sent is not None
    assert info.bytes_received is not None
    if door is Door.H2:
        frames = 2 + entry.length // 8_192
        assert entry.length < info.bytes_received <= entry.length + 400 + 9 * frames
        assert 20 < info.bytes_sent < 400
    else:
        assert (info.bytes_sent, info.bytes_received) == (entry.received, entry.sent)


@ensureDeferred
async def test_an_errback_asks_the_failures_request(run_crawl: RunCrawl, nginx: StartNginx) -> None:
    server = nginx()
    infos: list[ConnectionInfo] = []

    def failed(failure: Failure) -> None:
        infos.append(connection_info(failure.request))  # type: ignore[attr-defined]

    url = server.url(Door.H2, f"/{1 << 20}")
    await run_crawl([Request(url, errback=failed, meta={"download_maxsize": 1000})])
    assert [(info.id, info.protocol, info.request_number) for info in infos] == [(1, "h2", 1)]


@ensureDeferred
async def test_what_comes_from_scrapys_cache_did_not_come_over_a_connection(
    run_crawl: RunCrawl, nginx: StartNginx, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = nginx()
    cache = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    fresh = await run_crawl([server.url(Door.TLS, "/100")], **cache)
    cached = await run_crawl([server.url(Door.TLS, "/100")], **cache)
    assert connection_info(fresh.responses[0]).id == 1
    assert cached.responses[0].flags == ["cached"]
    assert connection_info(cached.responses[0]) is EMPTY
