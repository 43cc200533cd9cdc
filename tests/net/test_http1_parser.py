"""The HTTP/1.1 response parser: heads, lengths and chunks in detail, bounded work and memory, and fuzzed bytes."""

from __future__ import annotations

import logging
import re
import tracemalloc
from collections.abc import Iterator
from itertools import cycle, islice, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scrapy_poolplus.core.errors import BodyLengthError, ConnectionLostError, Phase, PoolPlusError, RemoteProtocolError
from scrapy_poolplus.net import http1_parser
from scrapy_poolplus.net.http1 import Http1Engine
from scrapy_poolplus.net.http1_parser import MAX_INTERIM, ResponseParser, State
from scrapy_poolplus.net.wire import EngineConfig, ResponseHead, WireRequest
from tests.net.corpus.odd_responses import ODD_RESPONSES
from tests.peers.memory import MemoryTransport, RecordingExchange, RecordingOwner

LIMIT = 65_536
READ = 65_536
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def parse(*pieces: bytes, method: bytes = b"GET", limit: int = LIMIT) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser(method, "a.example", limit)
    return parser, b"".join(parser.feed(piece) for piece in pieces)


def error_of(*pieces: bytes, limit: int = LIMIT) -> PoolPlusError:
    parser, _ = parse(*pieces, limit=limit)
    assert parser.state is State.FAILED
    assert parser.error is not None
    return parser.error


def bytewise(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def reads(data: bytes) -> Iterator[bytes]:
    return (data[at : at + READ] for at in range(0, len(data), READ))


# What is told of a head


def test_a_head_keeps_names_values_and_order_as_they_came() -> None:
    parser, _ = parse(b"HTTP/1.1 200 OK\r\nX-b: 1\r\nx-A:2 \r\nX-B:  \xe9\r\nContent-Length: 7\r\n\r\n")
    assert parser.head == ResponseHead(
        200, [(b"X-b", b"1"), (b"x-A", b"2"), (b"X-B", b"\xe9"), (b"Content-Length", b"7")], 7, "HTTP/1.1"
    )


@pytest.mark.parametrize(
    ("data", "method", "length", "version"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"GET", 9, "HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HEAD", 0, "HTTP/1.1"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0, "HTTP/1.1"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"GET", 0, "HTTP/1.1"),
        (CHUNKED, b"GET", None, "HTTP/1.1"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", None, "HTTP/1.0"),
        (b"HTTP/1.3 200 OK\r\n\r\n", b"GET", None, "HTTP/1.1"),
        (b"HTTP/2.0 200 OK\r\n\r\n", b"GET", None, "HTTP/1.1"),
        (b"HTTP/0.9 200 OK\r\n\r\n", b"GET", None, "HTTP/1.0"),
    ],
)
def test_a_head_says_the_announced_length_and_the_version(
    data: bytes, method: bytes, length: int | None, version: str
) -> None:
    parser, _ = parse(data, method=method)
    assert parser.head is not None
    assert (parser.head.length, parser.head.version) == (length, version)


def test_skipped_header_lines_are_logged_once_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=http1_parser.__name__)
    parse(b"HTTP/1.1 200 OK\r\nbad one\r\nX: y\r\nbad two\r\nContent-Length: 0\r\n\r\n")
    assert [record.getMessage() for record in caplog.records] == [
        "a.example: skipped 2 response header line(s) without a name and a colon, first: b'bad one'"
    ]


def test_the_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    for pieces in ([head], list(bytewise(head))):
        assert parse(*pieces, limit=len(head))[0].state is State.DONE
        error = error_of(*pieces, limit=len(head) - 1)
        assert str(error) == f"a.example: the response head is longer than {len(head) - 1} bytes (max_header_list_size)"


def test_each_of_several_heads_may_be_as_long_as_the_limit() -> None:
    interim, final = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
    for data in (interim + final, interim * 5 + final):
        assert parse(data, limit=len(interim))[0].state is State.DONE
        assert parse(*bytewise(data), limit=len(interim))[0].state is State.DONE


