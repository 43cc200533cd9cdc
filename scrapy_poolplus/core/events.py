"""What observers see: frozen values, emitted after the transition is committed.

Draining and closed are two events. Times are seconds of the pool's clock, sizes are bytes. An observer is any
``Callable[[PoolEvent], None]``; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from scrapy_poolplus.core.origin import HttpProtocol, PoolKey


class CloseReason(Enum):
    """Why a connection drains or closes. The first one wins."""

    REQUESTS_SPENT = "requests_spent"
    AGE_SPENT = "age_spent"
    BYTES_SPENT = "bytes_spent"
    IDLE_TIMEOUT = "idle_timeout"
    EVICTED = "evicted"
    RECLAIMED = "reclaimed"
    RETIRED = "retired"
    GOAWAY = "goaway"
    NOT_REUSABLE = "not_reusable"
    PEER_CLOSED = "peer_closed"
    CONNECTION_RESET = "connection_reset"
    PROTOCOL_ERROR = "protocol_error"
    PING_TIMEOUT = "ping_timeout"
    DIAL_FAILED = "dial_failed"
    DIAL_ABANDONED = "dial_abandoned"
    REQUEST_ENDED = "request_ended"
    """An HTTP/1.1 exchange was cancelled, timed out or stopped: its connection cannot be used further."""
    POOL_CLOSED = "pool_closed"


@dataclass(frozen=True, slots=True)
class RequestQueued:
    """A request came in and waits for room."""

    ticket: int
    key: PoolKey
    at: float


@dataclass(frozen=True, slots=True)
class RequestDispatched:
    """A request was given to a connection. `reused`: that connection had been given one before. `waited`: seconds.
    `session`: the id of its session, None where there are none (rotation off and no label)."""

    ticket: int
    connection: int
    key: PoolKey
    protocol: HttpProtocol
    reused: bool
    waited: float
    at: float
    session: str | None = None


@dataclass(frozen=True, slots=True)
class RequestDone:
    """A request was answered, failed (`error` is the class name) or was given up."""

    ticket: int
    connection: int | None
    error: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """A request goes back to the queue; `reason` is the value of core.replay.Progress."""

    ticket: int
    connection: int
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class DialStarted:
    """A connection is being made."""

    connection: int
    key: PoolKey
    at: float


@dataclass(frozen=True, slots=True)
class DialFailed:
    """It could not be made."""

    connection: int
    key: PoolKey
    error: str
    dial_seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """It is ready; emitted before its first use. `proxy_headers`: of the answer with which an HTTP proxy opened the
    tunnel, where providers report the exit address; not in the repr, as a proxy may repeat credentials there.
    `resumed`: its TLS handshake took up the TLS session of an earlier connection, so a server knows them as one visitor."""

    connection: int
    key: PoolKey
    protocol: HttpProtocol
    dial_seconds: float
    at: float
    proxy_headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionDraining:
    """It takes nothing new and finishes what it has."""

    connection: int
    key: PoolKey
    reason: CloseReason
    at: float


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """It has left the pool. `seconds` is its age since it was ready (0 for a failed dial); `sent` and `received` are
    bytes as the transport saw them, above TLS. `allowed`: requests that its own budget was drawn to, None for no limit;
    where it carries a session, that session's budget holds besides."""

    connection: int
    key: PoolKey
    protocol: HttpProtocol | None
    reason: CloseReason
    requests: int
    sent: int
    received: int
    seconds: float
    at: float
    allowed: int | None = None


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A session began; emitted before its first request. `promised`: the most requests it may carry while it rotates,
    before jitter; None for one that is kept whole from its beginning (a label, or a flow of its own)."""

    session: str
    key: PoolKey
    promised: int | None
    at: float


@dataclass(frozen=True, slots=True)
class SessionKept:
    """A session is kept whole from here on: its budget means nothing any more, and it is outside the promise.

    `cause`: ``"flow"`` or ``"pin"``. `begun_by`: the request that made it so, as ``POST https://a.example/login``.
    """

    session: str
    cause: str
    begun_by: str
    at: float


@dataclass(frozen=True, slots=True)
class SessionCrossed:
    """A request that belonged to `session` goes on in another one. `cause`: ``"redirect"`` or ``"retry"``."""

    session: str
    cause: str
    at: float


@dataclass(frozen=True, slots=True)
class SessionRetired:
    """A session takes no further request of its own accord; `requests` it carried, over all its connections. A flow
    that begins at one of its pages may still go on in it."""

    session: str
    reason: CloseReason
    requests: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPaused:
    """A server asked by Retry-After to be left alone: nothing is sent to `host` for `seconds` from now.

    `asked`: the seconds it asked for. `cut`: that is the first in this pause to be longer than ``retry_after_max``
    allows. `again`: the host was paused already, which became `added` seconds longer; else that is all of it.
    """

    host: str
    seconds: float
    asked: float
    added: float
    again: bool
    cut: bool
    at: float


@dataclass(frozen=True, slots=True)
class RequestHeld:
    """A request waits for the end of a pause of `host`, before it is queued."""

    host: str
    at: float


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Nothing is left of a session, its jar is dropped: no flow can begin in it any more."""

    session: str
    at: float


PoolEvent = (
    RequestQueued
    | RequestDispatched
    | RequestDone
    | Replayed
    | DialStarted
    | DialFailed
    | ConnectionOpened
    | ConnectionDraining
    | ConnectionClosed
    | SessionOpened
    | SessionKept
    | SessionCrossed
    | SessionRetired
    | HostPaused
    | RequestHeld
    | SessionEnded
)
Observer = Callable[[PoolEvent], None]
