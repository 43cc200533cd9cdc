"""A handler that downloads nothing: what a crawl with it costs is Scrapy's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scrapy.http import Headers, HtmlResponse, Response

from bench.pages import TEXT, body_of

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from typing_extensions import Self


class NullDownloadHandler:
    """Answers with the body that the server would have sent, in the next turn of the loop."""

    lazy = False

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls()

    async def download_request(self, request: Request) -> Response:
        await asyncio.sleep(0)
        body = body_of(urlsplit(request.url).path)
        cls = Response if len(body) > TEXT else HtmlResponse
        return cls(request.url, headers=Headers({"Content-Type": ["text/html"]}), body=body)

    async def close(self) -> None:
        """Nothing is open."""
