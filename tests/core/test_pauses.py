from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from math import inf

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scrapy_poolplus.core.pauses import Pauses, retry_after
from scrapy_poolplus.core.policy import Policy

UNHURRIED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault of the code."""
LIMIT = 100.0
NOW = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110 5.6.7."""


# ---- what Retry-After says


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" \t7 ", 7.0),
        ("007", 7.0),
        ("9" * 5000, inf),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 946_684_799.0 - NOW),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    ["", "-5", "+5", "1.5", "1e3", "0x10", "5s", "5, 120", "soon", "\u0663", "6 Nov", "Sun, 99 Nov 1994 08:49:37 GMT"],
)
def test_anything_else_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        retry_after(value, NOW)


@given(st.integers(0, 10**9))
def test_a_date_means_the_same_as_the_seconds_until_then(seconds: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW, timezone.utc) + timedelta(seconds=seconds), usegmt=True)
    assert retry_after(date, NOW) == retry_after(str(seconds), NOW) == seconds


@given(
    st.text() | st.lists(st.sampled_from(["Sun", ",", " ", "06", "Nov", "-", "1994", "08:49:37", "GMT"])).map("".join)
)
def test_no_text_gives_another_error_or_less_than_nothing(value: str) -> None:
    with suppress(ValueError):
        assert retry_after(value, NOW) >= 0


@pytest.mark.parametrize(
    ("written", "rotation", "seconds"),
    [
        (None, None, 0.0),
        (None, "off", 0.0),
        (None, "balanced", 300.0),
        (None, 20, 300.0),
        (0.0, "balanced", 0.0),
        (7.0, "balanced", 7.0),
        (7.0, "off", 7.0),
    ],
)
def test_the_longest_pause_is_what_is_written_or_comes_with_rotation(
    written: float | None, rotation: str | int | None, seconds: float
) -> None:
    assert Policy(retry_after_max=written, rotation=rotation).longest_pause == seconds


# ---- who waits


def arrivals(pauses: Pauses, *numbers: int, now: float, host: str = "a") -> list[bool]:
    return [pauses.arrived(number, host, now) for number in numbers]


def test_a_host_that_asked_for_nothing_holds_nobody() -> None:
    pauses = Pauses()
    pauses.asked("a", 10, LIMIT, 0.0)
    assert arrivals(pauses, 1, 2, now=5.0, host="b") == [True, True]
    assert pauses.next_end() == 10.0


def test_who_arrives_in_a_pause_goes_on_at_its_end_in_order() -> None:
    pauses = Pauses()
    assert arrivals(pauses, 1, now=0.0) == [True]
    assert pauses.asked("a", 10, LIMIT, 0.0) is not None
    assert arrivals(pauses, 2, 3, now=1.0) == [False, False]
    assert pauses.ended(9.9) == []
    assert pauses.ended(10.0) == [2, 3]
    assert arrivals(pauses, 4, now=10.0) == [True]
    assert repr(pauses) == "<Pauses none>"
    assert pauses.next_end() is None


def test_who_arrives_after_the_end_but_before_it_was_noticed_overtakes_nobody() -> None:
    pauses = Pauses()
    pauses.asked("a", 10, LIMIT, 0.0)
    assert arrivals(pauses, 1, now=1.0) == [False]
    assert arrivals(pauses, 2, now=11.0) == [False]
    assert pauses.ended(11.0) == [1, 2]


def test_a_pause_in_which_nobody_came_is_forgotten() -> None:
    pauses = Pauses()
    pauses.asked("a", 10, LIMIT, 0.0)
    assert arrivals(pauses, 1, now=10.0) == [True]
    assert repr(pauses) == "<Pauses none>"


@pytest.mark.parametrize("seconds", [0.0, 1e-30])
def test_no_time_is_no_pause(seconds: float) -> None:
    pauses = Pauses()
    assert pauses.asked("a", seconds, LIMIT, 1e9) is None
    assert pauses.asked("a", 10, 0.0, 1e9) is None
    assert arrivals(pauses, 1, now=1e9) == [True]


def test_a_shorter_pause_changes_nothing_and_a_longer_one_prolongs() -> None:
    pauses = Pauses()
    begun = pauses.asked("a", 10, LIMIT, 0.0)
    assert begun is not None
    assert (begun.seconds, begun.added, begun.again, begun.cut) == (10.0, 10.0, False, False)
    arrivals(pauses, 1, now=0.0)
    assert pauses.asked("a", 5, LIMIT, 1.0) is None
    longer = pauses.asked("a", 15, LIMIT, 2.0)
    assert longer is not None
    assert (longer.seconds, longer.added, longer.again, longer.cut) == (15.0, 7.0, True, False)
    assert pauses.ended(10.0) == []
    assert pauses.ended(17.0) == [1]