def test_interim_responses_are_passed_over_up_to_a_number() -> None:
    interim, final = b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"
    assert parse(interim * MAX_INTERIM + final)[0].state is State.DONE
    assert "more than 100 interim" in str(error_of(interim * (MAX_INTERIM + 1) + final))


def test_what_can_be_no_http_fails_at_its_first_wrong_byte() -> None:
    parser, _ = parse(b"HTT")
    assert parser.state is State.HEAD
    parser.feed(b"X")
    assert "b'HTTX'" in str(parser.error)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"HTTP/1.1 99999 X\r\n\r\n", "does not begin with an HTTP/1 status line but with b'HTTP/1.1 99999 X"),
        (b"HTTP/1.1 012 X\r\n\r\n", "the status is not in 100..999: b'HTTP/1.1 012 X"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "switched protocols unasked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "with different values: b'1, 2'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", "Content-Length is not a number: b'1x'"),
    ],
)
def test_a_broken_head_is_an_error_that_names_what_came(data: bytes, text: str) -> None:
    error = error_of(data)
    assert isinstance(error, RemoteProtocolError)
    assert error.phase is Phase.FIRST_BYTE
    assert text in str(error)
    assert str(error).startswith("a.example: ")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"zz\r\n", "not a chunk size: b'zz\\r\\n'"),
        (b"2\r\nokay\r\n", "not the end of a chunk: b'ay\\r\\n'"),
        (b"1" * 17 + b"\r\n", "not a chunk size"),
        (b"2;" + b"x" * 200, "a chunk-size line is longer than 100 bytes (max_header_list_size)"),
        (b"2;" + b"x" * 200 + b"\r\nok\r\n0\r\n\r\n", "a chunk-size line is longer than 100 bytes"),
        (b"0\r\n" + b"X: y\r\n" * 50, "the trailer section is longer than 100 bytes (max_header_list_size)"),
        ((b"1;" + b"x" * 90 + b"\r\na\r\n") * 9, "chunk extensions of more than 100 bytes (max_header_list_size)"),
    ],
)
def test_a_broken_chunked_body_is_an_error_that_names_what_came(body: bytes, text: str) -> None:
    for pieces in ([CHUNKED, body], [CHUNKED, *bytewise(body)]):
        error = error_of(*pieces, limit=100)
        assert isinstance(error, BodyLengthError)
        assert error.phase is Phase.BODY
        assert text.partition(": b")[0] in str(error)
    assert text in str(error_of(CHUNKED, body, limit=100))


def test_large_chunks_pay_for_their_extensions() -> None:
    chunk = b"400;chunk-signature=" + b"f" * 64 + b"\r\n" + b"x" * 0x400 + b"\r\n"
    parser, body = parse(CHUNKED + chunk * 1000 + b"0\r\n\r\n", limit=100)
    assert parser.state is State.DONE
    assert len(body) == 0x400 * 1000


def test_framing_in_the_case_of_anybody() -> None:
    parser, body = parse(
        b"HTTP/1.1 200 OK\r\ntRANSFER-eNCODING: cHUNKED\r\ncONNECTION: kEEP-aLIVE\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    )
    assert (parser.state, parser.reusable, body) == (State.DONE, True, b"x")


# Bounded work


class Counted:
    """A compiled expression that counts the bytes it has looked at; an anchored one that does not match costs nothing."""

    def __init__(self, expression: re.Pattern[bytes]) -> None:
        self.expression = expression
        self.looked_at = 0

    def search(self, data: bytes, start: int, end: int) -> re.Match[bytes] | None:
        found = self.expression.search(data, start, end)
        self.looked_at += (found.end() if found else min(end, len(data))) - start
        return found

    def match(self, data: bytes, start: int, end: int) -> re.Match[bytes] | None:
        found = self.expression.match(data, start, end)
        self.looked_at += found.end() - start if found else 0
        return found

    def fullmatch(self, data: bytes) -> re.Match[bytes] | None:
        self.looked_at += len(data)
        return self.expression.fullmatch(data)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Counted]:
    counted = []
    for name in ("_STRICT_HEAD", "_BLANK_LINE", "_SIZE_LINE"):
        expression = Counted(getattr(http1_parser, name))
        monkeypatch.setattr(http1_parser, name, expression)
        counted.append(expression)
    return counted


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"Content-Length: 0\r\n\r\n",
        CHUNKED + b"1;" + b"y" * 60_000 + b"\r\nx\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        CHUNKED + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n",
    ],
    ids=["one long header", "many headers", "a long extension", "long trailers", "tiny chunks"],
)
def test_bytes_that_come_one_by_one_are_looked_at_a_few_times_each(data: bytes, looked_at: list[Counted]) -> None:
    parser, _ = parse(*bytewise(data))
    assert parser.state is State.DONE
    assert sum(expression.looked_at for expression in looked_at) < 5 * len(data)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_nothing_is_searched_for_in_a_body(line_end: bytes, looked_at: list[Counted]) -> None:
    head = line_end.join([b"HTTP/1.1 200 OK", b"Content-Length: 60000", b"", b""])
    parser, body = parse(head + b"x" * 60_000)
    assert (parser.state, len(body)) == (State.DONE, 60_000)
    assert sum(expression.looked_at for expression in looked_at) <= 2 * len(head)


