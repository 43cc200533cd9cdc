"""A spider that brings its own web site: started before its first request, ended and summed up after its last."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import scrapy
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.utils.asyncio import create_looping_call

from bookshop.children import Child, start_site
from bookshop.pages import PageCheck
from bookshop.places import OUT
from bookshop.progress import progress
from bookshop.report import console, summary_table
from bookshop.result import CrawlResult
from bookshop.site.catalogue import BOOKS
from bookshop.site.log import SiteSummary, summarise
from bookshop.site.serve import SiteMode


class SiteSpider(scrapy.Spider):
    """Subclasses write `crawl(url)` in the place of `start()`; everything else is an ordinary spider.

    Arguments: `-a site=h2|tls1|http`, what the shop speaks (h2 beside HTTP/1.1, HTTP/1.1 over TLS, cleartext);
    `-a books=1000`, its size; `-a url=...`, a shop that runs already; `-a result=...`, the file of the CrawlResult.
    """

    def __init__(
        self,
        *args: Any,
        site: str = SiteMode.H2.value,
        books: str = str(BOOKS),
        url: str | None = None,
        result: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if site not in (known := [mode.value for mode in SiteMode]):
            raise ValueError(f"-a site={site}: the shop speaks one of {', '.join(known)}")
        self.mode = SiteMode(site)
        self.pages = PageCheck(int(books))
        self._books = int(books)
        self._url = url
        self._log = OUT / f"{self.name}-{site}-site.jsonl"
        self._result = Path(result) if result is not None else OUT / f"{self.name}-{site}.json"
        self._site: Child | None = None
        # What is to be ended when the crawl ends, the last first.
        self._open = ExitStack()

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> SiteSpider:
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.pages.note, signals.response_received)
        return spider

    def crawl(self, url: str) -> AsyncIterator[Any]:
        """The start requests for a shop at `url`, which ends without a slash."""
        raise NotImplementedError

    async def start(self) -> AsyncIterator[Any]:
        if self._url is None:
            # A second in which there is nothing else to do.
            self._site = start_site(self.mode, self._log, books=self._books)
            self._open.callback(self._site.end)
            self._url = f"{self.mode.scheme}://localhost:{self._site.port}"
        show = self._open.enter_context(progress(f"{self.name}, {self.mode.value}", self.pages.expected))
        ticking = create_looping_call(lambda: show(self.pages.right))
        ticking.start(0.2)
        self._open.callback(ticking.stop)
        async for request in self.crawl(self._url):
            yield request

    def closed(self, reason: str) -> None:
        """Scrapy calls this at the end of the crawl, after Ctrl-C too."""
        self._open.close()
        site = None
        if self._site is not None:
            with self._log.open(encoding="utf-8") as lines:
                site = summarise(lines)
        result = self._outcome(reason, site)
        result.write(self._result)
        if site is not None:
            title = f"scrapy crawl {self.name}, site={self.mode.value}"
            console().print(summary_table(result, site, self.pages.right_by_kind(), title))
            self.tell_more(self._log)

    def tell_more(self, log: Path) -> None:
        """For a spider that has more to say of the shop's log once the crawl is summed up."""

    def _outcome(self, reason: str, site: SiteSummary | None) -> CrawlResult:
        assert self.crawler.stats is not None
        stats = self.crawler.stats.get_stats()
        # What robots.txt forbids comes as an exception too, and is no error.
        forbidden = stats.get("downloader/exception_type_count/scrapy.exceptions.IgnoreRequest", 0)
        failed = stats.get("downloader/exception_count", 0) - forbidden
        logged = stats.get("log_count/ERROR", 0) + stats.get("log_count/CRITICAL", 0)
        return CrawlResult(
            finished=reason,
            pages_expected=self.pages.expected,
            pages_right=self.pages.right,
            pages_wrong=self.pages.wrong,
            items=stats.get("item_scraped_count", 0),
            # A failed attempt counts although a retry may have mended it; one that nobody mended is logged as well.
            errors=failed + logged,
            concurrency=self.settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN"),
            site=site,
        )
