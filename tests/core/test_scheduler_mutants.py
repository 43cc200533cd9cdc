"""Faults that other pools had, put into the scheduler's source one by one: the machine or the fairness test must see
each of them, by the invariant that names it. Were one not seen, its invariant would be no more than a word."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import run_state_machine_as_test

from scrapy_poolplus.core.scheduler import Scheduler
from tests.core.test_scheduler_fairness import CASES, Case, judge_fairness
from tests.core.test_scheduler_machine import SchedulerMachine

ROOMS = ("records", "caps", "deadlines", "demand", "state", "slots", "invariants", "scheduler")
"""What is loaded anew for a mutant, in order of import."""
BOUNDED = settings(
    max_examples=300,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


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
        ("scheduler", "        record.requests += 1\n", ""),
        (
            "scheduler",
            "        record.streams.discard(ticket)\n",
            "        record.streams.discard(ticket)\n        record.requests += 1\n",
        ),
    ),
    mutant(
        "waiters last in, first out", "I8 I10", ("records", "return queue[0]", "return max(self.waiting)")
    ),  # hyper-util #298
    mutant(
        "a replayed request goes to the end of the queue",
        "I8 I10",
        ("records", "        heappush(self._queue, ticket)", "        self._queue.append(ticket)"),
    ),
    mutant(
        "a failed dial keeps its slot",  # aiohttp #835
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
        ("caps", "return self.count + self.claims >=", "return self.count + self.claims - self.draining() >="),
        (
            "caps",
            "    def gives_way(self)",
            """    def draining(self):
        return sum(record.draining for key in self.keys.values() for record in key.connections.values())

    def gives_way(self)""",
        ),
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
        "one dial per request over h2",  # golang #13957
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
        "a slot that comes free wakes nobody",  # smithy-rs: stacked layers give no layer the whole picture
        "I15",
        ("scheduler", "                self._slots.serve(scope, now)\n", "                pass\n"),
    ),
    mutant(
        "one slot of the origin is promised to two keys",
        "I2 I15",
        ("caps", "return self.count + self.claims >=", "return self.count >="),
    ),
    mutant(
        "who is at work takes the free slot before those who wait in turn",
        "I17",
        ("slots", "return not scope.blocked and self._make(scope)", "return self._make(scope)"),
        fairness=True,
    ),
    mutant(
        "turns by the time of asking, not of starving",
        "I17",
        ("records", "        return self.dispatched_at\n", "        return self.blocked_since\n"),
        fairness=True,
    ),
    mutant("nothing is reclaimed", "I17", ("slots", "reclaimed = reclaimed or", "reclaimed = True or"), fairness=True),
    mutant(
        "the peer's limit of streams is passed over",
        "I4",
        ("records", "else min(self.policy_limit, self.peer_limit)", "else self.policy_limit"),
    ),
    mutant("the last reason for a close wins", "I13", ("state", "record.reason or reason", "reason")),
    mutant("a successor is dialled above the cap", "I2", ("scheduler", " and self._slots.spare(key)", "")),
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
        "two sessions share a connection",
        "I9 I15 I21 I22",
        (
            "scheduler",
            "        state = self.state\n        assert not self.closed\n",
            "        state = self.state\n        key = PoolKey(key.route)\n",
        ),
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
    exec(compile(source, spec.origin, "exec"), module.__dict__)
    return module


def run_machine(scheduler: Callable[[int], Scheduler]) -> None:
    machine = type("Machine", (SchedulerMachine,), {"scheduler": staticmethod(scheduler)})
    run_state_machine_as_test(machine, settings=BOUNDED)


def run_fairness(scheduler: Callable[[int], Scheduler]) -> None:
    @BOUNDED
    @given(CASES)
    def run(case: Case) -> None:
        judge_fairness(case, scheduler)

    run()


@pytest.mark.parametrize("broken", MUTANTS, ids=lambda broken: broken.name)
def test_a_seeded_fault_is_seen(broken: Mutant) -> None:
    run = run_fairness if broken.fairness else run_machine
    with pytest.raises(AssertionError) as seen:
        run(load(broken))
    assert str(seen.value).split(":")[0] in broken.seen_by.split(), seen.value


def test_the_scheduler_without_a_fault_passes_when_it_is_loaded_in_that_way() -> None:
    scheduler = load(mutant("none", ""))
    assert scheduler is not Scheduler
    run_state_machine_as_test(
        type("Machine", (SchedulerMachine,), {"scheduler": staticmethod(scheduler)}),
        settings=settings(BOUNDED, max_examples=20),
    )
