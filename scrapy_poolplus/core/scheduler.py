"""The scheduler: every decision of the pool, without I/O.

Rules that span functions:

- A fact records what happened and names the keys that it touches; then ``_decide`` settles each of them: attach, dial
  or wait in turn, pass on what comes free, forget. Nothing else attaches or dials.
- A fact returns its actions; the state is committed before the first of them is run, so a fact that an action
  provokes finds a consistent scheduler.
- A fact about a connection or a ticket that has left already is passed over: it has crossed the Close or the Fail.
- The work of a fact is proportional to what the fact touches: keys are indexed, deadlines are a heap, connections
  with room are a heap in their key. Nothing here walks over all that is open, but ``close`` and the choice of a
  connection to reclaim, which happens at most once per ``reclaim_after`` and scope.
- ``now`` never goes backwards.

The rooms behind it: ``records`` (what is known of a connection and of a key), ``state`` (the transitions), ``demand``
(how many connections a key is owed), ``caps`` and ``turns`` (who may have one), ``invariants`` (what always holds).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from scrapy_poolplus.core.actions import Action, Dispatch
from scrapy_poolplus.core.budget import UNLIMITED, Budget
from scrapy_poolplus.core.caps import OriginScope
from scrapy_poolplus.core.demand import RouteMemory, successor_due
from scrapy_poolplus.core.errors import PoolClosedError, PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.invariants import check_state, describe_state
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.records import ConnectionRecord, KeyRecord
from scrapy_poolplus.core.session_state import SessionState
from scrapy_poolplus.core.sessions import ANY, Claim, SessionBook
from scrapy_poolplus.core.state import SMOOTHING, PoolState
from scrapy_poolplus.core.turns import Turns

CALM_SECONDS = 1.0
"""Seconds without a new dial to an origin that said ENHANCE_YOUR_CALM."""
ROUTES_REMEMBERED = 1024
"""Routes whose protocol is remembered."""


class Scheduler:
    """Who waits, who may be used, when to dial, when to retire, who is woken.

    `max_connections` is the cap of the crawl; each origin's is its policy's. `run` begins the ids of all sessions. All facts take ``now`` in seconds and
    return the actions in the order in which to run them. A closed scheduler takes no ``submit``.
    """

    def __init__(self, max_connections: int, *, run: str = "s") -> None:
        self.closed = False
        self.now = 0.0
        """Of the last fact."""
        self.state = PoolState(max_connections, RouteMemory(ROUTES_REMEMBERED), SessionBook(run))
        self._sessions = SessionState(self.state)
        self._turns = Turns(self.state)

    def __repr__(self) -> str:
        return describe_state(self.state, self.now, closed=self.closed)

    def check(self) -> None:
        """Raise AssertionError where the state breaks what always holds; for tests."""
        check_state(self.state, self.now)

    @property
    def connections(self) -> dict[int, ConnectionRecord]:
        """All that are not CLOSED, by number."""
        return self.state.connections

    @property
    def waiting(self) -> dict[int, KeyRecord]:
        """Tickets that wait, and for which key."""
        return self.state.waiting

    @property
    def in_flight(self) -> dict[int, ConnectionRecord]:
        """Tickets that are on a connection."""
        return self.state.in_flight

    @property
    def peak(self) -> int:
        """Most connections at once, in any state but CLOSED."""
        return self.state.peak

    # ---- facts: requests

    def submit(
        self,
        ticket: int,
        key: PoolKey,
        policy: Policy,
        now: float,
        *,
        slots: int | None = None,
        claim: Claim = ANY,
    ) -> list[Action]:
        """A request arrived, or, with its old number, comes back to be replayed in its old place.

        `ticket` rises with arrival. The policy of a key is that of the first ticket that makes its record. `slots`: how
        many requests the downloader means to have at this origin at once, None where that is not known. `claim`: which
        session it asks for; bound to one, it waits in a key that differs from `key` by the label.
        """
        state = self.state
        assert not self.closed
        assert ticket not in state.waiting
        assert ticket not in state.in_flight
        record = self._sessions.queue(ticket, key, policy, claim, now)
        record.origin.slots = slots
        for scope in record.scopes:
            scope.tickets += 1
        return self._decide(record, now)

    def cancel(self, ticket: int, now: float) -> list[Action]:
        """A request that waits is not wanted any more (cancelled, or its deadline passed).

        When the key has nothing else, its dials are given up: they may be what it waited for in vain.
        """
        key = self.state.waiting.get(ticket)
        if key is None:
            return []
        self.state.dequeue(ticket)
        self.state.leave(key)
        if not key.waiting and len(key.connections) == len(key.connecting):
            for record in list(key.connecting.values()):
                self.state.close(record, CloseReason.DIAL_ABANDONED)
        return self._decide(key, now)

    def finished(self, ticket: int, now: float, *, size: int = 0) -> list[Action]:
        """An exchange is over, whatever came of it. `size`: bytes that its connection has carried so far."""
        state = self.state
        record = state.in_flight.pop(ticket, None)
        if record is None:
            return []
        key = record.key
        key.served_at = now
        record.streams.discard(ticket)
        record.size = max(record.size, size)
        state.leave(key)
        self._sessions.finished(record, now)
        if record.draining:
            if not record.streams:
                state.close(record, CloseReason.RETIRED)
        elif (reason := record.spent(now)) is not None:
            state.retire(record, reason, now)
        else:
            key.list_ready(record)
            state.rest(record, now)
            self._sessions.give_back(record)
        return self._decide(key, now)

    # ---- facts: connections

    def connected(
        self, number: int, protocol: HttpProtocol, budget: Budget, now: float, *, session: Budget = UNLIMITED
    ) -> list[Action]:
        """A dial succeeded. `budget` was drawn for this connection, `session` for its session, should that be new."""
        record = self.connections.get(number)
        if record is None:
            return []
        self.state.open(record, protocol, budget, now)
        self._sessions.opened(record, session, now)
        return self._decide(record.key, now)

    def dial_failed(self, number: int, error: PoolPlusError, now: float) -> list[Action]:
        """A dial failed. When it was the last of its key and nothing else serves the key, all its waiters are answered
        with `error`; while other connections serve, they keep waiting and one more round of dials follows after a
        pause."""
        record = self.connections.get(number)
        if record is None:
            return []
        key = record.key
        self.state.release(record)
        if key.connecting:
            key.failing = True
        elif key.serving():
            self.state.pause(key, now)
        else:
            self.state.fail_waiters(key, error)
        return self._decide(key, now)

    def answered(self, ticket: int, now: float) -> list[Action]:
        """The response head of a request is in: where it was the first of a new session, others may follow."""
        record = self.in_flight.get(ticket)
        if record is None or record.session is None or record.session.answered:
            return []
        self._sessions.answered(record, now)
        return self._decide(record.key, now)

    def capacity(self, number: int, streams: int, now: float) -> list[Action]:
        """The peer of an h2 connection allows `streams` at once from now on; those in flight above it stay (I4). May
        come before ``connected``."""
        record = self.connections.get(number)
        if record is None:
            return []
        if record.open:
            self.state.limit(record, streams, now)
        else:
            record.peer_limit = streams
        return self._decide(record.key, now)

    def retire(self, number: int, reason: CloseReason, now: float) -> list[Action]:
        """The connection takes nothing new: GOAWAY, not reusable, or asked for. Does nothing where it drains."""
        record = self.connections.get(number)
        if record is None:
            return []
        if not record.requests:
            self.state.pause(record.key, now)
        self.state.retire(record, reason, now)
        return self._decide(record.key, now)

    def calm(self, origin: Origin, now: float) -> list[Action]:
        """The origin said ENHANCE_YOUR_CALM: no new dial to it for a second."""
        if self.closed:
            return []
        scope = self.state.origins.get(origin)
        if scope is None:
            scope = self.state.origins[origin] = OriginScope(origin, None)
        if scope.hold_until is None:
            self.state.deadlines.at(now + CALM_SECONDS, scope, partial(self._calm_due, scope))
        scope.hold_until = now + CALM_SECONDS
        self.state.touched.extend(scope.keys.values())
        return self._decide(None, now)

    def traffic(self, number: int, size: int, now: float) -> list[Action]:
        """The connection has carried `size` bytes so far; retires it when its budget of bytes is spent (soft)."""
        record = self.connections.get(number)
        if record is None:
            return []
        record.size = max(record.size, size)
        reason = record.spent(now)
        return [] if reason is None else self.retire(number, reason, now)

    def lost(self, number: int, error: PoolPlusError, now: float) -> list[Action]:
        """The connection is gone. Requests that are still on it are answered with `error`."""
        record = self.connections.get(number)
        if record is None:
            return []
        if record.opened_at is None:
            return self.dial_failed(number, error, now)
        if not record.requests:
            self.state.pause(record.key, now)
        self.state.fail_streams(record, error)
        self.state.release(record)
        return self._decide(record.key, now)

    # ---- facts: sessions

    def hold(self, session: str) -> None:
        """Something may still have to go on in the session: a page that was answered, a request that came of it."""
        found = self.state.book.find(session)
        if found is not None:
            self._sessions.hold(found)

    def release(self, session: str, now: float) -> list[Action]:
        """That is over."""
        found = self.state.book.find(session)
        if found is None:
            return []
        self._sessions.release(found, now)
        return self._decide(None, now)

    def remember_cookies(self, session: str, domains: Iterable[str]) -> None:
        """The domains of all cookies that are in the session's jar now."""
        found = self.state.book.find(session)
        if found is not None:
            self.state.book.remember(found, domains)

    def retire_all(self, now: float, *, host: str | None = None, session: str | None = None) -> list[Action]:
        """The open connections of a host, or all, take nothing new, nor do the sessions that were to go on there; or those
        of a session, by its label or id. What is kept under a label begins anew with the next request that asks for it.
        """
        if session is not None:
            called = self.state.book.called(session)
            if called is not None:
                self._sessions.retire(called, CloseReason.RETIRED, now)
            return self._decide(None, now)
        for record in list(self.connections.values()):
            if host is not None and record.key.key.origin.host != host:
                continue
            carried = record.session
            if carried is not None and (record.open or carried.requests):
                self._sessions.retire(carried, CloseReason.RETIRED, now)
            if record.open:
                # It was not closed with its session.
                self.state.retire(record, CloseReason.RETIRED, now)
                self.state.touched.append(record.key)
        for left in self.state.book.orphans(host):
            self._sessions.retire(left, CloseReason.RETIRED, now)
        for key in self.state.crawl.keys.values():
            if key.returns and key.session is not None and (host is None or key.key.origin.host == host):
                self._sessions.retire(key.session, CloseReason.RETIRED, now)
        return self._decide(None, now)

    # ---- facts: time and end

    def next_deadline(self) -> float | None:
        """When ``tick`` wants to be called, or None. May be early, never late."""
        return self.state.deadlines.next()

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        self.now = now
        actions: list[Action] = []
        while (due := self.state.deadlines.pop(now)) is not None:
            due(now)
            actions += self._decide(None, now)
        return actions

    def close(self, error: PoolClosedError) -> list[Action]:
        """The end: every request is answered with `error`, every connection closed. Idempotent."""
        self.closed = True
        state = self.state
        for key in state.crawl.keys.values():
            state.fail_waiters(key, error)
            state.touched.append(key)
        for record in list(state.connections.values()):
            state.fail_streams(record, error)
            state.close(record, CloseReason.POOL_CLOSED)
        actions = self._decide(None, self.now)
        state.book.clear()
        state.origins.clear()
        state.deadlines.clear()
        return actions

    # ---- the decision routine

    def _decide(self, key: KeyRecord | None, now: float) -> list[Action]:
        """What follows each fact: settle the keys that were touched, `key` first, pass on what came free, forget
        the keys of which nothing is left. Returns the actions."""
        self.now = now
        touched = self.state.touched
        if key is not None:
            touched.insert(0, key)
        while self.state.stranded:
            self._sessions.rebind(self.state.stranded.pop(), now)
        # More may be touched on the way.
        settled = 0
        while settled < len(touched):
            self._settle(touched[settled], now)
            settled += 1
            while self.state.stranded:
                self._sessions.rebind(self.state.stranded.pop(), now)
        touched.clear()
        if self.state.ended:
            self._sessions.end(now)
        actions, self.state.actions = self.state.actions, []
        return actions

    def _settle(self, key: KeyRecord, now: float) -> None:
        """Attach waiters, oldest first, to the oldest connection with room; dial what is owed then; pass on what came free."""
        if key.session is not None:
            self._sessions.settle(key, now)
        while (bound := key.next_bound() if key.bound else None) is not None or key.waiting:
            if bound is not None:
                ticket, record = bound
            else:
                free = key.next_free() if key.alone else key.oldest_with_room()
                if free is None:
                    break
                ticket, record = key.first(), free
            reason = record.spent(now)
            if reason is None:
                self._dispatch(key, record, ticket, now)
            elif record.session is not None and record.session.spent(now) is not None:
                self._sessions.retire(record.session, reason, now)
            else:
                self.state.retire(record, reason, now)
        if key.waiting or key.blocked_by is not None:
            self._turns.settle(key, now)
        if key.connecting:
            self.state.weigh(key)
        for scope in key.scopes:
            if scope.blocked:
                self._turns.serve(scope, now)
        if not key.connections and not key.waiting and not key.bound and not key.gone:
            self.state.forget(key)

    def _dispatch(self, key: KeyRecord, record: ConnectionRecord, ticket: int, now: float) -> None:
        state = self.state
        session, claim = record.session, state.claims.get(ticket) if state.claims else None
        waited = now - state.dequeue(ticket)
        if record.idle_since is not None:
            record.idle_since = None
            for scope in key.scopes:
                del scope.idle[record.number]
        reused = record.requests > 0
        record.streams.add(ticket)
        record.requests += 1
        state.in_flight[ticket] = record
        if key.dispatched_at is not None:
            interval = now - key.dispatched_at
            key.interval = interval if key.interval is None else key.interval + (interval - key.interval) * SMOOTHING
        key.dispatched_at = key.served_at = now
        if session is None:
            state.actions.append(Dispatch(ticket, record.number, reused, waited))
        else:
            state.actions.append(Dispatch(ticket, record.number, reused, waited, session.id, session.kept))
            record.asked_at = now
            self._sessions.charge(record, claim, now)
        if record.budget is not UNLIMITED or session is not None:
            self._spend(key, record, now)

    def _spend(self, key: KeyRecord, record: ConnectionRecord, now: float) -> None:
        """A connection with a budget was given a request: drain it with its last one; dial its successor ahead, on
        demand, never above a cap and never before a key that is blocked."""
        if record.requests == record.budget.requests:
            self.state.retire(record, CloseReason.REQUESTS_SPENT, now)
        if successor_due(key, record, now) and self._turns.spare(key):
            record.succeeded = True
            self.state.dial(key, now)

    # ---- time limits

    def _calm_due(self, scope: OriginScope, now: float) -> None:
        assert scope.hold_until is not None
        if scope.hold_until > now:
            self.state.deadlines.at(scope.hold_until, scope, partial(self._calm_due, scope))
            return
        scope.hold_until = None
        self.state.touched.extend(scope.keys.values())
        self.state.forget_origin(scope)
