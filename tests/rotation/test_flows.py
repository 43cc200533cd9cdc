"""Flows come through rotation whole: what a spider fetches with it is what it fetches without."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from scrapy import Spider

from tests.crawling import REPOSITORY
from tests.rotation.flows import (
    MIDDLEWARES,
    CookieSpider,
    Fetched,
    LoginSpider,
    PinnedSpider,
    SearchSpider,
    StockSpider,
    fetch,
    site,
)

BOOKS = 120


@pytest.fixture(scope="session", params=["h2", "tls1"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the example project's shop, which remembers its visitors."""
    log = tmp_path_factory.mktemp("shop") / "site.jsonl"
    arguments = ("--site", request.param, "--books", str(BOOKS), "--log", str(log))
    with site("bookshop.site.serve", *arguments, folder=REPOSITORY / "example_project") as port:
        yield f"https://localhost:{port}"


@pytest.fixture
def both(shop: str, reactor_settings: Mapping[str, Any]) -> Any:
    """`await both(Spider)`: what it fetches one after the other in one jar, and at concurrency 8 with rotation."""

    async def run(spider: type[Spider], **attributes: Any) -> tuple[Fetched, Fetched]:
        settings = attributes.pop("settings", {})
        at = type(spider.__name__, (spider,), {"url": shop, **attributes})
        alone = await fetch(at, reactor_settings, CONCURRENT_REQUESTS=1)
        rotated = await fetch(at, reactor_settings, POOLPLUS_ROTATION="strict", **MIDDLEWARES, **settings)
        return alone, rotated

    return run


async def test_a_login_crawl_stays_in_the_session_of_its_login(both: Any) -> None:
    alone, rotated = await both(LoginSpider)
    assert sum(alone.pages.values()) > 150
    assert ("GET", "/account/order?number=40", 200) in alone.pages
    assert rotated.pages == alone.pages


async def test_forty_posts_with_the_state_of_the_page_before_stay_in_one_session(both: Any) -> None:
    alone, rotated = await both(StockSpider)
    assert alone.pages["POST", "/stock?", 200] == 39
    assert rotated.pages == alone.pages


async def test_a_search_by_get_that_the_server_remembers_needs_follow_always(both: Any) -> None:
    alone, rotated = await both(SearchSpider, settings={"POOLPLUS_POLICY": {"follow": "always"}})
    assert sum(alone.pages.values()) > 5
    assert rotated.pages == alone.pages


async def test_what_follows_a_request_with_cookies_of_its_own_stays_in_its_session(shop: str, both: Any) -> None:
    alone, rotated = await both(CookieSpider, cookie=logged_in(shop))
    assert ("GET", "/account/order?number=40", 200) in alone.pages
    assert rotated.pages == alone.pages


async def test_a_crawl_under_a_label_is_one_session(both: Any) -> None:
    alone, rotated = await both(PinnedSpider)
    assert rotated.pages == alone.pages


def logged_in(shop: str) -> str:
    """The cookie of a visitor who has logged in by other means."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(shop.removeprefix("https://"), context=context, timeout=20)
    connection.request("GET", "/login")
    page = connection.getresponse()
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    token = page.read().decode().partition('name="csrf" value="')[2].partition('"')[0]
    body = f"csrf={token}&username=ada&password=lovelace"
    connection.request("POST", "/login", body, {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"})
    assert connection.getresponse().status == 303
    connection.close()
    return cookie.removeprefix("visitor=")
