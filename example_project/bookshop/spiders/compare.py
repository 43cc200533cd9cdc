"""Compare download handlers over a 50 ms round trip: `scrapy crawl compare`."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import scrapy
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.threads import deferToThread

from bookshop.compare import CONTENDERS, Comparison, StoppedError, compare
from bookshop.report import comparison_table, console
from bookshop.site.catalogue import BOOKS


class CompareSpider(scrapy.Spider):
    """Downloads nothing itself: it starts `scrapy crawl books` once for each handler, and its items are the results.

    Arguments: `-a books=1000`, the size of the shop; `-a only=NAME`, one row of the table.
    """

    name = "compare"

    def __init__(self, *args: Any, books: str = str(BOOKS), only: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._contenders = [contender for contender in CONTENDERS if only in {None, contender.name}]
        if not self._contenders:
            raise ValueError(f"-a only={only}: the handlers are {', '.join(row.name for row in CONTENDERS)}")
        self._books = int(books)
        self._stop = threading.Event()

    async def start(self) -> AsyncIterator[Comparison]:
        try:
            rows = await maybe_deferred_to_future(deferToThread(compare, self._books, self._stop, self._contenders))
        except StoppedError:
            return
        console().print(comparison_table(rows))
        for row in rows:
            yield row

    def closed(self, reason: str) -> None:
        """Scrapy calls this at the end, after Ctrl-C too: then the thread ends its children."""
        self._stop.set()
