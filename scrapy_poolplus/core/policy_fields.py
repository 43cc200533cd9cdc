"""The keys of a policy: what each allows, and reading them from what a user wrote.

Nothing is corrected in silence: a value that is not allowed is a problem, and every problem of a mapping is gathered.
A problem is one line that names the place, the value, what is allowed, and for an unknown key the nearest known one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address
from math import isfinite
from string import Formatter
from typing import Any, Generic, TypeVar

from scrapy_poolplus.core.origin import HttpProtocol, canonical_host
from scrapy_poolplus.core.policy import Policy

PRESETS = {"relaxed": 200, "balanced": 50, "strict": 10}
"""Requests of one session, by the name of the rotation preset."""

SMALLEST_WINDOW = 65_535
"""Bytes. The initial window of RFC 9113 6.9.2; the connection's can only grow from it."""
LARGEST_WINDOW = 2**31 - 1
"""Bytes (RFC 9113 6.9.1)."""
LARGEST_BUDGET = 10**12
"""Requests or bytes. Jitter is computed in floats, which are exact up to 2**53."""
SHOWN = 80
"""Characters of a wrong value that a problem shows."""

_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_COOKIE_VALUE = re.compile(r"[^\x00-\x1f\x7f;]*")
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_NOT_IN_HOSTS = re.compile(r"[\s/?#@:\[\]\\*,%]")


T_co = TypeVar("T_co", covariant=True)


class UnfitError(ValueError):
    """The value is not allowed; whoever reads it knows its place and says what is."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """A kind of value: `allowed` says in words which, `parse` returns the parsed value or raises ValueError."""

    allowed: str
    parse: Callable[[object], T_co]


# ---- kinds


def integer(low: int | None = None, high: int | None = None) -> Kind[int]:
    """An int from `low` to `high`, both included. True and False are no numbers."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnfitError
        if (low is not None and value < low) or (high is not None and value > high):
            raise UnfitError
        return value

    if low is None:
        return Kind("an integer", parse)
    return Kind(f"an integer of {low:,} or more" if high is None else f"an integer from {low:,} to {high:,}", parse)


