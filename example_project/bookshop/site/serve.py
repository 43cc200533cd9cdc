"""Run the shop: `python -m bookshop.site.serve --site h2 --log out/site.jsonl`; it prints its port and serves until told to end.

The server is hypercorn: MIT, kept by the authors of Quart, HTTP/2 with ALPN and HTTP/1.1 on the h2 and h11 libraries, a
documented way to run it inside a program. granian (Rust) is faster and as well kept, but has no limit of requests for each
connection and no seam to see handshakes; uvicorn and aiohttp speak no HTTP/2; daphne's HTTP/2 is twisted.web's.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import ssl
import sys
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Any, cast

import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config, Sockets

from bookshop.site.app import Shop
from bookshop.site.catalogue import BOOKS, Catalogue
from bookshop.site.draining import drain_after
from bookshop.site.lifetime import announce, told_to_end
from bookshop.site.log import SiteLog

HOST = "127.0.0.1"
NAMES = ("localhost", HOST)


class SiteMode(Enum):
    """What the shop speaks."""

    H2 = "h2"
    TLS_HTTP1 = "tls1"
    CLEARTEXT = "http"

    @property
    def scheme(self) -> str:
        return "http" if self is SiteMode.CLEARTEXT else "https"

    @property
    def alpn(self) -> list[str]:
        return ["h2", "http/1.1"] if self is SiteMode.H2 else ["http/1.1"]


class CountedListener(socket.socket):
    """A listening socket that logs whom it accepts."""

    log: SiteLog

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        self.log.accepted(address[:2])
        return connection, address


class ShopConfig(Config):
    """hypercorn's configuration with a listening socket and a certificate of our own, both made at start."""

    def __init__(self, mode: SiteMode, log: SiteLog, close_after: int | None) -> None:
        super().__init__()
        self._mode = mode
        self._site_log = log
        self._listener = CountedListener(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.log = log
        self._listener.bind((HOST, 0))
        # From here on clients wait in the backlog, so the port may be told before the server runs.
        self._listener.listen(self.backlog)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.alpn_protocols = mode.alpn
        self.loglevel = "WARNING"
        self.keep_alive_timeout = 30
        # On HTTP/1.1 the limit is hypercorn's own: `connection: close` in the last response.
        self.keep_alive_max_requests = close_after if close_after is not None else 1_000_000

    @property
    def ssl_enabled(self) -> bool:
        return self._mode is not SiteMode.CLEARTEXT

    def create_sockets(self) -> Sockets:
        listeners: list[socket.socket] = [self._listener]
        return Sockets(listeners, [], []) if self.ssl_enabled else Sockets([], listeners, [])

    def create_ssl_context(self) -> ssl.SSLContext | None:
        if not self.ssl_enabled:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(self.alpn_protocols)
        context.sslobject_class = _counting(self._site_log)
        trustme.CA().issue_cert(*NAMES).configure_cert(context)
        return context


def _counting(log: SiteLog) -> type[ssl.SSLObject]:
    class CountedHandshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            log.handshake(self)

    return CountedHandshake


async def run(mode: SiteMode, books: int, log: SiteLog, close_after: int | None) -> None:
    config = ShopConfig(mode, log, close_after)
    shop = Shop(Catalogue(books), log)
    if close_after is not None:
        drain_after(close_after)
    announce(config.port)
    ending = asyncio.ensure_future(told_to_end())
    # hypercorn is never told: it would wait for the close_notify of every idle client.
    serving = asyncio.ensure_future(serve(cast("Any", shop), config, shutdown_trigger=asyncio.Event().wait))
    done, _ = await asyncio.wait({ending, serving}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def main() -> None:
    parser = argparse.ArgumentParser(description="The local bookshop.")
    parser.add_argument("--site", type=SiteMode, default=SiteMode.H2, help="h2, tls1 or http")
    parser.add_argument("--books", type=int, default=BOOKS)
    parser.add_argument("--log", type=Path, required=True, help="the JSON Lines file to write")
    parser.add_argument("--close-after", type=int, help="close each connection after this many requests")
    options = parser.parse_args()
    # A client that leaves in the middle of an answer is no news.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with closing(SiteLog(options.log)) as log:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(run(options.site, options.books, log, options.close_after))
    # Connections that clients keep open go with the process; asyncio would cancel and report each of them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
