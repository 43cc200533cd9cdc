"""What the scheduler knows of a connection and of a key.

Records answer questions about themselves; only ``Scheduler`` changes them. READY and BUSY are derived from
``room()``, never stored: a stored one would have to be kept true at every place that touches streams, limits and
budgets.
"""

from __future__ import annotations

from enum import Enum
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from scrapy_poolplus.core.budget import UNLIMITED, Budget, spent

if TYPE_CHECKING:
    from scrapy_poolplus.core.caps import OriginScope, Scope
    from scrapy_poolplus.core.demand import Spoken
    from scrapy_poolplus.core.events import CloseReason
    from scrapy_poolplus.core.origin import HttpProtocol, PoolKey
    from scrapy_poolplus.core.policy import Policy
    from scrapy_poolplus.core.sessions import Session


class ConnectionState(Enum):
    """One word per connection."""

    CONNECTING = "CONNECTING"
    """A dial is out."""
    READY = "READY"
    """It has room for a request."""
    BUSY = "BUSY"
    """It is at its limit of streams."""
    DRAINING = "DRAINING"
    """It takes nothing new; it is closed when its last stream ends."""
    CLOSED = "CLOSED"
    """It has left the pool; the socket may still say goodbye."""


class ConnectionRecord:
    """One connection, from the dial to its logical close. Times are seconds of the pool's clock."""

    __slots__ = (
        "alone",
        "asked_at",
        "bound",
        "budget",
        "dialed_at",
        "draining",
        "gone",
        "grace_until",
        "idle_listed",
        "idle_since",
        "key",
        "listed",
        "number",
        "opened_at",
        "peer_limit",
        "policy_limit",
        "protocol",
        "reason",
        "requests",
        "session",
        "size",
        "streams",
        "succeeded",
    )

    def __init__(self, number: int, key: KeyRecord, now: float) -> None:
        self.number = number
        self.key = key
        self.dialed_at = now
        self.opened_at: float | None = None
        self.protocol: HttpProtocol | None = None
        self.policy_limit = 0
        self.peer_limit: int | None = None
        self.budget: Budget = UNLIMITED
        self.streams: set[int] = set()
        """The tickets in flight."""
        self.requests = 0
        """Given to it so far, those in flight included."""
        self.size = 0
        """Bytes that it carried, both directions, as last heard."""
        self.idle_since: float | None = None
        """Since when it is open and empty (I6)."""
        self.idle_listed = False
        """Its idle deadline is in the scheduler's heap already: one entry a connection, not one a request."""
        self.listed = False
        """It is in its key's heap of connections that may have room."""
        self.draining = False
        self.gone = False
        self.reason: CloseReason | None = None
        """Why it drains; the first reason stays (I13)."""
        self.succeeded = False
        """Its successor was dialled ahead."""
        self.grace_until: float | None = None
        """Until when it counts as arriving capacity although its peer allows no stream."""
        self.session: Session | None = None
        self.alone = False
        """Its session is new: the first request goes alone until its response head is in (one set of cookies, not one
        for each parallel stream)."""
        self.asked_at = 0.0
        """When that request was given to it."""
        self.bound: dict[int, float] = {}
        """Tickets that wait for this connection and no other one, to the time of their submission."""

    @property
    def open(self) -> bool:
        """READY or BUSY."""
        return self.opened_at is not None and not self.draining and not self.gone

    def limit(self) -> int:
        """Streams it may carry at once."""
        return self.policy_limit if self.peer_limit is None else min(self.policy_limit, self.peer_limit)

    def room(self) -> int:
        """Requests it may be given now: what limit and request budget leave."""
        if self.opened_at is None or self.draining or self.gone:
            return 0
        free = self.limit() - len(self.streams)
        if self.budget.requests is not None:
            free = min(free, self.budget.requests - self.requests)
        session = self.session
        if session is not None:
            left = session.left()
            if left is not None:
                free = min(free, left)
            if self.alone:
                free = min(free, 1 - session.in_flight)
        return max(0, free)

    @property
    def state(self) -> ConnectionState:
        """The state, derived."""
        if self.gone:
            return ConnectionState.CLOSED
        if self.opened_at is None:
            return ConnectionState.CONNECTING
        if self.draining:
            return ConnectionState.DRAINING
        return ConnectionState.READY if self.room() else ConnectionState.BUSY

    def spent(self, now: float) -> CloseReason | None:
        """Why it may take no further request, or None."""
        if self.opened_at is None:
            return None
        if self.session is not None:
            reason = self.session.spent(now)
            if reason is not None:
                return reason
        if self.budget is UNLIMITED:
            return None
        return spent(self.budget, requests=self.requests, age=now - self.opened_at, size=self.size)

    def __lt__(self, other: ConnectionRecord) -> bool:
        """Dialled first, for the key's heap and the choice of a victim."""
        return self.number < other.number


