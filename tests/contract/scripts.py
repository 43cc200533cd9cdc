"""Programs that tests run in processes of their own."""

from __future__ import annotations

import json
from typing import Any

from .handlers import download_handlers
from .running import H2, HTTP, PROJECT, TRANSPORTS, Transport

ASYNCIO = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"

SPIDER = (
    f"PROJECT = {str(PROJECT)!r}"
    """
import sys

sys.path.insert(0, PROJECT)  # python -E does not read PYTHONPATH

import scrapy
from scrapy import Spider


class FetchSpider(Spider):
    name = "fetch"
    urls = []

    async def start(self):
        for url in self.urls:
            yield scrapy.Request(url, errback=self.failed, dont_filter=True)

    def parse(self, response):
        print("GOT", response.status, response.protocol, len(response.body), flush=True)

    def failed(self, failure):
        print("FAILED", type(failure.value).__name__, failure.value, flush=True)
"""
)


def settings_of(kind: str, transport: Transport, **settings: Any) -> dict[str, Any]:
    """Settings of a script's crawl."""
    return {
        "DOWNLOAD_HANDLERS": download_handlers(kind, transport),
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "LOG_LEVEL": "WARNING",
        "RETRY_ENABLED": False,
        **settings,
    }


def every_transport(kind: str) -> tuple[Transport, ...]:
    """What one crawl of that kind can speak: the stock handlers cannot speak both protocols over https."""
    return TRANSPORTS if kind == "poolplus" else (HTTP, H2)


def fetch_script(settings: dict[str, Any], urls: list[str]) -> str:
    """Fetches `urls` by a CrawlerProcess and prints a line for each."""
    return (
        SPIDER
        + f"""
FetchSpider.urls = {json.dumps(urls)}
from scrapy.crawler import CrawlerProcess

process = CrawlerProcess({settings!r})
process.crawl(FetchSpider)
process.start()
print("ENDED", flush=True)
"""
    )
