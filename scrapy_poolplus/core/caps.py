"""Caps: who may have one connection more, who waits in turn for it, and who gives way.

A new connection needs a place in two scopes, its origin's and the crawl's. A key that must wait is in the queue of one
of them. Where that is the crawl's, it has claimed its place of the origin's: were it in neither count, a place of the
origin could come free for a key that then waits for the crawl, and the next one of the origin would be asleep.

The queue is in order of starvation, not of arrival in it: a key that is served by connections it has would otherwise
stand before one that has none.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy_poolplus.core.origin import Origin, PoolKey
    from scrapy_poolplus.core.records import ConnectionRecord, KeyRecord


class Scope:
    """What a cap counts: the crawl, or one origin over all its keys.

    `limit` is a cap in connections of any state but CLOSED. None: those that are not idle, against the requests handed
    to us (`tickets`) plus one spare, so that the pool is never the throttle where the user set no cap. Where it is
    known how many requests the downloader means to have there at once (`slots`), not against more than these: Scrapy
    2.19 with the asyncio reactor hands down up to three times as many in a burst.
    """

    __slots__ = (
        "_queue",
        "blocked",
        "claims",
        "count",
        "draining",
        "gone",
        "idle",
        "keys",
        "limit",
        "reclaim_at",
        "slots",
        "surplus",
        "tickets",
    )

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.gone = False
        self.count = 0
        """Connections."""
        self.claims = 0
        """Places promised to keys that wait for one of the crawl's."""
        self.draining = 0
        """Connections that only finish what they have."""
        self.slots: int | None = None
        """Requests that the downloader's slots allow at once; None: not known, or no limit."""
        self.tickets = 0
        """Waiting and in flight."""
        self.keys: dict[PoolKey, KeyRecord] = {}
        self.idle: dict[int, ConnectionRecord] = {}
        """Open and without streams, least recently used first."""
        self.surplus: dict[KeyRecord, None] = {}
        """Keys with more dials out than waiters."""
        self.blocked: dict[KeyRecord, None] = {}
        """Keys that wait in turn for a place in this scope."""
        self._queue: list[tuple[float, int, KeyRecord]] = []
        """Heap of them by (starved since, turn); entries may be out of date, and are then too early, never too late."""
        self.reclaim_at: float | None = None
        """When to look who starves."""

    def full(self, *, ahead: bool = False) -> bool:
        """True when one more connection would be over the cap. `ahead`: it is to take the place of another one, and may
        be the spare."""
        if self.limit is not None:
            return self.count + self.claims >= self.limit
        taken = self.count + self.claims - len(self.idle)
        if taken > self.tickets or self.slots is None:
            return taken > self.tickets
        return taken >= self.slots + (ahead or self.draining > 0)

    def gives_way(self) -> ConnectionRecord | None:
        """The connection to close for a new one: the least recently used idle one, else a dial nobody waits for."""
        if self.limit is not None and self.idle:
            return next(iter(self.idle.values()))
        for key in self.surplus:
            return next(reversed(key.connecting.values()))
        return None

    def block(self, key: KeyRecord) -> None:
        """The key waits for a place in this scope, in its turn."""
        key.blocked_by = self
        self.blocked[key] = None
        heappush(self._queue, (key.starved_since(), key.turn, key))
        if len(self._queue) > 2 * len(self.blocked) + 8:
            self._queue = [(other.starved_since(), other.turn, other) for other in self.blocked]
            heapify(self._queue)

    def unblock(self, key: KeyRecord) -> None:
        """The key waits no longer."""
        key.blocked_by = None
        del self.blocked[key]

    def most_starved(self) -> KeyRecord:
        """The key whose turn it is; one must be blocked."""
        queue = self._queue
        while True:
            since, turn, key = queue[0]
            if key.blocked_by is not self or key.turn != turn:
                heappop(queue)
            elif since < key.starved_since():
                heapreplace(queue, (key.starved_since(), turn, key))
            else:
                return key

    def in_turn(self) -> list[KeyRecord]:
        """All that are blocked, the most starved first."""
        return sorted(self.blocked, key=lambda key: (key.starved_since(), key.turn))

    def richest(self) -> tuple[ConnectionRecord | None, int]:
        """Of the key with the most connections in use the one dialled first, and how many the key has. An idle one
        would have given way, or takes no place."""
        best: ConnectionRecord | None = None
        most = 0
        for key in self.keys.values():
            candidates = [record for record in key.connections.values() if record.open and record.streams]
            if len(candidates) > most or (best is not None and len(candidates) == most and min(candidates) < best):
                best, most = min(candidates), len(candidates)
        return best, most


class OriginScope(Scope):
    """One origin over all its keys. Exists while it has a key, or is to be left in peace. `turns`: where to begin to
    count them, not at the same address for each of many origins."""

    __slots__ = ("_turns", "hold_until", "origin")

    def __init__(self, origin: Origin, limit: int | None, turns: int = 0) -> None:
        super().__init__(limit)
        self.origin = origin
        self.hold_until: float | None = None
        """No new dial before: it said ENHANCE_YOUR_CALM."""
        self._turns = turns

    def take_turn(self) -> int:
        """The next place among its sessions, to spread them over addresses."""
        self._turns += 1
        return self._turns
