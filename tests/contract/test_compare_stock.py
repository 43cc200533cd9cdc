"""A crawl with our handler is the crawl that it was with Scrapy's own: the same items, and the same of Scrapy's stats
apart from times and bytes, on the same site. Each test runs both and compares."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.pipelines.files import FilesPipeline
from scrapy.pipelines.media import MediaPipeline
from scrapy.settings import default_settings

from .crawls import Ended, crawl
from .marks import poolplus_only
from .running import Transport

TIMES_AND_BYTES = (
    "start_time",
    "finish_time",
    "elapsed_time_seconds",
    "items_per_minute",
    "responses_per_minute",
    "memusage/",
    "downloader/request_bytes",
    "downloader/response_bytes",
    "log_count/DEBUG",
    "log_count/INFO",
    "poolplus/",
)
"""Stats that may differ: times, bytes, how much is said at the lower levels, and ours."""

pytestmark = poolplus_only("compares both")
_runs = itertools.count(100_000)


class PagesSpider(Spider):
    """Crawls the pages of the site, and says what it saw."""

    name = "pages"
    if not hasattr(default_settings, "HTTPAUTH_USER"):  # Scrapy before 2.19
        http_user, http_pass, http_auth_domain = "user", "secret", None

    def __init__(self, base: str, files: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.base = base
        self.files = files
        self.items: list[Any] = []

    async def start(self) -> AsyncIterator[Request]:
        yield Request(self.base + "/index", errback=self.failed)
        yield Request(self.base + "/head", method="HEAD", errback=self.failed)
        yield Request(self.base + "/head", method="POST", body="posted", errback=self.failed)

    def parse(self, response: Response) -> Any:
        """An item for the page, and its links."""
        path = response.url.removeprefix(self.base)
        item: dict[str, Any] = {
            "path": path,
            "status": response.status,
            "title": response.css("title::text").get() if hasattr(response, "css") else None,
            "length": len(response.body),
            "class": type(response).__name__,
            "flags": response.flags,
            "protocol": response.protocol,
            "depth": response.meta["depth"],
            "redirects": [url.removeprefix(self.base) for url in response.meta.get("redirect_urls", [])],
            "retries": response.meta.get("retry_times", 0),
            "referer": (response.request.headers.get("Referer") or b"").decode().removeprefix(self.base),
            # Over h2, Scrapy 2.15 puts ":status" into them, whose name is lost in the cache.
            "headers": sorted(name.decode() for name in response.headers if name not in {b"Date", b":Status", b""}),
        }
        if hasattr(response, "css"):
            if self.files:
                item["file_urls"] = [response.urljoin(one) for one in response.css("img::attr(src)").getall()]
            yield item
            for link in response.css("a::attr(href)").getall():
                yield response.follow(link, errback=self.failed)
        else:
            yield item

    def failed(self, failure: Any) -> Any:
        """An item for the failure."""
        yield {"failed": failure.request.url.removeprefix(self.base), "error": type(failure.value).__name__}


class KeepItems:
    """The last pipeline: gives the items to the spider."""

    def __init__(self, crawler: Any) -> None:
        self.crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Any) -> KeepItems:
        return cls(crawler)

    def process_item(self, item: Any) -> Any:
        """Keep it."""
        self.crawler.spider.items.append(item)
        return item


class SizesPipeline(MediaPipeline):
    """A media pipeline of a project: downloads what a page shows and notes how large it was."""

    def get_media_requests(self, item: Any, info: Any) -> list[Request]:
        return [Request(url) for url in item.get("file_urls", [])]

    def media_to_download(self, request: Request, info: Any, *, item: Any = None) -> None:
        """Nothing is there yet."""

    def file_path(self, request: Request, response: Any = None, info: Any = None, *, item: Any = None) -> str:
        raise NotImplementedError

    def media_downloaded(self, response: Response, request: Request, info: Any, *, item: Any = None) -> int:
        return len(response.body)

    def media_failed(self, failure: Any, request: Request, info: Any) -> Any:
        return failure

    def item_completed(self, results: Any, item: Any, info: Any) -> Any:
        item["sizes"] = [value for good, value in results if good]
        return item


async def both(site: Any, transport: Transport, tmp_path: Path, *, runs: int = 1, **settings: Any) -> list[Ended]:
    """Run the crawl with the stock handler and with ours, and compare. With `runs` > 1 each runs as often on its own data
    (a cache), and every run is compared. The runs with ours are returned."""
    seen: dict[str, list[Ended]] = {}
    for kind in ("stock", "poolplus"):
        directory = tmp_path / kind
        directory.mkdir()
        base = site.url(transport, f"/pages/{next(_runs)}")
        given = {name: str(directory / "data") if value is DIRECTORY else value for name, value in settings.items()}
        pipelines = {KeepItems: 900, **given.pop("ITEM_PIPELINES", {})}
        files = len(pipelines) > 1
        seen[kind] = [
            await crawl(
                kind,
                transport,
                settings={
                    "ITEM_PIPELINES": pipelines,
                    "ROBOTSTXT_OBEY": True,
                    "RETRY_ENABLED": True,
                    "RETRY_TIMES": 3,
                    "HTTPERROR_ALLOW_ALL": True,
                    "HTTPAUTH_USER": "user",
                    "HTTPAUTH_PASS": "secret",
                    "HTTPAUTH_DOMAIN": None,
                    "LOG_LEVEL": "DEBUG",
                    **given,
                },
                spider=PagesSpider,
                base=base,
                files=files,
            )
            for _ in range(runs)
        ]
    for stock, ours in zip(seen["stock"], seen["poolplus"], strict=True):
        assert compared_items(ours) == compared_items(stock)
        assert compared_stats(ours) == compared_stats(stock)
        assert len(stock.spider.items) > 30
        assert stock.stats["finish_reason"] == "finished"
    return seen["poolplus"]


DIRECTORY = object()
"""In settings: a folder of the crawl's own."""


