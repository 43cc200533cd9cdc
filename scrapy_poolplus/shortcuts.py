"""Scrapy's own objects, made and read in one go.

Scrapy's Headers look at each name and value again each time they are made, copied or read: 60 µs of each response. What
comes from our parsers is bytes, and is in order, so it is put where they keep it. Each shortcut is tried beside Scrapy's
own way when this room is loaded, and where the two differ, or Scrapy has changed its ways, Scrapy's is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydispatch import dispatcher  # type: ignore[import-untyped]
from scrapy.http import Headers, HtmlResponse, JsonResponse, Response, TextResponse, XmlResponse

TRIED = ("2.15.0", "2.19.0")
"""The releases of Scrapy with which the shortcuts are what Scrapy does."""

Fields = list[tuple[bytes, bytes]]

_PLAIN = frozenset({Response, TextResponse, HtmlResponse, XmlResponse, JsonResponse})
"""Classes that do not look at their headers while they are made."""
_SAMPLE: Fields = [(b"content-TYPE", b"a"), (b"x'y-z", b"\xff"), (b"Set-Cookie", b"a=b"), (b"set-cookie", b"c=d")]


def scrapy_headers(fields: Fields) -> Headers:
    """Headers of fields as they came."""
    return _fast_headers(fields) if HEADERS_ARE_A_DICT_OF_LISTS else Headers(fields)


def header_lists(headers: Headers) -> Iterable[tuple[bytes, list[bytes]]]:
    """Each name with its values, to be read and not to be kept."""
    if HEADERS_ARE_A_DICT_OF_LISTS and type(headers) is Headers:
        return dict.items(headers)
    return headers.items()


def scrapy_response(cls: type[Response], headers: Headers, **arguments: Any) -> Response:
    """A response whose headers are `headers`, which are not used elsewhere after this."""
    if not HEADERS_ARE_A_DICT_OF_LISTS or cls not in _PLAIN:
        return cls(headers=headers, **arguments)
    response = cls(**arguments)
    response.headers = headers
    return response


def somebody_listens(sender: object, signal: object) -> bool:
    """Whether a signal is worth sending. May say yes although the last receiver has just gone."""
    connections = dispatcher.connections
    for key in (id(sender), _ANY):
        receivers = connections.get(key)
        if receivers is not None and (signal in receivers or dispatcher.Any in receivers):
            return True
    return False


_ANY = id(dispatcher.Any)


def _fast_headers(fields: Fields) -> Headers:
    headers = Headers()
    get, put = dict.get, dict.__setitem__
    for name, value in fields:
        key = name.title()
        values = get(headers, key)
        if values is None:
            put(headers, key, [value])
        else:
            values.append(value)
    return headers


def _agrees(fast: Callable[[Fields], Headers]) -> bool:
    """Whether `fast` makes what Scrapy makes, and what is read past it is what it gives."""
    try:
        mine, theirs = fast(_SAMPLE), Headers(_SAMPLE)
        return (
            type(mine) is type(theirs)
            and isinstance(theirs, dict)
            and list(dict.items(mine)) == list(dict.items(theirs)) == list(theirs.items())
            and vars(mine) == vars(theirs)
        )
    except Exception:  # noqa: BLE001 (whatever it is, Scrapy's own way is there)
        return False


HEADERS_ARE_A_DICT_OF_LISTS = _agrees(_fast_headers)
