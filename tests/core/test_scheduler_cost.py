"""The work of a fact does not grow with what else is open: counted in instructions of Python, which no load of the machine
changes. What they cost in time is for ``python -m bench.scheduler`` to say."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from bench.scheduler import LOADS, Crawl, Load
from scrapy_poolplus.core.scheduler import Scheduler

FEW, MANY = 8, 1_000
REQUESTS = 100


def instructions(crawl: Crawl) -> float:
    """Executed per request. Loops inside functions of C (a sort, a copy of a list) count as one."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        crawl.run(REQUESTS)
    finally:
        sys.settrace(before)
    return count / REQUESTS


def instructions_at(load: Load, size: int) -> float:
    crawl = Crawl(load, size)
    # Until deadlines of the first connections have gone from the heap.
    crawl.run(2 * MANY)
    assert crawl.open == size
    return instructions(crawl)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_request_costs_the_same_however_many_connections_are_open(load: Load) -> None:
    few = instructions_at(load, FEW)
    assert few > 100
    assert instructions_at(load, MANY) == pytest.approx(few, rel=0.05)


def test_a_look_at_all_that_is_open_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Scheduler.finished

    def walking(self: Scheduler, ticket: int, now: float, *, size: int = 0) -> Any:
        for record in self.connections.values():
            if record.gone:
                raise AssertionError
        return finished(self, ticket, now, size=size)

    monkeypatch.setattr(Scheduler, "finished", walking)
    assert instructions_at(LOADS[0], MANY) > 2 * instructions_at(LOADS[0], FEW)
