"""One request, its attempts, and the connections, as the pool keeps them.

What the engine tells an Attempt and what a connection tells its Member comes up through here; every decision is asked
of the Coordinator, which is the pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from scrapy_poolplus.core.errors import BodyLengthError, Phase, PoolPlusError
from scrapy_poolplus.core.events import CloseReason, ConnectionClosed, ConnectionOpened, DialFailed
from scrapy_poolplus.core.origin import HTTP_PROXIES, HttpProtocol, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.core.sessions import Claim
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome, ResponseHead, WireRequest

if TYPE_CHECKING:
    from scrapy_poolplus.net.connection import Connection
    from scrapy_poolplus.net.dialer import Dial as NetDial

MISDIRECTED_REQUEST = 421
"""RFC 9110 15.5.20: may be sent again on another connection."""


class Sink(Protocol):
    """Who asked for a response. After ``dispatched``: ``sent``, ``head``, ``data`` ..., then ``end`` or ``failed``,
    exactly one of the two, unless the request was cancelled. A replay begins anew with ``dispatched``."""

    def dispatched(self, connection: Connection) -> None:
        """The request goes to `connection`."""

    def dress(self, wire: WireRequest, session: str, *, kept: bool) -> WireRequest:
        """The request with what travels with its session; called right after ``dispatched``, where there is one."""

    def sent(self, now: float) -> None:
        """The request head was written."""

    def head(self, head: ResponseHead, now: float) -> None:
        """The response head."""

    def data(self, chunk: bytes) -> None:
        """Some of the body."""

    def end(self, end: BodyEnd, error: BodyLengthError | None) -> None:
        """The body has ended; `error` says what is missing when it is TRUNCATED."""

    def failed(self, error: PoolPlusError) -> None:
        """There is no response."""


class Dialer(Protocol):
    """Who makes connections; ``net.dialer.Dialer`` does."""

    def dial(
        self,
        route: Route,
        protocols: tuple[HttpProtocol, ...],
        config: EngineConfig,
        *,
        timeout: float | None,
        setting: str,
        resolve_ttl: float | None = None,
    ) -> NetDial:
        """Start one. `timeout` in seconds, `setting` says in its error where the limit comes from; `resolve_ttl`:
        seconds that an address may have been kept."""


class Coordinator(Protocol):
    """The pool, as tickets, attempts and members need it. `now` is seconds of its clock."""

    def now(self) -> float:
        """The time."""

    def give_up(self, ticket: Ticket, error: PoolPlusError | None = None) -> None:
        """Take a request out of the pool."""

    def answered(self, attempt: Attempt) -> None:
        """The response head of a request with a session is in."""

    def replayable(self, attempt: Attempt, progress: Progress) -> bool:
        """Whether the request may be sent again."""

    def watch(self, attempt: Attempt, limit: float, setting: str) -> None:
        """Time out the phase that the attempt is in."""

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """An exchange is over."""

    def capacity_changed(self, member: Member, streams: int) -> None:
        """The peer allows so many streams."""

    def draining(self, member: Member, reason: CloseReason) -> None:
        """The connection takes nothing new."""

    def lost(self, member: Member, error: PoolPlusError, reason: CloseReason) -> None:
        """The connection is gone."""

    def count_traffic(self, member: Member) -> None:
        """The connection has a budget of bytes, and carried some."""


class Ticket:
    """One request, waiting or in flight. `gone` is True once it was answered, failed or cancelled."""

    __slots__ = (
        "asked_at",
        "attempt",
        "claim",
        "counted_replays",
        "gone",
        "key",
        "key_policy",
        "number",
        "policy",
        "pool",
        "replayed_suspect",
        "replays",
        "seconds",
        "sink",
        "slots",
        "wire",
    )

    def __init__(
        self,
        pool: Coordinator,
        number: int,
        *,
        wire: WireRequest,
        key: PoolKey,
        policy: Policy,
        own: Policy,
        slots: int | None,
        claim: Claim,
        sink: Sink,
        seconds: float,
    ) -> None:
        self.pool = pool
        self.number = number
        self.wire = wire
        self.key = key
        self.key_policy = policy
        self.policy = own
        """Its own time-outs and replays; the rest is the key's."""
        self.slots = slots
        self.claim = claim
        self.sink: Sink | None = sink
        self.seconds = seconds
        self.asked_at: float | None = None
        """When it was last submitted: a replay begins anew."""
        self.attempt: Attempt | None = None
        self.replays = self.counted_replays = 0
        self.replayed_suspect = False
        self.gone = False

    def sent(self) -> WireRequest:
        """The request as it was last sent, or would have been."""
        return self.wire if self.attempt is None else self.attempt.wire

    def cancel(self) -> None:
        """The response is not wanted any more; the sink hears nothing further. Does nothing when it is over."""
        if not self.gone:
            self.pool.give_up(self)


