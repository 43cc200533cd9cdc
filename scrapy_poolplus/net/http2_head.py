"""Heads over HTTP/2: what of a request is sent, and what of a response is believed (RFC 9113 8.2 and 8.3).

h2's own checks are off: they cost the connection where only a stream is at fault, and decoding to text makes one
Latin-1 value fatal. Everything here is bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from scrapy_poolplus.core.errors import LocalProtocolError, Phase
from scrapy_poolplus.net.wire import Headers, WireRequest

CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"),
)
_FRAMED_BY_US = CONNECTION_SPECIFIC | {b"host", b"content-length"}
_LENGTH_ALWAYS = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods that announce even an empty body (RFC 9110 8.6)."""

_BAD_NAME = re.compile(rb"[\x00-\x20:\x7f-\xff]")
_BAD_RESPONSE_NAME = re.compile(rb"[\x00-\x20A-Z:\x7f-\xff]")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_BAD_TARGET = re.compile(rb"[\x00-\x20\x7f]")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS = re.compile(rb"[1-9][0-9]{2}")
_SPACE = b" \t"
_MEMO_NAME = 64


class MalformedError(Exception):
    """A message that costs its stream (RFC 9113 8.1.1); the text says what is wrong with it."""


def request_headers(request: WireRequest) -> Headers:
    """The header list of a request: pseudo-headers, then the rest lower-cased in its order, connection-specific ones
    left out (RFC 9113 8.2.2). Raises LocalProtocolError for what may not be sent."""
    if not _TOKEN.fullmatch(request.method) or request.method == b"CONNECT":
        raise _unsendable(f"method {request.method!r}")
    if not request.target or _BAD_TARGET.search(request.target):
        raise _unsendable(f"request target {request.target!r}")
    if _BAD_TARGET.search(request.authority):
        raise _unsendable(f"authority {request.authority!r}")
    headers = [
        (b":method", request.method),
        (b":authority", request.authority),
        (b":scheme", request.scheme),
        (b":path", request.target),
    ]
    for given, value in request.headers:
        name = _request_name(given)
        if name is None:
            raise _unsendable(f"header name {given!r}")
        if _BAD_VALUE.search(value):
            raise _unsendable(f"CR, LF or NUL in the value of header {given!r}")
        if name in _FRAMED_BY_US or (name == b"te" and value.strip(_SPACE).lower() != b"trailers"):
            continue
        headers.append((name, value.strip(_SPACE)))
    if request.body or request.announce_length or request.method in _LENGTH_ALWAYS:
        headers.append((b"content-length", b"%d" % len(request.body)))
    return headers


def response_head(headers: Headers) -> tuple[int, Headers]:
    """Status and header fields of a response, interim ones included. Raises MalformedError.

    Connection-specific fields are passed over. RFC 9113 8.2.2 calls such a response malformed, but servers behind a
    proxy do send ``upgrade: h2,h2c`` or ``keep-alive``, and browsers show those pages (nghttp2 #1674, curl #12172).
    """
    if not headers or headers[0][0] != b":status":
        raise MalformedError("the response does not begin with :status")
    status = headers[0][1]
    if not _STATUS.fullmatch(status):
        raise MalformedError(f"status {status[:20]!r}")
    code = int(status)
    if code == 101:
        raise MalformedError("status 101 does not exist in HTTP/2 (RFC 9113 8.6)")
    return code, checked_fields(headers[1:])


def checked_fields(headers: Headers) -> Headers:
    """Header or trailer fields, connection-specific ones left out. Raises MalformedError (RFC 9113 8.2.1)."""
    fields: Headers = []
    for name, value in headers:
        if not _response_name(name):
            raise MalformedError(f"header name {name[:100]!r}")
        if _BAD_VALUE.search(value):
            raise MalformedError(f"CR, LF or NUL in the value of {name!r}")
        if name not in CONNECTION_SPECIFIC:
            fields.append((name, value.strip(_SPACE)))
    return fields


def announced_length(fields: Headers) -> int | None:
    """The value of content-length, or None where there is none. Raises MalformedError where it is no number, or where
    several differ (RFC 9110 8.6)."""
    found: bytes | None = None
    for name, value in fields:
        if name != b"content-length":
            continue
        if not value.isdigit() or len(value) > 18:
            raise MalformedError(f"content-length {value[:40]!r}")
        if found is not None and int(found) != int(value):
            raise MalformedError(f"content-length {found!r} and {value!r}")
        found = value
    return None if found is None else int(found)


@lru_cache(maxsize=1024)
def _request_name(name: bytes) -> bytes | None:
    """As it is sent, or None where it may not be."""
    return name.lower() if name and not _BAD_NAME.search(name) else None


def _response_name(name: bytes) -> bool:
    # Long names are not remembered: the memo would be the peer's to fill.
    return _known_response_name(name) if len(name) <= _MEMO_NAME else not _BAD_RESPONSE_NAME.search(name)


@lru_cache(maxsize=1024)
def _known_response_name(name: bytes) -> bool:
    return bool(name) and not _BAD_RESPONSE_NAME.search(name)


def _unsendable(what: str) -> LocalProtocolError:
    return LocalProtocolError(f"the request cannot be sent over HTTP/2: {what}", phase=Phase.SEND)