class KeyRecord:
    """Who waits for a key and what is open for it. Exists while it has a ticket or a connection (I22)."""

    __slots__ = (
        "_queue",
        "_ready",
        "alone",
        "answer_seconds",
        "blocked_by",
        "blocked_since",
        "bound",
        "connecting",
        "connections",
        "dispatched_at",
        "failing",
        "gone",
        "graced",
        "interval",
        "key",
        "origin",
        "policy",
        "redial_at",
        "returns",
        "scopes",
        "served_at",
        "session",
        "setup_seconds",
        "spoken",
        "turn",
        "victim",
        "waiting",
    )

    def __init__(
        self,
        key: PoolKey,
        policy: Policy,
        spoken: Spoken,
        origin: OriginScope,
        crawl: Scope,
        session: Session | None = None,
    ) -> None:
        self.key = key
        self.session = session
        """Whose it is alone; None for the one that any session of the origin serves."""
        self.returns = False
        """The session's connection of this origin was closed early: the one that is made for what is bound to it takes
        that one's place as soon as it is free, among those that any session serves."""
        self.policy = policy
        self.spoken = spoken
        self.origin = origin
        self.scopes: tuple[Scope, Scope] = (origin, crawl)
        """What counts its connections; a new one needs a place in both."""
        self.gone = False
        self.waiting: dict[int, float] = {}
        """Ticket to the time of its submission."""
        self._queue: list[int] = []
        """Heap of the tickets; those that do not wait any more are dropped when they surface."""
        self.connections: dict[int, ConnectionRecord] = {}
        self.connecting: dict[int, ConnectionRecord] = {}
        self.graced: dict[int, ConnectionRecord] = {}
        """Those with a `grace_until`."""
        self._ready: list[ConnectionRecord] = []
        """Heap of the connections that may have room; those that have none are dropped when they surface. A dial is
        owed only when all have surfaced, so no more than one round of dials is ever kept."""
        self.failing = False
        """A dial failed while others are out: their answer decides for all, none is dialled in between, or a host that
        refuses would be dialled without end."""
        self.redial_at: float | None = None
        """No new dial before: the last one failed while other connections serve."""
        self.blocked_by: Scope | None = None
        """The scope in which it waits for a place."""
        self.blocked_since = 0.0
        self.turn = 0
        """Its rank among those that starve since the same instant."""
        self.victim: ConnectionRecord | None = None
        """The connection that was retired for its sake last."""
        self.served_at = float("-inf")
        """When a request was last dispatched, or ended: who has just had a long one does not starve since its start."""
        self.dispatched_at: float | None = None
        self.interval: float | None = None
        """Smoothed seconds between dispatches."""
        self.setup_seconds = 0.0
        """Smoothed seconds from dial to ready."""
        self.alone: dict[int, ConnectionRecord] = {}
        """Those whose first request goes alone, or is still to come."""
        self.answer_seconds = 0.0
        """Smoothed seconds from such a first request to its response head."""
        self.bound: dict[int, ConnectionRecord] = {}
        """Tickets that wait for one of its connections, and for which."""

    def push(self, ticket: int, now: float) -> None:
        """Queue a ticket; a replayed one has its old number and so its old place (I8)."""
        self.waiting[ticket] = now
        heappush(self._queue, ticket)

    def first(self) -> int:
        """The oldest ticket that waits; there must be one."""
        queue = self._queue
        while queue[0] not in self.waiting:
            heappop(queue)
        return queue[0]

    def drop(self, ticket: int) -> float:
        """Take a ticket from the queue; returns when it was submitted."""
        bound = self.bound.pop(ticket, None)
        if bound is not None:
            return bound.bound.pop(ticket)
        submitted = self.waiting.pop(ticket)
        if self._queue[0] == ticket:
            heappop(self._queue)
        elif len(self._queue) > 2 * len(self.waiting) + 8:
            self._queue = list(self.waiting)
            heapify(self._queue)
        return submitted

    def list_ready(self, record: ConnectionRecord) -> None:
        """It may have room from now on."""
        if not record.listed:
            record.listed = True
            heappush(self._ready, record)

    def oldest_with_room(self) -> ConnectionRecord | None:
        """The oldest connection with room, or None."""
        ready = self._ready
        while ready:
            if ready[0].key is self and ready[0].room() > 0:
                return ready[0]
            heappop(ready).listed = False
        return None

    def next_bound(self) -> tuple[int, ConnectionRecord] | None:
        """The oldest ticket whose connection has room now, and that is older than any that could take that room."""
        ticket = min((ticket for ticket, record in self.bound.items() if record.room() > 0), default=None)
        if ticket is None or (self.waiting and self.first() < ticket):
            return None
        return ticket, self.bound[ticket]

    def next_free(self) -> ConnectionRecord | None:
        """The connection for the oldest that waits, or None: the oldest with room; but a new session is given its first
        request at once, and the older ones serve until that is answered."""
        for record in self.alone.values():
            if record.room() > 0:
                return record
        return self.oldest_with_room()

    def starved_since(self) -> float:
        """Since when it is blocked by a cap and has not been served."""
        return max(self.blocked_since, self.served_at)

    def serving(self) -> bool:
        """True while a connection is READY or BUSY."""
        return any(record.open for record in self.connections.values())
