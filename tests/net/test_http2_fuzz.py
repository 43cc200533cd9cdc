"""Any bytes, in any pieces, at any moment: the engine never raises, and everyone is told exactly once.

RecordingExchange and RecordingOwner hold the engine to the order of calls while it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.core.errors import ConnectionLostError, Phase, PoolPlusError
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome
from tests.peers.h2_peer import Conversation
from tests.peers.memory import RecordingExchange

CONFIG = EngineConfig(
    max_header_list_size=2000, stream_window=20_000, connection_window=70_000, ping_interval=30.0, ping_timeout=10.0
)
HEADS = [
    [(b":status", b"200")],
    [(b":status", b"200"), (b"content-length", b"4")],
    [(b":status", b"204")],
    [(b":status", b"103"), (b"link", b"</a>")],
    [(b":status", b"200"), (b"X-Upper", b"1")],
    [(b"x-trailer", b"1")],
    [(b":status", b"200"), (b"x-big", b"v" * 3000)],
]
streams = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 9, 2, 99])
flags = st.sampled_from([0, 1, 4, 5, 5, 8, 0x20, 0x2D, 0xFF])
payloads = st.binary(max_size=30) | st.sampled_from(
    [b"", b"\x88", b"body", bytes(4), bytes(8), b"\0\0\0\x01", b"\x7f\xff\xff\xff", b"x" * 9000]
)
any_frame = st.tuples(st.just("frame"), st.integers(0, 11), flags, streams, payloads)
head = st.tuples(st.just("head"), st.sampled_from(HEADS), st.booleans(), streams)
data = st.tuples(st.just("data"), st.sampled_from([b"", b"body", b"x" * 5000]), st.booleans(), streams)
raw = st.tuples(st.just("raw"), st.binary(min_size=1, max_size=40))
ask = st.tuples(st.just("ask"), st.sampled_from([b"GET", b"HEAD"]), st.sampled_from([b"", b"x" * 70_000]))
cancel = st.tuples(st.just("cancel"), st.integers(0, 5))
wait = st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 11.0, 31.0]))
flush = st.tuples(st.just("flush"))
steps = st.lists(st.one_of(ask, ask, head, head, data, data, any_frame, raw, cancel, wait, flush), max_size=25)


def ended(talk: Conversation, exchanges: list[RecordingExchange], *, lost: bool) -> None:
    """What holds at the end, whatever happened."""
    if lost:
        talk.engine.lost(ConnectionLostError("lost", phase=Phase.FIRST_BYTE), talk.now)
    talk.turn()
    assert talk.engine.next_deadline() is None or not lost
    for exchange in exchanges:
        outcome = exchange.outcome
        if outcome is None:
            assert not lost
            continue
        if outcome.error is None:
            assert outcome.end is BodyEnd.COMPLETE
            assert exchange.response is not None
        else:
            assert isinstance(outcome.error, PoolPlusError)
            assert outcome.end in (None, BodyEnd.TRUNCATED)
        if outcome.progress in (Progress.NOT_SENT, Progress.REFUSED, Progress.SENT):
            assert exchange.response is None
        assert exchange.was_sent or outcome.progress in (Progress.NOT_SENT, Progress.ENDED)
        length = exchange.response.length if exchange.response else None
        assert length is None or len(exchange.body) <= length
    if talk.owner.failure is not None:
        assert talk.owner.drained is not None
        assert isinstance(talk.owner.failure[0], PoolPlusError)
        writes = len(talk.transport.writes)
        talk.engine.receive(b"\0\0\0\4\0\0\0\0\0", talk.now)
        talk.turn()
        assert len(talk.transport.writes) == writes


def play(conversation: list[tuple[object, ...]], pieces: list[int], *, greet: bool, reenter: bool) -> None:
    talk = Conversation(CONFIG)
    encoder = Encoder()
    exchanges: list[RecordingExchange] = []
    if greet:
        talk.greeted()

    def begin(method: bytes, body: bytes, *, again: bool) -> None:
        def next_one() -> None:
            if again:
                begin(b"GET", b"", again=False)

        exchange = RecordingExchange(f"x{len(exchanges)}", talk.journal, on_done=next_one)
        exchanges.append(exchange)
        talk.ask(b"/", method=method, body=body, exchange=exchange)

    def deliver(wire: bytes) -> None:
        for piece in pieces:
            if wire and piece:
                talk.engine.receive(wire[:piece], talk.now)
                wire = wire[piece:]
        if wire:
            talk.engine.receive(wire, talk.now)

    def frame(kind: int, flag: int, stream: int, payload: bytes) -> None:
        deliver(len(payload).to_bytes(3, "big") + bytes((kind, flag)) + stream.to_bytes(4, "big") + payload)

    acts: dict[object, Callable[..., None]] = {
        "frame": frame,
        "raw": deliver,
        "head": lambda fields, end, stream: frame(1, 4 | end, stream, encoder.encode(fields)),
        "data": lambda payload, end, stream: frame(0, int(end), stream, payload),
        "ask": lambda method, body: begin(method, body, again=reenter),
        "cancel": lambda index: exchanges[index : index + 1] and talk.engine.cancel(exchanges[index], talk.now),
        "wait": talk.wait,
        "flush": talk.turn,
    }
    for act, *arguments in conversation:
        acts[act](*arguments)
    ended(talk, exchanges, lost=False)
    ended(talk, exchanges, lost=True)


@settings(max_examples=400, deadline=None)
@given(steps, st.lists(st.integers(0, 20), max_size=6), st.booleans(), st.booleans())
def test_any_conversation_ends_in_outcomes_of_ours(
    conversation: list[tuple[object, ...]], pieces: list[int], greet: bool, reenter: bool
) -> None:
    play(conversation, pieces, greet=greet, reenter=reenter)


def seed_conversation() -> bytes:
    """What a server says in an ordinary conversation with three requests, with every frame there is."""
    encoder = Encoder()

    def frame(kind: int, flag: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes((kind, flag)) + stream.to_bytes(4, "big") + payload

    def head(*fields: tuple[bytes, bytes]) -> bytes:
        return encoder.encode(fields)

    first = head((b":status", b"200"), (b"server", b"seed"), (b"content-length", b"8"))
    return b"".join(
        (
            frame(4, 0, 0, b"\0\3\0\0\0\x10\0\4\0\1\0\0"),
            frame(8, 0, 0, b"\0\1\0\0"),
            frame(4, 1, 0, b""),
            frame(1, 0, 1, first[:5]),
            frame(9, 4, 1, first[5:]),
            frame(1, 4, 3, head((b":status", b"103"), (b"link", b"</a>"))),
            frame(0, 0, 1, b"half"),
            frame(6, 0, 0, b"01234567"),
            frame(1, 4, 3, head((b":status", b"200"), (b"server", b"seed"))),
            frame(0, 8, 3, b"\2padded\0\0"),
            frame(0, 1, 1, b"half"),
            frame(8, 0, 5, b"\0\1\0\0"),
            frame(1, 5, 3, head((b"x-trailer", b"1"))),
            frame(0xEE, 0, 0, b"nobody knows"),
            frame(7, 0, 0, b"\0\0\0\5\0\0\0\0"),
            frame(1, 4, 5, head((b":status", b"200"), (b"content-length", b"6"))),
            frame(0, 1, 5, b"thanks"),
        )
    )


SEED = seed_conversation()


def frames(*given: tuple[int, int, int, bytes]) -> bytes:
    return b"".join(
        len(payload).to_bytes(3, "big") + bytes((kind, flag)) + stream.to_bytes(4, "big") + payload
        for kind, flag, stream, payload in given
    )


STATUS_200, STATUS_204 = b"\x88", b"\x89"
CORPUS = (
    SEED,
    # A push before our SETTINGS are acknowledged, and what was on its way of it.
    frames(
        (4, 0, 0, b""), (5, 4, 1, b"\0\0\0\2\x82\x87\x84"), (1, 5, 2, STATUS_200), (4, 1, 0, b""), (1, 5, 1, STATUS_204)
    ),
    # GOAWAY in two steps, refused streams, an end without NO_ERROR.
    frames(
        (4, 0, 0, b""),
        (7, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"),
        (3, 0, 3, b"\0\0\0\7"),
        (7, 0, 0, b"\0\0\0\1\0\0\0\x0bcalm down"),
        (1, 4, 1, STATUS_200),
        (0, 1, 1, b"last"),
    ),
    # Limits and windows that go up and down under an upload.
    frames(
        (4, 0, 0, b"\0\3\0\0\0\0\0\4\0\0\0\0"),
        (4, 0, 0, b"\0\1\0\0\0\0\0\5\0\0\x80\0\0\4\0\0\x40\0"),
        (8, 0, 5, b"\0\0\x40\0"),
        (8, 0, 0, b"\x7f\xff\0\0"),
        (3, 0, 5, b"\0\0\0\0"),
        (2, 0, 3, b"\0\0\0\1\x10"),
    ),
    # Heads with padding and priority, a table that is resized, trailers, a body that is too long.
    frames(
        (4, 0, 0, b"\0\x99\0\0\0\1"),
        (1, 0x2C, 1, b"\3\0\0\0\0\x10\x88\x5c\x011\0\0\0"),
        (0, 0, 1, b"too long"),
        (1, 4, 3, b"\x20\x3f\x21\x88\x40\1x\1y"),
        (0, 0, 3, b"x" * 300),
        (1, 5, 3, b"\xbe"),
        (0, 1, 3, b"late"),
    ),
)
"""What mutations begin with."""


def in_pieces(wire: bytes, cuts: list[int]) -> tuple[Conversation, list[RecordingExchange]]:
    talk = Conversation(CONFIG)
    exchanges = [talk.ask(b"/1"), talk.ask(b"/3"), talk.ask(b"/5", method=b"POST", body=b"x" * 100_000)]
    talk.turn()
    edges = [0, *sorted(cuts), len(wire)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            talk.engine.receive(wire[start:end], talk.now)
    return talk, exchanges


@settings(deadline=None)
@given(st.lists(st.integers(0, len(SEED)), max_size=10))
def test_the_seed_conversation_is_understood_in_any_pieces(cuts: list[int]) -> None:
    talk, exchanges = in_pieces(SEED, cuts)
    assert [exchange.body for exchange in exchanges] == [b"halfhalf", b"padded", b"thanks"]
    assert [exchange.outcome for exchange in exchanges] == [Outcome(end=BodyEnd.COMPLETE)] * 3
    assert talk.owner.failure is None


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    wire = bytearray(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(wire)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if kind == "flip" and at < len(wire):
            wire[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del wire[at : at + draw(st.integers(1, 20))]
        elif kind == "insert":
            wire[at:at] = draw(st.binary(min_size=1, max_size=10))
        else:
            wire[at:at] = wire[max(0, at - draw(st.integers(1, 60))) : at]
    return bytes(wire)


@settings(max_examples=400, deadline=None)
@given(mutated(), st.lists(st.integers(0, 700), max_size=6))
def test_a_mutated_conversation_ends_in_outcomes_of_ours(wire: bytes, cuts: list[int]) -> None:
    talk, exchanges = in_pieces(wire, [cut for cut in cuts if cut < len(wire)])
    ended(talk, exchanges, lost=False)
    ended(talk, exchanges, lost=True)
