"""What goes down to an engine and what comes up from it.

Down: a WireRequest for an Exchange. Up, for each exchange in this order: ``sent``, ``head``, ``data`` any number of
times, and exactly once ``carried`` and ``done``, also when the connection is lost or the exchange was cancelled. About the
connection itself its owner hears ``capacity``, ``draining`` and ``failed``. Nothing else passes this floor, so the
pool never asks which protocol a connection speaks.

An engine tells its owner before it ends the exchanges concerned (``draining`` before ``done``), so that nothing new
is dispatched here while they end, and it is in a consistent state whenever it calls out: ``done`` may start the next
request on the same engine before it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from scrapy_poolplus.core.errors import PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Proxy
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.replay import Progress

Headers = list[tuple[bytes, bytes]]
"""Name and value, in the order and, over HTTP/1.1, the case they are sent or came in; names may repeat."""


# Tuples, not dataclasses, whose frozen fields are set one by one: both are made for each request.


class WireRequest(NamedTuple):
    """A request as it is sent.

    `authority` becomes Host, or ``:authority``, exactly once; the engine frames the message, so Host, Content-Length
    and Transfer-Encoding in `headers` are left out. Connection goes out over HTTP/1.1 as it is. `target` is the
    request target (RFC 9112 3.2): origin-form, absolute-form for a cleartext proxy, or ``*``. `scheme` is ``b"http"``
    or ``b"https"``.
    """

    method: bytes
    scheme: bytes
    authority: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    announce_length: bool = False
    """Send Content-Length also where the body is empty and the method needs none."""
    via: Proxy | None = None
    """The proxy that answers in the origin's place, where `target` is in absolute-form. Its credentials are among the
    headers."""

    def describe(self) -> str:
        """Method and URL without the query, for messages: ``POST https://a.example/login``."""
        target = self.target.partition(b"?")[0]
        scheme, authority = self.scheme.decode("latin-1"), self.authority.decode("latin-1")
        path = target if target.startswith(b"/") else b"/" + target.partition(b"://")[2].partition(b"/")[2]
        return f"{self.method.decode('latin-1')} {scheme}://{authority}{path.decode('latin-1')}"

    @property
    def place(self) -> str:
        """Who answers, for messages: ``a.example via proxy http://p:3128``."""
        authority = self.authority.decode("latin-1")
        return authority if self.via is None else f"{authority} via proxy {self.via}"

    @property
    def login(self) -> bytes | None:
        """The credentials that `via` is told, or None."""
        if self.via is None:
            return None
        return next((value for name, value in self.headers if name == b"Proxy-Authorization"), None)


class ResponseHead(NamedTuple):
    """The final response head; interim (1xx) responses are passed over. `length`: the announced body length, or None.
    0 where the response can have no body (HEAD, 204, 304). `version` is ``"HTTP/1.1"``, ``"HTTP/1.0"`` or ``"h2"``."""

    status: int
    headers: Headers
    length: int | None
    version: str


class BodyEnd(Enum):
    """How a body ended."""

    COMPLETE = "complete"
    CLOSE_DELIMITED = "close-delimited"
    """Ended by the close of the connection, with no length announced: perhaps complete (RFC 9112 6.3, item 8)."""
    TRUNCATED = "truncated"
    """Shorter (or over h2 longer) than announced, or a chunked body without its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an exchange ended.

    With a response, `error` is None and `end` says how its body ended. `end` TRUNCATED comes with its
    `error` (BodyLengthError), and the bytes delivered so far are what there is. Any other `error`: no response, and
    `progress` is the proof for a replay.
    """

    error: PoolPlusError | None = None
    end: BodyEnd | None = None
    progress: Progress = Progress.STARTED


