"""The running pool as text."""

from __future__ import annotations

import json
import logging
import urllib.request
from pathlib import Path
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request, Spider
from scrapy.crawler import CrawlerRunner
from scrapy.extensions.telnet import update_telnet_vars
from scrapy.utils.defer import maybe_deferred_to_future
from scrapy.utils.test import get_crawler
from twisted.internet.threads import deferToThread

from scrapy_poolplus import connection_info, snapshot
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.status import MOST_SHOWN, pool_line, pool_text
from tests.conftest import RunCrawl, StartNginx
from tests.crawling import HANDLER
from tests.peers.pooling import Bench
from tests.servers.nginx import Door
from tests.versions import remote_control

EXTENSION = {"EXTENSIONS": {"scrapy_poolplus.PoolPlusExtension": 0}}


def test_an_empty_pool() -> None:
    assert pool_text(Bench().pool) == "Pool: 0 connections, 0 requests in flight, 0 waiting"


def test_each_connection_is_shown_with_what_is_left_of_its_budget() -> None:
    bench = Bench(max_requests_per_connection=10, max_connection_age=60.0, max_connection_bytes=1000, max_connections=1)
    for _ in range(3):
        bench.ask()
    bench.clock.advance(1.5)
    assert pool_text(bench.pool).splitlines() == [
        "Pool: 1 connection (1 CONNECTING), 0 requests in flight, 3 waiting",
        "a.example:443: 1 connection, 3 waiting",
        "  connection 1 CONNECTING for 1.5 s",
    ]
    bench.dials[0].connect(HttpProtocol.HTTP1)
    bench.clock.advance(12.0)
    assert pool_text(bench.pool).splitlines() == [
        "Pool: 1 connection (1 BUSY), 1 request in flight, 2 waiting",
        "a.example:443: 1 connection, 2 waiting",
        "  connection 1 http/1.1 BUSY, 1/1 streams, 1 request (9 requests, 48.0 s, 1000 bytes left), age 12.0 s",
    ]


def test_a_connection_that_drains_says_why() -> None:
    bench = Bench()
    bench.ask()
    bench.dials[0].connect(HttpProtocol.HTTP2)
    bench.pool.retire()
    assert "connection 1 h2 DRAINING, retired, 1/100 streams, 1 request, age 0.0 s" in pool_text(bench.pool)


def test_a_large_pool_is_not_listed_whole() -> None:
    bench = Bench(max_connections=MOST_SHOWN + 50)
    for _ in range(MOST_SHOWN + 7):
        bench.ask()
        bench.dials[-1].connect(HttpProtocol.HTTP1)
    text = pool_text(bench.pool).splitlines()
    assert text[-1] == "... and 7 more connections"
    assert len(text) == MOST_SHOWN + 3
    assert pool_line(bench.pool).startswith(f"{MOST_SHOWN + 7} connections ({MOST_SHOWN + 7} BUSY)")


def test_the_telnet_console_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    crawler = get_crawler(Spider, {**EXTENSION, "TELNETCONSOLE_ENABLED": True})
    names: dict[str, Any] = {}
    crawler.signals.send_catch_log(update_telnet_vars, telnet_vars=names)
    names["poolplus"]()
    assert capsys.readouterr().out == "Pool: 0 connections, 0 requests in flight, 0 waiting\n"


def test_without_the_extension_there_is_no_snapshot() -> None:
    crawler = get_crawler(Spider, {"EXTENSIONS": {}})
    with pytest.raises(LookupError, match="PoolPlusExtension is not enabled"):
        snapshot(crawler)


class WatchedSpider(Spider):
    name = "watched"
    url: str

    async def start(self) -> Any:
        yield Request(self.url)

    def parse(self, response: Any) -> None:
        # The code that Scrapy's remote control would run.
        self.seen.append(snapshot(self.crawler))

    def __init__(self, seen: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen = seen


@ensureDeferred
async def test_a_running_crawl_can_be_looked_at_and_logs_its_pool(
    nginx: StartNginx, reactor_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server = nginx()
    settings = {
        "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "LOGSTATS_INTERVAL": 0.05,
        **EXTENSION,
    }
    seen: list[str] = []
    with caplog.at_level(logging.INFO, "scrapy_poolplus.extension"):
        url = server.url(Door.H2, "/slow/16384")
        await CrawlerRunner({**reactor_settings, **settings}).crawl(WatchedSpider, seen=seen, url=url)
    assert len(seen) == 1
    assert "connection 1 h2 READY, 0/100 streams, 1 request, age " in seen[0]
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Pool: ")]
    assert any(
        "1 connection (1 READY), 1 request in flight, 0 waiting; 0% of 1 requests reused" in line for line in lines
    )


class RemotelyWatchedSpider(WatchedSpider):
    """Asks the remote control of its own crawl, as another process would: by what the job file says."""

    async def parse(self, response: Any) -> None:
        (job,) = Path(self.settings["REMOTE_CONTROL_JOBS_DIR"]).glob("*.json")
        told = json.loads(job.read_text())
        code = "import scrapy_poolplus\nprint(scrapy_poolplus.snapshot(crawler))"
        asked = urllib.request.Request(
            f"http://127.0.0.1:{told['port']}/execute",
            data=json.dumps({"code": code}).encode(),
            headers={"Authorization": f"Bearer {told['token']}", "Content-Type": "application/json"},
        )
        result = json.loads(await maybe_deferred_to_future(deferToThread(self.answer, asked)))
        assert result["status"] == "ok", result
        self.seen.append(result["output"])

    @staticmethod
    def answer(asked: urllib.request.Request) -> bytes:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return cast("bytes", answer.read())


@remote_control
@ensureDeferred
async def test_scrapys_remote_control_shows_the_running_pool(
    nginx: StartNginx, reactor_settings: dict[str, Any], tmp_path: Path
) -> None:
    if reactor_settings["TWISTED_REACTOR"] is None:
        pytest.skip("Scrapy's remote control needs the asyncio reactor")
    settings = {
        "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": True,
        "REMOTE_CONTROL_JOBS_DIR": str(tmp_path / "jobs"),
        **EXTENSION,
    }
    seen: list[str] = []
    url = nginx().url(Door.H2, "/100")
    await CrawlerRunner({**reactor_settings, **settings}).crawl(RemotelyWatchedSpider, seen=seen, url=url)
    (text,) = seen
    assert text.startswith("Pool: 1 connection (1 READY), 0 requests in flight, 0 waiting\n")
    assert "connection 1 h2 READY, 0/100 streams, 1 request, age " in text
    assert list((tmp_path / "jobs").iterdir()) == []


@ensureDeferred
async def test_sessions_are_shown_and_named_in_infos_and_har(
    run_crawl: RunCrawl, nginx: StartNginx, tmp_path: Path
) -> None:
    server = nginx()
    har = tmp_path / "crawl.har"
    crawled = await run_crawl(
        [server.url(Door.H2, f"/100?{n}") for n in range(30)],
        DOWNLOADER_MIDDLEWARES={"scrapy_poolplus.ConnectionRotationMiddleware": 690},
        SPIDER_MIDDLEWARES={"scrapy_poolplus.SessionFollowMiddleware": 50},
        POOLPLUS_ROTATION=10,
        POOLPLUS_HAR=str(har),
    )
    sessions = {connection_info(response).session for response in crawled.responses}
    assert None not in sessions
    assert len(sessions) >= 3
    log = json.loads(har.read_text())["log"]
    assert {entry["_session"] for entry in log["entries"]} == sessions
    assert {session["id"] for session in log["_sessions"]} >= sessions
    assert all(session["promised"] == 10 for session in log["_sessions"])
