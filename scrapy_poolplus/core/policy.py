"""Policy: what one domain may use, and PolicyTable: which policy a host has.

Only values; reading and judging what users wrote is ``settings.py`` with the field table below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from scrapy_poolplus.core.origin import HttpProtocol, canonical_host

H2_STREAMS_BEFORE_SETTINGS = 100
"""Streams that are assumed until the peer's SETTINGS came (RFC 9113 6.5.2 recommends no less than 100)."""
PAUSE_WITH_ROTATION = 300.0
"""Seconds. Without rotation Scrapy's own ways hold (its RetryMiddleware retries at once), unless ``retry_after_max`` is
set. With it a server sees many clients where there is one, and that one owes it to slow down as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits, lifetimes, time-outs and protocols of one domain. None means "no limit" unless said otherwise.

    Times are seconds, sizes bytes. `name` is the pattern of ``POOLPLUS_DOMAINS`` it came from, or
    ``POOLPLUS_POLICY``: error texts name it.
    """

    name: str = "POOLPLUS_POLICY"
    protocols: tuple[HttpProtocol, ...] = (HttpProtocol.HTTP2, HttpProtocol.HTTP1)
    max_connections: int | None = None
    max_streams: int = 100
    idle_timeout: float = 90.0
    drain_timeout: float | None = None
    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    read_timeout: float | None = None
    ping_interval: float = 30.0
    ping_timeout: float = 10.0
    max_requests_per_connection: int | None = None
    max_connection_age: float | None = None
    max_connection_bytes: int | None = None
    jitter: float = 0.5
    preconnect: bool = True
    max_replays: int = 10
    reclaim_after: float = 1.0
    stream_window: int = 6 * 1024 * 1024
    connection_window: int = 15 * 1024 * 1024
    max_header_list_size: int = 65_536
    resolve_ttl: float | None = None
    bind_addresses: tuple[str, ...] = ()
    proxy_user: str | None = None
    rotation: str | int | None = None
    session_requests: int | None = None
    session_age: float = 600.0
    session_idle: float = 3600.0
    follow: str = "flows"
    cookies: str = "session"
    session_cookies: Mapping[str, str] = field(default_factory=dict, hash=False)
    referer: str = "same-session"
    retry_after_max: float | None = None

    @property
    def rotates(self) -> bool:
        """Requests without a label go into sessions with a budget."""
        return self.rotation is not None and self.rotation != "off"

    @property
    def longest_pause(self) -> float:
        """Seconds that a host may have itself left alone by Retry-After; 0: its Retry-After is not heeded.

        `rotation` is resolved by then (``settings.py``): None is off too.
        """
        if self.retry_after_max is not None:
            return self.retry_after_max
        return PAUSE_WITH_ROTATION if self.rotates else 0.0


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """The policies of a crawl. An exact host beats the longest ``*.suffix``, which beats `default`.

    ``*.cdn.example`` holds for ``a.cdn.example`` and ``a.b.cdn.example``, not for ``cdn.example`` itself.
    """

    default: Policy = field(default_factory=Policy)
    exact: Mapping[str, Policy] = field(default_factory=dict)
    suffixes: Mapping[str, Policy] = field(default_factory=dict)
    """Key: the suffix without ``*.``."""

    def for_host(self, host: str) -> Policy:
        """The policy of `host` (without port)."""
        if not self.exact and not self.suffixes:
            return self.default
        host = canonical_host(host)
        found = self.exact.get(host)
        if found is not None:
            return found
        rest = host
        while self.suffixes:
            _, dot, rest = rest.partition(".")
            if not dot:
                break
            found = self.suffixes.get(rest)
            if found is not None:
                return found
        return self.default
