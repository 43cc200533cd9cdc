"""HPACK (RFC 7541) for one connection, made for a client that says the same things again and again.

Of 322 µs that h2 spent on a request 137 went into decoding, 105 of them into Huffman in pure Python. Here a Huffman
string is decoded once: a bounded memo, shared by all connections, maps the coded string to the plain one. It holds
strings, never a connection's table, so nothing of one session can reach the wire of another. The encoder writes
literals plainly: coding 60 bytes costs 15 µs and saves some 15 bytes, once, because what repeats goes into the table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import lru_cache

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from scrapy_poolplus.net.wire import Headers

STATIC: tuple[tuple[bytes, bytes], ...] = HeaderTable.STATIC_TABLE
"""RFC 7541, appendix A; the first entry has index 1."""
_FIRST_DYNAMIC = len(STATIC) + 1
_STATIC_FIELDS = {field: index for index, field in reversed(list(enumerate(STATIC, 1)))}
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(STATIC, 1)))}

TABLE_SIZE = 4096
"""Of the decoder's table, as RFC 7541 starts with and our SETTINGS say; and the most our encoder uses."""

BOMB_FACTOR = 4
"""A header list this many times over the limit is no list any more: decoding it to its end would be the attack."""

MAX_RESIZES = 16
"""Table size updates in one block. Two are ever needed (RFC 7541 4.2); 128 KiB of them take a tenth of a second."""

_ENTRY_OVERHEAD = 32
_MEMO_STRING = 256
_MAX_INTEGER_BYTES = 5

NEVER_INDEXED = frozenset((b"authorization", b"proxy-authorization"))
"""Sent so that no proxy on the way puts them into a table either (RFC 7541 7.1.3)."""
NOT_INDEXED = frozenset((b":path", b"content-length", b"referer", b"if-none-match", b"if-modified-since", b"range"))
"""Different each time: in the table they would only push out what repeats."""
_SHORT_COOKIE = 20
"""Below this a cookie could be guessed through the table's effect on lengths, so it is never indexed."""


class HeaderBlockError(ValueError):
    """The block cannot be decoded, or is a bomb; the connection's table is not right any more."""


class HeaderDecoder:
    """Decodes header blocks. `max_list_size`: bytes, counted as in RFC 9113 6.5.2, 32 for each field included."""

    def __init__(self, max_list_size: int, *, table_size: int = TABLE_SIZE) -> None:
        self._max_list_size = max_list_size
        self._allowed = table_size
        self._table = _Table(table_size)

    def decode(self, block: bytes) -> Headers | None:
        """The header list, or None where it is over the limit; the table is right in both cases.
        Raises HeaderBlockError."""
        try:
            return self._decode(block)
        except (IndexError, HPACKError) as error:
            raise HeaderBlockError(str(error) or "block ends early") from error

    def _decode(self, block: bytes) -> Headers | None:
        fields: Headers = []
        total, position, end, resized = 0, 0, len(block), 0
        while position < end:
            byte = block[position]
            if byte & 0x80:
                index, position = _integer(block, position, 0x7F)
                field = self._field(index)
            elif byte & 0x60 == 0x20:
                if total:
                    raise HeaderBlockError("a table size update inside a header block")
                size, position = _integer(block, position, 0x1F)
                if size > self._allowed:
                    raise HeaderBlockError(f"a table of {size} bytes, {self._allowed} allowed")
                resized += 1
                if resized > MAX_RESIZES:
                    raise HeaderBlockError(f"more than {MAX_RESIZES} table size updates in a header block")
                self._table.resize(size)
                continue
            else:
                indexed = byte & 0x40
                index, position = _integer(block, position, 0x3F if indexed else 0x0F)
                if index:
                    name = self._field(index)[0]
                else:
                    name, position = _string(block, position)
                value, position = _string(block, position)
                field = (name, value)
                if indexed:
                    self._table.add(field)
            total += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            if total <= self._max_list_size:
                fields.append(field)
            elif total > self._max_list_size * BOMB_FACTOR:
                raise HeaderBlockError(f"header list over {self._max_list_size * BOMB_FACTOR} bytes")
        return fields if total <= self._max_list_size else None

    def _field(self, index: int) -> tuple[bytes, bytes]:
        if index >= _FIRST_DYNAMIC:
            return self._table[index - _FIRST_DYNAMIC]
        if not index:
            raise HeaderBlockError("index 0")
        return STATIC[index - 1]


