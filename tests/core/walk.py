"""Walks through the scheduler's facts by a seed. For faults seeded on purpose: it finds most within milliseconds, and
the same ones with every version of Hypothesis. The machine of test_scheduler_machine.py draws from the same choices,
and shrinks what it finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from scrapy_poolplus.core.budget import draw
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Proxy, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler
from tests.core.model import CONNECTING, DRAINING, OPEN
from tests.core.world import World

T = TypeVar("T")

ORIGINS = tuple(Origin("https", f"{name}.example", 443) for name in "abc")
KEYS = (
    *(PoolKey(Route(origin)) for origin in ORIGINS),
    *(PoolKey(Route(ORIGINS[0]), label) for label in ("s1", "s2")),
    PoolKey(Route(ORIGINS[0]), protocols=(HttpProtocol.HTTP1,)),
    PoolKey(Route(ORIGINS[1]), protocols=(HttpProtocol.HTTP2,)),
    PoolKey(Route(ORIGINS[1], Proxy("http", "p.example", 3128, b"Basic eDp5"))),
)
CAPS = (1, 2, 3, 5, 100)
LIMITS: dict[str, Sequence[Any]] = {
    "max_connections": (None, 1, 2, 3),
    "max_streams": (1, 2, 3, 100),
    "idle_timeout": (3.0, 90.0),
    "drain_timeout": (None, 2.0),
    "max_requests_per_connection": (None, None, 1, 2, 5),
    "max_connection_age": (None, None, 4.0),
    "max_connection_bytes": (None, None, 1000),
    "preconnect": (True, False),
    "reclaim_after": (0.5, 1.0),
}
"""What a policy is drawn from."""
SLOTS = ((None,), (1,), (2,), (4,), (1, 3))
"""What the downloader means to have at an origin at once; it may change."""
NUMBERS = (1, 1, 1, 2, 5)
SIZES = (0, 10, 1000, 2000)
STREAMS = (0, 0, 1, 2, 50)
UNIFORM = (0.0, 0.5)
"""Draws for the jitter of a budget; halves keep the sums of times exact."""
SECONDS = (0.0, 0.125, 0.5, 1.0, 3.0)
REASONS = (CloseReason.GOAWAY, CloseReason.NOT_REUSABLE, CloseReason.RETIRED)


def speaks(spoken: dict[Origin, HttpProtocol], key: PoolKey) -> HttpProtocol:
    """What the key's server agrees on."""
    protocol = spoken[key.origin]
    return protocol if protocol in key.protocols else key.protocols[0]


class Walk:
    """One walk: a crawl with drawn caps, policies and servers, and facts drawn one after the other."""

    def __init__(self, seed: int, scheduler: Callable[[int], Scheduler]) -> None:
        self.random = Random(seed)
        policies = {origin: Policy(**{key: self.any(of) for key, of in LIMITS.items()}) for origin in ORIGINS}
        self.spoken = {origin: self.any(tuple(HttpProtocol)) for origin in ORIGINS}
        self.slots: dict[Origin, tuple[int | None, ...]] = {origin: self.any(SLOTS) for origin in ORIGINS}
        self.world = World(self.any(CAPS), policies, scheduler)
        self.steps: dict[Callable[[], None], float] = {
            self.submit: 6,
            self.finish: 5,
            self.connect: 4,
            self.advance: 4,
            self.cancel: 2,
            self.fail_dial: 2,
            self.limit: 2,
            self.replay: 1,
            self.retire: 1,
            self.lose: 1,
            self.carry: 1,
            self.calm: 1,
            self.run_out: 0.3,
        }

    def any(self, things: Sequence[T]) -> T:
        return self.random.choice(things)

    def run(self, steps: int) -> None:
        for step in self.random.choices(list(self.steps), list(self.steps.values()), k=steps):
            step()
        self.run_out()
        self.world.close()

    def submit(self) -> None:
        key = self.any(KEYS)
        for _ in range(self.any(NUMBERS)):
            self.world.submit(key, slots=self.any(self.slots[key.origin]))

    def finish(self) -> None:
        if tickets := self.world.in_flight():
            self.world.finish(self.any(tickets), self.any(SIZES))

    def connect(self) -> None:
        if conns := self.world.conns(CONNECTING):
            conn = self.any(conns)
            self.world.connect(conn, self.protocol(conn.key), draw(conn.policy, lambda: self.any(UNIFORM)))

    def advance(self) -> None:
        self.world.advance(self.any(SECONDS))

    def cancel(self) -> None:
        if tickets := self.world.waiting():
            self.world.cancel(self.any(tickets))

    def fail_dial(self) -> None:
        if conns := self.world.conns(CONNECTING):
            self.world.fail_dial(self.any(conns))

    def limit(self) -> None:
        conns = self.world.conns(CONNECTING, OPEN, DRAINING)
        if conns := [conn for conn in conns if self.protocol(conn.key) is HttpProtocol.HTTP2]:
            self.world.limit(self.any(conns), self.any(STREAMS))

    def replay(self) -> None:
        if tickets := self.world.in_flight():
            ticket = self.any(tickets)
            key = self.world.model.in_flight[ticket].key
            self.world.finish(ticket)
            self.world.submit(key, ticket, slots=self.any(self.slots[key.origin]))

    def retire(self) -> None:
        if conns := self.world.conns(CONNECTING, OPEN, DRAINING):
            self.world.retire(self.any(conns), self.any(REASONS))

    def lose(self) -> None:
        if conns := self.world.conns(CONNECTING, OPEN, DRAINING):
            self.world.lose(self.any(conns))

    def carry(self) -> None:
        if conns := self.world.conns(OPEN, DRAINING):
            self.world.carry(self.any(conns), self.any(SIZES))

    def calm(self) -> None:
        self.world.calm(self.any(ORIGINS))

    def run_out(self) -> None:
        self.world.run_out(self.protocol)

    def protocol(self, key: PoolKey) -> HttpProtocol:
        return speaks(self.spoken, key)


def walk(seeds: range, steps: int, scheduler: Callable[[int], Scheduler] = Scheduler) -> None:
    """Raises what the first walk that fails has seen, with its seed."""
    for seed in seeds:
        try:
            Walk(seed, scheduler).run(steps)
        except Exception as error:
            error.args = (f"{error} (seed {seed})",)
            raise
