"""Chains of pages that need one session each, beside a catalogue whose sessions rotate: `scrapy crawl account`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import scrapy
from scrapy.http import Response, TextResponse

from bookshop.report import console, flows_table
from bookshop.rotating import ROTATING
from bookshop.site.log import entries
from bookshop.site.members import PASSWORD, USERNAME
from bookshop.site.profiles import profiles
from bookshop.spiders.books import BooksSpider

WORD = "volume"


class AccountSpider(BooksSpider):
    """The spider `books` with rotation, and the three chains of the members' area at the same time.

    The login and the stock list are forms: their POST begins a flow, which stays in one session with all that follows.
    The search is nothing but links; that its pages belong together only the shop knows, so it is told by a label.
    """

    name = "account"
    custom_settings = ROTATING

    async def crawl(self, url: str) -> AsyncIterator[scrapy.Request]:
        yield scrapy.Request(f"{url}/search/find?word={WORD}", self.parse_results, meta={"poolplus_session": "search"})
        yield scrapy.Request(f"{url}/", self.parse_home)

    def parse_home(self, response: TextResponse) -> Iterator[scrapy.Request]:
        # From here, and first: the session has its cookie then, and no page asked for at the same time brings another one.
        yield response.follow("/login", self.log_in, priority=1)
        yield response.follow("/stock", self.parse_stock, priority=1)
        yield from self.parse_listing(response)

    def log_in(self, response: TextResponse) -> Iterator[scrapy.Request]:
        yield _submitted(response, "form.login", self.parse_account, username=USERNAME, password=PASSWORD)

    def parse_account(self, response: TextResponse) -> Iterator[scrapy.Request]:
        yield from response.follow_all(css="a.orders, a.next", callback=self.parse_account)
        yield from response.follow_all(css="a.order", callback=self.parse_member)

    def parse_stock(self, response: TextResponse) -> Iterator[scrapy.Request]:
        if response.css("form.pager button"):
            yield _submitted(response, "form.pager", self.parse_stock)

    def parse_results(self, response: TextResponse) -> Iterator[scrapy.Request]:
        yield from response.follow_all(css="a.next", callback=self.parse_results)

    def parse_member(self, response: Response) -> None:
        """An order is only fetched: whether the shop gave it is in its log."""

    def tell_more(self, log: Path) -> None:
        with log.open(encoding="utf-8") as lines:
            console().print(flows_table(profiles(entries(lines))))


def _submitted(response: TextResponse, css: str, callback: Callable[..., Any], **filled: str) -> scrapy.Request:
    """The form of a page, sent with its hidden fields and those filled in."""
    form = response.css(css)
    hidden = {field.attrib["name"]: field.attrib["value"] for field in form.css("input[type=hidden]")}
    return response.follow(
        form.attrib["action"],
        callback,
        method="POST",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(hidden | filled),
    )
