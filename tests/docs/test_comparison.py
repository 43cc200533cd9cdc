"""Each "yes" and "no" of docs/comparison.rst without a footnote is what a crawl of a real server shows."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from scrapy import Request, version_info
from scrapy.http import Response

from scrapy_poolplus import connection_info
from tests.conftest import RunCrawl, StartNginx
from tests.crawling import HANDLER, REPOSITORY, Crawled
from tests.peers.listening import Listening
from tests.peers.proxies import HttpProxy, SocksProxy
from tests.servers.nginx import Door, requests_by_connection

COMPARED = (2, 19)
"""The version of Scrapy that the page is about."""
STOCK = "scrapy.core.downloader.handlers"
INCUBATOR = "scrapy_download_handlers_incubator.handlers"
ROTATION = {
    "DOWNLOADER_MIDDLEWARES": {"scrapy_poolplus.ConnectionRotationMiddleware": 690},
    "SPIDER_MIDDLEWARES": {"scrapy_poolplus.SessionFollowMiddleware": 50},
    "POOLPLUS_ROTATION": "balanced",
}


@dataclass(frozen=True, slots=True)
class Handler:
    """A column of the table. `needs`: a package without which it cannot be tried."""

    path: str
    needs: str = "scrapy"
    settings: Mapping[str, Any] = field(default_factory=dict)


HANDLERS = {
    "scrapy-poolplus": Handler(HANDLER, settings=ROTATION),
    "HTTP11": Handler(f"{STOCK}.http11.HTTP11DownloadHandler"),
    "H2": Handler(f"{STOCK}.http2.H2DownloadHandler"),
    "Httpx": Handler(f"{STOCK}._httpx.HttpxDownloadHandler", "httpx2", {"HTTPX_HTTP2_ENABLED": True}),
    "Aiohttp": Handler(f"{STOCK}._aiohttp.AiohttpDownloadHandler", "aiohttp"),
    "curl_cffi": Handler(
        f"{INCUBATOR}.curl_cffi.CurlCffiDownloadHandler", "curl_cffi", {"CURL_CFFI_HTTP_VERSION": "v2tls"}
    ),
    "pyreqwest": Handler(
        f"{INCUBATOR}.pyreqwest.PyreqwestDownloadHandler", "pyreqwest", {"PYREQWEST_HTTP2_ENABLED": True}
    ),
    "wreq": Handler(f"{INCUBATOR}.wreq.WreqDownloadHandler", "wreq", {"WREQ_HTTP2_ENABLED": True}),
}


class Tried:
    """What a probe has: servers, proxies, crawls with the handler."""

    def __init__(self, run_crawl: RunCrawl, nginx: StartNginx, listening: Listening, handler: Handler) -> None:
        self._run, self._handler = run_crawl, handler
        self.nginx, self.listening = nginx, listening

    async def crawl(self, requests: list[Request], **settings: Any) -> Crawled:
        handlers = {"http": self._handler.path, "https": self._handler.path}
        return await self._run(
            requests, **{"DOWNLOAD_HANDLERS": handlers, "DOWNLOAD_TIMEOUT": 5, **self._handler.settings, **settings}
        )

    async def protocols(self, *doors: Door, **meta: Any) -> list[str]:
        """What was spoken, for each answer that came."""
        server = self.nginx()
        crawled = await self.crawl([Request(server.url(door, "/100"), meta=dict(meta)) for door in doors])
        server.stop()
        assert len(server.log()) == len([response for response in crawled.responses if response.status == 200])
        return [entry.protocol for entry in server.log()]


async def cleartext(tried: Tried) -> bool:
    return await tried.protocols(Door.CLEARTEXT) == ["HTTP/1.1"]


async def http1(tried: Tried) -> bool:
    return await tried.protocols(Door.TLS) == ["HTTP/1.1"]


async def h2(tried: Tried) -> bool:
    return await tried.protocols(Door.H2) == ["HTTP/2.0"]


async def as_the_server_picks(tried: Tried) -> bool:
    return sorted(await tried.protocols(Door.TLS, Door.H2)) == ["HTTP/1.1", "HTTP/2.0"]


async def tunnels(tried: Tried) -> bool:
    proxy = HttpProxy(tried.listening.start())
    answers = await tried.protocols(Door.H2, proxy=f"http://user:secret@127.0.0.1:{proxy.port}")
    return len(answers) == 1 and len(proxy.heads) == 1


async def socks(tried: Tried) -> bool:
    proxy = SocksProxy(tried.listening.start())
    return len(await tried.protocols(Door.TLS, proxy=f"socks5://127.0.0.1:{proxy.port}")) == 1


async def sessions(tried: Tried) -> bool:
    server = tried.nginx()
    requests = [Request(server.url(Door.H2, f"/visit?{n}"), meta={"cookiejar": n % 2}) for n in range(8)]
    crawled = await tried.crawl(requests, CONCURRENT_REQUESTS=1)
    server.stop()
    if len(crawled.responses) < len(requests):
        return False
    jars: dict[int, set[int]] = {}
    for entry in server.log():
        jars.setdefault(entry.connection, set()).add(int(entry.target[-1]) % 2)
    return all(len(of_one) == 1 for of_one in jars.values())


async def reuse(tried: Tried) -> bool:
    server = tried.nginx()
    requests = [Request(server.url(Door.H2, f"/100?{n}")) for n in range(8)]
    crawled = await tried.crawl(requests, CONCURRENT_REQUESTS=1)
    server.stop()
    assert len(crawled.responses) == 8
    return len(requests_by_connection(server.log())) == 1


async def more_at_the_limit(tried: Tried) -> bool:
    server = tried.nginx(max_streams=2)

    def then(_response: Response) -> Iterator[Request]:
        # Not before: with no connection yet, some open several until one has said that it speaks HTTP/2.
        for number in range(4):
            yield Request(server.url(Door.H2, f"/slow/16384?{number}"))

    crawled = await tried.crawl([Request(server.url(Door.H2, "/100"), callback=then)], DOWNLOAD_TIMEOUT=30)
    server.stop()
    assert len(crawled.responses) == 4
    return len(requests_by_connection(server.log())) > 1


async def seen(tried: Tried) -> bool:
    crawled = await tried.crawl([Request(tried.nginx().url(Door.H2, "/100"))])
    return connection_info(crawled.responses[0]).id is not None


PROBES: dict[str, Callable[[Tried], Awaitable[bool]]] = {
    "``http://``": cleartext,
    "``https://``, server with HTTP/1.1 only": http1,
    "HTTP/2": h2,
    "either, as the server picks": as_the_server_picks,
    "``https://`` through an HTTP proxy": tunnels,
    "SOCKS5 proxies": socks,
    "connections are kept": reuse,
    "more connections at the server's limit of streams": more_at_the_limit,
    "two cookie jars never share a connection": sessions,
    "which connection a response came over": seen,
}


def table() -> list[list[str]]:
    text = (REPOSITORY / "docs/comparison.rst").read_text(encoding="utf-8")
    rows = re.split(r"^   \* -", text, flags=re.MULTILINE)[1:]
    rows[-1] = rows[-1].partition("\n\n")[0]
    return [
        [re.sub(r"\s+", " ", cell).strip() for cell in re.split(r"^     -", row, flags=re.MULTILINE)] for row in rows
    ]


CELLS = [
    (row[0], column, cell)
    for row in table()[1:]
    for column, cell in zip(table()[0][1:], row[1:], strict=True)
    if not cell.endswith("]_")
]


def test_every_cell_is_tried_or_cited() -> None:
    head, *rows = table()
    assert head == ["", *HANDLERS]
    assert {row for row, _, _ in CELLS} == set(PROBES), "the others have footnotes"
    assert {cell for _, _, cell in CELLS} == {"yes", "no"}
    text = (REPOSITORY / "docs/comparison.rst").read_text(encoding="utf-8")
    cited = set(re.findall(r"\[(#\w+)\]_", text))
    assert cited == set(re.findall(r"^\.\. \[(#\w+)\] \S", text, re.MULTILINE))
    assert len(rows) > len(PROBES)
    assert "Scrapy {}.{}:".format(*COMPARED) in re.sub(r"\s+", " ", text)


@pytest_twisted.async_yield_fixture
async def listening() -> AsyncIterator[Listening]:
    """Servers of the test, in this process."""
    from twisted.internet import reactor

    started = Listening(reactor)
    yield started
    await started.stop()


@pytest.mark.parametrize(("row", "column", "cell"), CELLS, ids=[f"{column}-{row}" for row, column, _ in CELLS])
@ensureDeferred
async def test_a_cell_is_as_a_crawl_shows(
    run_crawl: RunCrawl,
    nginx: StartNginx,
    listening: Listening,
    reactor_settings: Mapping[str, Any],
    row: str,
    column: str,
    cell: str,
) -> None:
    handler = HANDLERS[column]
    if handler.path != HANDLER and version_info[:2] != COMPARED:
        pytest.skip("the page is about another version of Scrapy")
    if find_spec(handler.needs) is None:
        pytest.skip(f"{handler.needs} is not installed (the compare extra has it)")
    if handler.needs != "scrapy" and reactor_settings["TWISTED_REACTOR"] is None:
        pytest.skip(f"{handler.needs} needs the asyncio reactor")
    shown = await PROBES[row](Tried(run_crawl, nginx, listening, handler))
    assert ("yes" if shown else "no") == cell
