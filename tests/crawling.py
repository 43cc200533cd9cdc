"""Crawls: in this process, under the reactor of the tests, or as the `scrapy` command in a process of its own."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import CrawlerRunner
from scrapy.http import Response
from twisted.python import log as twisted_log
from twisted.python.failure import Failure

HANDLER = "scrapy_poolplus.PoolPlusDownloadHandler"
REPOSITORY = Path(__file__).parents[1]


@dataclass(slots=True)
class Crawled:
    """What came of a crawl. Responses and failures (exceptions) are in the order of their arrival."""

    responses: list[Response] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    stats: Mapping[str, Any] = field(default_factory=dict)

    def bodies(self) -> dict[str, bytes]:
        """Body by path."""
        return {response.url.split("/", 3)[3]: response.body for response in self.responses}


class FetchSpider(Spider):
    """Asks for each request and keeps what comes. A request may have callbacks of its own."""

    name = "fetch"

    def __init__(self, *, requests: Iterable[Request], crawled: Crawled, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.requests = requests
        self.crawled = crawled

    async def start(self) -> Any:
        for request in self.requests:
            yield request if request.errback else request.replace(errback=self.failed)

    def parse(self, response: Response, **kwargs: Any) -> None:
        self.crawled.responses.append(response)

    def failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self.crawled.failures.append(failure.value)


class Exceptions(logging.Handler):
    """Keeps the log records that come with a traceback."""

    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._into.append(self.format(record))


@contextmanager
def no_error_is_logged() -> Iterator[None]:
    """Fail for what Twisted and Scrapy only log: an exception in a protocol or a timed call, in a callback or a signal's
    receiver, or one that nobody handled. (Warnings are such exceptions in the tests.)"""
    errors: list[str] = []
    logged = Exceptions(errors)

    def observe(event: dict[str, Any]) -> None:
        if event.get("isError"):
            errors.append(twisted_log.textFromEventDict(event) or repr(event))

    twisted_log.addObserver(observe)
    logging.getLogger().addHandler(logged)
    try:
        yield
        # A Deferred tells of an error that nobody handled when it is collected.
        gc.collect()
    finally:
        twisted_log.removeObserver(observe)
        logging.getLogger().removeHandler(logged)
    assert not errors, "\n".join(errors)


async def crawl(requests: Iterable[Request | str], base: Mapping[str, Any], **settings: Any) -> Crawled:
    """Crawl `requests` with our handler; `settings` are put over `base`. Nothing is retried unless they say so, and
    the same URL may be asked for more than once."""
    crawled = Crawled()
    runner = CrawlerRunner(
        {
            "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
            "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",
            "RETRY_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
            **base,
            **settings,
        }
    )
    crawler = runner.create_crawler(FetchSpider)
    asked = [request if isinstance(request, Request) else Request(request) for request in requests]
    with no_error_is_logged():
        await runner.crawl(crawler, requests=asked, crawled=crawled)
    assert crawler.stats is not None
    crawled.stats = crawler.stats.get_stats()
    return crawled


@dataclass(frozen=True, slots=True)
class Finished:
    """How the `scrapy` command ended, and its log."""

    exit_code: int
    log: str


# PYTHONWARNINGS would compare the whole name of the module, and so miss all but the package itself.
STRICT_SCRAPY = r"""
import warnings
from scrapy.cmdline import execute
warnings.filterwarnings("error", module=r"scrapy_poolplus(\.|$)")
execute()
"""


def scrapy_command(folder: Path, *arguments: str) -> Finished:
    """Run `scrapy` in `folder`, with warnings as errors where they come from this project."""
    ended = subprocess.run(
        [sys.executable, "-c", STRICT_SCRAPY, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=100,
        check=False,
    )
    return Finished(ended.returncode, ended.stdout + ended.stderr)
