"""What a request costs from the handler's door to Scrapy's Response, without TLS and sockets: ``python -m bench.in_memory``.

Handler, door, pool, scheduler, connection and HTTP/1.1 engine are the real ones; the transport answers in the next turn of
asyncio's loop with a response of 1 KiB. Printed is the least of many short batches, in processor time per request, which a
busy machine disturbs little: two states of the code are compared by running them in turn. ``--profile`` shows where it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
from ipaddress import ip_address
from pstats import Stats
from time import process_time
from types import SimpleNamespace
from typing import Any

from scrapy import Request
from scrapy.utils.reactor import install_reactor
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred, succeed

from scrapy_poolplus import shared
from scrapy_poolplus.core.errors import Phase
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.handler import PoolPlusDownloadHandler
from scrapy_poolplus.net.connection import Connection

REQUESTS = 25
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 05 Oct 2026 10:11:12 GMT\r\nContent-Type: text/html\r\n"
    b"Content-Length: 1024\r\nLast-Modified: Sun, 04 Oct 2026 08:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "6521f7a0-400"\r\nAccept-Ranges: bytes\r\n\r\n'
)
ANSWER = HEAD + bytes(range(32, 96)) * 16
HEADERS = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en",
    "User-Agent": "Scrapy/2.19.0 (+https://scrapy.org)",
    "Accept-Encoding": "gzip, deflate, br, zstd",
}


class Transport:
    """Answers each write in the next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.connection: Connection | None = None

    def write(self, _data: bytes) -> None:
        """A request, whole."""
        assert self.connection is not None
        self._loop.call_soon(self.connection.dataReceived, ANSWER)


class Dial:
    """One that has succeeded."""

    phase = Phase.CONNECT

    def __init__(self, connection: Connection) -> None:
        self.result: Deferred[Connection] = succeed(connection)

    def describe(self) -> str:
        """For errors."""
        return "in memory"

    def cancel(self) -> None:
        """It is over already."""


class MemoryDialer:
    """Stands for net.dialer.Dialer."""

    def __init__(self, reactor: Any, *_: object, **__: object) -> None:
        self._reactor = reactor

    def dial(self, _route: object, _protocols: object, config: Any, **_: object) -> Dial:
        """At once."""
        connection = Connection(self._reactor, "shop.example:80", config, SimpleNamespace(), secure=False)
        transport = Transport(self._reactor._asyncioEventloop)  # noqa: SLF001
        transport.connection, connection.transport = connection, transport
        connection.peer = ip_address("192.0.2.1")
        connection.ready(HttpProtocol.HTTP1, None)
        return Dial(connection)


def requests() -> list[Request]:
    """As Scrapy's middlewares leave them."""
    meta = {"download_slot": "shop.example", "download_timeout": 180.0, "depth": 1}
    urls = [f"http://shop.example/catalogue/page-{number}.html?sort=price" for number in range(REQUESTS)]
    return [Request(url, headers=HEADERS, meta=dict(meta)) for url in urls]


async def batch(handler: PoolPlusDownloadHandler, batch: list[Request]) -> float:
    """Microseconds per request."""
    start = process_time()
    for request in batch:
        response = await handler.download_request(request)
    spent = process_time() - start
    assert len(response.body) == len(ANSWER) - len(HEAD)
    return spent / len(batch) * 1e6


def _handler() -> PoolPlusDownloadHandler:
    vars(shared)["Dialer"] = MemoryDialer
    crawler: Any = get_crawler(settings_dict={"DOWNLOAD_DELAY": 0})
    slots = {"shop.example": SimpleNamespace(concurrency=8)}

    async def close_spider_async(*, reason: str = "cancelled") -> None:
        """Never called."""

    downloader = SimpleNamespace(slots=slots)
    crawler.engine = SimpleNamespace(downloader=downloader, close_spider_async=close_spider_async)
    crawler.spider = crawler._create_spider("in_memory")  # noqa: SLF001
    return PoolPlusDownloadHandler.from_crawler(crawler)


def main() -> None:
    """Print the least, or a profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
    from twisted.internet import reactor

    run = reactor._asyncioEventloop.run_until_complete  # noqa: SLF001
    handler = _handler()
    run(batch(handler, requests()))
    gc.collect()
    gc.disable()
    if options.profile:
        asked = [requests() for _ in range(40)]
        profile = cProfile.Profile()
        for each in asked:
            profile.runcall(run, batch(handler, each))
        Stats(profile).sort_stats("tottime").print_stats(45)
        return
    print(f"{min(run(batch(handler, requests())) for _ in range(options.batches)):.1f} µs per request")


if __name__ == "__main__":
    main()