class Attempt:
    """A ticket on a connection: what the engine sees of it (net.wire.Exchange)."""

    __slots__ = (
        "detached",
        "dispatched_at",
        "gone",
        "head_at",
        "heard_at",
        "member",
        "misdirected",
        "number",
        "sent_at",
        "session",
        "ticket",
        "wire",
        "wire_received",
        "wire_sent",
    )

    def __init__(self, ticket: Ticket, member: Member, now: float, session: str | None = None) -> None:
        self.session = session
        self.ticket = ticket
        self.member = member
        self.number = member.requests
        """It is the connection's nth request, counted from 1."""
        self.dispatched_at = now
        self.head_at: float | None = None
        self.wire = ticket.wire
        """As it is sent: with what travels with its session."""
        self.wire_sent = 0
        self.wire_received = 0
        self.heard_at = now
        self.sent_at: float | None = None
        self.misdirected = False
        self.detached = False
        """The scheduler has taken the ticket off this connection itself."""
        self.gone = False

    @property
    def head_seen(self) -> bool:
        """The response head is in."""
        return self.head_at is not None

    def phase(self) -> Phase:
        """How far it has come."""
        if self.head_seen:
            return Phase.BODY
        return Phase.SEND if self.sent_at is None else Phase.FIRST_BYTE

    def sent(self) -> None:
        """See net.wire.Exchange."""
        self.sent_at = self.heard_at = self.member.pool.now()
        if self.ticket.sink is not None:
            self.ticket.sink.sent(self.sent_at)

    def head(self, head: ResponseHead) -> None:
        """See net.wire.Exchange."""
        self.heard_at = self.head_at = self.member.pool.now()
        read_timeout = self.ticket.policy.read_timeout
        if read_timeout is not None:
            self.member.pool.watch(self, read_timeout, "read_timeout")
        if (
            head.status == MISDIRECTED_REQUEST
            and self.member.completed
            and self.member.pool.replayable(self, Progress.REFUSED)
        ):
            self.misdirected = True
        elif self.ticket.sink is not None:
            self.ticket.sink.head(head, self.heard_at)
        if self.session is not None and not self.gone:
            # After the sink, which has its cookies now.
            self.member.pool.answered(self)

    def data(self, chunk: bytes) -> None:
        """See net.wire.Exchange."""
        policy = self.ticket.policy
        if policy.read_timeout is not None:
            self.heard_at = self.member.pool.now()
        if policy.max_connection_bytes is not None:
            self.member.pool.count_traffic(self.member)
        if self.ticket.sink is not None and not self.misdirected:
            self.ticket.sink.data(chunk)

    def carried(self, sent: int, received: int) -> None:
        """See net.wire.Exchange."""
        self.wire_sent, self.wire_received = sent, received

    def done(self, outcome: Outcome) -> None:
        """See net.wire.Exchange."""
        self.gone = True
        self.member.pool.ended(self, outcome)


class Member:
    """A connection of the pool, from its dial on (net.connection.ConnectionOwner)."""

    __slots__ = (
        "allowed",
        "completed",
        "connection",
        "dial",
        "dialed_at",
        "gone",
        "key",
        "login",
        "number",
        "opened_at",
        "policy",
        "pool",
        "requests",
        "watched",
    )

    def __init__(
        self, pool: Coordinator, number: int, key: PoolKey, policy: Policy, now: float, *, route: Route | None = None
    ) -> None:
        self.pool = pool
        self.number = number
        self.key = key
        self.login = _login_of_requests(route or key.route)
        self.policy = policy
        self.dialed_at = now
        self.dial: NetDial | None = None
        self.connection: Connection | None = None
        self.opened_at = now
        self.allowed: int | None = None
        """Requests of its budget."""
        self.requests = 0
        self.completed = 0
        """Exchanges that ended with a response: the proof that a connection had worked."""
        self.watched = False
        """Its engine's next deadline is among the pool's."""
        self.gone = False

    def dress(self, wire: WireRequest) -> WireRequest:
        """The request with the credentials that its proxy wants with each (RFC 9110 11.7.1): those of this connection,
        whatever was waited with."""
        if self.login is None:
            return wire
        return wire._replace(headers=(*wire.headers, (b"Proxy-Authorization", self.login)))

    def carried(self) -> int:
        """Bytes in both directions."""
        return 0 if self.connection is None else self.connection.bytes_sent + self.connection.bytes_received

    def opened_event(self, now: float) -> ConnectionOpened:
        """What observers hear when it is ready."""
        assert self.connection is not None
        tunnel = self.connection.tunnel
        headers = () if tunnel is None else tunnel.headers
        connection = self.connection
        seconds = now - self.dialed_at
        return ConnectionOpened(
            self.number, self.key, connection.protocol, seconds, now, headers, resumed=connection.resumed
        )

    def gone_event(self, reason: CloseReason, error: PoolPlusError | None, now: float) -> ConnectionClosed | DialFailed:
        """What observers hear when it has left the pool."""
        connection = self.connection
        if connection is None:
            name = reason.value if error is None else type(error).__name__
            return DialFailed(self.number, self.key, name, now - self.dialed_at, now)
        return ConnectionClosed(
            self.number,
            self.key,
            connection.protocol,
            reason,
            self.requests,
            connection.bytes_sent,
            connection.bytes_received,
            now - self.opened_at,
            now,
            self.allowed,
        )

    def capacity(self, streams: int) -> None:
        """See net.connection.ConnectionOwner."""
        if not self.gone:
            self.pool.capacity_changed(self, streams)

    def draining(self, reason: CloseReason) -> None:
        """See net.connection.ConnectionOwner."""
        if not self.gone:
            self.pool.draining(self, reason)

    def closed(self, error: PoolPlusError, reason: CloseReason) -> None:
        """See net.connection.ConnectionOwner."""
        if not self.gone:
            self.pool.lost(self, error, reason)


def _login_of_requests(route: Route) -> bytes | None:
    """Proxy-Authorization where the proxy reads the requests themselves: for an http origin behind an HTTP proxy."""
    proxy = route.proxy
    if proxy is None or route.origin.secure or proxy.scheme not in HTTP_PROXIES:
        return None
    return proxy.authorization
