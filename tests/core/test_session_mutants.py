"""Faults put into what the scheduler does with sessions, one by one: seeded walks through the machine of sessions must see
each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import pytest

from scrapy_poolplus.core import sessions as real_sessions
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, PoolKey
from scrapy_poolplus.core.scheduler import Scheduler
from scrapy_poolplus.core.sessions import Tie
from tests.core.test_scheduler_mutants import load_room
from tests.core.test_session_machine import KEYS, SessionMachine

T = TypeVar("T")

ROOMS = ("sessions", "records", "caps", "deadlines", "demand", "state", "turns", "session_state", "invariants")
"""What is loaded anew for a mutant, in order of import, before the scheduler."""
SEEDS, STEPS = range(400), 60
"""The walks that a fault may hide from; one that is seen ends at the first that sees it."""
PIN, KEPT = Tie.PIN, Tie.KEPT
GOAWAY, NOT_REUSABLE = CloseReason.GOAWAY, CloseReason.NOT_REUSABLE


@dataclass(frozen=True)
class Mutant:
    """A fault: in a room's source, each text is replaced by the other."""

    name: str
    faults: tuple[tuple[str, str, str], ...]


CHARGED_LATE = "            session.in_flight -= 1\n            session.requests += 1\n"

MUTANTS = (
    Mutant(
        "the budget is charged at completion",
        (
            ("session_state", "        session.requests += 1\n", ""),
            ("session_state", "            session.in_flight -= 1\n", CHARGED_LATE),
        ),
    ),
    Mutant(
        "a kept session still serves automatic requests",
        (("session_state", "            state.move(record, place)\n", ""),),
    ),
    Mutant(
        "a new session's first request does not go alone",
        (("records", "                free = min(free, 1 - session.in_flight)\n", "                pass\n"),),
    ),
    Mutant(
        "a spent session is taken up again",
        (("session_state", "        if claim.far or session.spent(now) is not None:\n            return None\n", ""),),
    ),
    Mutant(
        "what is in use is forgotten",
        (
            (
                "sessions",
                "return not (self.connections or self.in_flight or self.bound or self.holds)",
                "return not (self.connections or self.in_flight or self.holds)",
            ),
        ),
    ),
    Mutant(
        "the budget is drawn anew with each connection",
        (
            (
                "session_state",
                "if session is None or session.opened_at is not None:",
                "if session is None:",
            ),
        ),
    ),
    Mutant(
        "a name begins a session with each request",
        (("sessions", "        if session is not None and not session.retired:\n", "        if False:\n"),),
    ),
    Mutant(
        "a name goes on in the session that was retired",
        (
            (
                "sessions",
                "        if session is not None and not session.retired:\n",
                "        if session is not None:\n",
            ),
        ),
    ),
    Mutant(
        "all names are one",
        (("session_state", 'book.named(f"{cause} {name}", policy, now)', "book.named(cause, policy, now)"),),
    ),
    Mutant(
        "a session cannot be retired by its label",
        (("sessions", ' or self._named.get(f"pin {name}")', ""),),
    ),
    Mutant(
        "the end of a session takes away the name of its successor",
        (
            (
                "sessions",
                "if session.name is not None and self._named.get(session.name) is session:",
                "if session.name is not None and session.name in self._named:",
            ),
        ),
    ),
    Mutant(
        "a session that was used is idle",
        (("session_state", "        if busy or session.used_at + idle > now:\n", "        if busy:\n"),),
    ),
    Mutant(
        "what is kept for a flow is given back to all",
        (("session_state", "not key.returns or session.kept or session.retired", "session.retired"),),
    ),
    Mutant(
        "a session is kept whole and nobody is told",
        (("session_state", '        state.actions.append(Kept(session.id, "flow", ticket))\n', ""),),
    ),
)


def always() -> bool:
    return True


def load(broken: Mutant) -> Callable[..., Scheduler]:
    """The scheduler with the fault in it: its rooms are loaded anew, beside the real ones."""
    names = [f"scrapy_poolplus.core.{room}" for room in (*ROOMS, "scheduler")]
    real = {name: sys.modules[name] for name in names}
    try:
        for name in names:
            room = name.rpartition(".")[2]
            module = load_room(name, [(old, new) for where, old, new in broken.faults if where == room])
            if name.endswith(".sessions"):
                # The machine's claims are the real ones.
                for shared in ("Tie", "Claim", "ANY"):
                    setattr(module, shared, getattr(real_sessions, shared))
        loaded: Callable[..., Scheduler] = sys.modules[names[-1]].Scheduler
        return loaded
    finally:
        sys.modules.update(real)


