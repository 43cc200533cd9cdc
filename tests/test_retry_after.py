"""Retry-After in whole crawls, with the servers' own logs as the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.exceptions import CloseSpider, DownloadCancelledError
from scrapy.http import Response
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred

from scrapy_poolplus.handler import PoolPlusDownloadHandler
from scrapy_poolplus.shared import shared_door
from tests.conftest import RunCrawl
from tests.rotation.flows import MIDDLEWARES
from tests.servers.nginx import Door
from tests.servers.pausing import PausingServer

HOURS = {"POOLPLUS_POLICY": {"retry_after_max": 7200}}
"""So long that a test which waits for the end of a pause does not end."""

GetServer = Callable[..., PausingServer]


@pytest.fixture(scope="session")
def pausing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetServer]:
    """`pausing(door)` is a server for all tests, `pausing(door, "other")` another one at another host."""
    made: dict[tuple[Door, str], PausingServer] = {}
    authority = trustme.CA()
    folder = tmp_path_factory.mktemp("pausing")

    def get(door: Door, name: str = "") -> PausingServer:
        if (door, name) not in made:
            server = PausingServer(folder / f"{door.value}{name}", authority, door)
            server.start()
            made[door, name] = server
        return made[door, name]

    yield get
    for server in made.values():
        server.stop()


@pytest.fixture
def here(request: pytest.FixtureRequest) -> str:
    """A path of the test's own."""
    return f"/{abs(hash(request.node.nodeid))}"


def shown(request: Request) -> Request:
    """With 429 and 503 for the callback."""
    return request.replace(meta={**request.meta, "handle_httpstatus_list": [429, 503]})


@ensureDeferred
async def test_other_hosts_go_on_while_one_is_held_and_closing_the_spider_releases_it(
    run_crawl: RunCrawl, pausing: GetServer, here: str
) -> None:
    paused, other = pausing(Door.CLEARTEXT), pausing(Door.CLEARTEXT, "other")
    served: list[Response] = []
    released: list[BaseException] = []

    def asked(response: Response) -> Iterator[Request]:
        for number in range(6):
            url = paused.at(f"{here}/held/{number}")
            yield Request(url, errback=lambda failure: released.append(failure.value), priority=1)
        for number in range(40):
            yield Request(other.at(f"{here}/{number}"), callback=enough)

    def enough(response: Response) -> None:
        served.append(response)
        if len(served) == 40:
            raise CloseSpider("enough")

    start = shown(Request(paused.at(f"{here}/first?after=3600"), callback=asked))
    crawled = await run_crawl([start], **HOURS, CONCURRENT_REQUESTS=8, CONCURRENT_REQUESTS_PER_DOMAIN=4)
    # All of the other host's were answered while the first one was held: nobody waited for the end of an hour.
    assert len(served) == len(other.came(here)) == 40
    assert [entry.path for entry in paused.came(here)] == [f"{here}/first"]
    assert [type(error) for error in released] == [DownloadCancelledError] * 6
    assert crawled.stats["finish_reason"] == "enough"
    assert crawled.stats["poolplus/retry_after/pauses"] == 1
    assert crawled.stats["poolplus/retry_after/seconds_total"] == pytest.approx(3600)
    # The rest was in the slot's queue until the spider was closed.
    assert crawled.stats["poolplus/retry_after/held"] >= 4


@pytest.mark.parametrize("after", ["1", "date:1"], ids=["seconds", "date"])
@pytest.mark.parametrize("door", [Door.H2, Door.CLEARTEXT], ids=lambda door: door.value)
@ensureDeferred
async def test_no_request_reaches_the_host_during_its_pause(
    run_crawl: RunCrawl, pausing: GetServer, here: str, door: Door, after: str
) -> None:
    server = pausing(door)

    def more(response: Response) -> Iterator[Request]:
        yield Request(server.at(f"{here}/first"))
        for number in range(9):
            yield Request(server.at(f"{here}/{number}"))

    start = shown(Request(server.at(f"{here}/first?status=503&after={after}"), callback=more))
    crawled = await run_crawl([start], POOLPLUS_POLICY={"retry_after_max": 60}, CONCURRENT_REQUESTS_PER_DOMAIN=4)
    first, *others = server.came(here)
    assert first.status == 503
    assert len(others) == len(crawled.responses) == 10
    assert {entry.status for entry in others} == {200}
    assert min(entry.came for entry in others) - first.answered >= 0.99
    assert crawled.stats["poolplus/retry_after/pauses"] == 1
    assert crawled.stats["poolplus/retry_after/held"] >= 4


