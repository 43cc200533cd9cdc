"""The end of a crawl is bounded, whatever its peers do, and leaves nobody without an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.exceptions import DownloadCancelledError
from scrapy.utils.defer import deferred_from_coro
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_poolplus.core.records import ConnectionState
from scrapy_poolplus.shared import shared_pool
from tests.contract.handlers import POOLPLUS, Downloads
from tests.crawling import HANDLER, REPOSITORY, no_error_is_logged
from tests.reliability.conftest import Hostile

BOUND = 30.0
"""Seconds. The peers would hold it for minutes; that it is 1.5 at most is seen on a clock (test_pool.py), and a busy machine
was seen to take 4 for what takes 2."""
PEERS = [
    ("tcp/silent", "https"),
    ("tcp/silent", "http"),
    ("http/half_a_body", "http"),
    ("https/floods_a_body", "https"),
    ("http/floods_a_body", "http"),
    ("h2/silent_after_the_handshake", "https"),
    ("h2/stops_in_a_body", "https"),
    ("h2/floods_a_body_in_frames", "https"),
    ("h2/says_goaway_and_stays", "https"),
]
EACH = 4
"""Requests; with one connection an origin, those over HTTP/1.1 wait."""


@ensureDeferred
async def test_closing_the_pool_answers_each_request_once_whatever_the_peers_do(hostile: Hostile) -> None:
    from twisted.internet import reactor

    downloads = Downloads(POOLPLUS, {"POOLPLUS_POLICY": {"max_connections": 1}, "DOWNLOAD_TIMEOUT": 60})
    pool = shared_pool(downloads.crawler)
    with no_error_is_logged():
        results: list[Deferred[Any]] = []
        ended: list[BaseException] = []
        for name, scheme in PEERS:
            for n in range(EACH):
                result = deferred_from_coro(downloads(Request(hostile.url(name, str(n), scheme=scheme))))
                result.addBoth(lambda failure: ended.append(failure.value))
                results.append(result)
        wanted = {ConnectionState.CONNECTING, ConnectionState.BUSY, ConnectionState.DRAINING, ConnectionState.READY}
        while {record.state for record in pool.scheduler.connections.values()} != wanted or not (
            pool.scheduler.waiting and pool.scheduler.in_flight
        ):
            await deferLater(reactor, 0.01)
        begun = monotonic()
        await deferred_from_coro(downloads.close())
        assert monotonic() - begun < BOUND
        assert [type(error) for error in ended] == [DownloadCancelledError] * len(results)


SPIDER = """
import time

import scrapy
from scrapy import signals


class EndingSpider(scrapy.Spider):
    name = "ending"
    custom_settings = {
        "DOWNLOAD_HANDLERS": {"http": "%(handler)s", "https": "%(handler)s"},
        "CONCURRENT_REQUESTS": 64,
        "DOWNLOAD_TIMEOUT": 60,
        "RETRY_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
    }

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.asked = 0
        spider.answered_at = 0.0
        crawler.signals.connect(spider.one_asked, signals.request_reached_downloader)
        crawler.signals.connect(spider.stopped, signals.engine_stopped)
        return spider

    async def start(self):
        self.wanted = self.urls.split()
        for url in self.wanted:
            yield scrapy.Request(url, errback=self.failed)

    def one_asked(self):
        self.asked += 1
        if self.asked == len(self.wanted):
            print("all asked", flush=True)

    def parse(self, response):
        self.answered_at = time.monotonic()
        print("answered", len(response.body), flush=True)

    def failed(self, failure):
        self.answered_at = time.monotonic()
        print("failed", failure.type.__name__, flush=True)

    def stopped(self):
        print("stopped after", time.monotonic() - self.answered_at, flush=True)
"""


class Crawl:
    """The spider in a process of its own, as `scrapy runspider` runs it."""

    def __init__(self, folder: Path, urls: list[str]) -> None:
        (folder / "ending.py").write_text(SPIDER % {"handler": HANDLER})
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scrapy", "runspider", "ending.py", "-a", f"urls={' '.join(urls)}"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error:::scrapy_poolplus"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def lines(self) -> Iterator[str]:
        assert self.process.stdout is not None
        return (line.strip() for line in self.process.stdout)

    def wait_for(self, wanted: str) -> None:
        assert wanted in self.lines(), self.log()

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Crawl] = []

    def one(urls: list[str]) -> Crawl:
        started.append(Crawl(tmp_path, urls))
        return started[-1]

    yield one
    for crawl in started:
        crawl.stop()


def test_a_forced_stop_ends_the_command_whatever_the_peers_do(hostile: Hostile, start: Any) -> None:
    crawl = start([hostile.url(name, scheme=scheme) for name, scheme in PEERS])
    crawl.wait_for("all asked")
    crawl.process.send_signal(signal.SIGINT)
    while "Received SIGINT, shutting down gracefully" not in crawl.log():
        assert crawl.process.poll() is None, crawl.log()
    begun = monotonic()
    crawl.process.send_signal(signal.SIGINT)
    crawl.process.wait(60)
    assert monotonic() - begun < BOUND
    assert "Received SIGINT twice, forcing unclean shutdown" in crawl.log()
    assert "Traceback" not in crawl.log()
    assert "Unhandled" not in crawl.log()


def test_a_graceful_stop_lets_what_is_in_flight_finish_and_then_ends(hostile: Hostile, start: Any) -> None:
    idle = [hostile.url(f"{scheme}/good_but_never_closes") for scheme in ("http", "https")]
    slow = [hostile.url(f"{scheme}/slow_but_whole") for scheme in ("http", "https")]
    crawl = start([*idle, *slow])
    crawl.wait_for("all asked")
    crawl.process.send_signal(signal.SIGINT)
    lines = list(crawl.lines())
    crawl.process.wait(60)
    assert (
        sorted(line for line in lines if not line.startswith("stopped"))
        == ["answered 4", "answered 4"] + ["answered 8"] * 2
    )
    (stopped,) = (line for line in lines if line.startswith("stopped"))
    assert float(stopped.split()[-1]) < BOUND
    assert "'finish_reason': 'shutdown'" in crawl.log()
    assert "Traceback" not in crawl.log()
    assert "Unhandled" not in crawl.log()
