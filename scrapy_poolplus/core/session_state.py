"""Sessions among the connections: where a request goes that belongs to one, and what its budget does to them.

The transitions of ``sessions`` where they touch connections and keys. A session's automatic requests go through the
key that all sessions of the origin share; what is bound to it waits for its connection there, or where it has none, in
a key of its own. When it becomes a flow, its connections go over to its own key, and nothing else uses them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from scrapy_poolplus.core.actions import EndSession, Kept, Tell
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.events import CloseReason, SessionCrossed, SessionOpened, SessionRetired
from scrapy_poolplus.core.origin import PoolKey
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.records import ConnectionRecord, KeyRecord
from scrapy_poolplus.core.sessions import ANY, Claim, Session, Tie
from scrapy_poolplus.core.state import SMOOTHING, PoolState


class SessionState:
    """What happens to sessions, and through them to connections and to those who wait."""

    __slots__ = ("_state",)

    def __init__(self, state: PoolState) -> None:
        self._state = state

    # ---- where a request waits

    def queue(self, ticket: int, key: PoolKey, policy: Policy, claim: Claim, now: float) -> KeyRecord:
        """Have a request wait where its claim says; returns the key whose it is now."""
        if claim is ANY:
            return self._enqueue(ticket, self._key(key, policy, None), ANY, now)
        session = self._session_for(ticket, claim, policy, now)
        if session is None:
            if claim.session is not None and claim.cause is not None:
                self._state.actions.append(Tell(SessionCrossed(claim.session, claim.cause, now)))
            claim = replace(claim, tie=Tie.NONE) if claim.rotate else ANY
            return self._enqueue(ticket, self._key(key, policy, None), claim, now)
        record = None if session.kept else self._connection_of(session, key)
        if record is None:
            return self._enqueue(ticket, self._own_key(session, key, policy), claim, now)
        self._state.claims[ticket] = claim
        self._state.waiting[ticket] = record.key
        record.bound[ticket] = now
        record.key.bound[ticket] = record
        session.bound += 1
        return record.key

    def rebind(self, record: ConnectionRecord, now: float) -> None:
        """A connection takes nothing more: those that waited for it go where their session goes on, or cross."""
        for ticket in sorted(record.bound):
            self._requeue(ticket, record.key, now)

    def settle(self, key: KeyRecord, now: float) -> None:
        """Those that wait in the own key of a session whose budget is spent cross into others."""
        session = key.session
        if session is not None and session.spent(now) is not None:
            for ticket in sorted(key.waiting):
                self._requeue(ticket, key, now)

    def _requeue(self, ticket: int, key: KeyRecord, now: float) -> None:
        claim = self._state.claims.get(ticket, ANY)
        submitted = self._state.dequeue(ticket)
        shared = replace(key.key, label=None)
        place = self.queue(ticket, shared, key.policy, claim, submitted)
        self._state.touched += (key, place)
        assert place.key != key.key or place.session is None or place.session.spent(now) is None

    def _session_for(self, ticket: int, claim: Claim, policy: Policy, now: float) -> Session | None:
        """The session that the claim binds to, or None for any."""
        if claim.tie is Tie.NONE:
            return None
        if claim.tie is Tie.PIN:
            return self._named(ticket, claim.name, "pin", policy, now)
        session = self._state.book.find(claim.session)
        if session is None or (session.kept and session.retired):
            if claim.tie is Tie.KEPT and claim.name:
                return self._named(ticket, claim.name, "flow", policy, now)
            return None
        holds = claim.tie is Tie.KEPT or (claim.tie is Tie.FLOW and session.has_cookie(claim.host))
        if holds and not session.kept:
            self.keep(session, ticket, now)
        if session.kept:
            return session
        if claim.far or session.spent(now) is not None:
            return None
        left = session.left()
        return None if left is not None and left <= session.bound else session

    def _named(self, ticket: int, name: str, cause: str, policy: Policy, now: float) -> Session:
        session, new = self._state.book.named(f"{cause} {name}", policy, now)
        if new:
            self._state.actions.append(Kept(session.id, cause, ticket))
            self._watch_idle(session, now)
        return session

    def _connection_of(self, session: Session, key: PoolKey) -> ConnectionRecord | None:
        """The connection of the session among those that all sessions of the origin share."""
        for number in session.connections:
            record = self._state.connections[number]
            if record.key.key == key and not record.draining:
                return record
        return None

    def _own_key(self, session: Session, key: PoolKey, policy: Policy) -> KeyRecord:
        own = PoolKey(key.route, session.id, key.protocols)
        session.apart.add(own)
        record = self._key(own, policy, session)
        if session.home == key:
            self._state.book.claim_orphan(session)
            record.returns = True
        return record

    def _key(self, key: PoolKey, policy: Policy, session: Session | None) -> KeyRecord:
        return self._state.crawl.keys.get(key) or self._state.make_key(key, policy, session)

    def _enqueue(self, ticket: int, key: KeyRecord, claim: Claim, now: float) -> KeyRecord:
        key.push(ticket, now)
        if key.session is not None:
            key.session.bound += 1
        self._state.waiting[ticket] = key
        if claim is not ANY:
            self._state.claims[ticket] = claim
        return key

    # ---- its life

    def opened(self, record: ConnectionRecord, budget: Budget, now: float) -> None:
        """A connection of a session is ready. `budget` was drawn for the session, if this is its first one."""
        session = record.session
        if session is None or session.opened_at is not None:
            return
        session.opened_at = now
        if session.budget is None:
            session.budget = budget
        promised = None if session.kept else session.policy.session_requests
        self._state.actions.append(Tell(SessionOpened(session.id, record.key.key, promised, now)))
        if session.budget.age is not None:
            self._state.deadlines.at(now + session.budget.age, session, partial(self._age_due, session))

    def charge(self, record: ConnectionRecord, claim: Claim | None, now: float) -> None:
        """A request was given to a connection of a session: its last one retires it."""
        session = record.session
        assert session is not None
        session.requests += 1
        session.in_flight += 1
        session.used_at = now
        if not session.answered:
            # What may follow elsewhere is less by one.
            self._state.wake(session)
        if claim is not None and claim.rotate and not session.kept:
            self.retire(session, CloseReason.RETIRED, now)
        elif session.left() == 0:
            self.retire(session, CloseReason.REQUESTS_SPENT, now)

    def answered(self, record: ConnectionRecord, now: float) -> None:
        """The first response head of a new session is in: others may follow."""
        key, session = record.key, record.session
        assert session is not None
        if record.alone:
            seconds = now - record.asked_at
            key.answer_seconds += (seconds - key.answer_seconds) * (SMOOTHING if key.answer_seconds else 1.0)
        session.answered = True
        for number in sorted(session.connections):
            other = self._state.connections[number]
            if other.alone:
                other.alone = False
                other.key.alone.pop(number, None)
                if other.draining:
                    # It has waited for this answer: whoever goes on with the session needs its cookies.
                    self._state.pass_on(other)
        self._state.wake(session)

    def finished(self, record: ConnectionRecord, now: float) -> None:
        """A request of a session is over."""
        session = record.session
        if session is not None:
            session.in_flight -= 1
            session.used_at = now
            if not session.answered:
                self._state.wake(session)
            self._state.ended.append(session)

    def give_back(self, record: ConnectionRecord) -> None:
        """A connection in its session's own key is free. Where it took the place of one that any request of the origin
        could use, any may use it again: else it would idle beside the one that is dialled for them (I7)."""
        key, session = record.key, record.session
        if session is None or not key.returns or session.kept or session.retired:
            return
        if not (record.streams or key.waiting or key.bound):
            self._state.move(record, self._key(replace(key.key, label=None), key.policy, None))

    def hold(self, session: Session) -> None:
        """Something may still have to go on in it."""
        session.holds += 1

    def release(self, session: Session, now: float) -> None:
        """That may not any more."""
        session.holds = max(0, session.holds - 1)
        session.used_at = now
        self._state.ended.append(session)

    def keep(self, session: Session, ticket: int, now: float) -> None:
        """A flow begins in it: from here on it is kept whole, and its connections serve nothing else."""
        session.kept, session.reason = True, None
        state = self._state
        state.actions.append(Kept(session.id, "flow", ticket))
        state.book.claim_orphan(session)
        for number in sorted(session.connections):
            record = state.connections[number]
            if record.draining or record.key.session is not None:
                continue
            shared = record.key
            bound = sorted(record.bound)
            place = self._own_key(session, shared.key, shared.policy)
            claims = {ticket: (state.claims.get(ticket, ANY), state.dequeue(ticket)) for ticket in bound}
            state.move(record, place)
            for waiting, (claim, submitted) in claims.items():
                self._enqueue(waiting, place, claim, submitted)
        state.wake(session)
        self._watch_idle(session, now)

    def retire(self, session: Session, reason: CloseReason, now: float) -> None:
        """It takes nothing new; its connections finish what they have."""
        if session.retired:
            return
        state = self._state
        session.reason = reason
        state.book.claim_orphan(session)
        if session.opened_at is not None:
            state.actions.append(Tell(SessionRetired(session.id, reason, session.requests, now)))
        for number in sorted(session.connections):
            record = state.connections[number]
            if record.opened_at is None:
                # It was to go on with this session; whoever waits is owed another one.
                state.close(record, CloseReason.DIAL_ABANDONED)
            else:
                state.retire(record, reason, now)
            state.touched.append(record.key)
        for key in session.apart:
            place = state.crawl.keys.get(key)
            if place is not None:
                state.touched.append(place)
        if session.holds:
            self._watch_idle(session, now)
        self._state.ended.append(session)

    def end(self, now: float) -> None:
        """Forget those of which nothing is left."""
        state = self._state
        for session in state.ended:
            if state.book.forget(session):
                if session.opened_at is not None and not session.retired:
                    event = SessionRetired(session.id, CloseReason.IDLE_TIMEOUT, session.requests, now)
                    state.actions.append(Tell(event))
                state.actions.append(EndSession(session.id))
        state.ended.clear()

    # ---- time limits

    def _age_due(self, session: Session, now: float) -> None:
        if not session.kept:
            self.retire(session, CloseReason.AGE_SPENT, now)

    def _watch_idle(self, session: Session, now: float) -> None:
        self._state.deadlines.at(now + session.policy.session_idle, session, partial(self._idle_due, session))

    def _idle_due(self, session: Session, now: float) -> None:
        """A flow or a held page in which nothing has happened for `session_idle` ends."""
        idle = session.policy.session_idle
        busy = session.in_flight or session.bound
        if busy or session.used_at + idle > now:
            due = now + idle if busy else session.used_at + idle
            self._state.deadlines.at(due, session, partial(self._idle_due, session))
            return
        session.holds = 0
        self.retire(session, CloseReason.IDLE_TIMEOUT, now)
        self._state.ended.append(session)