class HeaderEncoder:
    """Encodes header lists; takes the place of hpack's encoder in h2, which asks of it what is public here."""

    def __init__(self) -> None:
        self._table = _Table(TABLE_SIZE)
        self._numbers: dict[tuple[bytes, bytes], int] = {}
        self._names: dict[bytes, int] = {}
        self._resized: list[int] = []

    @property
    def header_table_size(self) -> int:
        """Bytes in use at most."""
        return self._table.limit

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE. A larger table than the usual one is not made use of."""
        size = min(value, TABLE_SIZE)
        if size != self._table.limit:
            self._resize(size)
            # The smallest size in between must be told too (RFC 7541 4.2).
            self._resized = [min([size, *self._resized]), size]

    def encode(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """A header block."""
        block = bytearray()
        for size in dict.fromkeys(self._resized):
            _put_integer(block, 0x20, 0x1F, size)
        self._resized.clear()
        for field in headers:
            self._encode(block, field)
        return bytes(block)

    def _encode(self, block: bytearray, field: tuple[bytes, bytes]) -> None:
        name, value = field
        index = _STATIC_FIELDS.get(field)
        if index is None:
            number = self._numbers.get(field)
            if number is not None:
                index = self._table.index_of(number)
        if index is not None:
            _put_integer(block, 0x80, 0x7F, index)
            return
        if name in NEVER_INDEXED or (name == b"cookie" and len(value) < _SHORT_COOKIE):
            first, prefix, keep = 0x10, 0x0F, False
        elif name in NOT_INDEXED or _entry_size(field) > self._table.limit:
            first, prefix, keep = 0x00, 0x0F, False
        else:
            first, prefix, keep = 0x40, 0x3F, True
        index = self._name_index(name)
        _put_integer(block, first, prefix, index)
        if not index:
            _put_string(block, name)
        _put_string(block, value)
        if keep:
            self._add(field)

    def _name_index(self, name: bytes) -> int:
        """0 where the name is in no table."""
        index = _STATIC_NAMES.get(name)
        if index is None:
            number = self._names.get(name)
            index = 0 if number is None else self._table.index_of(number)
        return index

    def _add(self, field: tuple[bytes, bytes]) -> None:
        number, evicted = self._table.add(field)
        self._numbers[field] = self._names[field[0]] = number
        self._forget(evicted)

    def _resize(self, size: int) -> None:
        self._forget(self._table.resize(size))

    def _forget(self, evicted: list[tuple[bytes, bytes]]) -> None:
        for field in evicted:
            number = self._numbers.pop(field)
            if self._names.get(field[0]) == number:
                del self._names[field[0]]


class _Table:
    """A dynamic table (RFC 7541 2.3.2, 4). Fields are numbered as they are added; the newest has the lowest index."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._fields: deque[tuple[bytes, bytes]] = deque()
        self._size = 0
        self._added = 0

    def __getitem__(self, back: int) -> tuple[bytes, bytes]:
        return self._fields[back]

    def index_of(self, number: int) -> int:
        return _FIRST_DYNAMIC + self._added - number

    def add(self, field: tuple[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The number of the field, and what had to go for it: all, and it too, where it is larger than the table."""
        size = _entry_size(field)
        evicted = self._shrink(self.limit - size)
        self._added += 1
        if size <= self.limit:
            self._fields.appendleft(field)
            self._size += size
        return self._added, evicted

    def resize(self, limit: int) -> list[tuple[bytes, bytes]]:
        self.limit = limit
        return self._shrink(limit)

    def _shrink(self, limit: int) -> list[tuple[bytes, bytes]]:
        evicted = []
        while self._fields and self._size > limit:
            field = self._fields.pop()
            self._size -= _entry_size(field)
            evicted.append(field)
        return evicted


def _entry_size(field: tuple[bytes, bytes]) -> int:
    return len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """An integer whose prefix has the bits of `mask` (RFC 7541 5.1), and where the next byte is."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for count in range(_MAX_INTEGER_BYTES - 1):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, position
    raise HeaderBlockError("an integer of more than 5 bytes")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """A string literal (RFC 7541 5.2), and where the next byte is."""
    coded = block[position] & 0x80
    length, position = _integer(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise HeaderBlockError("a string ends after its block")
    text = block[position:end]
    if coded:
        text = _remembered(text) if length <= _MEMO_STRING else decode_huffman(text)
    return text, end


@lru_cache(maxsize=4096)
def _remembered(text: bytes) -> bytes:
    return decode_huffman(text)


def _put_integer(block: bytearray, first: int, mask: int, value: int) -> None:
    if value < mask:
        block.append(first | value)
        return
    block.append(first | mask)
    value -= mask
    while value >= 0x80:
        block.append(value & 0x7F | 0x80)
        value >>= 7
    block.append(value)


def _put_string(block: bytearray, text: bytes) -> None:
    _put_integer(block, 0, 0x7F, len(text))
    block += text
