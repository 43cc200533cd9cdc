"""ConnectionInfo: which connection a response came over, and where its time went.

Kept beside the request, weakly, and not in its meta: spiders and middlewares copy meta from request to request, and
middlewares replace responses. What is kept for each request is a Trace; a ConnectionInfo is made when somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from scrapy import Request
from scrapy.crawler import Crawler

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from scrapy.http import Response

    from scrapy_poolplus.core.origin import PoolKey
    from scrapy_poolplus.exchange import Attempt, Ticket
    from scrapy_poolplus.net.wire import Timings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionInfo:
    """How a request went. Every field is None where it is not known: for a response from Scrapy's cache, from another
    download handler, or for a request that was not sent.

    The seven times are seconds, one after the other, and add up to the time from the handler's door to the last byte;
    None for a phase that was not reached. Of a request that went to a kept connection `dns`, `connect` and `tls` are
    0.0, and of the first one on a connection that part of them for which it waited.
    """

    id: int | None = None
    """The connection's number, unique within the crawl."""
    protocol: str | None = None
    """``"h2"`` or ``"http/1.1"``."""
    reused: bool | None = None
    """The connection had been given a request before."""
    request_number: int | None = None
    """It was the connection's first, second ... request, counted from 1 when it was given to it."""
    age: float | None = None
    """Seconds since the connection was ready, when it was given the request."""
    session: str | None = None
    """The id of the session, None where rotation is off and no label was given."""
    proxy: str | None = None
    """Without credentials, as ``http://p.example:3128``."""
    peer_address: str | None = None
    """The IP address connected to: the server's, or the proxy's."""
    tls_version: str | None = None
    """As ``"TLSv1.3"``, with the origin."""
    tls_cipher: str | None = None
    """OpenSSL's name of it."""
    bytes_sent: int | None = None
    """On the wire above TLS, for this request alone: head and body with their framing. Over h2 its HEADERS and DATA
    frames; frames of the connection (SETTINGS, WINDOW_UPDATE, PING) belong to no request."""
    bytes_received: int | None = None
    """The same for the response."""
    replays: int | None = None
    """Times that it was sent again below Scrapy's retry middleware; the rest is about the last time."""
    waited: float | None = None
    """For a connection with room, dialling not counted."""
    dns: float | None = None
    """Resolving the name of the first hop."""
    connect: float | None = None
    """TCP, and the proxy's tunnel where there is one."""
    tls: float | None = None
    """The TLS handshake."""
    sent: float | None = None
    """From the connection's choice until the request head was written."""
    first_byte: float | None = None
    """From there to the response head."""
    received: float | None = None
    """From there to the end of the body."""


EMPTY = ConnectionInfo()


def connection_info(of: Response | Request) -> ConnectionInfo:
    """How the request of a response went, or a request itself (an errback has ``failure.request``).

    Works in callbacks, errbacks, item pipelines and in middlewares that are given the request; of a response whose
    ``request`` is not set yet (in ``process_response`` of a downloader middleware), pass the request instead. Never
    fails: what is not known is None.
    """
    request = of if isinstance(of, Request) else of.request
    trace = None if request is None else _traces.get(request)
    return EMPTY if trace is None else trace.info()