def number(allowed: str, fits: Callable[[float], bool]) -> Kind[float]:
    """A finite int or float for which `fits` is true, as float."""

    def parse(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnfitError
        try:
            parsed = float(value)
        except OverflowError:
            raise UnfitError from None
        if not isfinite(parsed) or not fits(parsed):
            raise UnfitError
        return parsed

    return Kind(allowed, parse)


def optional(kind: Kind[T_co]) -> Kind[T_co | None]:
    """None, or `kind`."""
    return Kind(f"{kind.allowed}, or None", lambda value: None if value is None else kind.parse(value))


def choice(*words: str) -> Kind[str]:
    """One of `words`."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise UnfitError
        return value

    return Kind(_listed(words), parse)


def from_text(kind: Kind[T_co]) -> Kind[T_co]:
    """`kind`, whose integers may be written as text: the command line and environments know nothing else."""

    def parse(value: object) -> T_co:
        return kind.parse(int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value)

    return Kind(kind.allowed, parse)


def _parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnfitError
    return value


def _parse_protocols(value: object) -> tuple[HttpProtocol, ...]:
    protocols = tuple(HttpProtocol(item) for item in _items(value))
    if not protocols or len(set(protocols)) < len(protocols):
        raise UnfitError
    return protocols


def _parse_addresses(value: object) -> tuple[str, ...]:
    return () if value is None else tuple(str(ip_address(_text(item))) for item in _items(value))


def _parse_proxy_user(value: object) -> str:
    # A colon would end the user name (RFC 7617 2).
    text = _text(value)
    places = {(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(text) if name is not None}
    if places != {("session", "", None)} or ":" in text:
        raise UnfitError
    return text


def _parse_cookies(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UnfitError
    cookies = {_text(name): _text(content) for name, content in value.items()}
    for name, content in cookies.items():
        if not _COOKIE_NAME.fullmatch(name) or not _COOKIE_VALUE.fullmatch(content):
            raise UnfitError
    return cookies


def _parse_rotation(value: object) -> str | int:
    if isinstance(value, str):
        return _ROTATION_WORDS.parse(value)
    return _BUDGET.parse(value)


def _items(value: object) -> Iterable[object]:
    if not isinstance(value, list | tuple):
        raise UnfitError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UnfitError
    return value


def _listed(words: Iterable[str]) -> str:
    *first, last = (f'"{word}"' for word in words)
    return f"{', '.join(first)} or {last}" if first else last


_BUDGET = integer(1, LARGEST_BUDGET)
_ROTATION_WORDS = choice("off", *PRESETS)
_SECONDS = number("a number of seconds over 0", lambda seconds: seconds > 0)
_SECONDS_OR_ZERO = number("a number of seconds, 0 or more", lambda seconds: seconds >= 0)
_WINDOW = integer(SMALLEST_WINDOW, LARGEST_WINDOW)

_WORDS = ", ".join(f'"{word}"' for word in ("off", *PRESETS))
ROTATION = from_text(Kind(f"{_WORDS} or {_BUDGET.allowed}", _parse_rotation))
"""A preset, "off", or requests of one session."""

FIELDS: Mapping[str, Kind[object]] = {
    "protocols": Kind(f"a list of {_listed(p.value for p in HttpProtocol)}, each at most once", _parse_protocols),
    "max_connections": optional(integer(1)),
    "max_streams": integer(1, 2**31 - 1),
    "idle_timeout": _SECONDS,
    "drain_timeout": optional(_SECONDS),
    "connect_timeout": optional(_SECONDS),
    "first_byte_timeout": optional(_SECONDS),
    "read_timeout": optional(_SECONDS),
    "ping_interval": _SECONDS,
    "ping_timeout": _SECONDS,
    "max_requests_per_connection": optional(_BUDGET),
    "max_connection_age": optional(_SECONDS),
    "max_connection_bytes": optional(_BUDGET),
    "jitter": number("a number from 0 up to, but not, 1", lambda share: 0 <= share < 1),
    "preconnect": Kind("True or False", _parse_flag),
    "max_replays": integer(0),
    "reclaim_after": _SECONDS,
    "stream_window": _WINDOW,
    "connection_window": _WINDOW,
    "max_header_list_size": integer(1_024, 2**31 - 1),
    "resolve_ttl": optional(_SECONDS_OR_ZERO),
    "bind_addresses": Kind("a list of IP addresses, or None", _parse_addresses),
    "proxy_user": optional(Kind('text with "{session}" in it and without a colon', _parse_proxy_user)),
    "rotation": optional(ROTATION),
    "session_requests": optional(_BUDGET),
    "session_age": _SECONDS,
    "session_idle": _SECONDS,
    "follow": choice("flows", "always", "never"),
    "cookies": choice("session", "shared", "off"),
    "session_cookies": Kind("a dict of cookie names and values, both text", _parse_cookies),
    "referer": choice("same-session", "always", "never"),
    "retry_after_max": optional(_SECONDS_OR_ZERO),
}
"""Every key of a policy."""

SESSION_KEYS = tuple(FIELDS)[tuple(FIELDS).index("session_requests") :]
"""The keys that say what a session is."""

REQUEST_KEYS = ("protocols", "connect_timeout", "first_byte_timeout", "read_timeout", "max_replays")
"""The keys that one request may change."""


# ---- reading


def read_policy(
    place: str, written: object, base: Policy, name: str, keys: Collection[str] = tuple(FIELDS)
) -> tuple[Policy, list[str]]:
    """`base` with the values of the mapping `written`, called `name`, and the problems. `keys` are those allowed.

    `place` is what problems call the mapping. Where there are problems, their keys keep the values of `base`.
    """
    if not isinstance(written, Mapping):
        return replace(base, name=name), [unfit(place, written, "a dict of policy keys")]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in written.items():
        if key not in keys:
            problems.append(unknown(place, key, value, {known: f'"{known}"' for known in keys}))
            continue
        try:
            values[key] = FIELDS[key].parse(value)
        except ValueError:
            problems.append(unfit(f'{place}["{key}"]', value, FIELDS[key].allowed))
    return replace(base, name=name, **values), problems


PATTERN = 'a host ("shop.example") or all hosts below one ("*.shop.example"), without scheme, port and path'


def canonical_pattern(pattern: object) -> str:
    """The pattern in the form of the hosts it is compared with: lower case, IDNA, an IPv6 address without brackets.

    Raises ValueError for what is neither a host nor ``*.`` and a host.
    """
    text = _text(pattern)
    if text.startswith("*."):
        return f"*.{_canonical_name(text[2:])}"
    try:
        IPv6Address(text.removeprefix("[").removesuffix("]") if text.startswith("[") else text)
    except ValueError:
        return _canonical_name(text)
    return canonical_host(text)


def _canonical_name(host: str) -> str:
    if _NOT_IN_HOSTS.search(host) or not all(host.split(".")):
        raise UnfitError
    return canonical_host(host)


# ---- the text of problems


def unfit(place: str, value: object, allowed: str) -> str:
    """The problem of a value that is not allowed."""
    return f"{place} is {shown(value)}; allowed: {allowed}"


def unknown(place: str, key: object, value: object, known: Mapping[str, str]) -> str:
    """The problem of a key that there is not. `known` has what there is, and how a message writes it."""
    near = nearest(str(key), known)
    hint = f"allowed: {', '.join(known.values())}" if near is None else f"the nearest is {known[near]}"
    return f'{place} has no key "{key}" (set to {shown(value)}); {hint}'


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that was probably meant, or None. Half a name that fits is nearer than one that looks alike."""
    folded = {name.lower(): name for name in known}
    begun = [name for name in folded if name.startswith(key.lower())]
    near = begun[:1] if len(key) > 3 and begun else get_close_matches(key.lower(), folded, n=1)
    return folded[near[0]] if near else None


def shown(value: object) -> str:
    """The value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