class Walk:
    """One walk by a seed through the facts of the machine of sessions: the same ones with every version of Hypothesis,
    and whatever else the run has loaded."""

    def __init__(self, seed: int, scheduler: Callable[..., Scheduler]) -> None:
        class Walked(SessionMachine):
            made_by = staticmethod(scheduler)

        self.random = Random(seed)
        self.machine = machine = Walked()
        machine.start(
            most=self.any(range(1, 6)),
            age=self.any((5.0, 600.0)),
            idle=self.any((4.0, 3600.0)),
            streams=self.any((1, 3, 100)),
            protocols=(self.any(tuple(HttpProtocol)), self.any(tuple(HttpProtocol))),
            cap=self.any((None, 1, 2)),
            jitter=self.any((0.0, 0.5)),
        )
        self.steps: tuple[tuple[float, Callable[[], object], Callable[[], None]], ...] = (
            (4, always, lambda: machine.submit(self.key(), self.any((1, 2, 6)), self.any((False, False, True)))),
            (4, machine.sessions, self.submit_bound),
            (1, always, lambda: machine.submit_named(self.key(), self.any(("ada", "bob")), self.any((PIN, KEPT)))),
            (0.2, always, lambda: machine.submit_with_a_session_of_another_run(self.key())),
            (2, machine.sessions, lambda: machine.cookie(self.which(), self.any(("a.example", ".b.example")))),
            (1, machine.sessions, lambda: machine.hold(self.which())),
            (1, lambda: any(machine.holds.values()), lambda: machine.release(self.which())),
            (4, machine.in_flight, lambda: machine.head(self.which())),
            (4, machine.in_flight, lambda: machine.finish(self.which())),
            (1, machine.waiting, lambda: machine.cancel(self.which())),
            (5, lambda: machine.dials, lambda: machine.connect_all(self.any((0.0, 0.5, 0.9)))),
            (0.5, lambda: machine.dials, lambda: machine.fail_dial(self.which())),
            (1.5, lambda: machine.open, lambda: machine.lose(self.which())),
            (1, lambda: machine.open, lambda: machine.drain(self.which(), self.any((GOAWAY, NOT_REUSABLE)))),
            (0.5, machine.sessions, lambda: machine.retire(self.which())),
            (0.5, machine.labelled, lambda: machine.retire_label(self.which())),
            (0.2, always, lambda: machine.retire_host(self.key())),
            (1, always, lambda: machine.advance(self.any((0.125, 1.0, 3.0, 100.0)))),
        )

    def any(self, things: Sequence[T]) -> T:
        return self.random.choice(things)

    def key(self) -> PoolKey:
        return self.any(KEYS)

    def which(self) -> int:
        return self.random.randrange(10_000)

    def submit_bound(self) -> None:
        tie, cause = self.any((Tie.OWN, Tie.FLOW, Tie.KEPT)), self.any((None, "redirect"))
        self.machine.submit_bound(self.key(), tie, self.which(), self.any((False, False, True)), cause)

    def run(self, steps: int) -> None:
        weights = [weight for weight, _, _ in self.steps]
        for _, possible, step in self.random.choices(self.steps, weights, k=steps):
            if possible():
                step()
        self.machine.teardown()


def search(broken: Mutant, seeds: range = SEEDS, steps: int = STEPS) -> None:
    """The machine asserts at each step: raises what the first walk that fails has seen."""
    scheduler = load(broken)
    for seed in seeds:
        Walk(seed, scheduler).run(steps)


@pytest.mark.parametrize("broken", MUTANTS, ids=lambda broken: broken.name)
def test_a_seeded_fault_is_seen(broken: Mutant) -> None:
    with pytest.raises((AssertionError, KeyError)):
        search(broken)


def test_nothing_is_seen_where_there_is_no_fault() -> None:
    search(Mutant("none", ()))
    # Long ones found sessions at two hosts that took each other's place without end.
    search(Mutant("none", ()), range(1000, 2000), 2 * STEPS)