@ensureDeferred
async def test_what_waits_for_a_connection_does_not_reach_the_host_either_and_is_not_retried(
    run_crawl: RunCrawl, pausing: GetServer, here: str
) -> None:
    server = pausing(Door.CLEARTEXT)
    urls = [
        server.at(f"{here}/{number}?after=1") if number == 0 else server.at(f"{here}/{number}") for number in range(8)
    ]
    crawled = await run_crawl(
        urls,
        POOLPLUS_POLICY={"retry_after_max": 60, "max_connections": 1},
        RETRY_ENABLED=True,
        DOWNLOAD_TIMEOUT=60,
    )
    first, *others = server.came(here)
    assert first.status == 429
    # The paused one comes again by RetryMiddleware, the others are not known to have waited.
    assert len(others) == len(crawled.responses) == 8
    assert crawled.stats["retry/count"] == 1
    assert min(entry.came for entry in others) - first.answered >= 0.99
    assert not crawled.failures


@ensureDeferred
async def test_after_a_pause_that_was_cut_short_one_request_goes_first(
    run_crawl: RunCrawl, pausing: GetServer, here: str
) -> None:
    server = pausing(Door.H2)

    def more(response: Response) -> Iterator[Request]:
        for number in range(6):
            yield Request(server.at(f"{here}/{number}"))

    start = shown(Request(server.at(f"{here}/first?after=3600"), callback=more))
    crawled = await run_crawl([start], POOLPLUS_POLICY={"retry_after_max": 0.5})
    first, probe, *others = sorted(server.came(here), key=lambda entry: entry.came)
    assert first.status == 429
    assert probe.came - first.answered >= 0.49
    assert min(entry.came for entry in others) >= probe.answered
    assert len(crawled.responses) == 6


@ensureDeferred
async def test_a_cached_429_pauses_nothing(run_crawl: RunCrawl, pausing: GetServer, here: str, tmp_path: Path) -> None:
    server = pausing(Door.CLEARTEXT)
    cache: dict[str, Any] = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": str(tmp_path)}
    url = server.at(f"{here}/first?after=3600")
    written = await run_crawl([shown(Request(url))], **HOURS, **cache)
    assert written.stats["poolplus/retry_after/pauses"] == 1
    flags: list[list[str]] = []

    def more(response: Response) -> Iterator[Request]:
        flags.append(response.flags)
        yield Request(server.at(f"{here}/later"))

    crawled = await run_crawl([shown(Request(url, callback=more))], **HOURS, **cache)
    assert flags == [["cached"]]
    assert [response.status for response in crawled.responses] == [200]
    assert not [name for name in crawled.stats if name.startswith("poolplus/retry_after")]
    assert [entry.status for entry in server.came(here)] == [429, 200]


@ensureDeferred
async def test_without_rotation_and_setting_retry_after_is_not_heeded(
    run_crawl: RunCrawl, pausing: GetServer, here: str
) -> None:
    server = pausing(Door.CLEARTEXT)

    def more(response: Response) -> Iterator[Request]:
        yield Request(server.at(f"{here}/later"))

    crawled = await run_crawl([shown(Request(server.at(f"{here}/first?after=3600"), callback=more))])
    assert len(crawled.responses) == 1
    assert "poolplus/retry_after/pauses" not in crawled.stats


# ---- with rotation

ROTATING: dict[str, Any] = {"POOLPLUS_ROTATION": 5, **MIDDLEWARES}


def in_all_ways(server: PausingServer, here: str) -> Iterator[Request]:
    """Requests for sessions of all kinds: any, labels, flows, the user's cookie jar, one that ends with its request."""
    for name, arguments in {
        "any": {},
        "again": {},
        "pinned": {"meta": {"poolplus_session": "ada"}},
        "new": {"meta": {"poolplus_session": "new"}},
        "left": {"meta": {"poolplus_session": None}},
        "cookiejar": {"meta": {"cookiejar": 1}},
        "rotate": {"meta": {"poolplus_rotate": True}},
        "post": {"method": "POST"},
        "cookies": {"cookies": {"visitor": "1"}},
    }.items():
        yield Request(server.at(f"{here}/{name}"), **arguments)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("door", [Door.H2, Door.CLEARTEXT], ids=lambda door: door.value)
@ensureDeferred
async def test_no_session_gets_round_the_pause_of_its_host(
    run_crawl: RunCrawl, pausing: GetServer, here: str, door: Door, status: int
) -> None:
    server = pausing(door)
    before: list[Response] = []

    def page(response: Response) -> Iterator[Request]:
        before.append(response)
        if len(before) == 12:
            yield shown(Request(server.at(f"{here}/first?status={status}&after=1"), callback=more))

    def more(response: Response) -> Iterator[Request]:
        # In callbacks, where they follow the paused page, and where they follow nothing.
        yield from in_all_ways(server, f"{here}/after")

    start = [Request(server.at(f"{here}/{number}"), callback=page) for number in range(12)]
    crawled = await run_crawl(
        start, **ROTATING, POOLPLUS_POLICY={"retry_after_max": 60}, CONCURRENT_REQUESTS_PER_DOMAIN=4
    )
    after = server.came(f"{here}/after")
    (first,) = (entry for entry in server.came(here) if entry.status == status)
    assert len(after) == len(crawled.responses) == 9
    assert {entry.status for entry in after} == {200}
    assert min(entry.came for entry in after) - first.answered >= 0.99
    assert crawled.stats["poolplus/retry_after/pauses"] == 1
    assert crawled.stats["poolplus/linkability/session/units"] >= 3


