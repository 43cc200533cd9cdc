from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.core.budget import UNLIMITED, Budget, draw, draw_session, preconnect_due, spent
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.policy_fields import LARGEST_BUDGET

UNIFORM = st.floats(0, 1, exclude_max=True)
SHARE = st.floats(0, 1, exclude_max=True)
WHOLE = st.integers(1, LARGEST_BUDGET)


@settings(deadline=None)
@given(maximum=WHOLE, jitter=SHARE, uniform=UNIFORM)
def test_a_draw_never_exceeds_the_maximum_and_never_falls_below_its_share(
    maximum: int, jitter: float, uniform: float
) -> None:
    policy = Policy(max_requests_per_connection=maximum, max_connection_bytes=maximum, jitter=jitter)
    budget = draw(policy, lambda: uniform)
    for drawn in (budget.requests, budget.size):
        assert drawn is not None
        assert max(1, ceil(maximum * (1 - jitter))) <= drawn <= maximum


@settings(deadline=None)
@given(maximum=st.floats(0.001, 1e9), jitter=SHARE, uniform=UNIFORM)
def test_an_age_is_drawn_downward_only(maximum: float, jitter: float, uniform: float) -> None:
    age = draw(Policy(max_connection_age=maximum, jitter=jitter), lambda: uniform).age
    assert age is not None
    assert maximum * (1 - jitter) <= age <= maximum


def test_without_jitter_the_budget_is_the_maximum() -> None:
    policy = Policy(max_requests_per_connection=7, max_connection_age=1.5, max_connection_bytes=9, jitter=0)
    assert draw(policy, lambda: 0.999) == Budget(requests=7, age=1.5, size=9)


def test_each_limit_is_drawn_anew() -> None:
    policy = Policy(max_requests_per_connection=100, max_connection_age=100.0, max_connection_bytes=100, jitter=0.5)
    numbers = iter([0.0, 0.5, 0.98])
    assert draw(policy, lambda: next(numbers)) == Budget(requests=100, age=75.0, size=51)


def test_a_limit_that_is_not_set_is_not_drawn() -> None:
    def no_number() -> float:
        raise AssertionError

    assert draw(Policy(), no_number) == UNLIMITED
    assert draw(Policy(max_connection_age=8.0, jitter=0), lambda: 0.5) == Budget(age=8.0)


def test_the_budget_of_a_session_is_its_requests_and_its_age_each_drawn_anew() -> None:
    numbers = iter([0.5, 0.98])
    policy = Policy(session_requests=50, session_age=100.0, max_connection_bytes=9, jitter=0.5)
    assert draw_session(policy, lambda: next(numbers)) == Budget(requests=38, age=51.0)


def test_a_session_without_a_limit_of_requests_has_an_age_all_the_same() -> None:
    assert draw_session(Policy(session_age=100.0, jitter=0.5), lambda: 0.5) == Budget(age=75.0)


@pytest.mark.parametrize(
    ("used", "reason"),
    [
        ({"requests": 9, "age": 4.9, "size": 99}, None),
        ({"requests": 10, "age": 0.0, "size": 0}, CloseReason.REQUESTS_SPENT),
        ({"requests": 11, "age": 0.0, "size": 0}, CloseReason.REQUESTS_SPENT),
        ({"requests": 0, "age": 5.0, "size": 0}, CloseReason.AGE_SPENT),
        ({"requests": 0, "age": 0.0, "size": 100}, CloseReason.BYTES_SPENT),
    ],
)
def test_a_budget_is_spent_when_a_limit_is_reached(used: dict[str, float], reason: CloseReason | None) -> None:
    assert spent(Budget(requests=10, age=5.0, size=100), **used) is reason  # type: ignore[arg-type]


@settings(deadline=None)
@given(requests=st.integers(0), age=st.floats(0, 1e9), size=st.integers(0))
def test_an_unlimited_budget_is_never_spent(requests: int, age: float, size: int) -> None:
    assert spent(UNLIMITED, requests=requests, age=age, size=size) is None


@pytest.mark.parametrize(
    ("requests_left", "age_left", "due"),
    [
        # 10 requests a second, 0.5 s to set up: 6 requests, or 0.6 s, go by meanwhile.
        (7, None, False),
        (6, None, True),
        (None, 0.61, False),
        (None, 0.6, True),
        (7, 0.6, True),
        (6, 60.0, True),
        (7, 60.0, False),
        (None, None, False),
    ],
)
def test_a_successor_is_due_when_what_is_left_lasts_no_longer_than_the_setup(
    requests_left: int | None, age_left: float | None, due: bool
) -> None:
    assert preconnect_due(requests_left=requests_left, age_left=age_left, rate=10.0, setup_seconds=0.5) is due


def test_before_a_setup_was_measured_only_the_last_request_makes_a_successor_due() -> None:
    assert not preconnect_due(requests_left=2, age_left=0.1, rate=100.0, setup_seconds=0.0)
    assert preconnect_due(requests_left=1, age_left=None, rate=100.0, setup_seconds=0.0)