def test_a_long_body_in_chunks_of_one_byte_goes_up_in_one_piece_a_read() -> None:
    data = CHUNKED + b"1\r\nx\r\n" * (1 << 18) + b"0\r\n\r\n"
    exchange = RecordingExchange()
    engine = Http1Engine(MemoryTransport(), RecordingOwner(), EngineConfig())
    engine.start(WireRequest(b"GET", b"http", b"a.example", b"/"), exchange, 0.0)
    for read in reads(data):
        engine.receive(read, 0.0)
    assert exchange.body == b"x" * (1 << 18)
    assert len(exchange.chunks) <= len(data) // READ + 1


ENDLESS = {
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
    "status line": (b"HTTP/1.1 200 ", b"OK" * 100),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a chunk size": (CHUNKED, b"0" * 1000),
    "an extension": (CHUNKED + b"1;", b"x" * 1000),
    "extensions": (CHUNKED, b"1;" + b"x" * 1000 + b"\r\na\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 100),
}


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_what_has_no_end_fails_after_a_bounded_number_of_bytes(start: bytes, more: bytes) -> None:
    parser, _ = parse(start)
    fed = 0
    while parser.state is not State.FAILED:
        parser.feed(more)
        fed += len(more)
        assert fed < 3 * LIMIT


@pytest.mark.parametrize(
    "data",
    [
        *(start + more * (1_000_000 // len(more)) for start, more in ENDLESS.values()),
        CHUNKED + b"1\r\nx\r\n" * 100_000,
        CHUNKED + b"ffffff\r\n" + b"x" * 1_000_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 1_000_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000,
    ],
    ids=[*ENDLESS, "tiny chunks", "a large chunk", "a length", "no length"],
)
def test_what_is_kept_between_reads_is_bounded(data: bytes) -> None:
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    parser = ResponseParser(b"GET", "a.example", LIMIT)
    tracemalloc.start()
    try:
        for piece in pieces:
            parser.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * LIMIT


# Fuzzing

SEEDS = [odd.data for odd in ODD_RESPONSES if len(odd.data) < 2000]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"f",
    b"\xff",
    b"0\r\n\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"3\r\nabc\r\n",
    b"no colon\r\n",
    b" folded\r\n",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A response of the corpus, or two, with some bytes changed, cut out, doubled or put in."""
    data = draw(st.sampled_from(SEEDS))
    if draw(st.booleans()):
        data += draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 20)))
        put = draw(st.sampled_from(TOKENS) | st.binary(max_size=4) | st.just(data[at:to] * 2))
        data = data[:at] + put + data[to:]
    return data


LOSSES: list[PoolPlusError | None] = [
    None,
    ConnectionLostError("closed", phase=Phase.FIRST_BYTE, clean=True),
    ConnectionLostError("reset", phase=Phase.FIRST_BYTE),
]


class Played:
    """The bytes fed to an engine piece by piece after one request. Raises whatever the engine or the exchange raises."""

    def __init__(self, method: bytes, pieces: list[bytes], loss: PoolPlusError | None) -> None:
        self.owner = RecordingOwner()
        self.exchange = RecordingExchange()
        self.engine = Http1Engine(MemoryTransport(), self.owner, EngineConfig(max_header_list_size=400))
        self.engine.start(WireRequest(method, b"http", b"a.example", b"/"), self.exchange, 0.0)
        for piece in pieces:
            self.engine.receive(piece, 0.0)
        if loss is not None:
            self.engine.lost(loss, 0.0)

    @property
    def usable(self) -> bool:
        return self.owner.drained is None and self.owner.failure is None

    def verdict(self) -> tuple[object, ...]:
        ended = self.exchange.outcome
        summary = ended and (type(ended.error), ended.error and ended.error.phase, ended.end, ended.progress)
        return self.exchange.response, self.exchange.body, summary, self.usable


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


methods = st.sampled_from([b"GET", b"GET", b"POST", b"HEAD", b"CONNECT"])
losses = st.sampled_from(LOSSES)
cuts = st.lists(st.integers(0, 4000), max_size=8)


@settings(max_examples=500, deadline=None)
@given(methods, mutated(), losses, cuts)
@example(b"GET", CHUNKED + b"3\r\nok\r\n0\r\n\r\n", None, [])
def test_where_the_bytes_are_cut_changes_nothing(
    method: bytes, data: bytes, loss: PoolPlusError | None, cuts: list[int]
) -> None:
    if not data:
        return
    whole = Played(method, [data], loss).verdict()
    assert Played(method, split(data, cuts), loss).verdict() == whole
    assert Played(method, list(bytewise(data)), loss).verdict() == whole


@settings(max_examples=300, deadline=None)
@given(methods, mutated() | st.binary(min_size=1), losses, cuts)
def test_whatever_comes_ends_in_an_outcome_or_waits_for_more(
    method: bytes, data: bytes, loss: PoolPlusError | None, cuts: list[int]
) -> None:
    played = Played(method, split(data, cuts), loss)
    ended = played.exchange.outcome
    if loss is not None:
        assert ended is not None, "the exchange outlives its connection"
    if ended is not None:
        assert ended.error is None or isinstance(ended.error, PoolPlusError)
        assert (ended.error is None) <= (played.exchange.response is not None and ended.end is not None)
    if played.owner.failure is not None:
        assert ended is not None, "the connection failed under an exchange"


@settings(max_examples=300, deadline=None)
@given(methods, mutated(), cuts)
def test_nothing_of_one_response_reaches_the_next_request(method: bytes, data: bytes, cuts: list[int]) -> None:
    played = Played(method, split(data, cuts), None)
    if played.exchange.outcome is None or not played.usable:
        return
    following = RecordingExchange()
    played.engine.start(WireRequest(b"GET", b"http", b"a.example", b"/"), following, 0.0)
    played.engine.receive(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nX: y\r\n\r\nnew", 0.0)
    assert following.response == ResponseHead(201, [(b"Content-Length", b"3"), (b"X", b"y")], 3, "HTTP/1.1")
    assert following.body == b"new"
    assert played.usable


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.booleans(), cuts, st.integers(1, 3))
def test_a_well_formed_body_comes_whole_however_it_is_framed_and_cut(
    parts: list[bytes], chunked: bool, cuts: list[int], responses: int
) -> None:
    body = b"".join(parts)
    if chunked:
        endings = islice(cycle([b"", b";ext", b"  "]), len(parts))
        chunks = [b"%X%b\r\n%b\r\n" % (len(part), ending, part) for part, ending in zip(parts, endings, strict=True)]
        data = CHUNKED + b"".join(chunks) + b"0\r\n\r\n"
    else:
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    played = Played(b"GET", split(data, cuts), None)
    for _ in range(responses):
        assert played.exchange.body == body
        assert played.exchange.outcome is not None
        assert played.usable
        played.exchange = RecordingExchange()
        played.engine.start(WireRequest(b"GET", b"http", b"a.example", b"/"), played.exchange, 0.0)
        for piece in split(data, cuts):
            played.engine.receive(piece, 0.0)
