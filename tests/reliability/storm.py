"""A crawl of a server that ends connections, reloads and comes back all the while."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from scrapy import Request, Spider
from scrapy.crawler import CrawlerRunner
from scrapy.http import Response
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.crawling import HANDLER, no_error_is_logged

CONCURRENCY = 32


class Stormy(Protocol):
    """A server for a storm; tests.servers.real.RealServer is one."""

    def url(self, number: int) -> str:
        """Of a page."""

    def body(self, number: int) -> bytes:
        """Of a page."""

    def reload(self) -> None:
        """Replace itself, gracefully."""


@dataclass(slots=True)
class Storm:
    """What came of the crawl. `right`: pages with the right body. `losses` and `wrong` say what did not come."""

    right: set[int] = field(default_factory=set)
    losses: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    reloads: int = 0
    protocols: Counter[str] = field(default_factory=Counter)
    stats: Mapping[str, Any] = field(default_factory=dict)

    @property
    def replays(self) -> int:
        """Requests that were sent again below Scrapy."""
        return sum(count for key, count in self.stats.items() if key.startswith("poolplus/replays/"))

    def __str__(self) -> str:
        stats = {key: value for key, value in self.stats.items() if key.startswith("poolplus/")}
        lines = [f"{len(self.right)} right, {self.reloads} reloads, {stats}", *self.wrong[:5]]
        return "\n".join([*lines, *(f"{count} x {text}" for text, count in Counter(self.losses).most_common(10))])


class StormSpider(Spider):
    """The first half of the pages without a pause; the second half in waves. Between them are random pauses, of up to
    twice the `idle` seconds after which the server ends what is idle."""

    name = "storm"

    def __init__(
        self, *, server: Stormy, count: int, idle: float, reload_every: int, storm: Storm, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._server = server
        self._count = count
        self._idle = idle
        self._reload_every = reload_every
        self._storm = storm
        self._asked = 0
        self._answered = 0
        self._all_answered: Deferred[None] | None = None

    async def start(self) -> AsyncIterator[Request]:
        from twisted.internet import reactor

        half = self._count // 2
        # 2 seconds of pauses or so, but not waves of fewer requests than go at once.
        wave = max(CONCURRENCY, round(half * self._idle / 2))
        pauses = random.Random(3)
        for request in self._ask(range(half)):
            yield request
        for first in range(half, self._count, wave):
            await self._until_answered()
            await maybe_deferred_to_future(deferLater(reactor, pauses.uniform(0, 2 * self._idle)))
            for request in self._ask(range(first, min(first + wave, self._count))):
                yield request

    def _ask(self, numbers: Iterable[int]) -> Iterable[Request]:
        for number in numbers:
            self._asked += 1
            yield Request(self._server.url(number), self._arrived, errback=self._lost, cb_kwargs={"number": number})

    async def _until_answered(self) -> None:
        if self._answered < self._asked:
            self._all_answered = Deferred()
            await maybe_deferred_to_future(self._all_answered)

    def _arrived(self, response: Response, number: int) -> None:
        self._storm.protocols[str(response.protocol)] += 1
        if response.body == self._server.body(number):
            self._storm.right.add(number)
        else:
            self._storm.wrong.append(f"{response.url}: {len(response.body)} bytes {response.body[:60]!r}")
        self._one_more()

    def _lost(self, failure: Failure) -> None:
        self._storm.losses.append(f"{type(failure.value).__name__}: {failure.value}")
        self._one_more()

    def _one_more(self) -> None:
        self._answered += 1
        if self._answered % self._reload_every == 0 and self._answered < self._count:
            self._storm.reloads += 1
            self._server.reload()
        if self._all_answered is not None and self._answered == self._asked:
            waiting, self._all_answered = self._all_answered, None
            waiting.callback(None)


async def storm(
    server: Stormy,
    base: Mapping[str, Any],
    *,
    count: int,
    idle: float,
    reload_every: int,
    handler: str = HANDLER,
    **settings: Any,
) -> Storm:
    """Crawl the pages below `count`, each once, with nothing retried. It reloads after each `reload_every` answers."""
    came = Storm()
    runner = CrawlerRunner(
        {
            "DOWNLOAD_HANDLERS": {"http": handler, "https": handler},
            "RETRY_ENABLED": False,
            "DOWNLOAD_TIMEOUT": 30,
            "CONCURRENT_REQUESTS": CONCURRENCY,
            "CONCURRENT_REQUESTS_PER_DOMAIN": CONCURRENCY,
            # A spider without items; Scrapy starts so many tasks for each response.
            "CONCURRENT_ITEMS": 1,
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
            **base,
            **settings,
        }
    )
    crawler = runner.create_crawler(StormSpider)
    with no_error_is_logged():
        await runner.crawl(crawler, server=server, count=count, idle=idle, reload_every=reload_every, storm=came)
    assert crawler.stats is not None
    came.stats = crawler.stats.get_stats()
    return came
