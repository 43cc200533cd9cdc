"""Hosts that misbehave by chance: ``python -m tests.reliability.chaos SEED PEM``.

Prints a JSON list of the hosts, serves until standard input ends, then prints what it did. Built on asyncio, hyperframe
and hpack, never on the code under test.

A *gentle* host does only what leaves proof for a replay (RFC 9113 8.7) or announces what it does: no request to it may be
lost, POST included. A *rough* one also dies, floods and breaks rules. What it breaks for good it writes down as *spoiled*:
such a request may fail; any other may not. It ends connections without proof only when the client has certainly
completed an exchange there: a second request over HTTP/1.1, an answer to a PING over h2. From then on what was sent,
and had no answer, may be sent again where the method is idempotent (RFC 9110 9.2.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import sha256

from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

HOSTS = 32
KINDS = [("h2", True), ("h2", False)] * 2 + [("https", True), ("https", False), ("http", True), ("http", False)]
"""What is spoken, and whether gently; in turn."""
LINGER = 60.0
"""Seconds that a peer goes on reading where it writes no more."""
GARBAGE = b"\x00\xff not a frame, not a line of HTTP either, but something of a length that is enough for both\n" * 20


def content(path: str, digest: str) -> bytes:
    """The only right answer to a request. `digest`: of its body, SHA-256 in hexadecimal digits."""
    dice = random.Random(path)
    size = dice.randint(60_000, 200_000) if dice.random() < 0.03 else dice.randint(0, 6_000)
    return f"{path} {digest}\n".encode() + dice.randbytes(size)


class Host:
    """One address. `spoiled`: paths that may fail."""

    def __init__(self, number: int, seed: int) -> None:
        self.speaks, self.gentle = KINDS[number % len(KINDS)]
        self.address = f"127.88.0.{number + 1}"
        self.dice = random.Random(f"{seed}:{number}")
        self.faults: Counter[str] = Counter()
        self.spoiled: set[str] = set()
        self.requests = 0

    def spoil(self, fault: str, *paths: str) -> None:
        self.faults[fault] += 1
        self.spoiled.update(paths)

    def chance(self, probability: float) -> bool:
        return self.dice.random() < probability


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connected = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def until_closed(reader: asyncio.StreamReader) -> None:
    """Read what still comes, but not for ever."""

    async def read() -> None:
        while await reader.read(65536):
            pass

    with contextlib.suppress(asyncio.TimeoutError, OSError, ssl.SSLError):
        await asyncio.wait_for(read(), LINGER)


# ---- HTTP/1.1


class Http1:
    """One connection."""

    def __init__(self, host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.reader = reader
        self.writer = writer
        self.count = 0

    async def run(self) -> None:
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            method, path = head.decode("latin-1").split(" ", 2)[:2]
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            posted = await self.reader.readexactly(length)
            self.count += 1
            self.host.requests += 1
            host = self.host
            if host.chance(0.1):
                await asyncio.sleep(host.dice.random() * 0.05)
            if not host.gentle and host.chance(0.03) and await self.break_instead(path):
                return
            if not await self.answer(method, path, posted):
                return

    async def break_instead(self, path: str) -> bool:
        """Something else than an answer; False where there is to be one."""
        host, writer = self.host, self.writer
        whole = content(path, "")
        half = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(whole) + 10) + whole
        match host.dice.choice(["close", "reset", "half, close", "half, reset", "garbage", "headers", "silence"]):
            case "close" if self.count > 1:
                host.faults["closed instead of an answer"] += 1
            case "reset" if self.count > 1:
                host.faults["reset instead of an answer"] += 1
                abort(writer)
            case "half, close":
                host.spoil("half a body, then closed", path)
                writer.write(half)
            case "half, reset":
                host.spoil("half a body, then reset", path)
                writer.write(half)
                await writer.drain()
                abort(writer)
            case "garbage":
                host.spoil("garbage", path)
                writer.write(GARBAGE)
                await until_closed(self.reader)
            case "headers":
                host.spoil("endless headers", path)
                writer.write(b"HTTP/1.1 200 OK\r\n")
                with contextlib.suppress(ConnectionError):
                    for n in range(20_000):
                        writer.write(b"X-%d: %s\r\n" % (n, b"v" * 100))
                        await writer.drain()
                        if writer.is_closing():
                            break
                await until_closed(self.reader)
            case "silence":
                host.spoil("silence", path)
                await until_closed(self.reader)
            case _:
                return False
        return True

    async def answer(self, method: str, path: str, posted: bytes) -> bool:
        """True where the connection stays."""
        host, writer = self.host, self.writer
        body = content(path, sha256(posted).hexdigest())
        close = host.chance(0.02)
        head = b"HTTP/1.1 200 OK\r\n" + (b"Connection: close\r\n" if close else b"")
        if host.chance(0.05):
            head = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" + head
        framing = host.dice.choice(["length", "length", "chunked", "until close" if host.chance(0.1) else "chunked"])
        if framing == "length":
            message = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        elif framing == "chunked":
            message = head + b"Transfer-Encoding: chunked\r\n\r\n"
            while body:
                size = host.dice.randint(1, 9_000)
                chunk, body = body[:size], body[size:]
                message += b"%x\r\n%s\r\n" % (len(chunk), chunk)
            message += b"0\r\n\r\n"
        else:
            message, close = head + b"\r\n" + body, True
        if close:
            host.faults["announced the end"] += 1
        extra = not host.gentle and not close and host.chance(0.01) and len(message) < 8_000
        if extra:
            # In one piece: bytes that come later, when a request has been sent, cannot be told from its answer.
            host.faults["bytes that nobody asked for"] += 1
            writer.write(message + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
        elif host.chance(0.05):
            for start in range(0, len(message), 997):
                writer.write(message[start : start + 997])
                await asyncio.sleep(0)
        else:
            writer.write(message)
        await writer.drain()
        if not host.gentle and not close and not extra and host.chance(0.02):
            # The client sees this at once, or just as it sends its next request.
            host.faults["closed without a word after an answer"] += 1
            await asyncio.sleep(host.dice.choice([0, 0.002, 0.02]))
            return False
        return not close


# ---- HTTP/2


class Http2:
    """One connection. `begun` and `recent` are the paths of answers that have begun, and that were sent and may not have
    been read yet."""

    def __init__(self, host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder()
        self.encoder = Encoder()
        self.streams: dict[int, str] = {}
        self.uploads: dict[int, bytes] = {}
        self.begun: dict[int, str] = {}
        self.recent: list[str] = []
        self.settled_by_ping = 0
        self.completed = 0
        self.completed_before_ping = 0
        self.proven = False
        self.highest = 0
        self.last: int | None = None
        self.dead = False
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, *frames: Frame) -> None:
        if not self.dead:
            self.writer.write(b"".join(frame.serialize() for frame in frames))

    async def run(self) -> None:
        await self.reader.readexactly(24)
        self.send(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 100}))
        try:
            while True:
                await self.read(await self.frame())
        finally:
            self.dead = True
            for task in self.tasks:
                task.cancel()

    async def frame(self) -> Frame:
        head = await self.reader.readexactly(9)
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(await self.reader.readexactly(length)))
        return frame

    async def read(self, frame: Frame) -> None:
        match frame:
            case HeadersFrame():
                fragment = frame.data
                ended = "END_HEADERS" in frame.flags
                while not ended:
                    more = await self.frame()
                    assert isinstance(more, ContinuationFrame)
                    fragment += more.data
                    ended = "END_HEADERS" in more.flags
                fields = dict(self.decoder.decode(fragment))
                self.asked(frame.stream_id, str(fields[":path"]), whole="END_STREAM" in frame.flags)
            case DataFrame():
                self.send(WindowUpdateFrame(0, window_increment=max(1, frame.flow_controlled_length)))
                if frame.stream_id in self.uploads:
                    self.uploads[frame.stream_id] += frame.data
                    if "END_STREAM" in frame.flags:
                        self.begin(frame.stream_id)
            case RstStreamFrame():
                self.streams.pop(frame.stream_id, None)
                self.begun.pop(frame.stream_id, None)
            case PingFrame() if "ACK" in frame.flags:
                self.proven = self.proven or self.completed_before_ping > 0
                del self.recent[: self.settled_by_ping]
                self.settled_by_ping = 0
            case PingFrame():
                self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            case SettingsFrame() if "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))

    def asked(self, stream: int, path: str, *, whole: bool) -> None:
        self.highest = max(self.highest, stream)
        if self.last is not None and stream > self.last:
            return  # It was refused by the GOAWAY that is on its way.
        self.host.requests += 1
        self.streams[stream] = path
        self.uploads[stream] = b""
        if whole:
            self.begin(stream)

    def begin(self, stream: int) -> None:
        task = asyncio.ensure_future(self.serve_unless_gone(stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve_unless_gone(self, stream: int) -> None:
        with contextlib.suppress(OSError):
            await self.serve(stream)

    async def serve(self, stream: int) -> None:
        host = self.host
        path, posted = self.streams.get(stream), self.uploads.pop(stream, b"")
        if path is None:
            return
        if host.chance(0.2):
            await asyncio.sleep(host.dice.random() * 0.05)
        if self.dead or stream not in self.streams:
            return
        if self.last is None and host.chance(0.02):
            await self.gentle_fault(stream)
        # A stream may have been refused, or reset by the client, meanwhile.
        if stream in self.streams and not host.gentle and self.last is None and host.chance(0.02):
            await self.rough_fault(stream, path)
        if stream in self.streams and not self.dead:
            await self.answer(stream, path, posted)

    async def answer(self, stream: int, path: str, posted: bytes) -> None:
        host = self.host
        body = content(path, sha256(posted).hexdigest())
        if host.chance(0.05):
            self.head(stream, [(":status", "103"), ("link", "</style.css>")])
        fields = [(":status", "200"), ("x-path", path)]
        if host.chance(0.7):
            fields.append(("content-length", str(len(body))))
        self.head(stream, fields)
        self.begun[stream] = path
        trailers, most = host.chance(0.05), host.dice.choice([100, 16_384, 16_384])
        while body:
            size = host.dice.randint(max(1, most // 2), most)
            chunk, body = body[:size], body[size:]
            frame = DataFrame(stream, chunk, flags=[] if body or trailers else ["END_STREAM"])
            if host.chance(0.02) and len(chunk) < 16_000:
                frame.flags.add("PADDED")
                frame.pad_length = host.dice.randint(0, 200)
            self.send(frame)
            if host.chance(0.1):
                await asyncio.sleep(0)
                if stream not in self.streams or self.dead:
                    return
        if trailers:
            self.head(stream, [("x-trailer", "1")], end=True)
        if not self.dead:
            await self.writer.drain()
        self.streams.pop(stream, None)
        self.begun.pop(stream, None)
        self.recent.append(path)
        self.completed += 1
        if not self.settled_by_ping:
            self.settled_by_ping = len(self.recent)
            self.completed_before_ping = self.completed
            self.send(PingFrame(0, b"settled?"))

    def head(self, stream: int, fields: list[tuple[str, str]], *, end: bool = False) -> None:
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        if not self.dead:
            self.send(HeadersFrame(stream, self.encoder.encode(fields), flags=flags))

    async def gentle_fault(self, stream: int) -> None:
        host = self.host
        match host.dice.choice(
            ["refuse", "refuse", "goaway", "goaway below", "two steps", "one stream", "no stream", "window"]
        ):
            case "refuse":
                host.faults["REFUSED_STREAM"] += 1
                del self.streams[stream]
                self.send(RstStreamFrame(stream, error_code=ErrorCodes.REFUSED_STREAM))
            case "goaway":
                host.faults["GOAWAY"] += 1
                self.go_away(self.highest)
            case "goaway below":
                host.faults["GOAWAY below streams that are open"] += 1
                self.go_away(max(self.begun, default=0))
            case "two steps":
                host.faults["GOAWAY in two steps"] += 1
                self.send(GoAwayFrame(0, last_stream_id=2**31 - 1))
                await asyncio.sleep(0.02)
                self.go_away(self.highest)
            case "one stream":
                host.faults["SETTINGS_MAX_CONCURRENT_STREAMS 1"] += 1
                await self.limit(1)
            case "no stream":
                host.faults["SETTINGS_MAX_CONCURRENT_STREAMS 0"] += 1
                await self.limit(0)
            case "window":
                # What uploads may send falls below what they have sent.
                host.faults["SETTINGS_INITIAL_WINDOW_SIZE 0"] += 1
                self.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
                await asyncio.sleep(0.1)
                self.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}))

    async def limit(self, streams: int) -> None:
        self.send(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: streams}))
        await asyncio.sleep(0.1)
        self.send(SettingsFrame(0, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 100}))

    def go_away(self, last: int, code: int = ErrorCodes.NO_ERROR) -> None:
        """The streams up to `last` are answered; the client closes when it has its answers."""
        if self.last is not None:
            return
        self.last = last
        for stream in [stream for stream in self.streams if stream > last]:
            del self.streams[stream]
        self.send(GoAwayFrame(0, last_stream_id=last, error_code=code))

    async def rough_fault(self, stream: int, path: str) -> None:
        host = self.host
        of_a_stream = ["reset", "reset in the body", "no status", "upper case", "wrong length"]
        of_the_connection = ["goaway error", "close", "abort", "garbage", "silence", "pings", "settings"]
        of_the_connection += ["empty data", "continuation", "interim heads"]
        fault = host.dice.choice(of_a_stream + (of_the_connection if self.proven else []))
        if fault in of_a_stream:
            host.spoil(f"stream: {fault}", path)
            del self.streams[stream]
        elif fault == "goaway error":
            host.faults["GOAWAY INTERNAL_ERROR"] += 1
        else:
            host.spoil(f"connection: {fault}", *self.begun.values(), *self.recent)
        match fault:
            case "reset":
                self.send(RstStreamFrame(stream, error_code=ErrorCodes.INTERNAL_ERROR))
            case "reset in the body":
                self.head(stream, [(":status", "200")])
                self.send(DataFrame(stream, b"some"), RstStreamFrame(stream, error_code=ErrorCodes.CANCEL))
            case "no status":
                self.head(stream, [("x-path", path)])
            case "upper case":
                self.head(stream, [(":status", "200"), ("X-Path", path)])
            case "wrong length":
                self.head(stream, [(":status", "200"), ("content-length", "3")])
                self.send(DataFrame(stream, b"more than three", flags=["END_STREAM"]))
            case "goaway error":
                self.go_away(max(self.begun, default=0), ErrorCodes.INTERNAL_ERROR)
            case "close":
                self.dead = True
                self.writer.close()
            case "abort":
                self.dead = True
                abort(self.writer)
            case "silence":
                self.dead = True
            case "garbage":
                await self.flood(GARBAGE, 1)
            case "pings":
                await self.flood(PingFrame(0, b"flooding").serialize(), 20_000)
            case "settings":
                await self.flood(SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: 4096}).serialize(), 20_000)
            case "empty data":
                self.head(stream, [(":status", "200")])
                host.spoiled.add(path)
                await self.flood(DataFrame(stream, b"").serialize(), 20_000)
            case "continuation":
                self.send(HeadersFrame(stream, self.encoder.encode([(":status", "200")])))
                await self.flood(ContinuationFrame(stream, b"").serialize(), 20_000)
            case "interim heads":
                host.spoiled.add(path)
                # The same each time: the table has both fields from the first on.
                self.head(stream, [(":status", "103"), ("link", "</style.css>")])
                head = self.encoder.encode([(":status", "103"), ("link", "</style.css>")])
                await self.flood(HeadersFrame(stream, head, flags=["END_HEADERS"]).serialize(), 20_000)

    async def flood(self, frame: bytes, times: int) -> None:
        self.dead = True
        with contextlib.suppress(ConnectionError):
            for _ in range(max(1, times // 100)):
                self.writer.write(frame * min(times, 100))
                await self.writer.drain()
                if self.writer.is_closing():
                    break


# ---- the process


def served(
    host: Host, http1: type[Http1] = Http1, http2: type[Http2] = Http2
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """What speaks on each connection to the host: what was agreed on where there is TLS."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        h2 = tls is not None and tls.selected_alpn_protocol() == "h2"
        speaking = (http2 if h2 else http1)(host, reader, writer)
        try:
            await speaking.run()
        except (OSError, EOFError, ssl.SSLError):
            pass
        finally:
            writer.close()

    return one


async def serve(seed: int, pem: str) -> None:
    hosts = [Host(number, seed) for number in range(HOSTS)]
    told = []
    for host in hosts:
        context = None
        if host.speaks != "http":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            context.set_alpn_protocols(["h2" if host.speaks == "h2" else "http/1.1"])
        server = await asyncio.start_server(served(host), host.address, 0, ssl=context, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        scheme = "http" if host.speaks == "http" else "https"
        told.append({"url": f"{scheme}://{host.address}:{port}", "speaks": host.speaks, "gentle": host.gentle})
    print(json.dumps(told), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    faults: Counter[str] = Counter()
    for host in hosts:
        faults.update({f"{host.speaks}: {fault}": times for fault, times in host.faults.items()})
    spoiled = [path for host in hosts for path in host.spoiled]
    print(
        json.dumps({"requests": sum(host.requests for host in hosts), "faults": faults, "spoiled": spoiled}), flush=True
    )


if __name__ == "__main__":
    # It says so when a client has hung up in the middle of a flood.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
