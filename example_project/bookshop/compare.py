"""The same crawl once per handler, each in a process of its own, and what the shop saw of each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bookshop.children import child_environment, start_relay, start_site
from bookshop.places import OUT, PROJECT
from bookshop.progress import Show, progress
from bookshop.result import CrawlResult
from bookshop.rotating import ROTATING, ROTATION
from bookshop.site.catalogue import Catalogue
from bookshop.site.log import SiteSummary, is_page, summarise
from bookshop.site.serve import SiteMode

ROUND_TRIP = 0.05
CONCURRENCY = 16
CLOSE_AFTER = 100
# A crawl that hangs is ended here, and its pages count as lost.
CRAWL_SECONDS = 90.0
REQUEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to download: a row of the table. `settings` are Scrapy's, on top of the project's own."""

    name: str
    settings: dict[str, object]


def _handlers(path: str) -> dict[str, object]:
    return {"DOWNLOAD_HANDLERS": {"http": path, "https": path}}


OURS = "scrapy-poolplus"
OURS_ROTATING = f"ours, rotation {ROTATION}"
OUR_HANDLERS = _handlers("scrapy_poolplus.PoolPlusDownloadHandler")

CONTENDERS = (
    Contender("Scrapy, HTTP11", _handlers("scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler")),
    Contender("Scrapy, H2", _handlers("scrapy.core.downloader.handlers.http2.H2DownloadHandler")),
    Contender(OURS, OUR_HANDLERS),
    Contender(OURS_ROTATING, {**OUR_HANDLERS, **ROTATING}),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One crawl: `result` is None for one that had to be ended or wrote nothing."""

    result: CrawlResult | None
    site: SiteSummary

    def pages_right(self) -> int:
        return self.result.pages_right if self.result is not None else 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row: a run as it is, and one against a shop that closes each connection after CLOSE_AFTER requests."""

    contender: Contender
    pages: int
    plain: Run
    closing: Run

    def pages_lost(self) -> int:
        return self.pages - self.closing.pages_right()


class StoppedError(Exception):
    """The spider was told to stop while the runs went on."""


def compare(books: int, stop: threading.Event, contenders: Sequence[Contender] = CONTENDERS) -> list[Comparison]:
    """Run all; blocks for as long as that takes, in a thread of its own. `stop` ends it within a second by StoppedError."""
    pages = len(Catalogue(books).expected())
    rows = []
    for contender in contenders:
        plain = _run(contender, books, pages, stop, None)
        closing = _run(contender, books, pages, stop, CLOSE_AFTER)
        rows.append(Comparison(contender, pages, plain, closing))
    return rows


def _run(contender: Contender, books: int, pages: int, stop: threading.Event, close_after: int | None) -> Run:
    name = "compare-" + re.sub("[^a-z0-9]+", "-", contender.name.lower())
    if close_after is not None:
        name += "-closing"
    log, result, output = (OUT / f"{name}{ending}" for ending in ("-site.jsonl", ".json", ".log"))
    result.unlink(missing_ok=True)
    label = contender.name + (f", closing after {close_after}" if close_after is not None else "")
    with ExitStack() as open_:
        site = start_site(SiteMode.H2, log, books=books, close_after=close_after)
        open_.callback(site.end)
        relay = start_relay(site.port, ROUND_TRIP)
        open_.callback(relay.end)
        crawl = _start_crawl(contender, f"https://localhost:{relay.port}", books, result, output)
        open_.callback(_end_crawl, crawl)
        _wait(crawl, log, stop, open_.enter_context(progress(label, pages)))
    with log.open(encoding="utf-8") as lines:
        return Run(CrawlResult.read(result) if result.exists() else None, summarise(lines))


def _start_crawl(contender: Contender, url: str, books: int, result: Path, output: Path) -> subprocess.Popen[bytes]:
    settings: dict[str, object] = {
        "CONCURRENT_REQUESTS_PER_DOMAIN": CONCURRENCY,
        "DOWNLOAD_TIMEOUT": REQUEST_SECONDS,
        # What the handler loses is to be seen, not mended.
        "RETRY_ENABLED": False,
        "FEEDS": {},
        **contender.settings,
    }
    command = [sys.executable, "-m", "scrapy", "crawl", "books", "-a", f"url={url}", "-a", f"books={books}"]
    command += ["-a", f"result={result}"]
    for key, value in settings.items():
        command += ["-s", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**child_environment(), "SCRAPY_PROJECT": "default"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _end_crawl(crawl: subprocess.Popen[bytes]) -> None:
    if crawl.poll() is None:
        crawl.kill()
    crawl.wait()


def _wait(crawl: subprocess.Popen[bytes], log: Path, stop: threading.Event, show: Show) -> None:
    """Until the crawl is over or overdue, with the shop's own count of pages as the progress."""
    overdue = time.monotonic() + CRAWL_SECONDS
    answered = 0
    with log.open(encoding="utf-8") as lines:
        while crawl.poll() is None and time.monotonic() < overdue:
            answered += sum(is_page(line) for line in lines)
            show(answered)
            if stop.wait(0.2):
                raise StoppedError
