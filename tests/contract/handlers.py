"""The handlers under test, and a handler outside any crawl."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import Crawler, CrawlerRunner
from scrapy.http import Response
from scrapy.utils.misc import build_from_crawler, load_object

from .running import Transport, reactor_settings

POOLPLUS = "scrapy_poolplus.PoolPlusDownloadHandler"
STOCK_HTTP11 = "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler"
STOCK_H2 = "scrapy.core.downloader.handlers.http2.H2DownloadHandler"


def handler_path(kind: str, transport: Transport) -> str:
    """The class of `kind` (``"poolplus"`` or ``"stock"``) that serves `transport`."""
    if kind == "poolplus":
        return POOLPLUS
    return STOCK_H2 if transport.is_h2 else STOCK_HTTP11


def download_handlers(kind: str, transport: Transport) -> dict[str, str]:
    """DOWNLOAD_HANDLERS for a crawl; the stock HTTP/2 handler knows no cleartext."""
    path = handler_path(kind, transport)
    return {"http": STOCK_HTTP11 if path == STOCK_H2 else path, "https": path}


class AnySpider(Spider):
    """A spider that starts nothing."""

    name = "any"


def make_crawler(settings: dict[str, Any] | None = None, spider: type[Spider] = AnySpider) -> Crawler:
    """A crawler as components find it, before any crawl: with settings, signals, stats and spider, without an engine."""
    runner = CrawlerRunner(
        {"TELNETCONSOLE_ENABLED": False, "REMOTE_CONTROL_ENABLED": False, **reactor_settings(), **(settings or {})}
    )
    crawler = runner.create_crawler(spider)
    crawler._apply_settings()
    crawler.spider = crawler._create_spider()
    return crawler


class Downloads:
    """A handler that was built for a crawler without an engine."""

    def __init__(self, path: str, settings: dict[str, Any] | None = None, crawler: Crawler | None = None) -> None:
        self.crawler = crawler if crawler is not None else make_crawler(settings)
        self.handler: Any = build_from_crawler(load_object(path), self.crawler)
        self._closed = False

    def __call__(self, url: str | Request, **arguments: Any) -> Awaitable[Response]:
        """Download a request, or a URL with the arguments of `Request`."""
        request = url if isinstance(url, Request) else Request(url, **arguments)
        return self.handler.download_request(request)

    def on(self, signal: object, receiver: Callable[..., None]) -> None:
        """Connect a receiver; the caller keeps it alive."""
        self.crawler.signals.connect(receiver, signal=signal)

    async def close(self) -> None:
        """Close the handler, once."""
        if not self._closed:
            self._closed = True
            await self.handler.close()
