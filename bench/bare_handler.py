"""The least that a download handler in Python costs: HTTP/1.1 in cleartext, without a pool, checks, time-outs or errors.

A socket that asyncio's loop watches, one ``send``, one split of what comes. What a handler costs above it is the price of what
it does for a crawl; what this one costs, no handler in Python is spared.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scrapy.http import Headers, HtmlResponse, Response

from bench.pages import TEXT

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler
    from typing_extensions import Self

_LENGTH = b"\r\ncontent-length: "
PIECE = 256 * 1024


class _Connection:
    """One socket, one request at a time."""

    def __init__(self, plain: socket.socket) -> None:
        self.socket = plain
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(plain, self._readable)
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._head = b""
        self._body: list[bytes] = []
        self._left = 0

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer."""
        self._answer = self._loop.create_future()
        sent = self.socket.send(request)
        if sent < len(request):
            await self._loop.sock_sendall(self.socket, request[sent:])
        return await self._answer

    def _readable(self) -> None:
        data = self.socket.recv(PIECE)
        answer = self._answer
        if not data or answer is None:
            raise ConnectionError("the server closed a connection")
        if not self._head:
            self._head, _, data = data.partition(b"\r\n\r\n")
            after = self._head.lower().partition(_LENGTH)[2]
            self._left = int(after.partition(b"\r\n")[0])
        self._left -= len(data)
        self._body.append(data)
        if not self._left:
            head, body = self._head, b"".join(self._body)
            self._head, self._answer = b"", None
            self._body.clear()
            answer.set_result((head, body))


class BareDownloadHandler:
    """Speaks with a server that keeps connections open and announces lengths; with no other."""

    lazy = False

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Connection]] = defaultdict(list)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls()

    async def download_request(self, request: Request) -> Response:
        url = urlsplit(request.url)
        assert url.hostname is not None
        place = (url.hostname, url.port or 80)
        idle = self._idle[place]
        connection = idle.pop() if idle else await self._connect(place)
        first = f"{request.method} {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n".encode()
        length = b"Content-Length: %d\r\n" % len(request.body) if request.body else b""
        head, body = await connection.ask(first + length + request.headers.to_string() + b"\r\n\r\n" + request.body)
        idle.append(connection)
        status, *lines = head.split(b"\r\n")
        cls = Response if len(body) > TEXT else HtmlResponse
        headers = Headers([(name, value) for name, _, value in (line.partition(b": ") for line in lines)])
        return cls(request.url, status=int(status[9:12]), headers=headers, body=body)

    async def _connect(self, place: tuple[str, int]) -> _Connection:
        plain = socket.socket()
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, place)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Connection(plain)

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                asyncio.get_running_loop().remove_reader(connection.socket)
                connection.socket.close()
