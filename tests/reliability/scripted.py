"""A host that does what the path says: ``python -m tests.reliability.scripted PEM``.

Prints a JSON object of ports (``http``, ``https``, ``h2``) and ends when standard input ends. What the path says happens
once for each path where a replay is right; the second time it is answered. ``/ok/...`` is answered at once, ``/slow/...``
after a little while.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import sys
from collections import Counter
from hashlib import sha256

from h2.errors import ErrorCodes
from hyperframe.frame import DataFrame, GoAwayFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame

from tests.reliability.chaos import Host, Http1, Http2, abort, content, served

NO_BODY = sha256(b"").hexdigest()
SLOW = 0.05
WRONG = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"


class Scripted(Host):
    """Leaves nothing to chance. `seen`: how often each path was asked for."""

    def __init__(self, speaks: str) -> None:
        super().__init__(0, 0)
        self.speaks, self.gentle, self.address = speaks, True, "127.0.0.1"
        self.seen: Counter[str] = Counter()

    def chance(self, probability: float) -> bool:
        return False

    def first(self, path: str) -> bool:
        self.seen[path] += 1
        return self.seen[path] == 1


class ScriptedHttp1(Http1):
    """Answers with a length."""

    host: Scripted

    async def answer(self, method: str, path: str, posted: bytes) -> bool:
        body = content(path, NO_BODY)
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        first = self.host.first(path)
        match path.split("/")[1]:
            case "slow":
                await asyncio.sleep(SLOW)
                self.writer.write(whole)
            case "extra":
                self.writer.write(whole + WRONG)
            case "late-extra":
                self.writer.write(whole)
                await asyncio.sleep(SLOW)
                self.writer.write(WRONG)
            case "no-content":
                self.writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nwrong")
            case "interim":
                self.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + whole)
            case "close":
                self.writer.write(whole)
                return False
            case "close-instead" if first and self.count > 1:
                return False
            case "reset-instead" if first and self.count > 1:
                abort(self.writer)
                return False
            case "misdirected" if first and self.count > 1:
                self.writer.write(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n")
            case "close-capital":
                self.writer.write(whole.replace(b"OK\r\n", b"OK\r\nConnection: Close\r\n", 1))
                await self.writer.drain()
                return False
            case "http10":
                self.writer.write(whole.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
                await self.writer.drain()
                return False
            case "two-lengths":
                self.writer.write(whole.replace(b"OK\r\n", b"OK\r\nContent-Length: 1\r\n", 1))
            case "length-and-chunked":
                chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
                self.writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
                )
            case _:
                self.writer.write(whole)
        await self.writer.drain()
        return True


class ScriptedHttp2(Http2):
    """Answers with a length."""

    host: Scripted

    async def serve(self, stream: int) -> None:
        path = self.streams.get(stream)
        self.uploads.pop(stream, None)
        if path is None:
            return
        first = self.host.first(path)
        what = path.split("/")[1]
        if what == "slow" or (first and what.startswith("goaway")):
            await asyncio.sleep(SLOW)
        if first:
            await self.act(what, stream, path)
        if stream in self.streams and not self.dead:
            await self.answer(stream, path, b"")

    async def act(self, what: str, stream: int, path: str) -> None:
        match what:
            case "refused":
                del self.streams[stream]
                self.send(RstStreamFrame(stream, error_code=ErrorCodes.REFUSED_STREAM))
            case "goaway":
                self.go_away(stream)
            case "goaway-below":
                self.go_away(stream - 2)
            case "goaway-error":
                self.go_away(stream, ErrorCodes.INTERNAL_ERROR)
            case "goaway-two-steps":
                self.send(GoAwayFrame(0, last_stream_id=2**31 - 1))
                await asyncio.sleep(SLOW)
                self.go_away(self.highest)
            case "http1-required":
                del self.streams[stream]
                self.send(RstStreamFrame(stream, error_code=ErrorCodes.HTTP_1_1_REQUIRED))
            case "one-stream":
                self.send(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 1}))
            case "no-stream":
                await self.limit(0)
            case "interim":
                self.head(stream, [(":status", "103"), ("link", "</style.css>")])
            case "trailers":
                del self.streams[stream]
                self.head(stream, [(":status", "200")])
                self.send(DataFrame(stream, content(path, NO_BODY)))
                self.head(stream, [("x-trailer", "1")], end=True)
            case "misdirected" if self.completed:
                del self.streams[stream]
                self.head(stream, [(":status", "421")], end=True)
            case "window":
                self.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
                await asyncio.sleep(SLOW)
                self.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}))
            case "push":
                fields = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/pushed")]
                block = self.encoder.encode(fields)
                self.send(PushPromiseFrame(stream, promised_stream_id=2, data=block, flags=["END_HEADERS"]))
            case "no-status":
                await self.broken(stream, [("x-path", path)])
            case "upper-case":
                await self.broken(stream, [(":status", "200"), ("X-Path", path)])
            case "connection-header":
                await self.broken(stream, [(":status", "200"), ("connection", "keep-alive")])
            case "newline":
                await self.broken(stream, [(":status", "200"), ("x-path", "a\r\nb")])
            case "wrong-length":
                await self.broken(stream, [(":status", "200"), ("content-length", "3")])
            case "latin1":
                # An interim head, so that the answer is sent as any other.
                self.head(stream, [(":status", "103"), ("link", b"</caf\xe9>")])  # type: ignore[list-item]
            case "reset":
                del self.streams[stream]
                self.send(RstStreamFrame(stream, error_code=ErrorCodes.INTERNAL_ERROR))

    async def broken(self, stream: int, fields: list[tuple[str, str]]) -> None:
        del self.streams[stream]
        self.head(stream, fields)
        self.send(DataFrame(stream, b"four more", flags=["END_STREAM"]))


async def serve(pem: str) -> None:
    ports = {}
    for speaks in ("http", "https", "h2"):
        context = None
        if speaks != "http":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            context.set_alpn_protocols(["h2", "http/1.1"] if speaks == "h2" else ["http/1.1"])
        server = await asyncio.start_server(
            served(Scripted(speaks), ScriptedHttp1, ScriptedHttp2), "127.0.0.1", 0, ssl=context, backlog=1024
        )
        ports[speaks] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(serve(sys.argv[1]))
