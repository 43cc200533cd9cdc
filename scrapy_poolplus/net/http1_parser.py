"""One HTTP/1.x response, read without I/O.

As lenient as browsers where that is safe, and strict where it is not: a head may have bare LF line ends, folded
values and lines without a colon; what says where the body ends must be beyond doubt (RFC 9112 6.3) or the response
fails. Whether the connection may carry another request is judged here too (RFC 9112 9.3).

The work is proportional to the bytes, however they are split: the search for the end of a head goes on where it
ended, nothing is searched for in a body of known length, and the pieces of a chunked body that one read brought go up
as one. What is kept between reads is bounded by `limit`.
"""

from __future__ import annotations

import logging
import re
from enum import Enum

from scrapy_poolplus.core.errors import BodyLengthError, Phase, PoolPlusError, RemoteProtocolError
from scrapy_poolplus.net.hiding import without_credentials
from scrapy_poolplus.net.wire import Headers, ResponseHead

logger = logging.getLogger(__name__)

MAX_INTERIM = 100
"""Interim (1xx) responses before the final one. A long job may send 102 every few seconds, a flood is endless."""

_STRICT_HEAD = re.compile(rb"HTTP/1\.1 ([2-9]\d\d)(?: [^\r\n\0]*)?\r\n((?:[!-9;-~]+:[^\r\n\0]*\r\n)*)\r\n")
"""A final head in one read with nothing odd about it, nearly all of them: half the time of looking for each oddity."""
_STRICT_FIELD = re.compile(rb"([^:]+):[ \t]*([^\r\n]*)\r\n")
"""A field of such a head."""
_BLANK_LINE = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/(\d)\.(\d)[ \t]+(\d{3})(?=[ \t]|$)", re.IGNORECASE)
_CR_AND_NUL_TO_SPACE = bytes.maketrans(b"\r\0", b"  ")
_FOLD = re.compile(rb"\n[ \t]+")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_LENGTH_DIGITS = 18
_SIZE_LINE_ALLOWANCE = 16
"""Bytes of a chunk-size line that do not count as excess; beside them, two for each byte of the chunk."""
_SHOWN = 60

_CHUNK_SIZE, _CHUNK_END, _CHUNK_END_LF = 0, -1, -2
"""What `_left` says between chunks: a size line comes, CR LF comes, LF comes."""


class State(Enum):
    """What comes next."""

    HEAD = "head"
    LENGTH = "body of known length"
    CHUNKS = "chunked body"
    TRAILERS = "trailers"
    UNTIL_CLOSE = "body until the connection closes"
    DONE = "done"
    FAILED = "failed"


