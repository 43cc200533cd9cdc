"""A page object that uses all that scrapy-poolplus gives to page objects."""

# No `from __future__ import annotations`: scrapy-poet injects by the types that annotations are at run time.

from typing import Any

import attrs
from web_poet import HttpClient, WebPage

from scrapy_poolplus import ConnectionInfo
from scrapy_poolplus.poet import Session

OFTEN = 20
"""Requests after which a page thinks that its session was seen often enough."""


@attrs.define
class BookPage(WebPage[dict[str, Any]]):
    """A book with its cover, which is asked for as the page was: same session, cookies and proxy."""

    http: HttpClient
    connection: ConnectionInfo
    session: Session

    async def to_item(self) -> dict[str, Any]:
        cover = self.response.css("img.cover::attr(src)").get()
        size = len((await self.http.get(str(self.urljoin(cover)))).body) if cover else 0
        if (self.connection.request_number or 0) >= OFTEN:
            self.session.retire()
        return {
            "url": str(self.response.url),
            "title": self.response.css("h1::text").get(""),
            "cover_bytes": size,
            "connection": self.connection.id,
            "session": self.session.id,
        }
