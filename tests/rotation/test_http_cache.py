"""Rotation beside HttpCacheMiddleware: what a page in the cache came with is of no session of this crawl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request
from scrapy.http import Response

from bench import nginx_log
from tests.conftest import StartNginx
from tests.rotation.flows import MIDDLEWARES, Fetched, ShopSpider, fetch
from tests.servers.nginx import Door

LINES = """\
set $visit "";
if ($http_cookie !~ visitor=) { set $visit "visitor=$request_id; Path=/"; }
add_header Set-Cookie $visit always;
"""
STALE = LINES + "add_header Cache-Control max-age=0 always;"
"""With no-cache Scrapy would ask for the page anew, and not whether it has changed."""
PAGES, MOST = 12, 10
every_door = pytest.mark.parametrize("door", Door, ids=lambda door: door.value)


def cache(folder: Path, policy: str) -> dict[str, Any]:
    return {
        "HTTPCACHE_ENABLED": True,
        "HTTPCACHE_DIR": str(folder / "cache"),
        "HTTPCACHE_POLICY": f"scrapy.extensions.httpcache.{policy}",
    }


class CachedSpider(ShopSpider):
    """Pages that are in the cache after the first run, under a label and under none; of each follow, by a link, a form
    and a login from elsewhere, pages that are not."""

    run = ""

    async def start(self) -> AsyncIterator[Any]:
        for number in range(PAGES):
            yield Request(f"{self.url}/100?page-{number}", callback=self.page)
        yield Request(f"{self.url}/100?page-pinned", callback=self.page, meta={"poolplus_session": "ada"})

    def page(self, response: Response) -> Any:
        self.fetched.note(response)
        below = f"{response.url}-{self.run}"
        yield Request(f"{below}-link", callback=self.fetched.note)
        yield Request(f"{below}-form", method="POST", callback=self.fetched.note)
        yield Request(f"{below}-login", cookies={"mine": self.run}, callback=self.fetched.note)


@every_door
async def test_the_cookie_of_a_cached_page_is_sent_by_no_session(
    nginx: StartNginx, reactor_settings: Mapping[str, Any], tmp_path: Path, door: Door
) -> None:
    server = nginx(lines=LINES)
    runs: list[Fetched] = []
    for run in ("1", "2", "3"):
        spider = type("Spider", (CachedSpider,), {"url": server.url(door, "").rstrip("/"), "run": run})
        settings = cache(tmp_path, "DummyPolicy")
        runs.append(await fetch(spider, reactor_settings, POOLPLUS_ROTATION=MOST, **MIDDLEWARES, **settings))
    server.stop()
    lines = server.lines()
    assert [fetched.stats.get("httpcache/hit", 0) for fetched in runs] == [0, PAGES + 1, PAGES + 1]
    assert {sum(fetched.pages.values()) for fetched in runs} == {4 * (PAGES + 1)}
    cookies: list[set[str]] = []
    for run in ("1", "2", "3"):
        asked = [line for line in lines if line.target.split("-")[2:3] == [run]]
        assert len(asked) == 3 * (PAGES + 1)
        assert any("visitor=" in cookie for line in asked for cookie in line.cookies)
        cookies.append({cookie for line in asked for cookie in line.cookies | line.got})
    assert not (cookies[0] & cookies[1])
    assert not (cookies[0] & cookies[2])
    assert not (cookies[1] & cookies[2])
    # What a session sends it was given by the server, or by the spider, in it.
    for unit in nginx_log.units(lines, "session", ignored={"mine"}):
        got = {cookie for line in unit for cookie in line.got}
        assert {cookie for line in unit for cookie in line.cookies if "visitor=" in cookie} <= got


class AgainSpider(ShopSpider):
    """Each page, and then each page again."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.url}/100?0", callback=self.page, cb_kwargs={"number": 0})

    def page(self, response: Response, number: int) -> Any:
        self.fetched.note(response)
        number += 1
        if number < 2 * PAGES:
            yield Request(
                f"{self.url}/100?{number % PAGES}",
                callback=self.page,
                cb_kwargs={"number": number},
                dont_filter=True,
            )


@pytest.mark.parametrize(
    ("rotation", "again"), [("off", 304), (MOST, 200)], ids=["without rotation they are", "with it they are not"]
)
@every_door
async def test_what_one_session_learned_of_a_page_another_does_not_send(
    nginx: StartNginx,
    reactor_settings: Mapping[str, Any],
    tmp_path: Path,
    door: Door,
    rotation: str | int,
    again: int,
) -> None:
    server = nginx(lines=STALE)
    spider = type("Spider", (AgainSpider,), {"url": server.url(door, "").rstrip("/")})
    settings = cache(tmp_path, "RFC2616Policy")
    fetched = await fetch(spider, reactor_settings, POOLPLUS_ROTATION=rotation, **MIDDLEWARES, **settings)
    server.stop()
    assert fetched.pages == {("GET", f"/100?{number}", 200): 2 for number in range(PAGES)}
    assert [line.status for line in server.lines()] == [200] * PAGES + [again] * PAGES
