"""One way out: `python -m bookshop.site.proxy --to 4242 --exit 127.0.0.2 --log out/exit.jsonl`; it prints its port.

An HTTP proxy that opens tunnels (CONNECT) to the shop and to nothing else, all from the address of its exit. It wants a
login, of any user with the right password, and logs whose tunnel it is, as providers of proxies do for their bills. Of our
own as hypercorn opens no tunnels, and the proxies written in Python are each larger than this example.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from base64 import b64decode
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

from bookshop.site.lifetime import announce, told_to_end

HOST = "127.0.0.1"
PASSWORD = "gutenberg"
# For the head of a CONNECT, and for the connection to the shop.
SECONDS = 30.0
# Ends of a connection that are no news. A cancellation comes with the end of the process, and the streams of asyncio
# report it up to Python 3.11.
OVER = (OSError, EOFError, asyncio.LimitOverrunError, asyncio.TimeoutError, asyncio.CancelledError)


class ProxyLog:
    """Which user's tunnel the shop sees at which address, one JSON object a line, on disk before the tunnel opens."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8", buffering=1)

    def close(self) -> None:
        self._file.close()

    def tunnel(self, client: tuple[str, int], user: str) -> None:
        self._file.write(json.dumps({"client": f"{client[0]}:{client[1]}", "user": user}) + "\n")


class ExitProxy:
    """Answers each connection with a tunnel or a refusal."""

    def __init__(self, target: int, exit_address: str, log: ProxyLog) -> None:
        self._target = target
        self._exit = exit_address
        self._log = log

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(*OVER):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
            user = self._user(head)
            if isinstance(user, bytes):
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % user)
                await writer.drain()
                return
            dial = asyncio.open_connection(HOST, self._target, local_addr=(self._exit, 0))
            from_shop, to_shop = await asyncio.wait_for(dial, SECONDS)
            with closing(to_shop):
                self._log.tunnel(to_shop.get_extra_info("sockname"), user)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                # A reset of either side ends both.
                await asyncio.gather(_carry(reader, to_shop), _carry(from_shop, writer))

    def _user(self, head: bytes) -> str | bytes:
        """Whose tunnel the head of a request asks for, or the status line of the refusal."""
        request, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = (*request.split(" "), "", "", "")[:3]
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if method != "CONNECT":
            return b"405 Method Not Allowed"
        user, password = _login(fields)
        if password != PASSWORD:
            return b'407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="exit"'
        if target.rpartition(":")[2] != str(self._target):
            return b"403 Forbidden"
        return user


def _login(fields: Mapping[str, str]) -> tuple[str, str]:
    """User and password of Basic credentials, empty where there are none."""
    try:
        text = b64decode(fields.get("proxy-authorization", "").removeprefix("Basic "), validate=True).decode("utf-8")
    except ValueError:
        return "", ""
    user, _, password = text.partition(":")
    return user, password


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes, to its end, which is passed on too."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def run(target: int, exit_address: str, log: ProxyLog) -> None:
    proxy = ExitProxy(target, exit_address, log)
    server = await asyncio.start_server(proxy.accept, HOST, 0)
    announce(server.sockets[0].getsockname()[1])
    await told_to_end()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A proxy with an exit of its own.")
    parser.add_argument("--to", type=int, required=True, help="the shop's port")
    parser.add_argument("--exit", required=True, help="the local address that the shop sees")
    parser.add_argument("--log", type=Path, required=True, help="the JSON Lines file to write")
    options = parser.parse_args()
    with socket.socket() as probe:
        try:
            probe.bind((options.exit, 0))
        except OSError as error:
            sys.exit(
                f"{options.exit} is no address of this machine ({error}); on macOS: sudo ifconfig lo0 alias {options.exit}"
            )
    with closing(ProxyLog(options.log)) as log:
        asyncio.run(run(options.to, options.exit, log))


if __name__ == "__main__":
    main()
