"""What costs the connection: every exchange is told with its proof, the owner hears why, and it costs little."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from struct import pack

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder

from scrapy_poolplus.core.errors import RemoteProtocolError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.frame_gate import FLOOD_BURST, MAX_CONTINUATIONS
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome
from tests.peers.h2_peer import Conversation, H2Peer
from tests.peers.memory import RecordingExchange

COMPLETE = Outcome(end=BodyEnd.COMPLETE)
OK = (b":status", b"200")
Fault = Callable[[H2Peer], object]
PROTOCOL, SIZE, FLOW, CALM, COMPRESSION = (
    ErrorCodes.PROTOCOL_ERROR,
    ErrorCodes.FRAME_SIZE_ERROR,
    ErrorCodes.FLOW_CONTROL_ERROR,
    ErrorCodes.ENHANCE_YOUR_CALM,
    ErrorCodes.COMPRESSION_ERROR,
)


def in_flight(config: EngineConfig | None = None) -> tuple[Conversation, H2Peer, list[RecordingExchange]]:
    """A request whose response has begun, one that waits for it, and one that is not written yet."""
    talk = Conversation(config)
    peer = talk.greeted()
    exchanges = talk.asked(b"/begun", b"/sent")
    peer.headers(1, [OK])
    exchanges.append(talk.ask(b"/queued"))
    return talk, peer, exchanges


def told(talk: Conversation, peer: H2Peer, exchanges: list[RecordingExchange], code: ErrorCodes) -> str:
    """Everyone was told; gives the text of the error."""
    assert [exchange.outcome.progress for exchange in exchanges if exchange.outcome] == [
        Progress.STARTED,
        Progress.SENT,
        Progress.NOT_SENT,
    ]
    assert all(isinstance(exchange.outcome.error, RemoteProtocolError) for exchange in exchanges if exchange.outcome)
    heard = [what for who, what, _ in talk.journal if what in {"draining", "done", "failed"}]
    assert heard == ["draining", "done", "done", "done", "failed"]
    assert talk.owner.failure is not None
    error, reason = talk.owner.failure
    assert isinstance(error, RemoteProtocolError)
    assert reason is CloseReason.PROTOCOL_ERROR
    assert peer.want_goaway() is code
    peer.want_nothing()
    peer.answer(3, b"too late")
    assert talk.engine.next_deadline() is None
    return str(error)


def broken_block(peer: H2Peer) -> None:
    peer.frame(1, 0, 3)
    peer.ping()


def mixed_block(peer: H2Peer) -> None:
    peer.frame(1, 0, 3)
    peer.frame(9, 0x4, 1, b"\x88")


FAULTS: dict[str, tuple[ErrorCodes, Fault]] = {
    "DATA on stream 0": (PROTOCOL, lambda peer: peer.frame(0, 0, 0, b"x")),
    "DATA on an idle stream": (PROTOCOL, lambda peer: peer.data(99, b"x")),
    "DATA on a stream never promised": (PROTOCOL, lambda peer: peer.data(2, b"x")),
    "DATA padded beyond its end": (PROTOCOL, lambda peer: peer.frame(0, 0x8, 1, b"\x05abcd")),
    "DATA padded without a length": (SIZE, lambda peer: peer.frame(0, 0x8, 1, b"")),
    "DATA larger than a frame may be": (SIZE, lambda peer: peer.data(1, b"x" * 16_385)),
    "an unknown frame larger than may be": (SIZE, lambda peer: peer.frame(0xEE, 0, 0, b"x" * 16_385)),
    "HEADERS on stream 0": (PROTOCOL, lambda peer: peer.frame(1, 0x4, 0, b"\x88")),
    "HEADERS on an idle stream": (PROTOCOL, lambda peer: peer.headers(99, [OK])),
    "HEADERS with half a priority": (SIZE, lambda peer: peer.frame(1, 0x24, 3, b"\0\0")),
    "a header block broken by another frame": (PROTOCOL, broken_block),
    "a header block of two streams": (PROTOCOL, mixed_block),
    "CONTINUATION of nothing": (PROTOCOL, lambda peer: peer.frame(9, 0x4, 3, b"\x88")),
    "HPACK index out of the table": (COMPRESSION, lambda peer: peer.frame(1, 0x4, 3, b"\xff\xff\x7f")),
    "HPACK that ends early": (COMPRESSION, lambda peer: peer.frame(1, 0x4, 3, b"\x40\x05ab")),
    "HPACK table too large": (COMPRESSION, lambda peer: peer.frame(1, 0x4, 3, b"\x3f\xff\xff\x03\x88")),
    "SETTINGS on a stream": (PROTOCOL, lambda peer: peer.frame(4, 0, 1)),
    "SETTINGS of 5 bytes": (SIZE, lambda peer: peer.frame(4, 0, 0, b"12345")),
    "an ACK of SETTINGS with content": (SIZE, lambda peer: peer.frame(4, 1, 0, b"123456")),
    "a window over 2^31-1": (FLOW, lambda peer: peer.settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31})),
    "a frame size of 1": (PROTOCOL, lambda peer: peer.settings({SettingCodes.MAX_FRAME_SIZE: 1})),
    "a server that enables push": (PROTOCOL, lambda peer: peer.settings({SettingCodes.ENABLE_PUSH: 1})),
    "PING on a stream": (PROTOCOL, lambda peer: peer.frame(6, 0, 1, b"01234567")),
    "PING of 7 bytes": (SIZE, lambda peer: peer.frame(6, 0, 0, b"0123456")),
    "GOAWAY on a stream": (PROTOCOL, lambda peer: peer.frame(7, 0, 1, bytes(8))),
    "GOAWAY of 7 bytes": (PROTOCOL, lambda peer: peer.frame(7, 0, 0, bytes(7))),
    "WINDOW_UPDATE of 3 bytes": (SIZE, lambda peer: peer.frame(8, 0, 0, b"123")),
    "WINDOW_UPDATE of the connection by 0": (PROTOCOL, lambda peer: peer.window(0, 0)),
    "WINDOW_UPDATE of an idle stream": (PROTOCOL, lambda peer: peer.window(99, 1)),
    "the connection's window over 2^31-1": (FLOW, lambda peer: peer.window(0, 2**31 - 1)),
    "RST_STREAM on stream 0": (PROTOCOL, lambda peer: peer.frame(3, 0, 0, bytes(4))),
    "RST_STREAM of an idle stream": (PROTOCOL, lambda peer: peer.reset(99)),
    "RST_STREAM of 5 bytes": (SIZE, lambda peer: peer.frame(3, 0, 1, bytes(5))),
    "PRIORITY of 4 bytes": (SIZE, lambda peer: peer.frame(2, 0, 1, bytes(4))),
    "PUSH_PROMISE": (PROTOCOL, lambda peer: peer.push(1, 2)),
    "PUSH_PROMISE of 3 bytes": (SIZE, lambda peer: peer.frame(5, 4, 1, bytes(3))),
    "PUSH_PROMISE on stream 0": (PROTOCOL, lambda peer: peer.frame(5, 4, 0, bytes(4))),
}


@pytest.mark.parametrize(("code", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_connection_ends_it_and_tells_everyone(code: ErrorCodes, fault: Fault) -> None:
    talk, peer, exchanges = in_flight()
    with peer.one_read():
        fault(peer)
    told(talk, peer, exchanges, code)


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/2.0 405 Method Not Allowed\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed\r\nServer: x\r\n\r\nno"],
)
@pytest.mark.parametrize("chop", [None, 1, 5])
def test_text_after_alpn_h2_is_an_error_that_holds_the_text(greeting: bytes, chop: int | None) -> None:
    talk = Conversation(chop=chop)
    exchange = talk.ask()
    talk.turn()
    talk.peer.raw(greeting)
    assert exchange.outcome is not None
    assert isinstance(exchange.outcome.error, RemoteProtocolError)
    # In pieces: the line's end may never come, so its status is all that is waited for.
    assert ("405 Method Not Allowed" if chop is None else "405") in str(exchange.outcome.error)
    assert exchange.outcome.progress is Progress.SENT
    assert talk.owner.failure is not None


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9\r\n", b"\0" * 9, b"<html><body>", b"HTTP/" + b"x" * 2000])
def test_a_peer_that_does_not_begin_with_settings_is_no_http_2_peer(greeting: bytes) -> None:
    talk = Conversation()
    exchange = talk.ask()
    talk.turn()
    talk.peer.raw(greeting)
    assert exchange.outcome is not None
    assert "does not speak HTTP/2" in str(exchange.outcome.error)


def test_a_block_that_cannot_be_decoded_costs_the_connection_on_a_closed_stream_too() -> None:
    talk, peer, _ = in_flight()
    with peer.one_read():
        peer.reset(3)
        peer.frame(1, 0x4, 3, b"\x80")
    assert peer.want_goaway() is COMPRESSION
    assert talk.owner.failure is not None


def test_a_window_made_too_wide_by_settings_costs_the_connection() -> None:
    talk = Conversation()
    peer = talk.greeted()
    exchange = talk.ask(method=b"POST", body=b"x" * 10)
    talk.turn()
    peer.want_headers()
    with peer.one_read():
        peer.window(1, 2**31 - 70_000)
        peer.settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    assert exchange.outcome is not None
    assert isinstance(exchange.outcome.error, RemoteProtocolError)
    peer.want_data(1)
    assert peer.want_goaway() is FLOW


# Floods


def flood(step: Fault) -> Fault:
    """More of it than anyone needs."""

    def many(peer: H2Peer) -> None:
        for _ in range(FLOOD_BURST + 100):
            step(peer)

    return many


def header_block(peer: H2Peer) -> None:
    peer.frame(1, 0, 3)
    for _ in range(MAX_CONTINUATIONS + 1):
        peer.frame(9, 0, 3)


def long_header_block(peer: H2Peer) -> None:
    peer.frame(1, 0, 3, b"x" * 16_384)
    for _ in range(8):
        peer.frame(9, 0, 3, b"x" * 16_384)


def hpack_bomb(peer: H2Peer) -> None:
    """A field of 4,000 bytes, and then its index a thousand times."""
    block = Encoder().encode([OK, (b"x-bomb", b"v" * 4000)], huffman=False) + b"\xbe" * 1000
    peer.frame(1, 0x4, 3, block)


def late_headers(peer: H2Peer) -> None:
    peer.headers(3, [OK], end=True)
    flood(lambda peer: peer.headers(3, [OK]))(peer)


def late_data(peer: H2Peer) -> None:
    peer.reset(3)
    flood(lambda peer: peer.data(3, b""))(peer)


FLOODS: dict[str, tuple[ErrorCodes, Fault]] = {
    "empty CONTINUATION": (CALM, header_block),
    "CONTINUATION over the size of a block": (CALM, long_header_block),
    "HPACK bomb": (COMPRESSION, hpack_bomb),
    "SETTINGS": (CALM, flood(lambda peer: peer.settings({1: 4096}))),
    "SETTINGS ACK": (CALM, flood(lambda peer: peer.ack_settings())),
    "PING": (CALM, flood(lambda peer: peer.ping())),
    "PING ACK": (CALM, flood(lambda peer: peer.ping(ack=True))),
    "RST_STREAM": (CALM, flood(lambda peer: peer.reset(3))),
    "empty DATA": (CALM, flood(lambda peer: peer.data(1, b""))),
    "padding only": (CALM, flood(lambda peer: peer.data(1, b"", padding=9))),
    "empty DATA on a closed stream": (CALM, late_data),
    "WINDOW_UPDATE": (CALM, flood(lambda peer: peer.window(0, 1))),
    "PRIORITY": (CALM, flood(lambda peer: peer.frame(2, 0, 1, bytes(5)))),
    "unknown frames": (CALM, flood(lambda peer: peer.frame(0xEE, 0, 0))),
    "GOAWAY": (CALM, flood(lambda peer: peer.goaway(2**31 - 1))),
    "late HEADERS": (CALM, late_headers),
}


@pytest.mark.parametrize(("code", "attack"), FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_ends_the_connection(code: ErrorCodes, attack: Fault) -> None:
    talk, peer, exchanges = in_flight()
    attack(peer)
    assert talk.owner.failure is not None, "the engine has put up with it"
    assert all(exchange.outcome is not None for exchange in exchanges)
    sent = peer.pending()
    assert sent[-1].error_code == code  # type: ignore[attr-defined]
    assert len(sent) < FLOOD_BURST + 10


def test_frames_without_use_at_a_human_rate_are_no_flood() -> None:
    talk, peer, exchanges = in_flight()
    for _ in range(5 * FLOOD_BURST):
        peer.ping()
        talk.now += 0.02
    peer.answer(3)
    assert exchanges[1].outcome == COMPLETE


def test_what_answers_our_own_frames_is_no_flood() -> None:
    """A server that widens both windows for each DATA frame of ours, in no time."""
    talk = Conversation()
    peer = talk.greeted()
    exchange = talk.ask(method=b"POST", body=b"x" * 16_384 * FLOOD_BURST)
    talk.turn()
    peer.want_headers()
    end = False
    while not end:
        with peer.one_read():
            while peer.pending() and not end:
                chunk, end = peer.want_data(1)
                peer.window(0, len(chunk))
                peer.window(1, len(chunk))
    peer.answer(1)
    assert exchange.outcome == COMPLETE


def test_resets_of_open_streams_are_no_flood() -> None:
    talk = Conversation()
    peer = talk.greeted()
    for number in range(FLOOD_BURST + 100):
        talk.asked(b"/")
        peer.reset(2 * number + 1, ErrorCodes.REFUSED_STREAM)
    assert talk.owner.failure is None


def test_frames_of_unknown_types_are_ignored() -> None:
    _talk, peer, exchanges = in_flight()
    for kind in (0xA, 0xC, 0x10, 0xEE):  # ALTSVC, ORIGIN, PRIORITY_UPDATE and one that nobody has heard of
        peer.frame(kind, 0xFF, 0, b"whatever")
        peer.frame(kind, 0, 3, b"")
    peer.frame(2, 0, 99, bytes(5))
    peer.answer(3, b"fine")
    assert exchanges[1].outcome == COMPLETE


def test_unknown_settings_are_forgotten() -> None:
    talk = Conversation()
    peer = talk.greeted()
    unknown = [pack(">HI", key, 1) for key in range(1000, 61_000)]
    peer.frame(4, 0, 0, unknown[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for start in range(0, 60_000, 2000):
            peer.frame(4, 0, 0, b"".join(unknown[start : start + 2000]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000
    assert talk.owner.failure is None


def test_an_endless_header_block_is_not_gathered() -> None:
    talk = Conversation()
    peer = talk.greeted()
    talk.asked(b"/")
    tracemalloc.start()
    try:
        peer.frame(1, 0, 1, b"x" * 16_384)
        for _ in range(1000):
            peer.frame(9, 0, 1, b"x" * 16_384)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5_000_000
    assert talk.owner.failure is not None