class ResponseParser:
    """Reads the response to one request.

    `method` is the request's; `place` is for error texts, which leave out `login`, the credentials that a proxy was told
    and may repeat; `limit` bounds each of head, trailers and chunk-size lines, in bytes. Feed it bytes as they come, then
    look at `head`, `state` and `error`.
    """

    __slots__ = (
        "_buffer",
        "_excess",
        "_interim",
        "_left",
        "_limit",
        "_login",
        "_method",
        "_place",
        "_searched",
        "error",
        "head",
        "reusable",
        "state",
    )

    def __init__(self, method: bytes, place: str, limit: int, login: bytes | None = None) -> None:
        self.state = State.HEAD
        self.head: ResponseHead | None = None
        """The final response head, once it has been read."""
        self.error: PoolPlusError | None = None
        """Set with State.FAILED: RemoteProtocolError in the head, BodyLengthError in a chunked body."""
        self.reusable = False
        """From State.DONE on: the server's side allows another request on this connection (RFC 9112 9.3)."""
        self._method = method
        self._place = place
        self._login = login
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        self._interim = 0
        self._left = 0
        self._excess = 0

    def feed(self, data: bytes) -> bytes:
        """The body bytes in `data`. Never raises for what the peer sent."""
        start = 0
        if self.state is State.HEAD:
            try:
                start = self._read_heads(data)
            except RemoteProtocolError as error:
                self._fail(error)
        state = self.state
        if state is State.LENGTH:
            return self._take_length(data, start)
        if state is State.CHUNKS or state is State.TRAILERS:
            return self._take_chunks(data, start)
        if state is State.UNTIL_CLOSE:
            return data[start:] if start else data
        if state is State.DONE and start < len(data):
            # Bytes that belong to no response: nothing that follows on this connection could be told apart.
            self.reusable = False
        return b""

    def missing(self) -> str:
        """What is not there of a body that the peer broke off, for an error text."""
        if self.state is State.LENGTH and self.head is not None:
            return f"{self._place}: {self._left} of {self.head.length} bytes of the body are missing"
        return f"{self._place}: the chunked body has no end"

    # The head

    def _read_heads(self, data: bytes) -> int:
        """Read heads up to the final one; returns where in `data` its body begins."""
        start = 0
        if not self._buffer:
            strict = _STRICT_HEAD.match(data, 0, self._limit)
            if strict:
                self._accept(1, 1, int(strict[1]), *_strict_fields(strict[2]))
                return strict.end()
        while self.state is State.HEAD:
            block, start = self._block(data, start, "the response head")
            if block is None:
                if not b"HTTP/".startswith(self._buffer[:5].upper()):
                    raise self._not_http(bytes(self._buffer))
                break
            self._read_head(block)
        return start

    def _block(self, data: bytes, start: int, what: str) -> tuple[bytes | None, int]:
        """The lines up to and with the next empty one and where it ends in `data`; None while it has not come.

        Raises RemoteProtocolError when they are longer than `limit`.
        """
        buffer = self._buffer
        if not buffer:
            found = _BLANK_LINE.search(data, start, start + self._limit)
            if found:
                return data[start : found.end()], found.end()
        had = len(buffer)
        buffer += data[start : start + self._limit + 1 - had]
        found = _BLANK_LINE.search(buffer, self._searched, self._limit)
        if found:
            block = bytes(buffer[: found.end()])
            buffer.clear()
            self._searched = 0
            return block, start + len(block) - had
        if len(buffer) > self._limit:
            raise self._broken(f"{what} is longer than {self._limit} bytes (max_header_list_size)")
        self._searched = max(0, len(buffer) - 2)
        return None, len(data)

    def _read_head(self, block: bytes) -> None:
        block = block.replace(b"\r\n", b"\n").translate(_CR_AND_NUL_TO_SPACE)  # RFC 9112 2.2, RFC 9110 5.5
        block = _FOLD.sub(b" ", block)  # RFC 9112 5.2
        status_line, *lines = block.rstrip(b"\n").split(b"\n")
        match = _STATUS_LINE.match(status_line)
        if match is None:
            raise self._not_http(status_line)
        status = int(match[3])
        if status < 200:
            self._pass_interim(status, status_line)
        else:
            headers, framing, bad = _fields(lines)
            if bad:
                # As browsers and Scrapy's handler do (scrapy #210): skip the line, read the ones after it.
                logger.debug(
                    "%s: skipped %d response header line(s) without a name and a colon, first: %s",
                    self._place,
                    len(bad),
                    self._shown(bad[0]),
                )
            self._accept(int(match[1]), int(match[2]), status, headers, framing)

    def _accept(self, major: int, minor: int, status: int, headers: Headers, framing: Headers) -> None:
        """Take over the final head; `framing` are those of its fields that frame the message."""
        length = self._frame(status, framing, http11=major == 1 and minor >= 1, known=major == 1)
        self.head = ResponseHead(status, headers, length, "HTTP/1.0" if (major, minor) < (1, 1) else "HTTP/1.1")

    def _pass_interim(self, status: int, line: bytes) -> None:
        """An interim response says nothing yet (RFC 9110 15.2). 101 would be another protocol: we never ask for one."""
        self._interim += 1
        if status < 100:
            raise self._broken(f"the status is not in 100..999: {self._shown(line)}")
        if status == 101:
            raise self._broken("the server switched protocols unasked (status 101)")
        if self._interim > MAX_INTERIM:
            raise self._broken(f"more than {MAX_INTERIM} interim (1xx) responses")

    def _frame(self, status: int, framing: Headers, *, http11: bool, known: bool) -> int | None:
        """Decide how the body ends and whether the connection is `reusable` (RFC 9112 6.3, 9.3); returns its length.

        `http11`: 1.1 or later; `known`: the major version is 1. Raises RemoteProtocolError for a Content-Length that
        cannot be trusted, where it would count.
        """
        lengths: list[bytes] = []
        connection, coding = b"", b""
        for name, value in framing:
            if name == b"content-length":
                lengths.append(value)
            elif name == b"connection":
                connection += b"," + value.lower()
            else:
                coding += b"," + value.lower()
        keeps = known and persistent(connection, http11=http11)
        if self._method == b"HEAD" or status in {204, 304}:
            self.state, self.reusable = State.DONE, keeps
            return 0
        if self._method == b"CONNECT" and status < 300:
            self.state = State.DONE
            return 0
        codings = [token for token in _tokens(coding) if token not in {b"", b"identity"}] if coding else []
        if codings:
            if codings[-1].partition(b";")[0].rstrip(b" \t") != b"chunked":
                self.state = State.UNTIL_CLOSE
                return None
            # With a length beside it, or from HTTP/1.0, the coding is read but its framing is not trusted (6.1, 6.3).
            self.state, self.reusable = State.CHUNKS, keeps and http11 and not lengths
            return None
        if not lengths:
            self.state = State.UNTIL_CLOSE
            return None
        length = self._left = self._length(lengths)
        self.state, self.reusable = State.LENGTH if length else State.DONE, keeps
        return length

    def _length(self, fields: list[bytes]) -> int:
        """The value that all of them give; a list of equal values is allowed, in one field or in several (8.6)."""
        if len(fields) == 1 and fields[0].isdigit() and len(fields[0]) <= _LENGTH_DIGITS:
            return int(fields[0])
        given = b", ".join(fields)
        values = set(_tokens(given))
        if not all(value.isdigit() and len(value) <= _LENGTH_DIGITS for value in values):
            raise self._broken(f"Content-Length is not a number: {self._shown(given)}")
        lengths = {int(value) for value in values}
        if len(lengths) > 1:
            raise self._broken(f"Content-Length is given twice, with different values: {self._shown(given)}")
        return lengths.pop()

    # The body

    def _take_length(self, data: bytes, start: int) -> bytes:
        have = len(data) - start
        if have < self._left:
            self._left -= have
            return data[start:] if start else data
        end = start + self._left
        self._left = 0
        self.state = State.DONE
        if have == end - start:
            return data[start:] if start else data
        self.reusable = False
        return data[start:end]

    def _take_chunks(self, data: bytes, start: int) -> bytes:
        have = len(data) - start
        if have < self._left:
            self._left -= have
            return data[start:] if start else data
        pieces: list[memoryview] = []
        try:
            if self.state is State.CHUNKS:
                start = self._read_chunks(data, start, pieces)
            if self.state is State.TRAILERS:
                trailers, start = self._block(data, start, "the trailer section")
                if trailers is not None:
                    self.state = State.DONE
            if self.state is State.DONE and start < len(data):
                self.reusable = False
        except RemoteProtocolError as error:
            # What came before is a part of the body, as when the connection had broken off here.
            self._fail(BodyLengthError(str(error), phase=Phase.BODY))
        return b"".join(pieces)

    def _read_chunks(self, data: bytes, pos: int, pieces: list[memoryview]) -> int:
        """Append the chunks' data in ``data[pos:]`` to `pieces`; returns the position after what was read."""
        end = len(data)
        view = memoryview(data)
        left = self._left
        while pos < end:
            if left == _CHUNK_SIZE:
                pos, left = self._read_size(data, pos)
                if left == _CHUNK_SIZE:
                    break  # More is needed, or that was the last chunk.
            elif left > 0:
                stop = pos + left
                if data.startswith(b"\r\n", stop):
                    pieces.append(view[pos:stop])
                    pos, left = stop + 2, _CHUNK_SIZE
                else:
                    piece = view[pos:stop]
                    pieces.append(piece)
                    pos += len(piece)
                    left = left - len(piece) or _CHUNK_END
            elif data[pos] == 0x0D and left == _CHUNK_END:
                pos, left = pos + 1, _CHUNK_END_LF
            elif data[pos] == 0x0A and left == _CHUNK_END_LF:
                pos, left = pos + 1, _CHUNK_SIZE
            else:
                raise self._broken(f"not the end of a chunk: {self._shown(data[pos : pos + _SHOWN])}")
        self._left = left
        return pos

    def _read_size(self, data: bytes, pos: int) -> tuple[int, int]:
        """Read a chunk-size line, which may have begun in an earlier read: where it ends, and what `_left` is then."""
        buffer, limit = self._buffer, self._limit
        match = None if buffer else _SIZE_LINE.match(data, pos, pos + limit)
        if match:
            stop = match.end()
            length = stop - pos
        else:
            stop = data.find(b"\n", pos, pos + limit) + 1
            buffer += data[pos : stop or pos + limit + 1]
            length = len(buffer)
            if length > limit:
                raise self._broken(f"a chunk-size line is longer than {limit} bytes (max_header_list_size)")
            if not stop:
                return len(data), _CHUNK_SIZE
            match = _SIZE_LINE.fullmatch(bytes(buffer))
            if match is None:
                raise self._broken(f"not a chunk size: {self._shown(bytes(buffer))}")
            buffer.clear()
        size = int(match[1], 16)
        if length > _SIZE_LINE_ALLOWANCE:
            self._excess = max(0, self._excess + length - _SIZE_LINE_ALLOWANCE - 2 * size)
            if self._excess > limit:
                raise self._broken(f"chunk extensions of more than {limit} bytes (max_header_list_size)")
        if size == 0 and data.startswith(b"\r\n", stop):
            self.state = State.DONE
            return stop + 2, size
        if size == 0:
            self.state = State.TRAILERS
            buffer += b"\n"  # The end of this line, so that an empty one right after it ends the section.
        return stop, size

    # Errors

    def _fail(self, error: PoolPlusError) -> None:
        self.state = State.FAILED
        self.error = error
        self.reusable = False
        self._buffer.clear()

    def _broken(self, text: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self._place}: {text}", phase=Phase.FIRST_BYTE)

    def _shown(self, data: bytes) -> str:
        return repr(without_credentials(data, self._login)[:_SHOWN])

    def _not_http(self, data: bytes) -> RemoteProtocolError:
        return self._broken(f"the response does not begin with an HTTP/1 status line but with {self._shown(data)}")


def _strict_fields(block: bytes) -> tuple[Headers, Headers]:
    """All fields of a head with nothing odd about it, and those that frame the message (name in lower case)."""
    headers: Headers = _STRICT_FIELD.findall(block)
    if b" \r\n" in block or b"\t\r\n" in block:
        headers = [(name, value.rstrip(b" \t")) for name, value in headers]
    return headers, [(lowered, value) for name, value in headers if (lowered := name.lower()) in _FRAMING]


def _fields(lines: list[bytes]) -> tuple[Headers, Headers, list[bytes]]:
    """All fields, those that frame the message (name in lower case), and the lines that are no fields."""
    headers: Headers = []
    framing: Headers = []
    bad: list[bytes] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")  # RFC 9112 5.1
        if not colon or not name:
            bad.append(line)
            continue
        value = value.strip(b" \t")
        headers.append((name, value))
        name = name.lower()
        if name in _FRAMING:
            framing.append((name, value))
    return headers, framing, bad


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.split(b",")]


def persistent(connection: bytes, *, http11: bool) -> bool:
    """RFC 9112 9.3, of the values of Connection in lower case."""
    if b"close" in connection and b"close" in _tokens(connection):
        return False
    return http11 or b"keep-alive" in _tokens(connection)
