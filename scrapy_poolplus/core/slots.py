"""Slots: every dial is decided here, and so is who waits in turn for one where a cap is used up."""

from __future__ import annotations

from functools import partial

from scrapy_poolplus.core.caps import Scope
from scrapy_poolplus.core.demand import owed
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.records import KeyRecord
from scrapy_poolplus.core.state import PoolState


class Slots:
    """Who dials now and who in turn. When a fact has been dealt with, a scope for which keys are blocked is full, and
    nothing in it gives way."""

    __slots__ = ("_state", "_turns")

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._turns = 0

    def settle(self, key: KeyRecord, now: float) -> None:
        """Dial what the key is owed, or let it wait in turn."""
        if key.blocked_by is not None:
            if owed(key, now):
                return
            self._unblock(key)
        while owed(key, now):
            missing = self._missing(key)
            if missing is not None:
                self._block(key, missing, now, since=now)
                break
            self._state.dial(key, now)

    def serve(self, scope: Scope, now: float) -> None:
        """Give the scope's free slots to the keys that starve longest, one each in turn."""
        state = self._state
        while scope.blocked and (not scope.full() or scope.gives_way() is not None):
            key = scope.most_starved()
            since = key.blocked_since
            self._unblock(key)
            if not owed(key, now):
                # It had claimed a slot of its origin.
                state.touched.append(key)
                continue
            self._make(scope)
            if scope is not state.crawl and not self._free(state.crawl):
                self._block(key, state.crawl, now, since=since)
            else:
                state.dial(key, now)
                self.settle(key, now)

    def spare(self, key: KeyRecord) -> bool:
        """True where the key may have a connection more that nobody gives way for, and nobody waits for."""
        return not any(scope.blocked or scope.full() for scope in key.scopes)

    def _missing(self, key: KeyRecord) -> Scope | None:
        """The scope that has no slot for the key, or None."""
        for scope in key.scopes:
            if not self._free(scope):
                return scope
        return None

    def _free(self, scope: Scope) -> bool:
        """True where there is a slot for a key that does not wait yet: never before one that does."""
        return not scope.blocked and self._make(scope)

    def _make(self, scope: Scope) -> bool:
        """True where the cap allows one more; idle connections or dials that nobody waits for are closed for it. More
        than one may have to be where there is no cap but the number of requests, which falls as they end."""
        while scope.full():
            record = scope.gives_way()
            if record is None:
                return False
            self._state.close(record, CloseReason.DIAL_ABANDONED if record.opened_at is None else CloseReason.EVICTED)
            self._state.touched.append(record.key)
        return True

    def _block(self, key: KeyRecord, scope: Scope, now: float, *, since: float) -> None:
        """The key waits in turn for a slot; where it waits for the crawl's, it claims its origin's."""
        self._turns += 1
        scope.block(key, since, self._turns)
        if scope is self._state.crawl:
            key.origin.claims += 1
        self._watch(scope, max(now, since + key.policy.reclaim_after))

    def _unblock(self, key: KeyRecord) -> None:
        scope = key.blocked_by
        assert scope is not None
        scope.unblock(key)
        if scope is self._state.crawl:
            key.origin.claims -= 1

    # ---- reclaiming

    def _watch(self, scope: Scope, due: float) -> None:
        """Look at `due` who starves, or earlier. Where there is one key nobody has anything to give, and another one
        gets nothing before it is blocked too."""
        if len(scope.keys) > 1 and (scope.reclaim_at is None or due < scope.reclaim_at):
            scope.reclaim_at = due
            self._state.deadlines.at(due, scope, partial(self._reclaim_due, scope, due))

    def _reclaim_due(self, scope: Scope, due: float, now: float) -> None:
        """For the key that has starved longest, if it has for `reclaim_after` and nothing is under way for it,
        another's connection gives its slot. One at a time: the others follow in turn."""
        if due != scope.reclaim_at:
            return
        scope.reclaim_at = None
        reclaimed = False
        for key in scope.in_turn():
            due = key.starved_since() + key.policy.reclaim_after
            if due <= now:
                due = now + key.policy.reclaim_after
                reclaimed = reclaimed or self._reclaim(scope, key, now)
            self._watch(scope, due)

    def _reclaim(self, scope: Scope, starved: KeyRecord, now: float) -> bool:
        """Have a slot given up for the key, if others have more than it has; True when that is under way."""
        if starved.connecting or (starved.victim is not None and not starved.victim.gone):
            return False
        if scope is starved.origin and self._take_claim(starved, now):
            return True
        victim = starved.victim = scope.victim(starved)
        if victim is None:
            return False
        self._state.retire(victim, CloseReason.RECLAIMED, now)
        self._state.touched.append(victim.key)
        return True

    def _take_claim(self, starved: KeyRecord, now: float) -> bool:
        """Change places with a key that has more, and has claimed a slot of the origin beside."""
        crawl = self._state.crawl
        for key in reversed(crawl.in_turn()):
            if key.origin is starved.origin and len(key.connections) > len(starved.connections):
                others, mine = key.blocked_since, starved.blocked_since
                self._unblock(key)
                self._unblock(starved)
                self._block(key, key.origin, now, since=others)
                self._block(starved, crawl, now, since=mine)
                return True
        return False
