"""Faults that other pools had, put into the scheduler's source one by one: seeded walks or the fairness test must see
each of them, by the invariant that names it. Were one not seen, its invariant would be no more than a word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from scrapy_poolplus.core.scheduler import Scheduler
from tests.core.test_scheduler_fairness import CASES, Case, judge_fairness
from tests.core.walk import walk

ROOMS = ("records", "caps", "deadlines", "demand", "state", "turns", "invariants", "scheduler")
"""What is loaded anew for a mutant, in order of import."""
SEEDS, STEPS = range(400), 40
"""The walks that a fault may hide from; one that is seen ends at the first that sees it."""


@dataclass(frozen=True)
class Mutant:
    """A fault: in a room's source, each text is replaced by the other. `seen_by`: the invariants that may tell."""

    name: str
    seen_by: str
    faults: tuple[tuple[str, str, str], ...]
    fairness: bool = False
    """Nothing is wrong at any one moment: it shows as starvation under load."""


def mutant(name: str, seen_by: str, *faults: tuple[str, str, str], fairness: bool = False) -> Mutant:
    return Mutant(name, seen_by, faults, fairness)


MUTANTS = (
    mutant(
        "the budget is charged at completion",  # the worst connection carried 83 of 20
        "I5",
        ("records", "self.budget.requests - self.requests", "self.budget.requests - self.requests + len(self.streams)"),
        ("scheduler", "if record.requests == record.budget.requests:", "if False:"),
    ),
    mutant(
        "waiters last in, first out",  # hyper-util #298
        "I8 I10",
        ("records", "return queue[0]", "return max(self.waiting)"),
    ),
    mutant(
        "a replayed request goes to the end of the queue",
        "I8 I10",
        ("records", "        heappush(self._queue, ticket)", "        self._queue.append(ticket)"),
    ),
    mutant(
        "a failed dial keeps its place",  # aiohttp #835
        "I2 I15",
        ("state", "            scope.count -= 1\n", "            scope.count -= record.opened_at is not None\n"),
    ),
    mutant(
        "a failed dial leaves its waiters",  # Scrapy's H2 pool
        "I15 I16",
        ("scheduler", "            self.state.fail_waiters(key, error)\n", "            self.state.pause(key, now)\n"),
    ),
    mutant(
        "the first failed dial answers those who wait for another",  # hyper-util #4119
        "I16",
        ("scheduler", "            key.failing = True\n", "            self.state.fail_waiters(key, error)\n"),
    ),
    mutant(
        "a host that refuses is dialled without end",
        "I15 I16",
        ("scheduler", "            key.failing = True\n", "            pass\n"),
    ),
    mutant(
        "no pause after a dial of no use",
        "I15",
        ("state", "            key.redial_at = now + REDIAL_AFTER\n", "            key.redial_at = now\n"),
    ),
    mutant(
        "a cancelled waiter swallows a connection",  # aiohttp #9670
        "I3 I9",
        ("scheduler", "        self.state.dequeue(ticket)\n", "        del self.state.waiting[ticket]\n"),
    ),
    mutant(
        "draining connections are not counted",
        "I2",
        ("caps", "return self.count + self.claims >=", "return self.count + self.claims - self.draining >="),
    ),
    mutant(
        "connections being made are not counted",  # aiohttp #4936
        "I2",
        ("caps", "return self.count + self.claims >=", "return self.count + self.claims - self.dials() >="),
        (
            "caps",
            "    def gives_way(self)",
            """    def dials(self):
        return sum(len(key.connecting) for key in self.keys.values())

    def gives_way(self)""",
        ),
    ),
    mutant(
        "a connection that said GOAWAY is used further",
        "I7 I12",
        (
            "records",
            "if self.opened_at is None or self.draining or self.gone:",
            "if self.opened_at is None or self.gone:",
        ),
    ),
    mutant(
        "the idle clock runs on in use",  # golang #70515
        "I6",
        ("scheduler", "            record.idle_since = None\n", ""),
    ),
    mutant("the idle clock does not start", "I6", ("scheduler", "            state.rest(record, now)\n", "")),
    mutant(
        "the connection used last is evicted first",
        "I11",
        ("caps", "next(iter(self.idle.values()))", "next(reversed(self.idle.values()))"),
    ),
    mutant(
        "one dial per request over h2",
        "I15",
        ("demand", "        if self.protocol is HttpProtocol.HTTP1:\n            return 1\n", "        return 1\n"),
    ),
    mutant(
        "no probe: one dial per request while the protocol is unknown",
        "I15",
        ("demand", "return 0 if key.connecting else 1", "return max(0, waiting - len(key.connecting))"),
    ),
    mutant(
        "what a route speaks is learnt from a key that had no choice",
        "I15",
        ("demand", "place = (key.route, key.protocols)", "place = (key.route, None)"),
    ),
    mutant(
        "a peer that allows no stream at first is dialled up to the cap",
        "I15",
        ("demand", "waiting -= sum(_expected(record, now) for record in key.graced.values())", "pass"),
    ),
    mutant(
        "a place that comes free wakes nobody",  # smithy-rs: stacked layers give no layer the whole picture
        "I15",
        ("scheduler", "                self._turns.serve(scope, now)\n", "                pass\n"),
    ),
    mutant(
        "one place of the origin is promised to two keys",
        "I2 I15",
        ("caps", "return self.count + self.claims >=", "return self.count >="),
    ),
    mutant(
        "who is at work takes the free place before those who wait in turn",
        "I17",
        ("turns", "return not scope.blocked and self._make(scope)", "return self._make(scope)"),
        ("turns", "            if owed(key, now):\n                return\n", ""),
        fairness=True,
    ),
    mutant(
        "turns by the time of asking, not of starving",
        "I17",
        ("records", "return max(self.blocked_since, self.served_at)", "return self.blocked_since"),
        fairness=True,
    ),
    mutant(
        "more connections than the downloader means to have requests",
        "I2",
        ("caps", "if taken > self.tickets or self.slots is None:", "if True:"),
    ),
    mutant("nothing is reclaimed", "I17", ("turns", "        if starving:\n", "        if False:\n"), fairness=True),
    mutant(
        "the peer's limit of streams is passed over",
        "I4",
        ("records", "else min(self.policy_limit, self.peer_limit)", "else self.policy_limit"),
    ),
    mutant("the last reason for a close wins", "I13", ("state", "record.reason or reason", "reason")),
    mutant("a successor is dialled above the cap", "I2", ("scheduler", " and self._turns.spare(key)", "")),
    mutant(
        "ENHANCE_YOUR_CALM holds for the keys that it finds only",
        "I15",
        (
            "state",
            "            scope.keys[key] = record\n",
            "            scope.keys[key] = record\n        origin.hold_until = None\n",
        ),
    ),
    mutant(
        "the drain timeout closes under the requests",  # httpcore #1110
        "I3 I9 I11",
        (
            "state",
            "        self.fail_streams(record, error)\n        self.close",
            "        record.streams.clear()\n        self.close",
        ),
    ),
    mutant(
        "an old connection is used further",
        "I5",
        ("state", "        self.retire(record, CloseReason.AGE_SPENT, now)\n", ""),
    ),
    mutant(
        "two sessions share a connection",  # aiohttp's key without server_hostname
        "I21",
        (
            "records",
            "            heappush(self._ready, record)\n",
            "            for key in self.origin.keys.values():\n                heappush(key._ready, record)\n",
        ),
        ("records", "if ready[0].key is self and ready[0].room() > 0:", "if ready[0].room() > 0:"),
    ),
    mutant(
        "keys are never forgotten",  # 200 proxies, 200 pools
        "I22",
        ("scheduler", "            self.state.forget(key)\n", "            pass\n"),
    ),
)


