"""The HPACK codec against hpack: what one writes the other reads, byte streams of any kind included."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.net.hpack_cache import (
    BOMB_FACTOR,
    MAX_RESIZES,
    STATIC,
    TABLE_SIZE,
    HeaderBlockError,
    HeaderDecoder,
    HeaderEncoder,
)

Fields = list[tuple[bytes, bytes]]
LIMIT = 65_536

names = st.sampled_from([name for name, _ in STATIC]) | st.sampled_from(
    [b"x-a", b"x-b", b"x-long-name-of-a-header", b"authorization", b"cookie", b"referer"]
)
values = st.sampled_from([b"", b"/", b"a", b"GET", b"200", b"v" * 200, b"w" * 1500, b"z" * 5000]) | st.binary(
    max_size=40
)
field_lists = st.lists(st.tuples(names, values), max_size=12)
sizes = st.sampled_from([0, 30, 100, 1000, 4096, 100_000])


def plain(headers: object) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in headers]  # type: ignore[attr-defined]


# Round trips


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | sizes, field_lists), max_size=8))
def test_hpack_reads_what_our_encoder_writes(conversation: list[tuple[int | None, Fields]]) -> None:
    ours, theirs = HeaderEncoder(), Decoder(LIMIT * 10)
    for size, fields in conversation:
        if size is not None:
            ours.header_table_size = size
            theirs.max_allowed_table_size = max(size, TABLE_SIZE)
        assert plain(theirs.decode(ours.encode(fields), raw=True)) == fields
        assert theirs.header_table.maxsize == ours.header_table_size


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.none() | st.sampled_from([0, 30, 100, 1000, 4096]), field_lists, st.booleans()), max_size=8)
)
def test_our_decoder_reads_what_hpack_writes(conversation: list[tuple[int | None, Fields, bool]]) -> None:
    ours, theirs = HeaderDecoder(LIMIT * 10), Encoder()
    for size, fields, huffman in conversation:
        if size is not None:
            theirs.header_table_size = size
        assert ours.decode(theirs.encode(fields, huffman=huffman)) == fields


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | sizes, field_lists), max_size=8))
def test_our_decoder_reads_what_our_encoder_writes(conversation: list[tuple[int | None, Fields]]) -> None:
    encoder, decoder = HeaderEncoder(), HeaderDecoder(LIMIT * 10)
    for size, fields in conversation:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields)) == fields


@st.composite
def hostile_blocks(draw: st.DrawFn) -> list[bytes]:
    """Blocks as an encoder writes them, with bytes changed, left out or added."""
    encoder = Encoder()
    blocks = []
    for fields in draw(st.lists(field_lists, min_size=1, max_size=4)):
        block = bytearray(encoder.encode(fields, huffman=draw(st.booleans())))
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(block)))
            block[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
        blocks.append(bytes(block))
    return blocks


@settings(deadline=None)
@given(hostile_blocks() | st.lists(st.binary(max_size=100), max_size=3))
def test_both_decoders_agree_on_any_bytes(blocks: list[bytes]) -> None:
    ours, theirs = HeaderDecoder(LIMIT), Decoder(LIMIT)
    theirs.max_allowed_table_size = TABLE_SIZE
    for block in blocks:
        try:
            expected = plain(theirs.decode(block, raw=True))
        except HPACKError:
            with pytest.raises(HeaderBlockError):
                ours.decode(block)
            return
        assert ours.decode(block) == expected


# What goes into the table


def encoded_twice(field: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    encoder = HeaderEncoder()
    return encoder.encode([field]), encoder.encode([field])


def test_what_repeats_costs_one_byte() -> None:
    first, second = encoded_twice((b"user-agent", b"a browser of some kind"))
    assert len(first) > 20
    assert second == b"\xbe"


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Basic dXNlcjpwYXNzd29yZA=="),
        (b"proxy-authorization", b"Basic dXNlcjpwYXNzd29yZA=="),
        (b"cookie", b"id=123"),
    ],
)
def test_secrets_are_never_indexed(field: tuple[bytes, bytes]) -> None:
    first, second = encoded_twice(field)
    assert first == second
    (read,) = Decoder().decode(first, raw=True)
    assert isinstance(read, NeverIndexedHeaderTuple)
    assert not read.indexable


@pytest.mark.parametrize("name", [b":path", b"referer", b"content-length", b"if-none-match", b"range"])
def test_what_differs_each_time_stays_out_of_the_table(name: bytes) -> None:
    first, second = encoded_twice((name, b"/some/where/1"))
    assert first == second
    (read,) = Decoder().decode(first, raw=True)
    assert not isinstance(read, NeverIndexedHeaderTuple)


def test_a_long_cookie_is_indexed() -> None:
    _, second = encoded_twice((b"cookie", b"session=" + b"x" * 40))
    assert len(second) == 1


def test_two_encoders_share_nothing() -> None:
    """What one connection has sent is spelled out again on another."""
    field = (b"x-session", b"of-one-connection-only")
    first, second = HeaderEncoder(), HeaderEncoder()
    assert first.encode([field]) == second.encode([field])
    assert Decoder().decode(second.encode([(b"x", b"y")]), raw=True) == [(b"x", b"y")]


def test_a_peer_that_wants_no_table_gets_none() -> None:
    encoder = HeaderEncoder()
    encoder.encode([(b"x-a", b"b")])
    encoder.header_table_size = 0
    block = encoder.encode([(b"x-a", b"b")])
    assert block[:1] == b"\x20"
    assert encoder.encode([(b"x-a", b"b")]) == block[1:]


def test_the_smallest_table_in_between_is_told() -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    decoder.decode(encoder.encode([(b"x-a", b"b")]), raw=True)
    encoder.header_table_size = 0
    encoder.header_table_size = 4096
    decoder.decode(encoder.encode([]), raw=True)
    assert list(decoder.header_table.dynamic_entries) == []
    assert decoder.header_table.maxsize == 4096


def test_a_larger_table_than_usual_is_not_made_use_of() -> None:
    encoder = HeaderEncoder()
    encoder.header_table_size = 2**32 - 1
    assert encoder.header_table_size == TABLE_SIZE
    assert encoder.encode([(b":method", b"GET")]) == b"\x82"


# Limits


def test_a_list_over_the_limit_is_none_and_the_table_stays_right() -> None:
    encoder, decoder = Encoder(), HeaderDecoder(500)
    assert decoder.decode(encoder.encode([(b"x-%d" % number, b"v" * 50) for number in range(8)])) is None
    assert decoder.decode(encoder.encode([(b"x-7", b"v" * 50)])) == [(b"x-7", b"v" * 50)]


def test_a_block_of_table_size_updates_without_end_is_an_error() -> None:
    decoder = HeaderDecoder(LIMIT)
    assert decoder.decode(b"\x20" * MAX_RESIZES + b"\x88") == [(b":status", b"200")]
    assert decoder.decode(b"\x20" * MAX_RESIZES + b"\x88") == [(b":status", b"200")], "counted for each block"
    with pytest.raises(HeaderBlockError, match="table size updates"):
        decoder.decode(b"\x20" * (MAX_RESIZES + 1) + b"\x88")


def test_a_list_far_over_the_limit_is_a_bomb() -> None:
    block = Encoder().encode([(b"x-bomb", b"v" * 4000)])
    decoder = HeaderDecoder(LIMIT)
    fits = LIMIT // 4038
    assert len(decoder.decode(block + b"\xbe" * (fits - 1)) or ()) == fits
    assert decoder.decode(b"\xbe" * (fits + 1)) is None
    with pytest.raises(HeaderBlockError, match="header list over"):
        decoder.decode(b"\xbe" * (BOMB_FACTOR * fits + BOMB_FACTOR))


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",
        b"\xbe",
        b"\xff\xff\xff\xff\xff\xff\xff\x00",
        b"\x82\x20",
        b"\x3f\xe2\x1f",
        b"\x40",
        b"\x40\x01",
        b"\x40\x7f\x80\x80\x80\x80\x80\x01",
        b"\x40\x82\xff\xff\x00",
        b"\x7e\x01a",
    ],
)
def test_what_is_no_hpack_is_an_error_of_ours(block: bytes) -> None:
    with pytest.raises(HeaderBlockError):
        HeaderDecoder(LIMIT).decode(block)


def test_the_static_table_is_the_one_of_the_rfc() -> None:
    assert len(STATIC) == 61
    assert STATIC is HeaderTable.STATIC_TABLE
    assert STATIC[7] == (b":status", b"200")
    assert STATIC[60] == (b"www-authenticate", b"")