@ensureDeferred
async def test_what_is_bound_to_a_session_and_waits_for_its_connection_does_not_get_round_the_pause_either(
    run_crawl: RunCrawl, pausing: GetServer, here: str
) -> None:
    server = pausing(Door.CLEARTEXT)
    first_of_all = Request(server.at(f"{here}/first?after=1"), priority=1)
    crawled = await run_crawl(
        [shown(first_of_all), *in_all_ways(server, f"{here}/after")],
        **ROTATING,
        POOLPLUS_POLICY={"retry_after_max": 60, "max_connections": 1},
        CONCURRENT_REQUESTS_PER_DOMAIN=16,
        DOWNLOAD_TIMEOUT=60,
    )
    first, *others = server.came(here)
    assert first.status == 429
    assert len(others) == 9
    assert min(entry.came for entry in others) - first.answered >= 0.99
    assert len(crawled.responses) == 10
    assert not crawled.failures


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("status", [429, 503])
@ensureDeferred
async def test_a_status_begins_no_other_session(
    run_crawl: RunCrawl, pausing: GetServer, here: str, status: int, concurrency: int
) -> None:
    server = pausing(Door.H2)
    asks = f"status={status}&after=0&times=2"
    crawled = await run_crawl(
        [server.at(f"{here}/{number}?{asks if number % 3 == 1 else ''}") for number in range(12)],
        **MIDDLEWARES,
        POOLPLUS_ROTATION=100,
        RETRY_ENABLED=True,
        CONCURRENT_REQUESTS_PER_DOMAIN=concurrency,
    )
    assert [entry.status for entry in server.came(here)].count(status) == 8
    assert [response.status for response in crawled.responses] == [200] * 12
    assert crawled.stats["retry/count"] == 8
    # All of it in the one session, over the one connection that it opened with.
    assert crawled.stats["poolplus/connections/opened"] == 1
    assert crawled.stats["poolplus/linkability/session/units"] == 1
    assert crawled.stats["poolplus/linkability/session/max"] == 20
    assert not [name for name in crawled.stats if name.startswith("poolplus/linkability/crossings")]


# ---- the handler alone


@pytest.fixture
def handler() -> PoolPlusDownloadHandler:
    return PoolPlusDownloadHandler.from_crawler(get_crawler(settings_dict=HOURS))


def begun(handler: PoolPlusDownloadHandler, request: Request) -> Deferred[Response]:
    return deferred_from_coro(handler.download_request(request))


async def until(condition: Callable[[], bool]) -> None:
    """Let the reactor go round until it is so."""
    from twisted.internet import reactor

    for _ in range(10_000):
        if condition():
            return
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn
    raise AssertionError("it never came")


def stat(handler: PoolPlusDownloadHandler, name: str) -> Any:
    return handler._crawler.stats.get_value(f"poolplus/retry_after/{name}", 0)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("door", [Door.H2, Door.TLS], ids=lambda door: door.value)
@ensureDeferred
async def test_closing_the_handler_answers_what_is_held(
    handler: PoolPlusDownloadHandler, pausing: GetServer, here: str, door: Door, method: str
) -> None:
    server = pausing(door)
    url = server.at(f"{here}/first?status=503&after=3600")
    response = await begun(handler, Request(url, method=method))
    assert response.status == 503
    assert not shared_door(handler._crawler)._inside
    waiting = [begun(handler, Request(server.at(f"{here}/held"))) for _ in range(3)]
    await until(lambda: stat(handler, "held") == 3)
    await deferred_from_coro(handler.close())
    for deferred in waiting:
        with pytest.raises(DownloadCancelledError, match="closed while the request waited"):
            await deferred
    await deferred_from_coro(handler.close())
    assert len(server.came(here)) == 1


@ensureDeferred
async def test_a_request_that_is_cancelled_while_held_lets_go_of_its_place(
    handler: PoolPlusDownloadHandler, pausing: GetServer, here: str
) -> None:
    server = pausing(Door.CLEARTEXT)
    await begun(handler, Request(server.at(f"{here}/first?after=3600")))
    waiting = begun(handler, Request(server.at(f"{here}/held")))
    await until(lambda: stat(handler, "held") == 1)
    ended: list[object] = []
    waiting.addBoth(ended.append)
    waiting.cancel()
    await until(lambda: bool(ended))
    assert len(ended) == 1
    assert "0 held" in repr(shared_door(handler._crawler).pauses)
    await deferred_from_coro(handler.close())
    assert len(server.came(here)) == 1
