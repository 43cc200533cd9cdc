"""The scheduler against an independent model (tests/core/model.py), fact after fact, as Hypothesis draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from scrapy_poolplus.core.budget import draw
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey
from scrapy_poolplus.core.policy import Policy
from tests.core.model import CONNECTING, DRAINING, OPEN
from tests.core.walk import (
    CAPS,
    KEYS,
    LIMITS,
    NUMBERS,
    ORIGINS,
    REASONS,
    SECONDS,
    SIZES,
    STREAMS,
    UNIFORM,
    speaks,
    walk,
)
from tests.core.world import World

T = TypeVar("T")

POLICIES = st.builds(Policy, **{name: st.sampled_from(choices) for name, choices in LIMITS.items()})
ANY = st.integers(0, 10_000)
"""Chooses among what there is."""


class SchedulerMachine(RuleBasedStateMachine):
    """Every rule asserts I1 to I13, I15 to I17, I19, I21 and I22 (see tests.core.model) after what it reports."""

    @initialize(
        cap=st.sampled_from(CAPS),
        policies=st.tuples(POLICIES, POLICIES, POLICIES),
        spoken=st.tuples(*(st.sampled_from(HttpProtocol) for _ in ORIGINS)),
        slots=st.tuples(*(st.sampled_from((None, 1, 2, 4)) for _ in ORIGINS)),
    )
    def start(
        self, cap: int, policies: Sequence[Policy], spoken: Sequence[HttpProtocol], slots: Sequence[int | None]
    ) -> None:
        self.slots = dict(zip(ORIGINS, slots, strict=True))
        self.spoken = dict(zip(ORIGINS, spoken, strict=True))
        self.world = World(cap, dict(zip(ORIGINS, policies, strict=True)))

    def protocol(self, key: PoolKey) -> HttpProtocol:
        return speaks(self.spoken, key)

    # ---- requests

    @rule(key=st.sampled_from(KEYS), number=st.sampled_from(NUMBERS))
    def submit(self, key: PoolKey, number: int) -> None:
        """I2, I7, I10, I15: dispatched, dialled for or in turn at once; I21: on a connection of its own key."""
        for _ in range(number):
            self.world.submit(key, slots=self.slots[key.origin])

    @precondition(lambda self: self.world.waiting())
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        """I9: never answered afterwards; I7: takes no connection with it; I22: nor leaves a record."""
        self.world.cancel(choose(self.world.waiting(), which))

    @precondition(lambda self: self.world.in_flight())
    @rule(which=ANY, size=st.sampled_from(SIZES))
    def finish(self, which: int, size: int) -> None:
        """I7, I15: what comes free is used or passed on at once; I11: closed only when empty."""
        self.world.finish(choose(self.world.in_flight(), which), size)

    @precondition(lambda self: self.world.in_flight())
    @rule(which=ANY)
    def replay(self, which: int) -> None:
        """I8: it comes back in its old place, before all that are younger."""
        ticket = choose(self.world.in_flight(), which)
        key = self.world.model.in_flight[ticket].key
        self.world.finish(ticket)
        self.world.submit(key, ticket, slots=self.slots[key.origin])

    # ---- connections

    @precondition(lambda self: self.world.conns(CONNECTING))
    @rule(which=ANY, jitter=st.sampled_from(UNIFORM))
    def connect(self, which: int, jitter: float) -> None:
        """I13: used from now on, not before; I15: the probe's answer brings the rest of the dials at once."""
        conn = choose(self.world.conns(CONNECTING), which)
        self.world.connect(conn, self.protocol(conn.key), draw(conn.policy, lambda: jitter))

    @precondition(lambda self: self.world.conns(CONNECTING))
    @rule()
    def connect_all(self) -> None:
        """As connect; without it, most runs would see no connection in use."""
        for conn in self.world.conns(CONNECTING):
            if conn.state == CONNECTING:
                self.world.connect(conn, self.protocol(conn.key), draw(conn.policy, lambda: 0.0))

    @precondition(lambda self: self.world.conns(CONNECTING))
    @rule(which=ANY)
    def fail_dial(self, which: int) -> None:
        """I16: the last one answers all that wait for it, unless others serve them; I15: no dial in the pause."""
        self.world.fail_dial(choose(self.world.conns(CONNECTING), which))

    @precondition(lambda self: self.world.conns(CONNECTING, OPEN, DRAINING))
    @rule(which=ANY, streams=st.sampled_from(STREAMS))
    def limit(self, which: int, streams: int) -> None:
        """I4: lowered, nothing new above it; I7: raised, used at once; 0 at first costs no dials."""
        conns = self.world.conns(CONNECTING, OPEN, DRAINING)
        if conns := [conn for conn in conns if self.protocol(conn.key) is HttpProtocol.HTTP2]:
            self.world.limit(choose(conns, which), streams)

    @precondition(lambda self: self.world.conns(CONNECTING, OPEN, DRAINING))
    @rule(which=ANY, reason=st.sampled_from(REASONS))
    def retire(self, which: int, reason: CloseReason) -> None:
        """I12: nothing new on it; I11: closed with its last request; I13: for the first reason."""
        self.world.retire(choose(self.world.conns(CONNECTING, OPEN, DRAINING), which), reason)

    @precondition(lambda self: self.world.conns(CONNECTING, OPEN, DRAINING))
    @rule(which=ANY)
    def lose(self, which: int) -> None:
        """I9: what was on it is answered, once; I15: those who wait get another connection."""
        self.world.lose(choose(self.world.conns(CONNECTING, OPEN, DRAINING), which))

    @precondition(lambda self: self.world.conns(OPEN, DRAINING))
    @rule(which=ANY, size=st.sampled_from(SIZES))
    def carry(self, which: int, size: int) -> None:
        """I5: bytes are soft: nothing new after the crossing, what is in flight finishes."""
        self.world.carry(choose(self.world.conns(OPEN, DRAINING), which), size)

    @rule(origin=st.sampled_from(ORIGINS))
    def calm(self, origin: Origin) -> None:
        """I15: no dial to it for a second, for keys that come later either; then those who wait are served."""
        self.world.calm(origin)

    @rule(number=st.integers(1, 30), ticket=st.integers(1, 30))
    def cross(self, number: int, ticket: int) -> None:
        """I9, I11: a fact about what has left already changes nothing."""
        if number not in self.world.model.conns and ticket in self.world.model.answered:
            self.world.cross(number, ticket)

    # ---- time

    @rule(seconds=st.sampled_from(SECONDS))
    def advance(self, seconds: float) -> None:
        """I6, I17 and the table: idle, age, drain, redial, calm, grace and reclaim come due, none late."""
        self.world.advance(seconds)

    @rule()
    def run_out(self) -> None:
        """I7, I15, I16, I22: once everything succeeds everybody is answered, and then nothing is left."""
        self.world.run_out(self.protocol)

    def teardown(self) -> None:
        """I18: everybody is answered by the end, nothing is open after it, and it may come twice."""
        if hasattr(self, "world") and not self.world.broken:
            self.world.close()
            self.world.close()


def choose(things: Sequence[T], which: int) -> T:
    """One of them."""
    return things[which % len(things)]


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_seeded_walks_break_nothing() -> None:
    walk(range(100), steps=60)
