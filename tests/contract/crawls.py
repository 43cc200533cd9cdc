"""Crawls in the test process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import CrawlerRunner
from scrapy.http import Response
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.python.failure import Failure

from .handlers import download_handlers
from .running import Transport, reactor_settings


@dataclass(slots=True)
class Ended:
    """A crawl that has ended."""

    responses: list[Response] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    spider: Any = None
    crawler: Any = None


class FetchSpider(Spider):
    """Fetches what it is given; responses go to the callback, everything else to the errback."""

    name = "fetch"

    def __init__(self, requests: Iterable[str | Request] = (), ended: Ended | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.requests = list(requests)
        self.ended = ended if ended is not None else Ended()

    async def start(self) -> AsyncIterator[Request]:
        for request in self.requests:
            asked = Request(request) if isinstance(request, str) else request
            yield asked.replace(
                callback=asked.callback or self.parse,
                errback=asked.errback or self.failed,
                dont_filter=True,
            )

    def parse(self, response: Response) -> Any:
        self.ended.responses.append(response)

    def failed(self, failure: Failure) -> None:
        """The errback."""
        self.ended.failures.append(failure)
        self.ended.errors.append(failure.value)


async def crawl(
    kind: str,
    transport: Transport,
    requests: Iterable[str | Request] = (),
    *,
    settings: dict[str, Any] | None = None,
    spider: type[Spider] = FetchSpider,
    receivers: Iterable[tuple[object, Any]] = (),
    **arguments: Any,
) -> Ended:
    """Run a crawl to its end. `receivers`: pairs of a signal and a function."""
    runner = CrawlerRunner(
        {
            "DOWNLOAD_HANDLERS": download_handlers(kind, transport),
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
            "RETRY_ENABLED": False,
            **reactor_settings(),
            **(settings or {}),
        }
    )
    crawler = runner.create_crawler(spider)
    ended = Ended(crawler=crawler)
    kept = list(receivers)
    for signal, receiver in kept:
        crawler.signals.connect(receiver, signal=signal)
    if issubclass(spider, FetchSpider):
        arguments |= {"requests": requests, "ended": ended}
    await maybe_deferred_to_future(runner.crawl(crawler, **arguments))
    assert crawler.stats is not None
    ended.stats = crawler.stats.get_stats()
    ended.spider = crawler.spider
    return ended