def load(broken: Mutant) -> Callable[[int], Scheduler]:
    """The scheduler with the fault in it: its rooms are loaded anew, beside the real ones."""
    names = [f"scrapy_poolplus.core.{room}" for room in ROOMS]
    real = {name: sys.modules[name] for name in names}
    try:
        for room, name in zip(ROOMS, names, strict=True):
            sys.modules[name] = load_room(name, [(old, new) for where, old, new in broken.faults if where == room])
        loaded: Callable[[int], Scheduler] = sys.modules[names[-1]].Scheduler
        return loaded
    finally:
        sys.modules.update(real)


def load_room(name: str, faults: list[tuple[str, str]]) -> ModuleType:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    source = Path(spec.origin).read_text(encoding="utf-8")
    for old, new in faults:
        assert source.count(old) == 1, f"{name} has changed: put the fault in anew: {old!r}"
        source = source.replace(old, new)
    exec(compile(source, f"{name}, with a fault", "exec"), module.__dict__)
    return module


def run_fairness(scheduler: Callable[[int], Scheduler]) -> None:
    random = Random(5)
    for _ in range(40):
        judge_fairness(Case(**{name: random.choice(choices) for name, choices in CASES.items()}), scheduler)


@pytest.mark.parametrize("broken", MUTANTS, ids=lambda broken: broken.name)
def test_a_seeded_fault_is_seen(broken: Mutant) -> None:
    with pytest.raises(AssertionError) as seen:
        run_fairness(load(broken)) if broken.fairness else walk(SEEDS, STEPS, load(broken))
    assert str(seen.value).split(":")[0] in broken.seen_by.split(), seen.value


def test_nothing_is_seen_where_there_is_no_fault() -> None:
    scheduler = load(mutant("none", ""))
    assert scheduler is not Scheduler
    walk(SEEDS[:40], STEPS, scheduler)
    run_fairness(scheduler)
