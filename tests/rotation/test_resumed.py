"""A crawl that is stopped and goes on from its JOBDIR: its sessions are not those of the run before."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request
from scrapy.exceptions import CloseSpider
from scrapy.http import Response

from bench import nginx_log
from scrapy_poolplus import same_session
from scrapy_poolplus.labels import SESSION
from tests.conftest import StartNginx
from tests.rotation.flows import MIDDLEWARES, Fetched, ShopSpider, fetch
from tests.servers.nginx import Door

LINES = """\
set $visit "";
if ($http_cookie !~ visitor=) { set $visit "visitor=$request_id; Path=/"; }
add_header Set-Cookie $visit always;
location = /busy { return 503; }
"""
LISTS, MOST, RETRIES = 12, 10, 2
WAYS = ("link", "form", "login", "pinned", "own", "same", "busy", "jar", "rotate")


class StoppedSpider(ShopSpider):
    """Lists, each with a request of every kind; stops after `most` pages, with the rest in its queue on disk."""

    most = 0

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.sent_in: Counter[str] = Counter()
        self.pinned: set[str] = set()

    async def start(self) -> AsyncIterator[Any]:
        for number in range(LISTS):
            yield Request(f"{self.url}/100?list-{number}", callback=self.list, priority=1)

    def list(self, response: Response) -> Iterator[Request]:
        self.note(response)
        for way in WAYS:
            yield self.follow(response, way)
        self.stop()

    def follow(self, response: Response, way: str) -> Request:
        path = "busy" if way == "busy" else "100"
        request = Request(f"{self.url}/{path}?{way}-{response.url.rpartition('-')[2]}", callback=self.page)
        match way:
            case "form":
                return request.replace(method="POST")
            case "login":
                return request.replace(cookies={"mine": "1"})
            case "pinned":
                request.meta["poolplus_session"] = "ada"
            case "own":
                request.meta["poolplus_session"] = "new"
            case "same":
                request.meta.update(same_session(response))
            case "jar":
                request.meta["cookiejar"] = 1
            case "rotate":
                request.meta["poolplus_rotate"] = True
        return request

    def page(self, response: Response) -> Iterator[Request]:
        """Of each page follows one more, that inherits what it is in."""
        self.note(response)
        if not response.url.endswith("-more"):
            yield Request(f"{response.url}-more", callback=self.page)
        self.stop()

    def note(self, response: Response) -> None:
        self.fetched.note(response)
        assert response.request is not None
        session = response.request.meta[SESSION]
        self.sent_in[session.partition("-")[0]] += 1
        if "pinned" in response.url:
            self.pinned.add(session)

    def stop(self) -> None:
        """At the end of a callback, which has yielded all of its own."""
        if sum(self.fetched.pages.values()) == self.most:
            raise CloseSpider("enough")


class Run:
    """One run over the job's directory."""

    def __init__(self, fetched: Fetched, spider: StoppedSpider) -> None:
        self.fetched = fetched
        self.spider = spider


# Scrapy 2.15 leaves the files of its queues to the garbage collector when a crawl stops early.
@pytest.mark.filterwarnings("ignore:unclosed file .*requests.queue:ResourceWarning")
@pytest.mark.parametrize("door", Door, ids=lambda door: door.value)
async def test_a_crawl_that_is_resumed_fetches_the_rest_in_sessions_of_its_own(
    nginx: StartNginx, reactor_settings: Mapping[str, Any], tmp_path: Path, door: Door
) -> None:
    server = nginx(lines=LINES)

    async def run(most: int) -> Run:
        made: list[StoppedSpider] = []

        class Spider(StoppedSpider):
            url = server.url(door, "").rstrip("/")

            def __init__(self, *arguments: Any, **kwargs: Any) -> None:
                super().__init__(*arguments, **kwargs)
                self.most = most
                made.append(self)

        fetched = await fetch(
            Spider,
            reactor_settings,
            JOBDIR=str(tmp_path / "job"),
            POOLPLUS_ROTATION=MOST,
            RETRY_TIMES=RETRIES,
            **MIDDLEWARES,
        )
        return Run(fetched, made[0])

    runs = [await run(most) for most in (50, 100, 0)]
    server.stop()
    assert [run.fetched.stats["finish_reason"] for run in runs] == ["enough", "enough", "finished"]
    for run_ in runs:
        assert run_.fetched.stats["scheduler/dequeued/disk"] > 20
    # Every page, and none twice.
    pages: Counter[Any] = sum((run.fetched.pages for run in runs), Counter())
    assert len(pages) == sum(pages.values()) == LISTS * (1 + 2 * len(WAYS))
    assert Counter(status for _, _, status in pages.elements())[503] == 2 * LISTS
    # Each run knows sessions of its own alone.
    prefixes = [set(run.spider.sent_in) for run in runs]
    assert [len(known) for known in prefixes] == [1, 1, 1]
    assert len(set.union(*prefixes)) == 3
    gc.collect()
    # So does the server: no cookie goes from one run into another.
    lines, cookies = server.lines(), []
    for run_ in runs:
        count = run_.fetched.stats["downloader/response_count"]
        part, lines = lines[:count], lines[count:]
        cookies.append({name for line in part for name in line.cookies | line.got if name.startswith("visitor=")})
        for unit in nginx_log.units(part, "session", ignored={"mine"}):
            got = {cookie for line in unit for cookie in line.got}
            assert {cookie for line in unit for cookie in line.cookies if cookie.startswith("visitor=")} <= got
    assert not lines
    assert all(cookies)
    assert not (cookies[0] & cookies[1])
    assert not (cookies[0] & cookies[2])
    assert not (cookies[1] & cookies[2])
    # A label outlives the run, as a session of the next one.
    assert all(len(run.spider.pinned) <= 1 for run in runs)
    assert sum(len(run.spider.pinned) for run in runs) >= 2