def compared_items(ended: Ended) -> list[str]:
    """The items, in an order that does not depend on who was answered first, without what names the run."""
    base = ended.spider.base
    run = base.rpartition("/")[2]
    items = []
    for scraped in ended.spider.items:
        item = {key: value for key, value in scraped.items() if key != "file_urls"}
        for file in item.get("files", []):
            # Names and paths are made of the URL, which names the run.
            for key in ("url", "path"):
                file.pop(key)
        items.append(repr(item).replace(base, "").replace(run, "run"))
    return sorted(items)


def compared_stats(ended: Ended) -> dict[str, Any]:
    """The stats that must not differ."""
    return {
        name: value
        for name, value in ended.stats.items()
        if not name.startswith(TIMES_AND_BYTES) and not name.endswith(("_bytes", "_time"))
    }


def titles(ended: Ended) -> list[str]:
    """What the pages said."""
    return [item["title"] for item in ended.spider.items if item.get("title")]


async def test_cookies_auth_retry_redirect_robots_and_compression(
    site: Any, transport: Transport, tmp_path: Path
) -> None:
    (ended,) = await both(site, transport, tmp_path)
    # Each of them took part.
    for title in ("cookies first=1 second=2", "auth user", "flaky at hit 3", "by POST", "compressed gzip"):
        assert title in titles(ended)
    assert "private" not in titles(ended)
    assert ended.stats["robotstxt/forbidden"] == 1
    assert ended.stats["retry/reason_count/503 Service Unavailable"] == 2
    assert ended.stats["retry/max_reached"] == 1
    assert ended.stats["httpcompression/response_count"] == 2
    assert ended.stats["dupefilter/filtered"] > 0
    assert {301, 302, 303, 307, 308} & {
        int(name.rpartition("/")[2]) for name in ended.stats if name.startswith("downloader/response_status_count/3")
    }
    assert [f"/redirect/{number}" for number in range(1, 5)] in [item.get("redirects") for item in ended.spider.items]


async def test_without_cookies_and_compression(site: Any, transport: Transport, tmp_path: Path) -> None:
    await both(
        site,
        transport,
        tmp_path,
        COOKIES_ENABLED=False,
        COMPRESSION_ENABLED=False,
        REDIRECT_ENABLED=False,
        DEFAULT_REQUEST_HEADERS={"Accept": "text/html", "X-Mine": "1"},
    )


async def test_the_files_pipeline(site: Any, transport: Transport, tmp_path: Path) -> None:
    (ended,) = await both(site, transport, tmp_path, ITEM_PIPELINES={FilesPipeline: 1}, FILES_STORE=DIRECTORY)
    assert ended.stats["file_count"] == ended.stats["file_status_count/downloaded"] > 20


async def test_a_media_pipeline(site: Any, transport: Transport, tmp_path: Path) -> None:
    (ended,) = await both(site, transport, tmp_path, ITEM_PIPELINES={SizesPipeline: 1})
    assert [item["sizes"] for item in ended.spider.items if item.get("sizes")] == [[20_000]] * 21


@pytest.mark.parametrize("policy", ["DummyPolicy", "RFC2616Policy"])
async def test_the_http_cache(site: Any, transport: Transport, tmp_path: Path, policy: str) -> None:
    first, second = await both(
        site,
        transport,
        tmp_path,
        runs=2,
        HTTPCACHE_ENABLED=True,
        HTTPCACHE_DIR=DIRECTORY,
        HTTPCACHE_IGNORE_HTTP_CODES=[500, 503],
        HTTPCACHE_POLICY=f"scrapy.extensions.httpcache.{policy}",
    )
    assert "httpcache/hit" not in first.stats
    if policy == "DummyPolicy":
        assert second.stats["httpcache/hit"] > 20
    else:
        # 304 Not Modified from the site, the body from the cache.
        assert second.stats["httpcache/revalidate"] > 20


async def test_autothrottle(site: Any, transport: Transport, tmp_path: Path) -> None:
    # Its delays follow download_latency; what it does to the clock is not compared, that it works is.
    await both(
        site,
        transport,
        tmp_path,
        AUTOTHROTTLE_ENABLED=True,
        AUTOTHROTTLE_START_DELAY=0.01,
        AUTOTHROTTLE_MAX_DELAY=0.02,
        AUTOTHROTTLE_TARGET_CONCURRENCY=8,
    )


async def test_a_job_directory(site: Any, transport: Transport, tmp_path: Path) -> None:
    # Requests go through the disk: nothing of ours may be in their meta, or it would not pickle.
    (ended,) = await both(site, transport, tmp_path, JOBDIR=DIRECTORY)
    assert ended.stats["scheduler/enqueued/disk"] > 30


async def test_one_request_at_a_time(site: Any, transport: Transport, tmp_path: Path) -> None:
    await both(site, transport, tmp_path, CONCURRENT_REQUESTS=1)
