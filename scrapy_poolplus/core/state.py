"""The state of the pool and its transitions.

Each transition is one consistent step, with its action where the pool must do something, and with the time limit that
leads on from it. Nothing here decides who is served: a transition that may change that adds the key to `touched`, for
the scheduler to settle.
"""

from __future__ import annotations

from functools import partial

from scrapy_poolplus.core.actions import Action, Close, Dial, Drain, Fail
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.caps import OriginScope, Scope
from scrapy_poolplus.core.deadlines import Deadlines
from scrapy_poolplus.core.demand import RouteMemory
from scrapy_poolplus.core.errors import Phase, PhaseTimeoutError, PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.records import ConnectionRecord, KeyRecord
from scrapy_poolplus.core.sessions import Claim, Session, SessionBook

REDIAL_AFTER = 1.0
"""Seconds until a key tries another dial, after one that was of no use to those who wait on."""
ZERO_STREAMS_GRACE = 5.0
"""Seconds for which a peer that allows no stream counts as arriving capacity, once a connection, so that nobody dials
up to the cap because of a server that starts with SETTINGS_MAX_CONCURRENT_STREAMS = 0 and raises it at once."""
SMOOTHING = 0.2
"""Weight of the newest value in the running means of set-up time and request interval."""


class PoolState:
    """Every record, by number and by key; each ticket is in `waiting` or in `in_flight`, each connection that is not
    CLOSED in `connections`."""

    __slots__ = (
        "actions",
        "book",
        "claims",
        "connections",
        "crawl",
        "deadlines",
        "ended",
        "in_flight",
        "numbers",
        "origins",
        "peak",
        "routes",
        "stranded",
        "touched",
        "waiting",
    )

    def __init__(self, max_connections: int, routes: RouteMemory, book: SessionBook) -> None:
        self.book = book
        self.claims: dict[int, Claim] = {}
        """What those that wait ask for, where that is not any session."""
        self.crawl = Scope(max_connections)
        self.origins: dict[Origin, OriginScope] = {}
        self.connections: dict[int, ConnectionRecord] = {}
        self.waiting: dict[int, KeyRecord] = {}
        self.in_flight: dict[int, ConnectionRecord] = {}
        self.routes = routes
        self.deadlines = Deadlines()
        self.numbers = 0
        self.peak = 0
        """Most connections at once, in any state but CLOSED."""
        self.touched: list[KeyRecord] = []
        self.ended: list[Session] = []
        """Sessions of which nothing may be left."""
        self.stranded: list[ConnectionRecord] = []
        """Connections that take nothing more, with tickets that waited for them alone."""
        self.actions: list[Action] = []

    # ---- keys

    def make_key(self, key: PoolKey, policy: Policy, session: Session | None = None) -> KeyRecord:
        """A record for a key that has none; `session`: whose alone it is."""
        origin = self.origins.get(key.origin)
        if origin is None:
            origin = self.origins[key.origin] = OriginScope(key.origin, policy.max_connections, self.numbers)
        elif not origin.keys:
            origin.limit = policy.max_connections
        record = KeyRecord(key, policy, self.routes.of(key), origin, self.crawl, session)
        for scope in record.scopes:
            scope.keys[key] = record
        return record

    def forget(self, key: KeyRecord) -> None:
        """A key with no ticket and no connection leaves no record (I22)."""
        key.gone = True
        self.routes.forget(key.key, key.spoken)
        for scope in key.scopes:
            del scope.keys[key.key]
        self.forget_origin(key.origin)

    def forget_origin(self, origin: OriginScope) -> None:
        """Nor does an origin without keys, but while it is to be left in peace."""
        if not origin.keys and origin.hold_until is None:
            origin.gone = True
            del self.origins[origin.origin]

    def weigh(self, key: KeyRecord) -> None:
        """Keep the index of keys with more dials out than waiters."""
        if len(key.connecting) > len(key.waiting):
            for scope in key.scopes:
                scope.surplus[key] = None
        elif key in key.origin.surplus:
            for scope in key.scopes:
                del scope.surplus[key]

    def pause(self, key: KeyRecord, now: float) -> None:
        """No dial for a while, where the last one was of no use to those who wait."""
        if key.waiting:
            key.redial_at = now + REDIAL_AFTER
            self.deadlines.at(key.redial_at, key, lambda _now: self.touched.append(key))

    # ---- tickets

    def dequeue(self, ticket: int) -> float:
        """A ticket waits no longer; returns when it was submitted."""
        key = self.waiting.pop(ticket)
        if self.claims:
            self.claims.pop(ticket, None)
        session = key.bound[ticket].session if ticket in key.bound else key.session
        if session is not None:
            session.bound -= 1
            self.ended.append(session)
        return key.drop(ticket)

    def leave(self, key: KeyRecord) -> None:
        """A ticket has left the scheduler."""
        for scope in key.scopes:
            scope.tickets -= 1

    def fail_waiters(self, key: KeyRecord, error: PoolPlusError) -> None:
        """Answer all that wait for the key, oldest first."""
        for ticket in sorted((*key.waiting, *key.bound)):
            self.dequeue(ticket)
            self.leave(key)
            self.actions.append(Fail(ticket, error))

    def fail_streams(self, record: ConnectionRecord, error: PoolPlusError) -> None:
        """Answer all that are in flight on the connection, oldest first."""
        for ticket in sorted(record.streams):
            del self.in_flight[ticket]
            self.leave(record.key)
            self.actions.append(Fail(ticket, error))
        session = record.session
        if session is not None:
            session.in_flight -= len(record.streams)
        record.streams.clear()
        if session is not None and not session.answered:
            self.wake(session, but=record)

    def wake(self, session: Session, *, but: ConnectionRecord | None = None) -> None:
        """What waits for the first answer of the session may go on, or more is owed to it than before."""
        for number in sorted(session.connections):
            record = self.connections[number]
            if record is but:
                continue
            if record.open:
                record.key.list_ready(record)
            self.touched.append(record.key)
        self.touched += [self.crawl.keys[key] for key in session.apart if key in self.crawl.keys]

    # ---- connections

    def dial(self, key: KeyRecord, now: float) -> None:
        """To CONNECTING."""
        self.numbers += 1
        record = ConnectionRecord(self.numbers, key, now)
        self.connections[record.number] = key.connections[record.number] = record
        if not key.connecting:
            key.failing = False
        key.connecting[record.number] = record
        if key.session is not None:
            record.session = key.session
        elif key.policy.rotates:
            record.session = self.book.next_for(key.key, key.policy, now)
        if record.session is not None:
            record.session.connections.add(record.number)
        for scope in key.scopes:
            scope.count += 1
        self.peak = max(self.peak, self.crawl.count)
        self.weigh(key)
        session = record.session
        turn = self._turn(key, session) if key.policy.bind_addresses else 0
        self.actions.append(Dial(record.number, key.key, None if session is None else session.id, turn))

    def _turn(self, key: KeyRecord, session: Session | None) -> int:
        if session is None:
            return key.origin.take_turn()
        if session.turn is None:
            session.turn = key.origin.take_turn()
        return session.turn

    def open(self, record: ConnectionRecord, protocol: HttpProtocol, budget: Budget, now: float) -> None:
        """CONNECTING to READY, or BUSY where its peer allows no stream."""
        key = record.key
        del key.connecting[record.number]
        self.weigh(key)
        key.failing, key.redial_at = False, None
        setup = now - record.dialed_at
        key.setup_seconds += (setup - key.setup_seconds) * (SMOOTHING if key.setup_seconds else 1.0)
        if key.spoken.protocol is not protocol:
            self.learn(key, protocol, None)
        heard = record.peer_limit
        record.opened_at, record.protocol, record.budget = now, protocol, budget
        record.policy_limit = 1
        if protocol is HttpProtocol.HTTP2:
            record.policy_limit, record.peer_limit = key.policy.max_streams, key.spoken.streams_expected()
            if heard is not None:
                self.limit(record, heard, now)
        session = record.session
        if session is not None and not session.kept and not session.answered and protocol is HttpProtocol.HTTP2:
            record.alone = True
            key.alone[record.number] = record
        key.list_ready(record)
        self.rest(record, now)
        if budget.age is not None:
            self.deadlines.at(now + budget.age, record, partial(self._age_due, record))

    def learn(self, key: KeyRecord, protocol: HttpProtocol, streams: int | None) -> None:
        """What a route speaks; for others that wait on it, it may change what they are owed."""
        key.spoken.protocol, key.spoken.streams = protocol, streams
        self.touched.extend(other for other in key.origin.keys.values() if other.spoken is key.spoken and other.waiting)

    def limit(self, record: ConnectionRecord, streams: int, now: float) -> None:
        """The peer allows so many streams from now on."""
        assert record.protocol is HttpProtocol.HTTP2
        key = record.key
        record.peer_limit = streams
        if streams > 0:
            if key.spoken.streams != streams:
                self.learn(key, HttpProtocol.HTTP2, streams)
            key.list_ready(record)
        elif record.grace_until is None:
            record.grace_until = now + ZERO_STREAMS_GRACE
            key.graced[record.number] = record
            self.deadlines.at(record.grace_until, record, partial(self._grace_due, record))

    def rest(self, record: ConnectionRecord, now: float) -> None:
        """Start the idle clock of an open connection, if it is empty (I6)."""
        if record.streams:
            return
        record.idle_since = now
        for scope in record.key.scopes:
            scope.idle[record.number] = record
        if not record.idle_listed:
            record.idle_listed = True
            self.deadlines.at(now + record.key.policy.idle_timeout, record, partial(self._idle_due, record))

    def retire(self, record: ConnectionRecord, reason: CloseReason, now: float) -> None:
        """To DRAINING, or straight to CLOSED where nothing is in flight. The first reason wins (I13)."""
        if record.draining:
            return
        record.reason = reason
        if record.bound:
            self.stranded.append(record)
        if not record.streams:
            self.close(record, reason)
            return
        record.draining = True
        if not record.alone:
            self.pass_on(record)
        for scope in record.key.scopes:
            scope.draining += 1
        self.actions.append(Drain(record.number, reason))
        timeout = record.key.policy.drain_timeout
        if timeout is not None:
            self.deadlines.at(now + timeout, record, partial(self._drain_due, record, timeout))

    def close(self, record: ConnectionRecord, reason: CloseReason) -> None:
        """To CLOSED, for `reason`, or for that for which it has drained."""
        assert not record.streams
        self.release(record)
        self.actions.append(Close(record.number, record.reason or reason))

    def release(self, record: ConnectionRecord) -> None:
        """The logical close: its places are free from here on, whatever the socket still does."""
        record.gone = True
        number, key = record.number, record.key
        del self.connections[number]
        del key.connections[number]
        key.graced.pop(number, None)
        session = record.session
        if session is not None:
            session.connections.discard(number)
            self.ended.append(session)
            if record.bound:
                self.stranded.append(record)
            if not record.draining or record.alone:
                # What drains passed it on already, unless its first request was to be answered before.
                self.pass_on(record)
        if key.connecting.pop(number, None) is not None:
            self.weigh(key)
        for scope in key.scopes:
            scope.count -= 1
            scope.draining -= record.draining
            scope.idle.pop(number, None)

    def pass_on(self, record: ConnectionRecord) -> None:
        """The connection takes nothing more; its session goes on over the next one, if it has anything left."""
        record.key.alone.pop(record.number, None)
        session = record.session
        if session is not None and record.key.session is None and not session.retired:
            self.book.orphan(session, record.key.key)

    def move(self, record: ConnectionRecord, key: KeyRecord) -> None:
        """A connection goes over to another key of its origin, with what is in flight on it."""
        old, number = record.key, record.number
        del old.connections[number]
        key.connections[number] = record
        for index in (old.alone, old.graced):
            index.pop(number, None)
        if record.grace_until is not None and not record.limit():
            key.graced[number] = record
        if old.connecting.pop(number, None) is not None:
            key.connecting[number] = record
            self.weigh(old)
            self.weigh(key)
        record.key, record.listed = key, False
        # In a flow nothing goes alone.
        record.alone = record.alone and record.session is not None and not record.session.kept
        if record.alone:
            key.alone[number] = record
        if record.opened_at is not None:
            key.list_ready(record)
        self.touched += (old, key)

    # ---- time limits

    def _age_due(self, record: ConnectionRecord, now: float) -> None:
        self.retire(record, CloseReason.AGE_SPENT, now)
        self.touched.append(record.key)

    def _grace_due(self, record: ConnectionRecord, now: float) -> None:
        record.key.graced.pop(record.number, None)
        self.touched.append(record.key)

    def _idle_due(self, record: ConnectionRecord, now: float) -> None:
        record.idle_listed = False
        if record.idle_since is None:
            return
        due = record.idle_since + record.key.policy.idle_timeout
        if due > now:
            record.idle_listed = True
            self.deadlines.at(due, record, partial(self._idle_due, record))
            return
        self.close(record, CloseReason.IDLE_TIMEOUT)
        self.touched.append(record.key)

    def _drain_due(self, record: ConnectionRecord, seconds: float, now: float) -> None:
        key, name = record.key, record.key.policy.name
        message = f'draining a connection to {key.key} took longer than {seconds} s (drain_timeout of "{name}")'
        error = PhaseTimeoutError(message, phase=Phase.BODY, seconds=seconds, setting="drain_timeout")
        self.fail_streams(record, error)
        self.close(record, CloseReason.RETIRED)
        self.touched.append(key)
