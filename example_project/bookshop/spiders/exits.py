"""The catalogue through three proxies, where each session keeps its way out: `scrapy crawl exits`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import scrapy

from bookshop.children import start_proxy
from bookshop.exits import ACCOUNT, EXITS, PROXY_USER, carried, exits_used, proxy_log, read_users
from bookshop.report import console, exits_table
from bookshop.rotating import ROTATING
from bookshop.site.proxy import PASSWORD
from bookshop.site.serve import SiteMode
from bookshop.spiders.books import BooksSpider


class ExitsSpider(BooksSpider):
    """The spider `books` with rotation, through proxies of its own that the shop sees at three addresses.

    Each proxy is told the session as part of its user's name, as providers of proxies with sticky exits want it.
    """

    name = "exits"
    custom_settings = ROTATING | {
        "DOWNLOADER_MIDDLEWARES": ROTATING["DOWNLOADER_MIDDLEWARES"] | {"bookshop.exits.ExitMiddleware": 740},
        "POOLPLUS_POLICY": {"proxy_user": PROXY_USER},
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.mode is SiteMode.CLEARTEXT:
            raise ValueError("-a site=http: the proxies of this example open tunnels only, which https:// goes through")
        self._proxy_logs = [proxy_log(self.mode, address) for address in EXITS]

    async def crawl(self, url: str) -> AsyncIterator[scrapy.Request]:
        port = urlsplit(url).port
        assert port is not None
        started = []
        for address, log in zip(EXITS, self._proxy_logs, strict=True):
            proxy = start_proxy(port, address, log)
            self._open.callback(proxy.end)
            started.append(f"http://{ACCOUNT}:{PASSWORD}@127.0.0.1:{proxy.port}")
        self.proxies = cycle(started)
        async for request in super().crawl(url):
            yield request

    def tell_more(self, log: Path) -> None:
        console().print(exits_table(exits_used(carried(log, read_users(self._proxy_logs)))))