class Trace:
    """What remains of a ticket that is over: values, and nothing that holds a request, a body or a transport."""

    __slots__ = (
        "asked_at",
        "connection",
        "dial",
        "dialed_at",
        "dispatched_at",
        "ended_at",
        "head_at",
        "key",
        "number",
        "opened_at",
        "peer",
        "protocol",
        "replays",
        "sent_at",
        "session",
        "tls_cipher",
        "tls_version",
        "wire_received",
        "wire_sent",
    )

    def __init__(self, ticket: Ticket) -> None:
        self.ended_at = ticket.pool.now()
        self.asked_at = self.ended_at if ticket.asked_at is None else ticket.asked_at
        self.key: PoolKey = ticket.key
        self.replays = ticket.replays
        self.connection: int | None = None
        self.number: int | None = None
        if ticket.attempt is not None:
            self._take(ticket.attempt)

    def _take(self, attempt: Attempt) -> None:
        member = attempt.member
        connection = member.connection
        assert connection is not None
        self.connection = member.number
        self.protocol = connection.protocol
        self.number = attempt.number
        self.session = attempt.session
        self.peer: IPv4Address | IPv6Address | None = connection.peer
        self.tls_version = connection.tls_version
        self.tls_cipher = connection.tls_cipher
        self.dial: Timings = connection.timings
        self.dialed_at = member.dialed_at
        self.opened_at = member.opened_at
        self.dispatched_at = attempt.dispatched_at
        self.sent_at = attempt.sent_at
        self.head_at = attempt.head_at
        self.wire_sent = attempt.wire_sent
        self.wire_received = attempt.wire_received

    def info(self) -> ConnectionInfo:
        """As users see it."""
        proxy = self.key.route.proxy
        shown = None if proxy is None else str(proxy)
        if self.number is None:
            return ConnectionInfo(proxy=shown, replays=self.replays, waited=self.ended_at - self.asked_at)
        dns, connect, tls = self._dialling()
        return ConnectionInfo(
            id=self.connection,
            protocol=self.protocol.value,
            reused=self.number > 1,
            request_number=self.number,
            age=self.dispatched_at - self.opened_at,
            session=self.session,
            proxy=shown,
            peer_address=None if self.peer is None else str(self.peer),
            tls_version=self.tls_version,
            tls_cipher=self.tls_cipher,
            bytes_sent=self.wire_sent,
            bytes_received=self.wire_received,
            replays=self.replays,
            waited=max(0.0, self.dispatched_at - self.asked_at - dns - connect - tls),
            dns=dns,
            connect=connect,
            tls=tls,
            sent=_between(self.dispatched_at, self.sent_at, self.ended_at),
            first_byte=_between(self.sent_at, self.head_at, self.ended_at),
            received=_between(self.head_at, self.ended_at, self.ended_at),
        )

    def _dialling(self) -> tuple[float, float, float]:
        """What of resolving, connecting and TLS fell into the time that the request waited."""
        if self.number != 1:
            return 0.0, 0.0, 0.0
        before = max(0.0, self.asked_at - self.dialed_at)
        phases = []
        for seconds in (self.dial.resolve, self.dial.connect + self.dial.tunnel, self.dial.tls):
            cut = min(before, seconds)
            before -= cut
            phases.append(seconds - cut)
        dns, connect, tls = phases
        return dns, connect, tls


_traces: WeakKeyDictionary[Request, Trace] = WeakKeyDictionary()


def remember(request: Request, trace: Trace) -> None:
    """Keep it for as long as the request lives."""
    _traces[request] = trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """A request that is over, for those who write it down. `sent` and `received` are the headers on the wire, `upload` is
    the request's body, `size` the bytes of the response's body as received, `body` gives them. `version`: ``"h2"``,
    ``"HTTP/1.1"``, ``"HTTP/1.0"``, or empty without a response, whose `status` is 0 then. `error`: the class of the
    exception that the errback gets, or None."""

    trace: Trace
    method: str
    url: str
    sent: Sequence[tuple[bytes, bytes]]
    upload: bytes
    version: str
    status: int
    received: Sequence[tuple[bytes, bytes]]
    size: int
    body: Callable[[], bytes]
    error: str | None


Listener = Callable[[Exchanged], None]
_listeners: WeakKeyDictionary[Crawler, list[Listener]] = WeakKeyDictionary()


def listen(crawler: Crawler, listener: Listener) -> None:
    """Have `listener` told of each request of the crawler when it is over. One that raises is logged once and dropped."""
    _listeners.setdefault(crawler, []).append(listener)


def is_heard(crawler: Crawler) -> bool:
    """Whether anybody listens."""
    return crawler in _listeners


def tell(crawler: Crawler, exchange: Exchanged) -> None:
    """Tell all listeners of a crawler."""
    listeners = _listeners.get(crawler, [])
    for listener in list(listeners):
        try:
            listener(exchange)
        except Exception:
            logger.exception("%r failed at %s %s; it is dropped", listener, exchange.method, exchange.url)
            listeners.remove(listener)


def _between(begin: float | None, end: float | None, now: float) -> float | None:
    """Seconds of a phase; one that was not over lasted until `now`."""
    if begin is None:
        return None
    return (now if end is None else end) - begin
