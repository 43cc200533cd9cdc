"""What HTTP/2 framing and header compression cost a request, in memory, and what a native layer would leave of it.

``pip install ngh2 jh2``, then ``python -m bench.framing`` prints microseconds of processor time per request, the least of
many short batches, the contenders in turn:

- ``h2``: the engine as it is;
- ``no book``: the engine with the frames packed by hand and nothing kept of streams, settings or windows: what h2 and
  hyperframe cost is the difference;
- ``jh2``: jh2, a fork of h2 with HPACK in Rust, in h2's place; ``jh2, its HPACK``: with its encoder and decoder too;
- ``ngh2``: the engine of ``bench/native_engine.py``.

What ngh2 and jh2 do not have installed is left out. Not part of the package, and no engine but the first is fit for use.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from time import process_time
from typing import Any, cast

from hpack.hpack import Encoder

from scrapy_poolplus.core.errors import PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.net import frame_gate as gate
from scrapy_poolplus.net import http2_book
from scrapy_poolplus.net.hpack_cache import HeaderDecoder, HeaderEncoder
from scrapy_poolplus.net.http2 import Http2Engine
from scrapy_poolplus.net.wire import Engine, EngineConfig, Headers, Outcome, ResponseHead, WireRequest

SIZES = (1024, 61_440)
AT_ONCE = 8
PIECE = 8192
"""Bytes in one DATA frame, as nginx sends them."""
READ = 32_768
"""Bytes that the transport hands up at once."""
BATCHES = 300
TURNS = 5
"""Of eight requests each, in a batch."""

REQUEST = WireRequest(
    method=b"GET",
    scheme=b"https",
    authority=b"shop.example",
    target=b"/catalogue/page-17.html?sort=price",
    headers=(
        (b"Accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        (b"Accept-Language", b"en"),
        (b"User-Agent", b"Scrapy/2.19.0 (+https://scrapy.org)"),
        (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
    ),
)
RESPONSE: Headers = [
    (b":status", b"200"),
    (b"server", b"nginx/1.22.1"),
    (b"date", b"Mon, 05 Oct 2026 10:11:12 GMT"),
    (b"content-type", b"text/html"),
    (b"last-modified", b"Sun, 04 Oct 2026 08:00:00 GMT"),
    (b"etag", b'"6521f7a0-400"'),
    (b"accept-ranges", b"bytes"),
]

Make = Callable[["Wire"], Engine]


class Wire:
    """Transport and owner of an engine, and all of its exchanges: counts what comes up."""

    def __init__(self) -> None:
        self.written = 0
        self.ended = 0
        self.received = 0

    def write(self, data: bytes) -> None:
        """Send."""
        self.written += len(data)

    def unread(self) -> bool:
        """Never."""
        return False

    def flush_soon(self) -> None:
        """The benchmark flushes."""

    def capacity(self, streams: int) -> None:
        """Not of interest."""

    def draining(self, reason: CloseReason) -> None:
        """Never without a fault."""
        raise AssertionError(reason)

    def failed(self, error: PoolPlusError, reason: CloseReason) -> None:
        """Never without a fault."""
        raise AssertionError(error)


class Heard:
    """An exchange."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def sent(self) -> None:
        """The head is out."""

    def head(self, head: ResponseHead) -> None:
        """The response head."""
        assert head.status == 200

    def data(self, chunk: bytes) -> None:
        """Some of the body."""
        self._wire.received += len(chunk)

    def carried(self, sent: int, received: int) -> None:
        """Not of interest."""

    def done(self, outcome: Outcome) -> None:
        """Whole, or the benchmark is wrong."""
        assert outcome.error is None, outcome
        self._wire.ended += 1


