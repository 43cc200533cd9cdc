"""An independent model of the scheduler (tests/core/world.py holds the two against each other).

The model knows what was reported and which actions came of it, nothing else: it reads no limit, state or order from the
scheduler. Each action is judged when it comes, in the state that the ones before it have left; what must hold between
facts is judged after each fact. A breach raises InvariantError, whose text begins with the invariant's number.

What each rules out:

- I1, I12: a request on a connection that connects, drains or is closed; a transition that is not in the table.
- I2: more connections than a cap allows at any moment, connecting and draining ones included.
- I3, I9: a ticket in two places, answered twice, or after it was cancelled.
- I4: more streams than the peer or the policy allows.
- I5: more requests than the budget; nothing new after age or bytes are spent.
- I6: an idle connection that never times out, or one that times out in use.
- I7, I15: a sleeping waiter beside room, beside a free place, or with nothing on its way.
- I8, I10: a younger request before an older one of its key; a young connection before an older one with room.
- I11: a request that is closed under, a connection closed twice, closed for nothing.
- I13: another reason than the first; use before it was opened.
- I16: a waiter that outlives the last dial, or is failed by one that was not the last.
- I17: a key that starves while others have more than it has.
- I19: two runs of the same facts that differ.
- I21: a request on another key's connection.
- I22: records, or deadlines, of what is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain, Fail
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.errors import PhaseTimeoutError, PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy

REDIAL_AFTER = 1.0
CALM_SECONDS = 1.0
ZERO_STREAMS_GRACE = 5.0
STREAMS_BEFORE_SETTINGS = 100

CONNECTING, OPEN, DRAINING, CLOSED = "connecting", "open", "draining", "closed"
SPENT = {CloseReason.REQUESTS_SPENT, CloseReason.AGE_SPENT, CloseReason.BYTES_SPENT}


class InvariantError(AssertionError):
    """Something that always holds does not."""


def holds(condition: object, what: str) -> None:
    if not condition:
        raise InvariantError(what)


def remember(since: dict[PoolKey, float], key: PoolKey, condition: bool, now: float) -> None:
    """Keep since when the condition holds."""
    if condition:
        since.setdefault(key, now)
    else:
        since.pop(key, None)


@dataclass(eq=False)
class Conn:
    number: int
    key: PoolKey
    policy: Policy
    dialed_at: float
    state: str = CONNECTING
    opened_at: float = 0.0
    protocol: HttpProtocol | None = None
    peer_limit: int | None = None
    budget: Budget = field(default_factory=Budget)
    streams: set[int] = field(default_factory=set)
    requests: int = 0
    size: int = 0
    idle_since: float | None = None
    reason: CloseReason | None = None
    drained_at: float = 0.0
    graced_until: float | None = None
    succeeded: bool = False

    def __repr__(self) -> str:
        protocol = self.protocol.value if self.protocol else "-"
        streams = sorted(self.streams)
        return f"<{self.number} of {self.key} {protocol}: {self.state}, {streams} in flight, {self.requests} requests>"

    def limit(self) -> int:
        if self.protocol is HttpProtocol.HTTP1:
            return 1
        assert self.peer_limit is not None
        return min(self.policy.max_streams, self.peer_limit)

    def spent(self, now: float) -> CloseReason | None:
        if self.budget.requests is not None and self.requests >= self.budget.requests:
            return CloseReason.REQUESTS_SPENT
        if self.budget.age is not None and now - self.opened_at >= self.budget.age:
            return CloseReason.AGE_SPENT
        if self.budget.size is not None and self.size >= self.budget.size:
            return CloseReason.BYTES_SPENT
        return None

    def has_room(self, now: float) -> bool:
        return self.state == OPEN and len(self.streams) < self.limit() and self.spent(now) is None


@dataclass(eq=False)
class Fact:
    """What was reported, and what it permits."""

    name: str
    connection: Conn | None = None
    reason: CloseReason | None = None
    error: PoolPlusError | None = None
    must_fail: set[int] = field(default_factory=set)
    """Exactly these are failed with `error`."""
    used: Conn | None = None
    """The connection of the last Dispatch."""
    dials: int = 0
    evicted: int = 0
    gave_up: bool = False
    """Connections, and dials, closed for the sake of a new one."""


class Model:
    def __init__(self, max_connections: int, policies: dict[Origin, Policy]) -> None:
        self.max_connections = max_connections
        self.policies = policies
        self.now = 0.0
        self.waiting: dict[PoolKey, dict[int, float]] = {}
        self.in_flight: dict[int, Conn] = {}
        self.answered: set[int] = set()
        self.conns: dict[int, Conn] = {}
        self.numbers: set[int] = set()
        self.peak = 0
        self.closed = False
        self.protocols: dict[tuple[Route, tuple[HttpProtocol, ...]], HttpProtocol] = {}
        self.streams: dict[tuple[Route, tuple[HttpProtocol, ...]], int] = {}
        self.redial_at: dict[PoolKey, float] = {}
        self.hold_until: dict[Origin, float] = {}
        self.slots: dict[Origin, int | None] = {}
        """Requests that the downloader means to have at an origin at once."""
        self.failing: set[PoolKey] = set()
        self.unserved: dict[PoolKey, float] = {}
        """Since when a key has been given nothing, and misses something."""
        self.starving: dict[PoolKey, float] = {}
        """Since when the one unserved for longest misses a connection while others have more, and nothing drains."""
        self.fact = Fact("start")

    # ---- what is asked of it

    def of(self, key: PoolKey, *states: str) -> list[Conn]:
        return [conn for conn in self.conns.values() if conn.key == key and conn.state in states]

    def policy(self, key: PoolKey) -> Policy:
        return self.policies[key.origin]

    def queue(self, key: PoolKey) -> dict[int, float]:
        return self.waiting.setdefault(key, {})

    def live_keys(self) -> set[PoolKey]:
        return {conn.key for conn in self.conns.values()} | {key for key, queue in self.waiting.items() if queue}

    def cap(self, origin: Origin | None) -> int | None:
        return self.max_connections if origin is None else self.policies[origin].max_connections

    def inside(self, origin: Origin | None) -> list[Conn]:
        return [conn for conn in self.conns.values() if origin is None or conn.key.origin == origin]

    def tickets(self, origin: Origin) -> int:
        waiting = sum(len(queue) for key, queue in self.waiting.items() if key.origin == origin)
        return waiting + sum(conn.key.origin == origin for conn in self.in_flight.values())

    def spoken(self, key: PoolKey) -> HttpProtocol | None:
        return key.protocols[0] if len(key.protocols) == 1 else self.protocols.get((key.route, key.protocols))

    def streams_of(self, key: PoolKey) -> int:
        remembered = self.streams.get((key.route, key.protocols), STREAMS_BEFORE_SETTINGS)
        return min(self.policy(key).max_streams, remembered)

    def arriving_each(self, key: PoolKey) -> int:
        if self.spoken(key) is not HttpProtocol.HTTP2:
            return 1
        return min(self.streams_of(key), self.policy(key).max_requests_per_connection or STREAMS_BEFORE_SETTINGS)

    def _forget_proxied(self) -> None:
        """Of a route through a proxy nothing is remembered once no key is left for it."""
        live = {(key.route, key.protocols) for key in self.live_keys()}
        for memory in (self.protocols, self.streams):
            for place in [place for place in memory if place[0].proxy is not None and place not in live]:
                del memory[place]  # type: ignore[attr-defined]

    def paused(self, key: PoolKey) -> bool:
        return self.now < max(self.redial_at.get(key, 0.0), self.hold_until.get(key.origin, 0.0))

    def missing(self, key: PoolKey) -> int:
        """Waiters for which nothing is on its way, though it may be."""
        if self.paused(key) or (key in self.failing and self.of(key, CONNECTING)):
            return 0
        expected = len(self.queue(key))
        for conn in self.of(key, OPEN):
            if conn.limit() == 0 and conn.graced_until is not None and self.now < conn.graced_until:
                left = STREAMS_BEFORE_SETTINGS if conn.budget.requests is None else conn.budget.requests - conn.requests
                expected -= min(self.streams_of(key), left)
        dials = len(self.of(key, CONNECTING))
        if self.spoken(key) is None:
            return int(expected > 0 and not dials)
        return max(0, expected - dials * self.arriving_each(key))

    def gives_way(self, origin: Origin | None) -> bool:
        """A connection of the scope may be closed for another key."""
        idle = self.cap(origin) is not None and any(conn.idle_since is not None for conn in self.inside(origin))
        return idle or any(
            len(self.of(key, CONNECTING)) > len(self.queue(key)) for key in {conn.key for conn in self.inside(origin)}
        )

    def used_up(self, origin: Origin | None) -> bool:
        cap, inside = self.cap(origin), self.inside(origin)
        if cap is not None:
            return len(inside) >= cap and not self.gives_way(origin)
        slots = None if origin is None else self.slots.get(origin)
        spare = any(conn.state == DRAINING for conn in inside)
        return slots is not None and self.busy(inside) >= slots + spare and not self.gives_way(origin)

    def busy(self, conns: list[Conn]) -> int:
        return sum(conn.idle_since is None for conn in conns)

    # ---- facts

    def begin(self, fact: Fact, now: float) -> None:
        holds(now >= self.now, "the test's clock goes backwards")
        self.fact, self.now = fact, now

    def submitted(self, ticket: int, key: PoolKey, slots: int | None) -> None:
        self.slots[key.origin] = slots
        self.queue(key)[ticket] = self.now
        self.answered.discard(ticket)

    def cancelled(self, ticket: int) -> None:
        for queue in self.waiting.values():
            queue.pop(ticket, None)
        self.answered.add(ticket)

    def ended(self, ticket: int, size: int) -> None:
        conn = self.in_flight.pop(ticket)
        self.serve(conn.key)
        conn.streams.discard(ticket)
        conn.size = max(conn.size, size)
        self.answered.add(ticket)
        self.rest(conn)

    def connected(self, conn: Conn, protocol: HttpProtocol, budget: Budget) -> None:
        place = (conn.key.route, conn.key.protocols)
        if self.spoken(conn.key) is not protocol:
            self.protocols[place] = protocol
            self.streams.pop(place, None)
        heard, conn.peer_limit = conn.peer_limit, self.streams.get(place, STREAMS_BEFORE_SETTINGS)
        conn.state, conn.opened_at, conn.protocol, conn.budget = OPEN, self.now, protocol, budget
        if heard is not None:
            self.limited(conn, heard)
        self.failing.discard(conn.key)
        self.redial_at.pop(conn.key, None)
        self.rest(conn)

    def limited(self, conn: Conn, streams: int) -> None:
        conn.peer_limit = streams
        if conn.state != OPEN:
            return
        if streams:
            self.streams[conn.key.route, conn.key.protocols] = streams
        elif conn.graced_until is None:
            conn.graced_until = self.now + ZERO_STREAMS_GRACE

    def dial_failed(self, conn: Conn) -> None:
        self.leave(conn)
        if self.of(conn.key, CONNECTING):
            self.failing.add(conn.key)
        elif self.of(conn.key, OPEN):
            self.of_no_use(conn.key)
        else:
            self.fact.must_fail = set(self.queue(conn.key))

    def lost(self, conn: Conn) -> None:
        if conn.state == CONNECTING:
            self.dial_failed(conn)
            return
        if not conn.requests:
            self.of_no_use(conn.key)
        self.fact.must_fail = set(conn.streams)
        self.leave(conn)

    def of_no_use(self, key: PoolKey) -> None:
        if self.queue(key):
            self.redial_at[key] = self.now + REDIAL_AFTER

    def serve(self, key: PoolKey) -> None:
        self.starving.pop(key, None)
        self.unserved.pop(key, None)

    def rest(self, conn: Conn) -> None:
        if conn.state == OPEN and not conn.streams:
            conn.idle_since = self.now

    def leave(self, conn: Conn) -> None:
        conn.state = CLOSED
        del self.conns[conn.number]
        if not self.of(conn.key, CONNECTING):
            self.failing.discard(conn.key)

    # ---- actions

    def act(self, action: Action) -> None:
        match action:
            case Dial():
                self._dial(action)
            case Dispatch():
                self._dispatch(action)
            case Drain():
                self._drain(action)
            case Close():
                self._close(action)
            case Fail():
                self._fail(action)

    def _dial(self, dial: Dial) -> None:
        key = dial.key
        holds(not self.closed, "I18: a dial after the end")
        holds(dial.connection not in self.numbers, f"I1: number {dial.connection} is given twice")
        holds(not self.paused(key), f"I15: {key} is dialled in its pause")
        holds(key not in self.failing, f"I16: {key} is dialled while the answer of another dial is out")
        dials, waiting = len(self.of(key, CONNECTING)), len(self.queue(key))
        ahead = not self.missing(key)
        if ahead:
            holds(self.spoken(key) is not None, f"I15: a second probe for {key}")
            holds(dials * self.arriving_each(key) <= waiting, f"I15: too many dials for {key}")
            self._take_successor(key, f"I15: a dial for {key}, and nobody needs it")
        self.fact.dials += 1
        self.unserved.pop(key, None)
        self.numbers.add(dial.connection)
        self.conns[dial.connection] = Conn(dial.connection, key, self.policy(key), self.now)
        self.peak = max(self.peak, len(self.conns))
        for origin in (None, key.origin):
            cap, inside = self.cap(origin), self.inside(origin)
            if cap is not None:
                holds(len(inside) <= cap, f"I2: {len(inside)} connections of {cap} in {origin or 'the crawl'}")
            elif origin is not None:
                busy, slots = self.busy(inside), self.slots.get(origin)
                holds(busy <= self.tickets(origin) + 1, f"I2: {busy} connections for {self.tickets(origin)} requests")
                if slots is not None and busy > slots:
                    # The spare: while one drains, or for a successor.
                    holds(busy == slots + 1, f"I2: {busy} connections for {slots} slots")
                    if not ahead and not any(conn.state == DRAINING for conn in inside):
                        self._take_successor(key, f"I2: {busy} connections for {slots} slots, and none drains")

    def _take_successor(self, key: PoolKey, otherwise: str) -> None:
        """The dial is one ahead: for the connection that was just given a request, if it has a budget, once for each."""
        conn = self.fact.used
        holds(conn is not None and conn.key == key and not conn.succeeded and conn.policy.preconnect, otherwise)
        assert conn is not None
        holds(conn.budget.requests is not None or conn.budget.age is not None, otherwise)
        conn.succeeded = True

    def _dispatch(self, dispatch: Dispatch) -> None:
        ticket, conn = dispatch.ticket, self.conns.get(dispatch.connection)
        holds(ticket not in self.answered, f"I9: {ticket} was answered or cancelled")
        holds(ticket not in self.in_flight, f"I3: {ticket} is in flight already")
        holds(conn is not None and conn.state == OPEN, f"I12: {ticket} goes to {conn}")
        assert conn is not None
        queue = self.queue(conn.key)
        holds(ticket in queue, f"I21: {ticket} does not wait for {conn.key}")
        holds(ticket == min(queue), f"I10: {ticket} overtakes {min(queue)}")
        holds(conn.spent(self.now) is None, f"I5: {conn} is spent: {conn.spent(self.now)}")
        holds(len(conn.streams) < conn.limit(), f"I4: {conn} has {conn.limit()} streams already")
        older = [other for other in self.of(conn.key, OPEN) if other.number < conn.number and other.has_room(self.now)]
        holds(not older, f"I10: {conn} is taken before {older}")
        holds(dispatch.reused == (conn.requests > 0), f"I13: reused is {dispatch.reused} for {conn}")
        holds(dispatch.waited == self.now - queue.pop(ticket), f"I9: {ticket} has not waited for {dispatch.waited}")
        self.fact.used = conn
        conn.streams.add(ticket)
        conn.requests += 1
        conn.idle_since = None
        self.in_flight[ticket] = conn
        self.serve(conn.key)

    def _drain(self, drain: Drain) -> None:
        conn = self.conns.get(drain.connection)
        holds(conn is not None and conn.state == OPEN and conn.streams, f"I1: {conn} begins to drain")
        assert conn is not None
        self._judge_reason(conn, drain.reason)
        conn.state, conn.reason, conn.drained_at = DRAINING, drain.reason, self.now

    def _close(self, close: Close) -> None:
        conn = self.conns.get(close.connection)
        holds(conn is not None, f"I11: {close.connection} is closed twice")
        assert conn is not None
        holds(not conn.streams, f"I11: {conn} is closed under its requests")
        if conn.state == DRAINING:
            holds(close.reason is conn.reason, f"I13: {conn} is closed for {close.reason}")
        else:
            self._judge_reason(conn, close.reason)
        self.leave(conn)

    def _judge_reason(self, conn: Conn, reason: CloseReason) -> None:
        """A connection leaves for one of these reasons only, and only where it holds."""
        idle_for = None if conn.idle_since is None else self.now - conn.idle_since
        if reason in SPENT:
            holds(conn.spent(self.now) is reason, f"I11: {conn} is not {reason}")
        elif reason is CloseReason.IDLE_TIMEOUT:
            holds(idle_for is not None and idle_for >= conn.policy.idle_timeout, f"I6: {conn} is not idle")
        elif reason is CloseReason.EVICTED:
            holds(idle_for is not None, f"I11: {conn} is evicted in use")
            longest = {
                min(other.idle_since for other in self.inside(origin) if other.idle_since is not None)
                for origin in (None, conn.key.origin)
                if len(self.inside(origin)) == self.cap(origin)
            }
            holds(conn.idle_since in longest, f"I11: {conn} is evicted, and {longest} are idle for longer")
            self.fact.evicted += 1
        elif reason is CloseReason.DIAL_ABANDONED:
            dials, waiting = self.of(conn.key, CONNECTING), self.queue(conn.key)
            holds(conn in dials and len(dials) > len(waiting), f"I11: {conn} is given up, and {len(waiting)} wait")
            origin = conn.key.origin
            slots = self.slots.get(origin)
            too_many = slots is not None and self.busy(self.inside(origin)) > slots
            self.fact.gave_up = self.fact.name != "cancel" and not too_many and self.cap(origin) is not None
        elif reason is CloseReason.RECLAIMED:
            more = self.busy(self.of(conn.key, OPEN))
            starved = any(
                queue and self.missing(key) and len(self.of(key, CONNECTING, OPEN, DRAINING)) < more
                for key, queue in self.waiting.items()
                if key != conn.key
            )
            holds(starved and self.fact.name == "tick", f"I17: {conn} is reclaimed, and nobody starves")
        else:
            named = self.fact.connection is conn and self.fact.reason is reason
            holds(named or self.closed, f"I13: {conn} leaves for {reason}")

    def _fail(self, fail: Fail) -> None:
        ticket = fail.ticket
        holds(ticket not in self.answered, f"I9: {ticket} is failed after its end")
        if isinstance(fail.error, PhaseTimeoutError):
            conn = self.in_flight[ticket]
            limit = conn.policy.drain_timeout
            due = conn.state == DRAINING and limit is not None and self.now >= conn.drained_at + limit
            holds(due, f"I11: {ticket} is failed by the drain_timeout of {conn}")
        else:
            holds(fail.error is self.fact.error, f"I16: {ticket} is answered with {fail.error!r}")
            holds(ticket in self.fact.must_fail, f"I16: {ticket} is failed, others serve it")
            self.fact.must_fail.discard(ticket)
        conn_of = self.in_flight.pop(ticket, None)
        if conn_of is not None:
            conn_of.streams.discard(ticket)
        for queue in self.waiting.values():
            queue.pop(ticket, None)
        self.answered.add(ticket)

    # ---- between facts

    def settled(self) -> None:
        self._forget_proxied()
        holds(not self.fact.must_fail, f"I16: {self.fact.must_fail} were not answered")
        made_way = max(self.fact.evicted, self.fact.gave_up)
        holds(made_way <= self.fact.dials, "I11: a connection made way for nothing")
        for conn in self.conns.values():
            self._judge_open(conn)
        for key, queue in self.waiting.items():
            if not queue:
                continue
            room = [conn for conn in self.of(key, OPEN) if conn.has_room(self.now)]
            holds(not room, f"I7: {min(queue)} waits beside {room}")
            waits = self.missing(key) and not (self.used_up(None) or self.used_up(key.origin))
            holds(not waits, f"I15: {self.missing(key)} wait for {key}, and nothing is on its way")
        # What is forgotten has no past (I22).
        live = self.live_keys()
        self.redial_at = {key: at for key, at in self.redial_at.items() if key in live}
        if not self.closed:
            self._judge_starving()

    def _judge_open(self, conn: Conn) -> None:
        if conn.state == OPEN:
            holds((conn.idle_since is None) == bool(conn.streams), f"I6: {conn}")
            budget = conn.budget.requests
            holds(budget is None or conn.requests < budget, f"I5: {conn} has spent its budget and stays open")
        if conn.state == DRAINING:
            holds(conn.streams, f"I1: {conn} has drained")
        if self.fact.name == "tick":
            limit, age = conn.policy.drain_timeout, conn.budget.age
            if conn.idle_since is not None:
                holds(self.now < conn.idle_since + conn.policy.idle_timeout, f"I6: {conn} has idled out")
            if conn.state == OPEN and age is not None:
                holds(self.now < conn.opened_at + age, f"I5: {conn} is too old")
            if conn.state == DRAINING and limit is not None:
                holds(self.now < conn.drained_at + limit, f"I11: {conn} drains for too long")

    def _judge_starving(self) -> None:
        """For the key that has been given nothing for longest, where one cap alone is the reason and others have more
        than it has: after `reclaim_after` something drains."""
        for key in self.live_keys() | set(self.unserved):
            remember(self.unserved, key, bool(self.queue(key) and self.missing(key)), self.now)
        for key in set(self.unserved) | set(self.starving):
            longest = key in self.unserved and all(
                self.unserved[key] < since for other, since in self.unserved.items() if other != key
            )
            starves = longest and not self.of(key, CONNECTING) and self._others_could_give(key)
            remember(self.starving, key, starves, self.now)
        for key, since in self.starving.items() if self.fact.name == "tick" else ():
            due = since + 2 * self.policy(key).reclaim_after
            holds(self.now < due, f"I17: {key} starves, and nothing is reclaimed for it")

    def _blocked_by(self, key: PoolKey) -> tuple[Origin | None, ...]:
        return tuple(origin for origin in (None, key.origin) if self.used_up(origin))

    def _others_could_give(self, key: PoolKey) -> bool:
        """One cap is the reason, others have more than the key has under it, and nothing drains there yet."""
        scopes = self._blocked_by(key)
        if len(scopes) != 1 or any(conn.state == DRAINING for conn in self.inside(scopes[0])):
            return False
        mine = len(self.of(key, CONNECTING, OPEN, DRAINING))
        others = {conn.key for conn in self.inside(scopes[0])} - {key}
        return any(self.busy(self.of(other, OPEN)) > mine for other in others)

    def next_due(self) -> float | None:
        """The latest moment for which the scheduler must have asked to be called."""
        dues = [
            conn.idle_since + conn.policy.idle_timeout for conn in self.conns.values() if conn.idle_since is not None
        ]
        for conn in self.conns.values():
            if conn.state == OPEN and conn.budget.age is not None:
                dues.append(conn.opened_at + conn.budget.age)
            if conn.state == DRAINING and conn.policy.drain_timeout is not None:
                dues.append(conn.drained_at + conn.policy.drain_timeout)
            if conn.state == OPEN and not conn.limit() and conn.graced_until is not None and self.queue(conn.key):
                dues.append(conn.graced_until)
        for key, queue in self.waiting.items():
            if queue and self.paused(key):
                dues.append(max(self.redial_at.get(key, 0.0), self.hold_until.get(key.origin, 0.0)))
        return min((due for due in dues if due > self.now), default=None)