def test_a_pause_that_was_cut_short_ends_with_one_request_and_the_others_follow_its_answer() -> None:
    pauses = Pauses()
    paused = pauses.asked("a", 3600, LIMIT, 0.0)
    assert paused is not None
    assert (paused.seconds, paused.asked, paused.cut) == (LIMIT, 3600, True)
    arrivals(pauses, 1, 2, 3, now=1.0)
    assert pauses.ended(LIMIT) == [1]
    assert arrivals(pauses, 4, now=LIMIT) == [False]
    assert pauses.ended(10 * LIMIT) == []
    assert pauses.answered(3, "a", 101.0) == []
    assert pauses.answered(1, "a", 101.0) == [2, 3, 4]
    assert arrivals(pauses, 5, now=101.0) == [True]
    assert repr(pauses) == "<Pauses none>"


def test_the_first_to_arrive_after_a_pause_that_was_cut_short_goes_alone() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    assert pauses.ended(LIMIT) == []
    assert arrivals(pauses, 1, 2, now=200.0) == [True, False]
    assert pauses.answered(1, "a", 201.0) == [2]


def test_a_host_that_was_left_alone_as_long_as_it_wanted_is_forgotten() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    assert arrivals(pauses, 1, 2, now=3600.0) == [True, True]


def test_the_first_ones_answer_may_pause_the_host_again() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    arrivals(pauses, 1, 2, 3, now=1.0)
    assert pauses.ended(LIMIT) == [1]
    again = pauses.asked("a", 3600, LIMIT, 101.0)
    assert again is not None
    assert (again.again, again.cut, again.added) == (False, True, LIMIT)
    assert pauses.answered(1, "a", 101.0) == []
    assert pauses.ended(200.0) == []
    assert pauses.ended(201.0) == [2]
    assert pauses.answered(2, "a", 202.0) == [3]


def test_a_longer_wish_in_a_pause_that_cannot_be_longer_is_a_cut_one_told_once() -> None:
    pauses = Pauses()
    pauses.asked("a", LIMIT, LIMIT, 0.0)
    cut = pauses.asked("a", LIMIT + 1, LIMIT, 0.0)
    assert cut is not None
    assert (cut.cut, cut.added) == (True, 0.0)
    assert pauses.asked("a", LIMIT + 2, LIMIT, 0.0) is None
    arrivals(pauses, 1, 2, now=0.0)
    assert pauses.ended(LIMIT) == [1]


def test_what_was_cut_short_stays_so_when_the_pause_is_prolonged() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    arrivals(pauses, 1, 2, now=0.0)
    prolonged = pauses.asked("a", 60, LIMIT, 50.0)
    assert prolonged is not None
    assert not prolonged.cut
    assert pauses.ended(110.0) == [1]


def test_a_new_pause_is_cut_short_by_its_own_length_alone() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    assert pauses.ended(LIMIT) == []
    pauses.asked("a", 10, LIMIT, 120.0)
    arrivals(pauses, 1, 2, now=125.0)
    assert pauses.ended(130.0) == [1, 2]


def test_a_first_one_without_answer_stays_the_first_over_another_pause() -> None:
    pauses = Pauses()
    assert arrivals(pauses, 1, now=0.0) == [True]
    pauses.asked("a", 3600, LIMIT, 0.0)
    arrivals(pauses, 2, 3, now=0.0)
    assert pauses.ended(LIMIT) == [2]
    # By the answer to the one that was out before.
    pauses.asked("a", 3600, LIMIT, 110.0)
    assert pauses.ended(210.0) == []
    assert pauses.answered(2, "a", 211.0) == [3]


def test_nobody_goes_beside_the_first_one_after_a_pause_that_was_not_cut_short_either() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    arrivals(pauses, 1, 2, now=0.0)
    assert pauses.ended(LIMIT) == [1]
    pauses.asked("a", 1, LIMIT, LIMIT)
    assert pauses.ended(LIMIT + 1) == []
    assert arrivals(pauses, 3, now=LIMIT + 2) == [False]
    assert pauses.answered(1, "a", LIMIT + 3) == [2, 3]


def test_who_left_does_not_go_on() -> None:
    pauses = Pauses()
    pauses.asked("a", 10, LIMIT, 0.0)
    arrivals(pauses, 1, 2, 3, now=0.0)
    pauses.left(2, "a")
    assert pauses.ended(10.0) == [1, 3]