class Exchange(Protocol):
    """One request and its response, as the engine sees it. Each exchange is used with one engine, once."""

    def sent(self) -> None:
        """The request head was handed to the transport. Called before the first byte of a response is reported."""

    def head(self, head: ResponseHead) -> None:
        """The final response head."""

    def data(self, chunk: bytes) -> None:
        """Some of the body, never empty. May call ``engine.cancel`` for this exchange."""

    def carried(self, sent: int, received: int) -> None:
        """Bytes above TLS that went to the peer and came from it for this exchange alone, framing included. Called once,
        right before ``done``."""

    def done(self, outcome: Outcome) -> None:
        """It is over. Called exactly once; never from within ``engine.start``."""


class EngineOwner(Protocol):
    """What an engine tells about its connection."""

    def capacity(self, streams: int) -> None:
        """The peer now allows this many streams at once (h2: SETTINGS_MAX_CONCURRENT_STREAMS; may be 0)."""

    def draining(self, reason: CloseReason) -> None:
        """Nothing new may be started here; what is in flight may finish. Called at most once."""

    def failed(self, error: PoolPlusError, reason: CloseReason) -> None:
        """The connection can not be used at all any more; the exchanges were all told. The owner aborts it."""

    def flush_soon(self) -> None:
        """Call ``engine.flush`` once before this reactor turn's end: many requests, one write."""


class EngineTransport(Protocol):
    """The part of a Twisted transport that engines use."""

    def write(self, data: bytes) -> None:
        """Send."""

    def unread(self) -> bool:
        """Whether the peer has sent something, or closed, that was not handed to the engine yet."""


class Engine(Protocol):
    """HTTP/1.1 or HTTP/2 on one transport.

    `now` is always passed in; an engine reads no clock. It never raises for what the peer sent.
    """

    protocol: HttpProtocol

    def begin(self, now: float) -> None:
        """The transport is ready: send the connection preface, where there is one."""

    def start(self, request: WireRequest, exchange: Exchange, now: float) -> None:
        """Send a request. The caller keeps to the capacity; ``done`` comes later, never before this returns."""

    def cancel(self, exchange: Exchange, now: float) -> None:
        """The response is not wanted any more: ``done`` follows at once with Progress.ENDED and CancelledError, nothing
        else. Over h2 the stream is reset with CANCEL; over HTTP/1.1 the owner hears ``draining`` first, and closes."""

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the peer."""

    def lost(self, error: PoolPlusError, now: float) -> None:
        """The transport is gone: end every exchange. `error.clean` (ConnectionLostError) says whether it was an orderly
        close, which may end a close-delimited body."""

    def flush(self, now: float) -> None:
        """Hand to the transport what has gathered since ``flush_soon``. HTTP/1.1 writes at once and has nothing here."""

    def goodbye(self, now: float) -> None:
        """The owner is about to close an idle transport: h2 sends GOAWAY(NO_ERROR) (RFC 9113 5.4.1); else nothing."""

    def next_deadline(self) -> float | None:
        """When ``expire`` wants to be called (PING interval and time-out), or None. Must be cheap."""

    def expire(self, now: float) -> None:
        """A deadline has passed: ping, or give up (``owner.failed``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What engines need to know; sizes in bytes, times in seconds. `max_frame_size` is what we accept (RFC 9113
    6.5.2, 16,384 to 16,777,215). `max_header_list_size` bounds a response head of either protocol."""

    max_header_list_size: int = 65_536
    stream_window: int = 6 * 1024 * 1024
    connection_window: int = 15 * 1024 * 1024
    max_frame_size: int = 16_384
    ping_interval: float = 30.0
    ping_timeout: float = 10.0

    @classmethod
    def of(cls, policy: Policy, *, max_frame_size: int = 16_384) -> EngineConfig:
        """The engine's part of a policy."""
        return cls(
            max_header_list_size=policy.max_header_list_size,
            stream_window=policy.stream_window,
            connection_window=policy.connection_window,
            max_frame_size=max_frame_size,
            ping_interval=policy.ping_interval,
            ping_timeout=policy.ping_timeout,
        )


@dataclass(slots=True)
class Timings:
    """Seconds that each phase of a dial took; 0.0 where there was none."""

    resolve: float = 0.0
    connect: float = 0.0
    tunnel: float = 0.0
    tls: float = 0.0
