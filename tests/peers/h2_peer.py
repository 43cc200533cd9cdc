"""An HTTP/2 server that does what the test says, legal or not, one frame at a time.

``want_...`` takes the next frame that the client wrote and says where it differs from what is wanted; the other verbs
send. Built on hyperframe and hpack, never on the code under test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from scrapy_poolplus.net.http2 import Http2Engine
from scrapy_poolplus.net.wire import EngineConfig, WireRequest
from tests.peers.memory import Journal, MemoryTransport, RecordingExchange, RecordingOwner

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
F = TypeVar("F", bound=Frame)
Fields = list[tuple[bytes, bytes]]


@dataclass
class Asked:
    """A request's head as it arrived."""

    stream: int
    headers: Fields
    end: bool

    def __getitem__(self, name: bytes) -> bytes:
        (value,) = self.all(name)
        return value

    def all(self, name: bytes) -> list[bytes]:
        return [value for given, value in self.headers if given == name]


@dataclass
class H2Peer:
    """The server's end. `deliver` takes what it sends to the client, `take` gives what the client wrote."""

    deliver: Callable[[bytes], None]
    take: Callable[[], bytes]
    chop: int | None = None
    """Deliver in pieces of this many bytes."""
    decoder: Decoder = field(default_factory=Decoder)
    encoder: Encoder = field(default_factory=Encoder)
    settings_seen: dict[int, int] = field(default_factory=dict)
    _in: bytes = b""
    _frames: deque[Frame] = field(default_factory=deque)
    _greeted: bool = False
    _batch: list[bytes] | None = None

    # What the client wrote

    def pending(self) -> list[Frame]:
        """The frames that no ``want`` has taken yet."""
        self._in += self.take()
        if not self._greeted:
            if not self._in:
                return []
            assert self._in.startswith(PREFACE), self._in[:40]
            self._in = self._in[len(PREFACE) :]
            self._greeted = True
        while len(self._in) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._in[:9]))
            if len(self._in) < 9 + length:
                break
            frame.parse_body(memoryview(self._in[9 : 9 + length]))
            self._in = self._in[9 + length :]
            self._frames.append(frame)
        return list(self._frames)

    def want(self, kind: type[F], stream: int | None = None) -> F:
        """The next frame, which is of this kind and on this stream."""
        self.pending()
        assert self._frames, f"wanted {kind.__name__}, the client wrote nothing more"
        frame = self._frames.popleft()
        assert isinstance(frame, kind), f"wanted {kind.__name__}, got {frame!r}"
        assert stream is None or frame.stream_id == stream, f"wanted stream {stream}, got {frame!r}"
        return frame

    def want_nothing(self) -> None:
        assert not self.pending(), f"wanted nothing, got {self.pending()}"

    def want_greeting(self) -> dict[int, int]:
        """Preface, SETTINGS, and the WINDOW_UPDATE of the connection, whose increment is kept under key 0."""
        settings = self.want(SettingsFrame)
        assert "ACK" not in settings.flags
        self.settings_seen = dict(settings.settings)
        if self._frames and isinstance(self._frames[0], WindowUpdateFrame):
            self.settings_seen[0] = self.want(WindowUpdateFrame, 0).window_increment
        return self.settings_seen

    def want_headers(self) -> Asked:
        first = self.want(HeadersFrame)
        fragment, ended = first.data, "END_HEADERS" in first.flags
        while not ended:
            more = self.want(ContinuationFrame, first.stream_id)
            fragment += more.data
            ended = "END_HEADERS" in more.flags
        headers = [(bytes(name), bytes(value)) for name, value in self.decoder.decode(fragment, raw=True)]
        return Asked(first.stream_id, headers, "END_STREAM" in first.flags)

    def want_data(self, stream: int) -> tuple[bytes, bool]:
        """The payload of the next DATA frame, and whether it ends the stream."""
        frame = self.want(DataFrame, stream)
        return frame.data, "END_STREAM" in frame.flags

    def want_body(self, stream: int) -> bytes:
        """All DATA of a stream until its end."""
        body, end = b"", False
        while not end:
            chunk, end = self.want_data(stream)
            body += chunk
        return body

    def want_reset(self, stream: int) -> ErrorCodes:
        return ErrorCodes(self.want(RstStreamFrame, stream).error_code)

    def want_goaway(self) -> ErrorCodes:
        return ErrorCodes(self.want(GoAwayFrame).error_code)

    def want_settings_ack(self) -> None:
        assert "ACK" in self.want(SettingsFrame).flags

    def want_ping(self) -> bytes:
        frame = self.want(PingFrame)
        assert "ACK" not in frame.flags
        return frame.opaque_data

    # What the server sends

    def greet(self, settings: dict[int, int] | None = None) -> None:
        """Both greetings: the client's is taken and acknowledged, ours is acknowledged by the client."""
        self.want_greeting()
        with self.one_read():
            self.settings(settings or {})
            self.ack_settings()
        self.want_settings_ack()

    def settings(self, settings: dict[int, int]) -> None:
        self.send(SettingsFrame(0, settings=settings))

    def ack_settings(self) -> None:
        self.send(SettingsFrame(0, flags=["ACK"]))

    def headers(self, stream: int, fields: Fields, *, end: bool = False) -> None:
        """A header block in one HEADERS frame."""
        frame = HeadersFrame(stream, self.encoder.encode(fields), flags=["END_HEADERS"])
        if end:
            frame.flags.add("END_STREAM")
        self.send(frame)

    def data(self, stream: int, payload: bytes, *, end: bool = False, padding: int = 0) -> None:
        frame = DataFrame(stream, payload)
        if padding:
            frame.flags.add("PADDED")
            frame.pad_length = padding
        if end:
            frame.flags.add("END_STREAM")
        self.send(frame)

    def answer(self, stream: int, body: bytes = b"", *, status: int = 200, headers: Fields | None = None) -> None:
        """A whole response."""
        self.headers(stream, [(b":status", b"%d" % status), *(headers or [])], end=not body)
        while body:
            chunk, body = body[:16384], body[16384:]
            self.data(stream, chunk, end=not body)

    def reset(self, stream: int, code: int = ErrorCodes.CANCEL) -> None:
        self.send(RstStreamFrame(stream, error_code=code))

    def goaway(self, last: int, code: int = ErrorCodes.NO_ERROR, debug: bytes = b"") -> None:
        self.send(GoAwayFrame(0, last_stream_id=last, error_code=code, additional_data=debug))

    def window(self, stream: int, increment: int) -> None:
        """WINDOW_UPDATE, also of 0, which hyperframe would not read but writes."""
        self.frame(0x8, 0, stream, increment.to_bytes(4, "big"))

    def ping(self, data: bytes = b"01234567", *, ack: bool = False) -> None:
        self.send(PingFrame(0, data, flags=["ACK"] if ack else []))

    def push(self, stream: int, promised: int, path: bytes = b"/pushed") -> None:
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", path)]
        fragment = self.encoder.encode(fields)
        self.send(PushPromiseFrame(stream, promised_stream_id=promised, data=fragment, flags=["END_HEADERS"]))

    def send(self, frame: Frame) -> None:
        self.raw(frame.serialize())

    def frame(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Any frame at all."""
        self.raw(
            len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload,
        )

    def raw(self, data: bytes) -> None:
        if self._batch is not None:
            self._batch.append(data)
        elif self.chop is None:
            self.deliver(data)
        else:
            for start in range(0, len(data), self.chop):
                self.deliver(data[start : start + self.chop])

    @contextmanager
    def one_read(self) -> Iterator[None]:
        """What is sent inside arrives in one read."""
        self._batch = []
        yield
        data, self._batch = b"".join(self._batch), None
        self.raw(data)


class Conversation:
    """An engine between a recording owner and a scripted peer, with one journal and one clock."""

    def __init__(self, config: EngineConfig | None = None, *, first_stream: int = 1, chop: int | None = None) -> None:
        self.now = 0.0
        self.journal: Journal = []
        self.transport = MemoryTransport()
        self.owner = RecordingOwner(self.journal)
        self.engine = Http2Engine(self.transport, self.owner, config or EngineConfig(), first_stream=first_stream)
        self.peer = H2Peer(lambda data: self.engine.receive(data, self.now), self.transport.take, chop)
        self.engine.begin(self.now)

    def ask(
        self,
        target: bytes = b"/",
        *,
        method: bytes = b"GET",
        headers: Fields | None = None,
        body: bytes = b"",
        exchange: RecordingExchange | None = None,
    ) -> RecordingExchange:
        """Start a request; it is written at the next ``turn``."""
        exchange = exchange or RecordingExchange(target.decode("latin-1"), self.journal)
        request = WireRequest(method, b"https", b"a.example", target, tuple(headers or ()), body)
        self.engine.start(request, exchange, self.now)
        return exchange

    def turn(self) -> None:
        """The end of a reactor turn."""
        self.engine.flush(self.now)

    def greeted(self, settings: dict[int, int] | None = None) -> H2Peer:
        """The usual beginning."""
        self.turn()
        self.peer.greet(settings)
        return self.peer

    def asked(self, *targets: bytes) -> list[RecordingExchange]:
        """Requests that the peer has read."""
        exchanges = [self.ask(target) for target in targets]
        self.turn()
        for target in targets:
            assert self.peer.want_headers()[b":path"] == target
        return exchanges

    def wait(self, seconds: float) -> None:
        """Time passes, and the owner keeps the engine's deadlines."""
        end = self.now + seconds
        while (due := self.engine.next_deadline()) is not None and due <= end:
            self.now = due
            self.engine.expire(self.now)
            assert self.engine.next_deadline() != due, "a deadline that stays"
        self.now = end
