"""A site whose pages take their time: ``python -m bench.later SECONDS`` answers each request so much later.

It prints its port and ends when standard input is closed. nginx stands before it, so that it need not know TLS or h2.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from bench.pages import body_of

END = b"\r\n\r\n"


class Later(asyncio.Protocol):
    """One connection of nginx. GET alone, and one request after the other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        head, end, self._read = (self._read + data).partition(END)
        if not end:
            self._read = head
            return
        path = head.split(b" ", 2)[1].decode().partition("?")[0]
        content = body_of(path)
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
        asyncio.get_running_loop().call_later(self._seconds, self._transport.write, answer)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(Later, float(sys.argv[1])), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
