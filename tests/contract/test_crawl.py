"""What crawls show on top (contract, section 13), with the settings of section 12 that only a crawl shows."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from scrapy import Request, signals
from scrapy.exceptions import CloseSpider, DownloadTimeoutError
from scrapy.http import Response
from scrapy.utils.request import fingerprint

from tests.versions import since_scrapy

from .crawls import FetchSpider, crawl
from .marks import beyond_stock, over_tls
from .peers import echo, silent, slow_to_start, works
from .running import Transport, the_reactor

# 13.1


async def test_download_delays_hold(kind: str, transport: Transport, serve: Any) -> None:
    arrived: list[float] = []

    def answer(exchange: Any) -> None:
        arrived.append(the_reactor().seconds())
        works(exchange)

    peer = serve(transport, answer)
    delay = 0.2
    await crawl(kind, transport, [peer.url("/")] * 3, settings={"DOWNLOAD_DELAY": delay})
    # Scrapy's jitter takes away up to half of it; the first connection may take some of the first gap.
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert len(gaps) == 2
    assert gaps[1] >= delay / 2 * 0.9


async def test_the_delay_of_a_slot_holds_for_that_slot(kind: str, transport: Transport, serve: Any) -> None:
    arrived: list[tuple[str, float]] = []

    def answer(exchange: Any) -> None:
        arrived.append((exchange.request.target.decode(), the_reactor().seconds()))
        works(exchange)

    peer = serve(transport, answer)
    requests = [Request(peer.url("/slow"), meta={"download_slot": "slow"}) for _ in range(2)]
    requests += [Request(peer.url("/fast"), meta={"download_slot": "fast"}) for _ in range(6)]
    slots = {"slow": {"concurrency": 1, "delay": 0.4}, "fast": {"concurrency": 8, "delay": 0}}
    await crawl(kind, transport, requests, settings={"DOWNLOAD_SLOTS": slots})
    assert sorted(target for target, _ in arrived) == ["/fast"] * 6 + ["/slow"] * 2
    assert arrived[-1][0] == "/slow"


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"CONCURRENT_REQUESTS": 24, "CONCURRENT_REQUESTS_PER_DOMAIN": 24}, id="domain"),
        pytest.param({"CONCURRENT_REQUESTS": 24, "DOWNLOAD_SLOTS": {"127.0.0.1": {"concurrency": 24}}}, id="slot"),
        pytest.param(
            {"CONCURRENT_REQUESTS": 0, "CONCURRENT_REQUESTS_PER_DOMAIN": 24},
            id="no total",
            marks=since_scrapy(2, 18, what="CONCURRENT_REQUESTS = 0"),
        ),
    ],
)
async def test_as_many_requests_are_in_flight_as_the_downloader_lets_go(
    kind: str, transport: Transport, serve: Any, settings: dict[str, Any]
) -> None:
    def answer(_: Any) -> None:
        # None is answered before all are there: a handler that queues hangs here.
        if len(peer.requests) == 24:
            for one in peer.exchanges:
                one.respond()

    peer = serve(transport, answer)
    ended = await crawl(kind, transport, [peer.url("/")] * 24, settings=settings)
    assert len(ended.responses) == 24


async def test_not_more_connections_are_opened_than_requests_are_in_flight(
    kind: str, transport: Transport, serve: Any
) -> None:
    peer = serve(transport, works)
    concurrency = 4
    ended = await crawl(
        kind,
        transport,
        [peer.url("/")] * 40,
        settings={"CONCURRENT_REQUESTS": concurrency, "CONCURRENT_REQUESTS_PER_DOMAIN": concurrency},
    )
    assert len(ended.responses) == 40
    assert len(peer.connections) <= (1 if transport.is_h2 else concurrency)


class ItemSpider(FetchSpider):
    """An item for every response, and an endless number of requests."""

    name = "items"

    async def start(self) -> AsyncIterator[Request]:
        async for request in super().start():
            yield request

    def parse(self, response: Response) -> Any:
        super().parse(response)
        yield {"url": response.url}
        yield Request(response.url, callback=self.parse, errback=self.failed, dont_filter=True)


@pytest.mark.parametrize(
    ("condition", "path", "reason"),
    [
        ({"CLOSESPIDER_ITEMCOUNT": 3}, "/text", "closespider_itemcount"),
        ({"CLOSESPIDER_PAGECOUNT": 3}, "/text", "closespider_pagecount"),
        ({"CLOSESPIDER_TIMEOUT": 1}, "/text", "closespider_timeout"),
    ],
)
async def test_close_conditions_hold(
    kind: str, transport: Transport, site: Any, condition: dict[str, Any], path: str, reason: str
) -> None:
    ended = await crawl(
        kind, transport, [site.url(transport, path)], settings={**condition, "DOWNLOAD_DELAY": 0.01}, spider=ItemSpider
    )
    assert ended.stats["finish_reason"] == reason


class FailingSpider(ItemSpider):
    """Its callback raises."""

    name = "failing"

    def parse(self, response: Response) -> Any:
        yield Request(response.url, callback=self.parse, dont_filter=True)
        raise ValueError("as these tests want it")


async def test_the_error_count_closes_the_spider(kind: str, transport: Transport, site: Any) -> None:
    ended = await crawl(
        kind,
        transport,
        [site.url(transport, "/text")],
        settings={"CLOSESPIDER_ERRORCOUNT": 3},
        spider=FailingSpider,
    )
    assert ended.stats["finish_reason"] == "closespider_errorcount"


async def test_the_signals_of_the_engine_come_in_their_order(kind: str, transport: Transport, site: Any) -> None:
    names = [
        "engine_started",
        "spider_opened",
        "request_scheduled",
        "request_reached_downloader",
        "headers_received",
        "bytes_received",
        "response_downloaded",
        "request_left_downloader",
        "response_received",
        "item_scraped",
        "spider_idle",
        "spider_closed",
        "engine_stopped",
    ]
    seen: list[str] = []
    receivers = []
    for name in names:

        def receive(name: str = name, **_: Any) -> None:
            seen.append(name)

        receivers.append((getattr(signals, name), receive))
    await crawl(kind, transport, [site.url(transport, "/text")], spider=OneItemSpider, receivers=receivers)
    once = list(dict.fromkeys(seen))
    assert sorted(once) == sorted(names)
    of_the_request = names[2:10]
    assert [name for name in once if name in of_the_request] == of_the_request
    assert once[-3:] == ["spider_idle", "spider_closed", "engine_stopped"]


class OneItemSpider(FetchSpider):
    """One item."""

    name = "one"

    def parse(self, response: Response) -> Any:
        yield {"url": response.url}


# 13.2


@pytest.mark.parametrize("head_first", ["0", "1"], ids=["no head", "head"])
async def test_an_answer_after_the_time_out_goes_to_the_errback(
    kind: str, transport: Transport, site: Any, head_first: str
) -> None:
    ended = await crawl(
        kind, transport, [site.url(transport, f"/delay?n=30&b={head_first}")], settings={"DOWNLOAD_TIMEOUT": 0.35}
    )
    assert [type(error) for error in ended.errors] == [DownloadTimeoutError]
    assert ended.responses == []


# 13.3


async def test_statuses_go_to_the_middlewares_as_responses(kind: str, transport: Transport, site: Any) -> None:
    ended = await crawl(
        kind,
        transport,
        [site.url(transport, path) for path in ("/missing", "/status?n=500", "/redirect")],
        settings={"HTTPERROR_ALLOW_ALL": True},
    )
    assert sorted(response.status for response in ended.responses) == [200, 404, 500]
    for status in (200, 302, 404, 500):
        assert ended.stats[f"downloader/response_status_count/{status}"] == 1


class FollowingSpider(FetchSpider):
    """Follows one link, so that a Referer is set."""

    name = "following"

    def parse(self, response: Response) -> Any:
        super().parse(response)
        if not response.url.endswith("/second"):
            yield Request(response.urljoin("/second"), callback=self.parse, errback=self.failed)


async def test_the_referer_of_the_middleware_arrives(kind: str, transport: Transport, serve: Any) -> None:
    peer = serve(transport, works)
    await crawl(kind, transport, [peer.url("/first")], spider=FollowingSpider)
    assert [request.values(b"Referer") for request in peer.requests] == [[], [peer.url("/first").encode()]]


async def test_the_response_knows_its_request(kind: str, transport: Transport, serve: Any) -> None:
    peer = serve(transport, works)
    request = Request(peer.url("/"), cb_kwargs={}, meta={"mine": "kept"})
    ended = await crawl(kind, transport, [request])
    (response,) = ended.responses
    assert response.request.url == request.url
    assert response.meta["mine"] == "kept"
    assert response.meta["download_latency"] > 0


async def test_meta_copied_to_a_new_request_does_no_harm(kind: str, transport: Transport, serve: Any) -> None:
    # Scrapy's documented habit. What is copied must not change where or how the next request goes, nor what it is to the
    # dupefilter, the HTTP cache (fingerprints) and the disk queue (pickle).
    class CopyingSpider(FetchSpider):
        name = "copying"

        def parse(self, response: Response) -> Any:
            super().parse(response)
            if response.url in following:
                yield Request(following[response.url], meta=response.meta, callback=self.parse, errback=self.failed)

    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/moved":
            exchange.respond(302, [(b"Location", b"/there")])
        else:
            echo(exchange)

    peer, other = serve(transport, answer), serve(transport, answer)
    urls = [peer.url("/first"), peer.url("/second"), other.url("/moved"), other.url("/there"), peer.url("/last")]
    following = {urls[0]: urls[1], urls[1]: urls[2], urls[3]: urls[4]}
    ended = await crawl(kind, transport, [Request(urls[0], meta={"mine": 1})], spider=CopyingSpider)
    assert [response.url for response in ended.responses] == [urls[0], urls[1], urls[3], urls[4]]
    sent = [*peer.requests[:2], *other.requests, *peer.requests[2:]]
    assert [request.target for request in sent] == [b"/first", b"/second", b"/moved", b"/there", b"/last"]
    assert [request.names - {b"referer"} for request in sent[1:]] == [sent[0].names] * 4
    for response in ended.responses:
        assert [key for key in response.meta if "poolplus" in key] == []
        assert response.meta["mine"] == 1
        assert pickle.loads(pickle.dumps(response.meta)) == response.meta
        assert fingerprint(response.request) == fingerprint(Request(response.url))


@over_tls
@beyond_stock("its latency counts connecting too")
async def test_autothrottle_does_not_see_what_connecting_takes(kind: str, transport: Transport, serve: Any) -> None:
    held: list[float] = []
    delays: list[float] = []
    peer = serve(transport, works, protocol=slow_to_start(transport, 0.5, held))

    def left(request: Request, spider: Any) -> None:
        # AutoThrottle has set it when the response came.
        delays.append(spider.crawler.engine.downloader.slots[request.meta["download_slot"]].delay)

    await crawl(
        kind,
        transport,
        [peer.url("/")],
        settings={
            "AUTOTHROTTLE_ENABLED": True,
            "AUTOTHROTTLE_START_DELAY": 0.001,
            "AUTOTHROTTLE_TARGET_CONCURRENCY": 1.0,
        },
        receivers=[(signals.request_left_downloader, left)],
    )
    assert len(held) == len(delays) == 1
    assert 0 < delays[0] < held[0]


# 13.4


async def test_a_crawl_ends_with_idle_connections_and_closes_them(kind: str, transport: Transport, serve: Any) -> None:
    peer = serve(transport, works)
    ended = await crawl(kind, transport, [peer.url("/")] * 4)
    assert ended.stats["finish_reason"] == "finished"
    for connection in peer.connections:
        await connection.lost.wait()


class LeavingSpider(FetchSpider):
    """Closes itself at the first response."""

    name = "leaving"

    def parse(self, response: Response) -> Any:
        raise CloseSpider("enough")


async def test_a_crawl_that_is_closed_ends_with_its_requests(kind: str, transport: Transport, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/answered":
            works(exchange)
        else:
            silent(exchange)

    peer = serve(transport, answer)
    ended = await crawl(
        kind,
        transport,
        [peer.url("/silent"), peer.url("/answered")],
        settings={"DOWNLOAD_TIMEOUT": 0.5},
        spider=LeavingSpider,
    )
    assert ended.stats["finish_reason"] == "enough"
    for connection in peer.connections:
        await connection.lost.wait()
