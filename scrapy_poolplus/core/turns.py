"""Turns: who dials for those who wait, now or in turn where a cap is used up, and who gives way for it."""

from __future__ import annotations

from functools import partial

from scrapy_poolplus.core.caps import Scope
from scrapy_poolplus.core.demand import owed
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.records import KeyRecord
from scrapy_poolplus.core.state import PoolState


class Turns:
    """Who dials now and who in turn. When a fact has been dealt with, a scope for which keys are blocked is full, and
    nothing in it gives way."""

    __slots__ = ("_last_turn", "_state")

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self._last_turn = 0

    def settle(self, key: KeyRecord, now: float) -> None:
        """Dial what the key is owed, or let it wait in turn."""
        if key.blocked_by is not None:
            if owed(key, now):
                return
            self._unblock(key)
        while owed(key, now):
            missing = self._missing(key)
            if missing is not None:
                self._last_turn += 1
                key.blocked_since, key.turn = now, self._last_turn
                self._block(key, missing, now)
                break
            self._state.dial(key, now)

    def serve(self, scope: Scope, now: float) -> None:
        """Give the scope's free places to the keys that starve longest, one each in turn."""
        state = self._state
        while scope.blocked and (not scope.full() or scope.gives_way() is not None):
            key = scope.most_starved()
            self._unblock(key)
            if not owed(key, now):
                # It may have claimed a place of its origin's.
                state.touched.append(key)
            elif not self._make(key.origin):
                # It was not enough, or what it had claimed is not to be had any more: the downloader wants fewer.
                self._block(key, key.origin, now)
                if scope is key.origin:
                    return
            elif (scope is key.origin and state.crawl.blocked) or not self._make(state.crawl):
                self._block(key, state.crawl, now)
            else:
                state.dial(key, now)
                self.settle(key, now)
        if scope.blocked and scope.reclaim_at is None:
            # Blocked when it was alone; a connection that went over to the key of a flow made that another one.
            key = scope.most_starved()
            self._watch(scope, max(now, key.starved_since() + key.policy.reclaim_after))

    def spare(self, key: KeyRecord) -> bool:
        """True where the key may have a connection more that nobody gives way for, and nobody waits for."""
        return not any(scope.blocked or scope.full(ahead=True) for scope in key.scopes)

    def _missing(self, key: KeyRecord) -> Scope | None:
        """The scope that has no place for the key, or None."""
        for scope in key.scopes:
            if not self._free(scope):
                return scope
        return None

    def _free(self, scope: Scope) -> bool:
        """True where there is a place for a key that does not wait yet: never before one that does."""
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

    def _block(self, key: KeyRecord, scope: Scope, now: float) -> None:
        """The key waits in turn for a place; where it waits for the crawl's, it claims its origin's."""
        scope.block(key)
        if scope is self._state.crawl:
            key.origin.claims += 1
        self._watch(scope, max(now, key.starved_since() + key.policy.reclaim_after))

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
        another's connection gives its place. One at a time: the others follow in turn."""
        if due != scope.reclaim_at:
            return
        scope.reclaim_at = None
        starving = []
        for key in scope.in_turn():
            due = key.starved_since() + key.policy.reclaim_after
            if due <= now:
                due = now + key.policy.reclaim_after
                starving.append(key)
            self._watch(scope, due)
        if starving:
            self._reclaim(scope, starving, now)

    def _reclaim(self, scope: Scope, starving: list[KeyRecord], now: float) -> None:
        """Take a place for the first key for which none is under way, from one that has more than it has: else two
        would take each other's in turn without end."""
        crawl = self._state.crawl
        claimants = [key for key in crawl.blocked if key.origin is scope]
        claimant = max(claimants, key=lambda key: (len(key.connections), key.turn), default=None)
        victim, has = scope.richest()
        for key in starving:
            if key.connecting or (key.victim is not None and not key.victim.gone):
                continue
            if claimant is not None and len(claimant.connections) > len(key.connections):
                # One of the origin's is claimed and not used yet: they change places.
                for other, place in ((claimant, scope), (key, crawl)):
                    self._unblock(other)
                    self._block(other, place, now)
                return
            if victim is not None and has > len(key.connections):
                key.victim = victim
                self._state.retire(victim, CloseReason.RECLAIMED, now)
                self._state.touched.append(victim.key)
                return
