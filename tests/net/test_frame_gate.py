"""The gate alone: bytes in any pieces become the same frames, and sizes are bounded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.net.frame_gate import (
    FLOOD_BURST,
    FLOOD_RATE,
    Allowance,
    Data,
    Frame,
    FrameGate,
    Goaway,
    HeaderBlock,
    PeerFaultError,
    Ping,
    Promise,
    Reset,
    WindowUpdate,
    pack,
    pack_goaway,
    pack_long,
)
from scrapy_poolplus.net.frame_gate import (
    SettingsFrame as Settings,
)

GREETING = SettingsFrame(0, settings={3: 100}).serialize()


def gate(max_frame_size: int = 16_384, max_block_size: int = 131_072) -> FrameGate:
    return FrameGate(max_frame_size=max_frame_size, max_block_size=max_block_size)


def pass_through(data: Iterable[bytes], at: FrameGate | None = None) -> list[Frame]:
    at = at or gate()
    return [frame for piece in data for frame in at.frames(piece, 0.0)]


def padded(frame: DataFrame | HeadersFrame | PushPromiseFrame, length: int) -> bytes:
    frame.flags.add("PADDED")
    frame.pad_length = length
    return frame.serialize()


def split_headers() -> bytes:
    return (
        HeadersFrame(5, b"one ", flags=["END_STREAM"]).serialize()
        + ContinuationFrame(5, b"two ").serialize()
        + ContinuationFrame(5, b"three", flags=["END_HEADERS"]).serialize()
    )


def with_priority() -> bytes:
    frame = HeadersFrame(7, b"block", flags=["END_HEADERS", "PRIORITY"])
    frame.depends_on, frame.stream_weight = 5, 10
    return padded(frame, 3)


STREAM = (
    GREETING
    + SettingsFrame(0, flags=["ACK"]).serialize()
    + HeadersFrame(1, b"block", flags=["END_HEADERS"]).serialize()
    + DataFrame(1, b"payload").serialize()
    + PriorityFrame(1).serialize()
    + padded(DataFrame(1, b"padded", flags=["END_STREAM"]), 10)
    + split_headers()
    + with_priority()
    + pack(0xEE, 0xFF, 3, b"nobody knows")
    + PushPromiseFrame(1, promised_stream_id=2, data=b"pushed", flags=["END_HEADERS"]).serialize()
    + padded(PushPromiseFrame(1, promised_stream_id=4, data=b"pushed", flags=["END_HEADERS"]), 5)
    + PingFrame(0, b"01234567").serialize()
    + RstStreamFrame(1, error_code=8).serialize()
    + WindowUpdateFrame(0, window_increment=1000).serialize()
    + WindowUpdateFrame(3, window_increment=2000).serialize()
    + GoAwayFrame(0, last_stream_id=5, error_code=1, additional_data=b"why").serialize()
)
FRAMES = [
    Settings(False, GREETING),
    Settings(True, SettingsFrame(0, flags=["ACK"]).serialize()),
    HeaderBlock(1, b"block", False),
    Data(1, b"payload", 7, False),
    Data(1, b"padded", 17, True),
    HeaderBlock(5, b"one two three", True),
    HeaderBlock(7, b"block", False),
    Promise(1, 2, b"pushed"),
    Promise(1, 4, b"pushed"),
    Ping(False, PingFrame(0, b"01234567").serialize()),
    Reset(1, 8, RstStreamFrame(1, error_code=8).serialize()),
    WindowUpdate(0, 1000, WindowUpdateFrame(0, window_increment=1000).serialize()),
    WindowUpdate(3, 2000, WindowUpdateFrame(3, window_increment=2000).serialize()),
    Goaway(5, 1, b"why"),
]


def test_each_frame_comes_as_what_it_is() -> None:
    assert pass_through([STREAM]) == FRAMES


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 100])
def test_pieces_of_any_size_make_the_same_frames(size: int) -> None:
    assert pass_through(STREAM[start : start + size] for start in range(0, len(STREAM), size)) == FRAMES


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_cuts_anywhere_make_the_same_frames(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    assert pass_through(STREAM[start:end] for start, end in itertools.pairwise(edges)) == FRAMES


def test_a_frame_is_passed_before_the_next_one_is_looked_at() -> None:
    frames = gate().frames(GREETING + DataFrame(1, b"x").serialize() + b"\xff" * 9, 0.0)
    assert next(frames) == Settings(False, GREETING)
    assert next(frames) == Data(1, b"x", 1, False)
    with pytest.raises(PeerFaultError):
        next(frames)


def test_a_large_frame_in_many_reads_is_joined_once() -> None:
    at = gate(max_frame_size=4_000_000)
    assert pass_through([GREETING], at)
    frame = pack(0, 0, 1, b"x" * 4_000_000)
    pieces = [frame[start : start + 1000] for start in range(0, len(frame), 1000)]
    assert pass_through(pieces[:-1], at) == []
    (data,) = pass_through(pieces[-1:], at)
    assert data == Data(1, b"x" * 4_000_000, 4_000_000, False)


def test_the_size_of_a_frame_is_judged_by_its_head_alone() -> None:
    at = gate(max_frame_size=20_000)
    assert pass_through([GREETING, pack(0, 0, 1, b"x" * 20_000)], at)[1:] == [Data(1, b"x" * 20_000, 20_000, False)]
    with pytest.raises(PeerFaultError, match="frame of 20001 bytes, 20000 allowed"):
        pass_through([pack(0, 0, 1, b"x" * 20_001)[:9]], at)


def test_a_header_block_may_be_as_large_as_the_limit_and_no_larger() -> None:
    at = gate(max_block_size=20_000)
    first = HeadersFrame(1, b"x" * 16_000).serialize()
    pass_through([GREETING, first], at)
    rest = ContinuationFrame(1, b"y" * 4000, flags=["END_HEADERS"]).serialize()
    assert pass_through([rest], at) == [HeaderBlock(1, b"x" * 16_000 + b"y" * 4000, False)]
    pass_through([first], at)
    with pytest.raises(PeerFaultError, match="over 20000 bytes"):
        pass_through([ContinuationFrame(1, b"y" * 4001).serialize()], at)


def test_settings_pass_with_known_keys_once() -> None:
    given_settings = b"".join(
        key.to_bytes(2, "big") + value.to_bytes(4, "big")
        for key, value in [(3, 1), (99, 5), (4, 70_000), (3, 2), (8, 1), (0, 0)]
    )
    (_, frame) = pass_through([GREETING, pack(4, 0, 0, given_settings)])
    assert isinstance(frame, Settings)
    seen = SettingsFrame(0)
    seen.parse_body(memoryview(frame.raw[9:]))
    assert seen.settings == {3: 2, 4: 70_000, 8: 1}


def test_the_reserved_bit_of_ids_and_increments_is_not_looked_at() -> None:
    high = 1 << 31
    data = pack(0, 0, 1 | high, b"x") + pack(8, 0, 0, (5 | high).to_bytes(4, "big"))
    data += pack(7, 0, 0, (9 | high).to_bytes(4, "big") + bytes(4))
    assert [frame[:2] for frame in pass_through([GREETING, data])[1:]] == [(1, b"x"), (0, 5), (9, 0)]


def test_our_own_frames_are_what_hyperframe_makes() -> None:
    assert pack_long(8, 3, 70_000) == WindowUpdateFrame(3, window_increment=70_000).serialize()
    assert pack_long(3, 3, 8) == RstStreamFrame(3, error_code=8).serialize()
    assert pack_goaway(11) == GoAwayFrame(0, last_stream_id=0, error_code=11).serialize()
    assert pack(0, 1, 5, b"x" * 70_000)[:9] == DataFrame(5, b"x" * 70_000, flags=["END_STREAM"]).serialize()[:9]


def test_the_allowance_is_a_burst_and_a_rate() -> None:
    allowance = Allowance()
    allowance.refill(100.0)
    for _ in range(FLOOD_BURST):
        allowance.spend(1, "PING")
    with pytest.raises(PeerFaultError, match="flood of PING frames"):
        allowance.spend(1, "PING")
    allowance.refill(101.0)
    for _ in range(int(FLOOD_RATE) - 1):
        allowance.spend(1, "PING")
    allowance.earn(10 * FLOOD_BURST)
    for _ in range(FLOOD_BURST):
        allowance.spend(1, "PING")
    with pytest.raises(PeerFaultError):
        allowance.spend(1, "PING")
