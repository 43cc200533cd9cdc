"""I17: under a load that never ends, the key that starves longest is served within `reclaim_after` and one drain, the
others in turn. No key waits for another one's good will."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler


class Load:
    """A crawl in simulated time: each dial takes `setup`, each request `service` seconds. Greedy keys always have
    `behind` requests more than are in flight; modest keys have one."""

    def __init__(self, scheduler: Scheduler, policy: Policy, case: Case) -> None:
        self.scheduler, self.policy, self.case = scheduler, policy, case
        self.greedy: set[PoolKey] = set()
        self.key_of: dict[int, PoolKey] = {}
        self.waits: dict[PoolKey, list[float]] = defaultdict(list)
        self.now = 0.0
        self._tickets = count(1)
        self._events: list[tuple[float, int, str, int]] = []
        self._order = count()

    def submit(self, key: PoolKey) -> None:
        ticket = next(self._tickets)
        self.key_of[ticket] = key
        self._act(self.scheduler.submit(ticket, key, self.policy, self.now))

    def run(self, until: float) -> None:
        while True:
            due = self.scheduler.next_deadline()
            event = self._events[0][0] if self._events else None
            at = min(when for when in (due, event, until) if when is not None)
            self.now = max(self.now, at)
            if at >= until:
                return
            if event == at:
                _, _, what, number = heappop(self._events)
                self._happen(what, number)
            else:
                self._act(self.scheduler.tick(self.now))
            self.scheduler.check()

    def _happen(self, what: str, number: int) -> None:
        if what == "connected":
            self._act(self.scheduler.connected(number, self.case.protocol, Budget(), self.now))
            return
        self._act(self.scheduler.finished(number, self.now))
        if self.key_of[number] in self.greedy:
            self.submit(self.key_of[number])

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dial():
                    self._at(self.case.setup, "connected", action.connection)
                case Dispatch():
                    self.waits[self.key_of[action.ticket]].append(action.waited)
                    self._at(self.case.service, "finished", action.ticket)
                case Close():
                    pass

    def _at(self, seconds: float, what: str, number: int) -> None:
        heappush(self._events, (self.now + seconds, next(self._order), what, number))


def keys(number: int, *, one_origin: bool) -> list[PoolKey]:
    """Sessions of one origin, or origins."""
    if one_origin:
        return [PoolKey(Route(Origin("https", "a.example", 443)), f"s{n}") for n in range(number)]
    return [PoolKey(Route(Origin("https", f"{n}.example", 443))) for n in range(number)]


@dataclass(frozen=True)
class Case:
    one_origin: bool
    protocol: HttpProtocol
    cap: int
    greedy: int
    modest: int
    service: float
    setup: float
    reclaim_after: float


CASES: dict[str, Sequence[Any]] = {
    "one_origin": (True, False),
    "protocol": tuple(HttpProtocol),
    "cap": (1, 2, 3, 4, 6),
    "greedy": (1, 2, 3),
    "modest": (1, 2, 3, 4),
    "service": (0.05, 0.3, 2.0),
    "setup": (0.01, 0.2),
    "reclaim_after": (0.25, 1.0),
}


def judge_fairness(case: Case, scheduler: Callable[[int], Scheduler] = Scheduler) -> None:
    """Greedy keys take all there is; then modest ones come, and each is served in its turn."""
    cap = case.cap if case.one_origin else None
    policy = Policy(max_connections=cap, max_streams=2, reclaim_after=case.reclaim_after)
    load = Load(scheduler(1000 if case.one_origin else case.cap), policy, case)
    every = keys(case.greedy + case.modest, one_origin=case.one_origin)
    greedy, modest = every[: case.greedy], every[case.greedy :]
    load.greedy = set(greedy)
    for key in greedy:
        for _ in range(3 * case.cap):
            load.submit(key)
    load.run(3.0)
    for key in modest:
        load.submit(key)
    turn = case.reclaim_after + case.service + case.setup
    load.run(3.0 + (len(every) + 1) * turn)
    # A greedy key may have starved for longer than the modest ones, but not the only one that is served.
    ahead = case.greedy - 1 if 1 in {case.cap, case.greedy} else case.greedy
    for place, key in enumerate(modest, start=ahead + 1):
        assert load.waits[key], f"I17: {key} is not served"
        assert load.waits[key][0] <= place * turn + 1e-6, f"I17: {key} is not served in its turn"
    for key in greedy:
        assert load.waits[key], f"I17: {key} is not served"


@settings(max_examples=60, deadline=None)
@given(case=st.builds(Case, **{name: st.sampled_from(choices) for name, choices in CASES.items()}))
def test_a_starving_key_is_served_within_reclaim_after_and_one_drain_the_others_in_turn(case: Case) -> None:
    judge_fairness(case)