class Crawl:
    """One connection on which eight requests at a time are asked and answered."""

    def __init__(self, make: Make, size: int) -> None:
        self.size = size
        self.wire = Wire()
        self.engine = make(self.wire)
        self._next = 1
        self.engine.begin(0.0)
        self.engine.flush(0.0)
        hello = gate.pack(gate.SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x80") + gate.pack(gate.SETTINGS, gate.ACK, 0)
        self.engine.receive(hello, 0.0)

    def batch(self) -> float:
        """Microseconds per request; what the server sends was made before."""
        turns = [self._reads() for _ in range(TURNS)]
        ended, received = self.wire.ended, self.wire.received
        engine, wire = self.engine, self.wire
        start = process_time()
        for reads in turns:
            for _ in range(AT_ONCE):
                engine.start(REQUEST, Heard(wire), 0.0)
            engine.flush(0.0)
            for read in reads:
                engine.receive(read, 0.0)
        spent = process_time() - start
        count = TURNS * AT_ONCE
        assert (wire.ended, wire.received) == (ended + count, received + count * self.size)
        return spent / count * 1e6

    def _reads(self) -> list[bytes]:
        stream = bytearray()
        block = response_block(self.size)
        for number in range(self._next, self._next + 2 * AT_ONCE, 2):
            stream += gate.pack(gate.HEADERS, gate.END_HEADERS, number, block)
            for at in range(0, self.size, PIECE):
                end = gate.END_STREAM if at + PIECE >= self.size else 0
                stream += gate.pack(gate.DATA, end, number, bytes(min(PIECE, self.size - at)))
        self._next += 2 * AT_ONCE
        return [bytes(stream[at : at + READ]) for at in range(0, len(stream), READ)]


def response_block(size: int) -> bytes:
    """A response's header block as nginx makes it: Huffman, and nothing put into the table."""
    encoder = Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([*RESPONSE, (b"content-length", b"%d" % size)], huffman=True)
    return bytes(block[1:])  # without the size of the table


# The contenders


def with_h2(wire: Wire) -> Engine:
    """As it is."""
    return Http2Engine(wire, wire, EngineConfig())


class _NoBook(http2_book.Book):
    """Packs frames, keeps nothing."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._encoder = HeaderEncoder()

    def written(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        return data

    def open(self, stream_id: int, headers: Headers, *, end: bool) -> int:
        flags = gate.END_HEADERS | (gate.END_STREAM if end else 0)
        frame = gate.pack(gate.HEADERS, flags, stream_id, self._encoder.encode(headers))
        self._out.append(frame)
        return len(frame)

    def over(self, stream_id: int) -> None:
        """Nothing is kept."""

    @property
    def connection_room(self) -> int:
        return 65_535

    def _emit(self, frame: bytes) -> None:
        self._out.append(frame)


def without_book(wire: Wire) -> Engine:
    """The floor."""
    return _with_book(wire, _NoBook(EngineConfig()))


def _with_book(wire: Wire, book: http2_book.Book) -> Http2Engine:
    engine = Http2Engine(wire, wire, EngineConfig())
    engine._book = engine._uploads._book = book  # noqa: SLF001
    return engine


def _jh2_book() -> http2_book.Book:
    """h2's names are the same in jh2, so the room can be used with the other library in its place."""
    jh2 = import_module("jh2.connection")
    config, settings = import_module("jh2.config"), import_module("jh2.settings")
    book = http2_book.Book(EngineConfig())
    connection = jh2.H2Connection(
        config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
    )
    connection.encoder = _OfTriples()
    codes = settings.SettingCodes
    wanted = EngineConfig()
    connection.local_settings = settings.Settings(
        client=True,
        initial_values={
            codes.ENABLE_PUSH: 0,
            codes.INITIAL_WINDOW_SIZE: wanted.stream_window,
            codes.MAX_FRAME_SIZE: wanted.max_frame_size,
            codes.MAX_HEADER_LIST_SIZE: wanted.max_header_list_size,
        },
    )
    book._h2 = connection  # noqa: SLF001
    return book


def with_jh2(wire: Wire) -> Engine:
    """The fork in h2's place, our HPACK."""
    return _with_book(wire, _jh2_book())


class _OfTriples(HeaderEncoder):
    """Ours, called as jh2 calls."""

    def encode(self, headers: Iterable[tuple[bytes, ...]]) -> bytes:
        return super().encode((field[0], field[1]) for field in headers)


class _RustEncoder:
    """jh2's, called as ours is."""

    def __init__(self) -> None:
        self._rust = import_module("jh2._hazmat").Encoder()

    def encode(self, headers: Headers) -> bytes:
        """A header block."""
        return cast("bytes", self._rust.encode([(name, value, False) for name, value in headers]))


class _RustDecoder:
    """jh2's, called as ours is."""

    def __init__(self) -> None:
        self._rust = import_module("jh2._hazmat").Decoder(65_536)

    def decode(self, block: bytes) -> Headers:
        """A header list."""
        return [(name, value) for name, value, _ in self._rust.decode(block, True)]


def with_jh2_hpack(wire: Wire) -> Engine:
    """The fork in h2's place, its HPACK."""
    book = _jh2_book()
    cast("Any", book)._h2.encoder = import_module("jh2._hazmat").Encoder()  # noqa: SLF001
    engine = _with_book(wire, book)
    cast("Any", engine)._decoder = _RustDecoder()  # noqa: SLF001
    return engine


def with_ngh2(wire: Wire) -> Engine:
    """The prototype."""
    from bench.native_engine import NativeEngine  # noqa: PLC0415 (only where ngh2 is installed)

    return NativeEngine(wire, wire, EngineConfig())


def least(calls: dict[str, Callable[[], float]], batches: int) -> dict[str, float]:
    """The least of each, all of them in turn, so that a busy moment of the machine is no one's alone."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(batches):
        for name, call in calls.items():
            found[name] = min(found[name], call())
    return found


def _timed(call: Callable[[], object], times: int = 200) -> Callable[[], float]:
    def batch() -> float:
        start = process_time()
        for _ in range(times):
            call()
        return (process_time() - start) / times * 1e6

    return batch


def hpack_share() -> dict[str, float]:
    """Microseconds for the head of one request, and of one response."""
    from scrapy_poolplus.net.http2_head import request_headers  # noqa: PLC0415

    headers, block = request_headers(REQUEST), response_block(1024)
    encoder, decoder = HeaderEncoder(), HeaderDecoder(65_536)
    calls = {
        "ours, encode": _timed(lambda: encoder.encode(headers)),
        "ours, decode": _timed(lambda: decoder.decode(block)),
    }
    if find_spec("jh2"):
        rust, unrust = _RustEncoder(), _RustDecoder()
        calls["jh2, encode"] = _timed(lambda: rust.encode(headers))
        calls["jh2, decode"] = _timed(lambda: unrust.decode(block))
    return least(calls, BATCHES)


def main() -> None:
    """Print the tables."""
    contenders: dict[str, Make] = {"h2": with_h2, "no book": without_book}
    if find_spec("jh2"):
        contenders |= {"jh2": with_jh2, "jh2, its HPACK": with_jh2_hpack}
    if find_spec("ngh2"):
        contenders["ngh2"] = with_ngh2
    gc.disable()
    print(f"h2 engine in memory: µs per request, least of {BATCHES} batches of {TURNS * AT_ONCE}")
    print(f"{'':18}" + "".join(f"{size // 1024:>6} KiB" for size in SIZES))
    columns = [least({name: Crawl(make, size).batch for name, make in contenders.items()}, BATCHES) for size in SIZES]
    for name in contenders:
        print(f"{name:18}" + "".join(f"{column[name]:10.1f}" for column in columns))
    print("\nHPACK alone: µs for one head")
    for name, value in hpack_share().items():
        print(f"{name:18}{value:10.1f}")


if __name__ == "__main__":
    main()