def test_the_recalled_are_held_before_those_who_came_later() -> None:
    pauses = Pauses()
    assert arrivals(pauses, 1, 2, 3, now=0.0) == [True, True, True]
    pauses.asked("a", 10, LIMIT, 0.0)
    assert arrivals(pauses, 4, now=0.0) == [False]
    pauses.recalled([3, 2], "a")
    assert pauses.ended(10.0) == [2, 3, 4]


def test_a_first_one_that_is_recalled_goes_first_again() -> None:
    pauses = Pauses()
    pauses.asked("a", 3600, LIMIT, 0.0)
    arrivals(pauses, 1, 2, now=0.0)
    assert pauses.ended(LIMIT) == [1]
    pauses.asked("a", 3600, LIMIT, LIMIT)
    pauses.recalled([1], "a")
    assert pauses.ended(2 * LIMIT) == [1]
    assert pauses.answered(1, "a", 2 * LIMIT) == [2]


# ---- what always holds


class Model:
    """What was asked and who is where, by the words of the specification alone."""

    def __init__(self) -> None:
        self.until = -inf
        self.wanted = -inf
        self.held: list[int] = []
        self.outside: list[int] = []
        """Went on, and not answered yet."""
        self.alone: int | None = None
        """Went first after a pause that was cut short."""

    def asked(self, seconds: float, now: float) -> None:
        if now + min(seconds, LIMIT) <= now:
            return
        self.wanted = now + seconds if now >= self.until else max(self.wanted, now + seconds)
        self.until = max(self.until, now + min(seconds, LIMIT))

    def goes_on(self, number: int, now: float) -> None:
        assert now >= self.until, "nobody goes on in a pause"
        assert self.alone is None, "nobody goes on beside the first one"
        if self.until < self.wanted and now < self.wanted:
            self.alone = number
        self.outside.append(number)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "arrive", "ask", "ask", "answer", "leave", "wait", "wait", "recall"]),
        st.sampled_from(["a", "a", "a", "b"]),
        st.sampled_from([0.0, 1.0, 30.0, LIMIT, LIMIT + 50, LIMIT + 50, inf]),
        st.integers(0, 5),
    ),
    min_size=5,
    max_size=60,
)


@UNHURRIED
@given(STEPS)
def test_nobody_goes_on_in_a_pause_nor_twice_nor_out_of_order_and_all_do_in_the_end(
    steps: list[tuple[str, str, float, int]],
) -> None:
    pauses, models, now, number = Pauses(), {"a": Model(), "b": Model()}, 0.0, 0

    def come_out(numbers: list[int], *, answered: str | None = None) -> None:
        for one in numbers:
            (model,) = (model for model in models.values() if one in model.held)
            assert model.held.pop(0) == one, "those who wait go on in the order of their arrival"
            if answered is None:
                model.goes_on(one, now)
            else:
                # After the first one's answer nothing holds them back.
                assert model is models[answered]
                model.outside.append(one)
        for model in models.values():
            if model.held and (answered is None or model is models[answered]):
                assert now < model.until or model.alone is not None or pauses.next_end() is not None

    def answer(host: str, one: int) -> None:
        model = models[host]
        model.outside.remove(one)
        was_first = model.alone == one
        if was_first:
            model.alone = None
        going = pauses.answered(one, host, now)
        assert going == (model.held if was_first and now >= model.until else [])
        if was_first and now >= model.until:
            model.wanted = model.until
        come_out(list(going), answered=host)

    for step, host, seconds, choice in steps:
        model = models[host]
        if step == "arrive":
            number += 1
            if pauses.arrived(number, host, now):
                assert not model.held, "nobody overtakes"
                model.goes_on(number, now)
            else:
                model.held.append(number)
                assert now < model.until or model.alone is not None or len(model.held) > 1
        elif step == "ask":
            model.asked(seconds, now)
            pauses.asked(host, seconds, LIMIT, now)
        elif step == "answer" and model.outside:
            answer(host, model.outside[choice % len(model.outside)])
        elif step == "leave" and model.held:
            pauses.left(model.held.pop(choice % len(model.held)), host)
        elif step == "recall" and model.outside and now < model.until:
            chosen = model.outside[choice % len(model.outside) :]
            model.outside = model.outside[: choice % len(model.outside)]
            model.held = sorted([*chosen, *model.held])
            model.alone = None if model.alone in chosen else model.alone
            pauses.recalled(chosen, host)
        elif step == "wait":
            now += min(seconds, LIMIT)
            come_out(pauses.ended(now))

    for _ in range(1000):
        if not any(model.held for model in models.values()):
            break
        end = pauses.next_end()
        if end is not None:
            now = max(now, end)
            come_out(pauses.ended(now))
        for host, model in models.items():
            if model.alone is not None:
                answer(host, model.alone)
    assert not any(model.held for model in models.values()), "nobody is forgotten"
