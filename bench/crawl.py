"""One crawl in a process of its own: ``python -m bench.crawl`` reads a job from standard input and prints what it cost."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scrapy import Request, Spider
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.http import Response
from twisted.python.failure import Failure

from bench.cases import Case, Door
from bench.pages import TEXT, body, digest, digest_of

CONCURRENT_ITEMS = 1
"""Scrapy's default of 100 starts as many asyncio tasks for each response, which drowns what a handler costs."""
WINDOWS = 20
WARM_UP = "127.0.0.9"
"""The host of the warm-up where connections are to be opened in the time that is measured."""


@dataclass(slots=True)
class Cost:
    """`cpu`: seconds, user and system; `wall`: seconds; `peak`, `resting`: bytes of memory, at most and at the end;
    `rest_cpu`: seconds used while it rested. `windows`: seconds of CPU per page, for each WINDOWS-th part of the crawl."""

    cpu: float = 0.0
    wall: float = 0.0
    peak: int = 0
    resting: int = 0
    rest_cpu: float = 0.0
    windows: list[float] = field(default_factory=list)
    warm_up: int = 0
    good: int = 0
    wrong: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class BenchSpider(Spider):
    """Warms up, then asks for each page and holds each body against what it must be."""

    name = "bench"

    def __init__(self, *, case: Case, port: int, cost: Cost, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        self.port = port
        self.cost = cost
        self.warm = asyncio.Event()
        self.left = 0
        self.started = (0.0, 0.0)
        self.window = 1
        self.marked = 0.0

    async def start(self) -> AsyncIterator[Request]:
        case = self.case
        self.left = self.cost.warm_up = case.concurrency if case.size > TEXT else 2 * case.concurrency
        host = WARM_UP if case.cold else "127.0.0.1"
        for number in range(self.left):
            yield self.request(host, number, self.warmed)
        await self.warm.wait()
        gc.collect()
        self.left = case.pages
        requests = [self.request(_host(number % case.hosts), number, self.page) for number in range(case.pages)]
        self.window = max(case.pages // WINDOWS, 1)
        self.started = (time.process_time(), time.perf_counter())
        self.marked = self.started[0]
        for request in requests:
            yield request

    def request(self, host: str, number: int, callback: Any) -> Request:
        url = f"{self.case.door.scheme}://{host}:{self.port}{self.case.path}?{number}"
        method, upload = ("POST", body(self.case.upload)) if self.case.upload else ("GET", b"")
        return Request(url, callback, method, body=upload, errback=self.failed, dont_filter=True)

    def warmed(self, response: Response) -> None:
        self.left -= 1
        if not self.left:
            self.warm.set()

    async def page(self, response: Response) -> None:
        right = digest(response.body) == digest_of(urlsplit(response.url).path)
        self.cost.good += right
        self.cost.wrong += not right
        await self.one_less()

    async def failed(self, failure: Failure) -> None:
        self.cost.failures[f"{type(failure.value).__name__}: {str(failure.value)[:100]}"] += 1
        if not self.warm.is_set():
            self.warmed(Response("about:blank"))
        else:
            await self.one_less()

    async def one_less(self) -> None:
        self.left -= 1
        if (self.case.pages - self.left) % self.window == 0:
            now = time.process_time()
            self.cost.windows.append((now - self.marked) / self.window)
            self.marked = now
        if self.left:
            return
        cost, (cpu, wall) = self.cost, self.started
        cost.cpu, cost.wall = time.process_time() - cpu, time.perf_counter() - wall
        if self.case.rest:
            gc.collect()
            await asyncio.sleep(1)
            cpu = time.process_time()
            await asyncio.sleep(self.case.rest)
            cost.rest_cpu = time.process_time() - cpu
            cost.resting = _memory()


def _host(number: int) -> str:
    return f"127.{number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"


def _memory() -> int:
    """Bytes that the process has in memory now."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def crawl(case: Case, handler: str, port: int, settings: Mapping[str, Any]) -> Cost:
    """Crawl in this process; the reactor can run only once in it."""
    cost = Cost()
    process = AsyncCrawlerProcess(
        {
            "DOWNLOAD_HANDLERS": {"http": handler, "https": handler},
            "CONCURRENT_REQUESTS": case.concurrency,
            "CONCURRENT_REQUESTS_PER_DOMAIN": case.concurrency,
            "CONCURRENT_ITEMS": CONCURRENT_ITEMS,
            "DOWNLOAD_DELAY": 0,
            "DOWNLOAD_TIMEOUT": 60,
            "DOWNLOAD_WARNSIZE": 0,
            "DOWNLOAD_VERIFY_CERTIFICATES": case.verify,
            "RETRY_ENABLED": False,
            "ROBOTSTXT_OBEY": False,
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
            "LOG_LEVEL": "CRITICAL",
            **settings,
        }
    )
    process.crawl(BenchSpider, case=case, port=port, cost=cost)
    process.start()
    cost.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return cost


def main() -> None:
    job = json.load(sys.stdin)
    case = Case(**job["case"] | {"door": Door[job["case"]["door"]]})
    cost = crawl(case, job["handler"], job["port"], job["settings"])
    print(json.dumps(asdict(cost) | {"failures": dict(cost.failures)}))


if __name__ == "__main__":
    main()
