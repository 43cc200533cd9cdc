"""Page objects that see and steer their connection: `scrapy crawl pages`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import scrapy
from scrapy.http import TextResponse

from bookshop.pageobjects import BookPage
from bookshop.sitespider import SiteSpider


class PagesSpider(SiteSpider):
    """The books of the first category; the page object fetches the cover in the session of the page."""

    name = "pages"
    handle_httpstatus_list = [404]
    custom_settings = {
        "ADDONS": {"scrapy_poet.Addon": 300, "scrapy_poolplus.Addon": 500},
        "POOLPLUS_ROTATION": "balanced",
    }

    async def crawl(self, url: str) -> AsyncIterator[scrapy.Request]:
        yield scrapy.Request(f"{url}/", self.parse_home)

    def parse_home(self, response: TextResponse) -> Iterator[scrapy.Request]:
        yield from response.follow_all(response.css("a.category")[:1], callback=self.parse_category)

    def parse_category(self, response: TextResponse) -> Iterator[scrapy.Request]:
        yield from response.follow_all(css="a.book", callback=self.parse_book)

    async def parse_book(self, response: TextResponse, page: BookPage) -> AsyncIterator[dict[str, Any]]:
        yield await page.to_item()
