"""Crawl the whole shop: `scrapy crawl books`, `scrapy crawl books -a site=tls1`, `scrapy crawl books -a site=http`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import scrapy
from scrapy.http import Response, TextResponse

from bookshop.items import Book
from bookshop.sitespider import SiteSpider


class BooksSpider(SiteSpider):
    """From the home page through every category to every book and its cover."""

    name = "books"
    # Some books are gone; their pages are answers like others.
    handle_httpstatus_list = [404]

    async def crawl(self, url: str) -> AsyncIterator[scrapy.Request]:
        yield scrapy.Request(f"{url}/", self.parse_listing)

    def parse_listing(self, response: TextResponse) -> Iterator[scrapy.Request]:
        yield from response.follow_all(css="a.category, a.next", callback=self.parse_listing)
        yield from response.follow_all(css="a.book", callback=self.parse_book)

    def parse_book(self, response: TextResponse) -> Iterator[scrapy.Request | Book]:
        if response.status == 404:
            return
        cover = response.urljoin(response.css("img.cover::attr(src)").get(""))
        yield Book(
            url=response.url,
            title=response.css("h1::text").get(""),
            category=response.css(".shelf::text").get(""),
            price=response.css(".price::text").get(""),
            stock=int(response.css(".stock::text").get("0")),
            upc=response.css(".upc::text").get(""),
            cover=cover,
            text_bytes=len(response.css(".text").get("")),
        )
        # Books of a series share a cover; Scrapy's duplicate filter fetches each once.
        yield scrapy.Request(cover, self.parse_cover)

    def parse_cover(self, response: Response) -> None:
        """A cover is only fetched: that it came whole is checked like every page."""
