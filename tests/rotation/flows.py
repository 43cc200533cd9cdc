"""Spiders whose pages depend on each other, for the example project's shop, and a crawl that notes what they fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from scrapy import Request, Spider
from scrapy.crawler import CrawlerRunner
from scrapy.http import Response
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

from tests.crawling import HANDLER, REPOSITORY, no_error_is_logged

MIDDLEWARES: dict[str, Any] = {
    "DOWNLOADER_MIDDLEWARES": {"scrapy_poolplus.ConnectionRotationMiddleware": 690},
    "SPIDER_MIDDLEWARES": {"scrapy_poolplus.SessionFollowMiddleware": 50},
}


@contextmanager
def site(module: str, *arguments: str, folder: Path) -> Iterator[int]:
    """A Python module that prints ``{"port": ...}``, in a process of its own; ended by closing its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "example_project")))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{module} ended with {process.wait(timeout=20)}"
        yield int("".join(filter(str.isdigit, line)))
    finally:
        process.communicate(timeout=20)


@dataclass
class Fetched:
    """What callbacks got: method, URL without the site's address, status; how often; and the crawl's statistics."""

    pages: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    stats: Mapping[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def note(self, response: Response) -> None:
        assert response.request is not None
        parts = urlsplit(response.url)
        self.pages[response.request.method, f"{parts.path}?{parts.query}", response.status] += 1


async def fetch(spider: type[Spider], base: Mapping[str, Any], **settings: Any) -> Fetched:
    """Crawl with our handler; `spider` notes what it gets in its ``fetched``."""
    fetched = Fetched()
    runner = CrawlerRunner(
        {
            "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
            "HTTPERROR_ALLOW_ALL": True,
            "CONCURRENT_REQUESTS": 8,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
            **base,
            **settings,
        }
    )
    crawler = runner.create_crawler(spider)
    with no_error_is_logged():
        await runner.crawl(crawler, fetched=fetched)
    assert crawler.stats is not None
    fetched.stats = crawler.stats.get_stats()
    return fetched


def submit(response: Response, css: str, *, callback: Any, **fields: str) -> Request:
    """The form of a page, with `fields` filled in."""
    form = response.css(css)
    hidden = {field.attrib["name"]: field.attrib["value"] for field in form.css("input[type=hidden]")}
    return Request(
        response.urljoin(form.attrib["action"]),
        method="POST",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(hidden | fields),
        callback=callback,
        dont_filter=True,
    )


class ShopSpider(Spider):
    """`url` is set by the test."""

    name = "shop"
    url = ""

    def __init__(self, *arguments: Any, fetched: Fetched, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.fetched = fetched


class LoginSpider(CrawlSpider):
    """As the documentation of CrawlSpider shows it: a form first, then rules; beside it the catalogue."""

    name = "login"
    url = ""
    rules = (Rule(LinkExtractor(deny=("/search", "/stock", "/staff")), callback="page", follow=True),)

    def __init__(self, *arguments: Any, fetched: Fetched, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.fetched = fetched

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.url}/login", callback=self.form)

    def form(self, response: Response) -> Any:
        self.fetched.note(response)
        yield submit(response, "form.login", callback=self._parse, username="ada", password="lovelace")
        yield Request(f"{self.url}/", callback=self._parse)

    def page(self, response: Response) -> None:
        self.fetched.note(response)


class StockSpider(ShopSpider):
    """Forty POSTs, each with the state of the page before; beside them the catalogue."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.url}/stock", callback=self.stock)
        for number in range(60):
            yield Request(f"{self.url}/?again={number}", callback=self.fetched.note)

    def stock(self, response: Response) -> Any:
        self.fetched.note(response)
        if response.css("form.pager button"):
            yield submit(response, "form.pager", callback=self.stock)


class SearchSpider(ShopSpider):
    """Pages by GET that the server keeps apart by the cookie alone."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.url}/search", callback=self.search)

    def search(self, response: Response) -> Any:
        self.fetched.note(response)
        yield Request(f"{self.url}/search/find?word=e", callback=self.results)

    def results(self, response: Response) -> Any:
        self.fetched.note(response)
        for link in response.css("a.next"):
            yield response.follow(link, callback=self.results, dont_filter=True)


class CookieSpider(ShopSpider):
    """A login that came from elsewhere: its cookie is on the start request, and what follows relies on it."""

    cookie = ""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(
            f"{self.url}/account/orders",
            cookies=[{"name": "visitor", "value": self.cookie, "path": "/"}],
            callback=self.orders,
        )
        for number in range(40):
            yield Request(f"{self.url}/?again={number}", callback=self.fetched.note)

    def orders(self, response: Response) -> Any:
        self.fetched.note(response)
        yield from response.follow_all(css="a.order", callback=self.fetched.note)
        yield from response.follow_all(css="a.next", callback=self.orders)


class PinnedSpider(LoginSpider):
    """The login crawl under a label."""

    async def start(self) -> AsyncIterator[Any]:
        async for request in super().start():
            yield request.replace(meta={"poolplus_session": "ada"})
