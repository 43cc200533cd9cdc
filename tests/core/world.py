"""A world in which the scheduler, its twin and the model hear the same facts, and are held against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scrapy_poolplus.core.actions import Action
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.errors import ConnectError, ConnectionLostError, Phase, PoolClosedError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler
from tests.core.model import CALM_SECONDS, CONNECTING, OPEN, ZERO_STREAMS_GRACE, Conn, Fact, Model, holds


class World:
    """A scheduler, its twin and the model; each method reports one fact to all and judges what comes of it."""

    def __init__(
        self,
        max_connections: int,
        policies: dict[Origin, Policy],
        scheduler: Callable[[int], Scheduler] = Scheduler,
    ) -> None:
        self.scheduler = scheduler(max_connections)
        self.twin = scheduler(max_connections)
        self.model = Model(max_connections, policies)
        self.tickets = 0
        self.now = 0.0
        self.broken = False
        """A fact was not judged to its end: what follows proves nothing."""

    # ---- what there is to choose from

    def waiting(self) -> list[int]:
        return sorted(ticket for queue in self.model.waiting.values() for ticket in queue)

    def in_flight(self) -> list[int]:
        return sorted(self.model.in_flight)

    def conns(self, *states: str) -> list[Conn]:
        return [conn for conn in self.model.conns.values() if conn.state in states]

    # ---- facts

    def submit(self, key: PoolKey, ticket: int | None = None, *, slots: int | None = None) -> int:
        if ticket is None:
            self.tickets += 1
            ticket = self.tickets
        self.model.begin(Fact("submit"), self.now)
        self.model.submitted(ticket, key, slots)
        number, policy = ticket, self.model.policy(key)
        self._report(lambda scheduler: scheduler.submit(number, key, policy, self.now, slots=slots))
        return ticket

    def cancel(self, ticket: int) -> None:
        self.model.begin(Fact("cancel"), self.now)
        self.model.cancelled(ticket)
        self._report(lambda scheduler: scheduler.cancel(ticket, self.now))

    def finish(self, ticket: int, size: int = 0) -> None:
        self.model.begin(Fact("finished"), self.now)
        self.model.ended(ticket, size)
        self._report(lambda scheduler: scheduler.finished(ticket, self.now, size=size))

    def connect(self, conn: Conn, protocol: HttpProtocol, budget: Budget) -> None:
        self.model.begin(Fact("connected"), self.now)
        self.model.connected(conn, protocol, budget)
        self._report(lambda scheduler: scheduler.connected(conn.number, protocol, budget, self.now))

    def fail_dial(self, conn: Conn) -> None:
        error = ConnectError("no route to host", phase=Phase.CONNECT)
        self.model.begin(Fact("dial_failed", error=error), self.now)
        self.model.dial_failed(conn)
        self._report(lambda scheduler: scheduler.dial_failed(conn.number, error, self.now))

    def limit(self, conn: Conn, streams: int) -> None:
        self.model.begin(Fact("capacity"), self.now)
        self.model.limited(conn, streams)
        self._report(lambda scheduler: scheduler.capacity(conn.number, streams, self.now))

    def retire(self, conn: Conn, reason: CloseReason) -> None:
        self.model.begin(Fact("retire", connection=conn, reason=reason), self.now)
        if not conn.requests:
            self.model.of_no_use(conn.key)
        self._report(lambda scheduler: scheduler.retire(conn.number, reason, self.now))

    def lose(self, conn: Conn) -> None:
        error = ConnectionLostError("reset by peer", phase=Phase.BODY)
        self.model.begin(Fact("lost", error=error), self.now)
        self.model.lost(conn)
        self._report(lambda scheduler: scheduler.lost(conn.number, error, self.now))

    def carry(self, conn: Conn, size: int) -> None:
        self.model.begin(Fact("traffic"), self.now)
        conn.size = max(conn.size, size)
        if conn.spent(self.now) and not conn.requests:
            self.model.of_no_use(conn.key)
        self._report(lambda scheduler: scheduler.traffic(conn.number, size, self.now))
        holds(conn.state != OPEN or not conn.spent(self.now), f"I5: {conn} has carried too much and stays open")

    def calm(self, origin: Origin) -> None:
        self.model.begin(Fact("calm"), self.now)
        self.model.hold_until[origin] = self.now + CALM_SECONDS
        self._report(lambda scheduler: scheduler.calm(origin, self.now))

    def advance(self, seconds: float) -> None:
        """Time passes, and the scheduler is called when it asks to be."""
        end = self.now + seconds
        while (due := self.scheduler.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.tick()
        self.now = end
        self.tick()

    def tick(self) -> None:
        self.model.begin(Fact("tick"), self.now)
        self._report(lambda scheduler: scheduler.tick(self.now))

    def close(self) -> None:
        error = PoolClosedError("closed", phase=Phase.WAIT)
        fact = Fact("close", error=error, must_fail={*self.waiting(), *self.in_flight()})
        self.model.begin(fact, self.now)
        self.model.closed = True
        self._report(lambda scheduler: scheduler.close(error))
        holds(not self.model.conns, "I18: connections outlive the end")

    def cross(self, number: int, ticket: int) -> None:
        """Facts about a connection and a ticket that have left already: they change nothing."""
        error = ConnectError("late", phase=Phase.CONNECT)
        self.model.begin(Fact("late"), self.now)
        for late in (
            lambda scheduler: scheduler.connected(number, HttpProtocol.HTTP1, Budget(), self.now),
            lambda scheduler: scheduler.dial_failed(number, error, self.now),
            lambda scheduler: scheduler.capacity(number, 7, self.now),
            lambda scheduler: scheduler.retire(number, CloseReason.GOAWAY, self.now),
            lambda scheduler: scheduler.traffic(number, 1 << 40, self.now),
            lambda scheduler: scheduler.lost(number, error, self.now),
            lambda scheduler: scheduler.finished(ticket, self.now),
            lambda scheduler: scheduler.cancel(ticket, self.now),
        ):
            holds(self._report(late) == [], "I9: something follows from what is over")

    def run_out(self, protocol: Callable[[PoolKey], HttpProtocol]) -> None:
        """From here on everything succeeds: everybody is answered in bounded time, and then nothing is left."""
        tickets = len(self.waiting()) + len(self.in_flight())
        for _ in range(12 + 4 * tickets):
            for conn in self.conns(CONNECTING):
                if conn.state == CONNECTING:
                    self.connect(conn, protocol(conn.key), Budget())
            for conn in self.conns(OPEN):
                if conn.state == OPEN and not conn.limit():
                    self.limit(conn, 2)
            for ticket in self.in_flight():
                if ticket in self.model.in_flight:
                    self.finish(ticket)
            if not self.waiting() and not self.in_flight():
                break
            self.advance(0.5)
        holds(not self.waiting(), f"I15: {self.waiting()} wait for ever")
        longest = max(policy.idle_timeout for policy in self.model.policies.values())
        for conn in self.conns(CONNECTING):
            self.connect(conn, protocol(conn.key), Budget())
        self.advance(longest + ZERO_STREAMS_GRACE)
        holds(not self.model.conns, f"I6: {self.model.conns} are open for ever")
        holds(self.scheduler.next_deadline() is None, "I22: a deadline is left")

    def _report(self, fact: Callable[[Scheduler], list[Action]]) -> list[Action]:
        self.broken = True
        actions = fact(self.scheduler)
        holds(repr(fact(self.twin)) == repr(actions), "I19: the same facts, and other actions")
        self.act(actions)
        self.broken = False
        return actions

    def act(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.model.act(action)
        self.model.settled()
        self.compare()
        self.scheduler.check()

    def compare(self) -> None:
        """The scheduler's records are the model's, no more and no fewer."""
        scheduler, model = self.scheduler, self.model
        holds(sorted(scheduler.waiting) == self.waiting(), f"I3: {sorted(scheduler.waiting)} wait")
        holds(sorted(scheduler.in_flight) == self.in_flight(), f"I3: {sorted(scheduler.in_flight)} are in flight")
        holds(sorted(scheduler.connections) == sorted(model.conns), f"I1: {sorted(scheduler.connections)} are open")
        holds(set(scheduler.state.crawl.keys) == model.live_keys(), "I22: keys")
        held = {origin for origin, until in model.hold_until.items() if until >= self.now and not model.closed}
        origins = {key.origin for key in model.live_keys()}
        holds(origins <= set(scheduler.state.origins) <= origins | held, "I22: origins")
        holds(scheduler.peak == model.peak, f"I2: {scheduler.peak} at once, {model.peak} were")
        due, asked = model.next_due(), scheduler.next_deadline()
        holds(due is None or (asked is not None and asked <= due), f"I6: called at {asked}, {due} is too late")
