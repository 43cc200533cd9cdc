"""Faults put into what the scheduler does with sessions, one by one: the machine of sessions must see each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from scrapy_poolplus.core import sessions as real_sessions
from scrapy_poolplus.core.scheduler import Scheduler
from tests.core.test_scheduler_mutants import load_room
from tests.core.test_session_machine import SessionMachine

ROOMS = ("sessions", "records", "caps", "deadlines", "demand", "state", "turns", "session_state", "invariants")
"""What is loaded anew for a mutant, in order of import, before the scheduler."""
SEARCH = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    print_blob=False,
)


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
        "a session is kept whole and nobody is told",
        (("session_state", '        state.actions.append(Kept(session.id, "flow", ticket))\n', ""),),
    ),
)


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


def search(broken: Mutant, examples: int = SEARCH.max_examples) -> None:
    scheduler = load(broken)

    class Broken(SessionMachine):
        made_by = staticmethod(scheduler)

    run_state_machine_as_test(Broken, settings=settings(SEARCH, max_examples=examples))


@pytest.mark.parametrize("broken", MUTANTS, ids=lambda broken: broken.name)
def test_a_seeded_fault_is_seen(broken: Mutant) -> None:
    with pytest.raises((AssertionError, KeyError)):
        search(broken)


def test_nothing_is_seen_where_there_is_no_fault() -> None:
    search(Mutant("none", ()), 20)
