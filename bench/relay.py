"""A relay that makes a network slow: each byte comes half a round trip later, in either direction.

``python -m bench.relay SECONDS TARGET_PORT ...`` listens on one free port for each target, prints them, and ends when
standard input is closed. The address that a client came to is the one that is connected to.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from functools import partial

PIECE = 256 * 1024
BUFFERED = 64 * 1024 * 1024
"""Bytes under way in one direction of one connection; far more than any window of a handler."""


async def _delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass on what comes, and its end, `seconds` later."""
    loop = asyncio.get_running_loop()
    under_way: deque[tuple[float, bytes]] = deque()
    came = asyncio.Event()

    async def read() -> None:
        while True:
            try:
                data = await reader.read(PIECE)
            except OSError:
                # A reset is passed on as an end.
                data = b""
            under_way.append((loop.time() + seconds, data))
            came.set()
            if not data:
                return

    reading = asyncio.create_task(read())
    try:
        while True:
            while not under_way:
                came.clear()
                await came.wait()
            due, data = under_way.popleft()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()
        await reading
        if writer.can_write_eof():
            writer.write_eof()
    finally:
        reading.cancel()


async def _serve(port: int, one_way: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection. TCP's own handshake is half a round trip too short at the client's side, so the first bytes wait
    for a whole one."""
    host = writer.get_extra_info("sockname")[0]
    far_writer: asyncio.StreamWriter | None = None
    try:
        await asyncio.sleep(2 * one_way)
        far_reader, far_writer = await asyncio.open_connection(host, port, limit=BUFFERED)
        for each in (writer, far_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(
            _delayed(reader, far_writer, one_way), _delayed(far_reader, writer, one_way), return_exceptions=True
        )
    except (OSError, asyncio.CancelledError):
        # The one side is gone, so is the other.
        pass
    finally:
        writer.close()
        if far_writer is not None:
            far_writer.close()


async def main() -> None:
    round_trip, *targets = sys.argv[1:]
    ports = []
    for target in targets:
        serve = partial(_serve, int(target), float(round_trip) / 2)
        server = await asyncio.start_server(serve, "0.0.0.0", 0, limit=BUFFERED, backlog=512)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
