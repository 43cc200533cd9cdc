"""Origin, Route and PoolKey: complete by construction, canonical, hashable.

A connection may be used for a request exactly when their PoolKeys are equal, so whatever makes two connections
different belongs in here and nothing is compared beside it (aiohttp added ``server_hostname`` to its key only after
connections had been shared across TLS names).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}
HTTP_PROXIES = frozenset({"http", "https"})
"""Schemes of proxies that read requests for http origins themselves."""


class HttpProtocol(Enum):
    """What is spoken on a connection; the value is the ALPN identifier (RFC 7301, RFC 9113 3.1)."""

    HTTP1 = "http/1.1"
    HTTP2 = "h2"


def canonical_host(host: str) -> str:
    """Lower-case, in ASCII (IDNA), an IPv6 address compressed and without brackets. A name in ASCII is not judged: what
    the resolver takes is right (``foo_bar.example`` and ``xn--i-7iq.ws`` are real hosts).

    Raises ValueError for a name that has no form in ASCII.
    """
    if not host.isascii():
        # Scrapy's requests have it in ASCII already, but for those with meta ``verbatim_url``.
        host = host.encode("idna").decode("ascii")
    host = host.strip("[]").lower() if host.startswith("[") else host.lower()
    if ":" in host:
        address, _, zone = host.partition("%")
        try:
            compressed = IPv6Address(address).compressed
        except ValueError:
            return host
        return f"{compressed}%{zone}" if zone else compressed
    return host


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a server (RFC 9110 4.3.1). Build it with :meth:`of`."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, scheme: str, host: str, port: int | None = None) -> Origin:
        """The canonical origin. Raises ValueError for an unknown scheme, an empty host or a port outside 1..65535."""
        scheme = scheme.lower()
        if scheme not in DEFAULT_PORTS:
            raise ValueError(f"scheme {scheme!r} is not http or https")
        if not host:
            raise ValueError("the URL has no host")
        port = DEFAULT_PORTS[scheme] if port is None else port
        if not 0 < port < 65536:
            raise ValueError(f"port {port} is not between 1 and 65535")
        return cls(scheme, canonical_host(host), port)

    @property
    def secure(self) -> bool:
        """True where TLS is spoken."""
        return self.scheme == "https"

    @property
    def netloc(self) -> str:
        """``host:port``, an IPv6 address in brackets; for messages and CONNECT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy with its credentials. `scheme` is http, https, socks5 or socks5h; `authorization` is the value of
    Proxy-Authorization, never shown in a repr, a message or a stat."""

    scheme: str
    host: str
    port: int
    authorization: bytes | None = None

    def __str__(self) -> str:
        return (
            f"{self.scheme}://[{self.host}]:{self.port}"
            if ":" in self.host
            else f"{self.scheme}://{self.host}:{self.port}"
        )

    def __repr__(self) -> str:
        return f"<Proxy {self}{' with credentials' if self.authorization else ''}>"


def basic_login(authorization: bytes) -> bytes | None:
    """``user:password`` of Basic credentials (RFC 7617), None for others."""
    scheme, _, value = authorization.strip().partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return b64decode(value, validate=True)
    except binascii.Error:
        return None


@dataclass(frozen=True, slots=True)
class Route:
    """Everything needed to dial: origin, proxy with credentials, local address. The TLS profile is the crawl's.

    `bind` is ``(host, port)``; port 0 lets the system choose. `bind_other`: one of the other family beside it, for a
    peer that `bind` cannot reach.
    """

    origin: Origin
    proxy: Proxy | None = None
    bind: tuple[str, int] | None = None
    bind_other: tuple[str, int] | None = None
    _hash: int = field(init=False, repr=False, compare=False)
    """Kept: keys are looked up for each request, and hashing what is nested in them takes longer than all the rest."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.origin, self.proxy, self.bind, self.bind_other)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        # By its values: the hash of a string is another one in another process.
        return Route, (self.origin, self.proxy, self.bind, self.bind_other)

    @property
    def binds(self) -> tuple[tuple[str, int], ...]:
        """The local addresses that it may use; none: whichever the system chooses."""
        return tuple(bind for bind in (self.bind, self.bind_other) if bind is not None)

    def __str__(self) -> str:
        via = f" via proxy {self.proxy}" if self.proxy else ""
        local = f" from {' or '.join(host for host, _ in self.binds)}" if self.bind else ""
        return f"{self.origin.netloc}{via}{local}"


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What a connection is for: a route, the label of a pinned session or None, and the protocols allowed on it,
    in the order they are offered."""

    route: Route
    label: str | None = None
    protocols: tuple[HttpProtocol, ...] = (HttpProtocol.HTTP2, HttpProtocol.HTTP1)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Without the protocols: keys that differ in nothing else are few, and an enum's hash is slow.
        object.__setattr__(self, "_hash", hash((self.route, self.label)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return PoolKey, (self.route, self.label, self.protocols)

    @property
    def origin(self) -> Origin:
        """The origin of the route."""
        return self.route.origin

    def __str__(self) -> str:
        return f"{self.route}#{self.label}" if self.label is not None else str(self.route)
