from __future__ import annotations

from scrapy_poolplus.core.deadlines import SLACK, Deadlines


class Owner:
    def __init__(self) -> None:
        self.gone = False


def due_names(deadlines: Deadlines, now: float) -> list[str]:
    names: list[str] = []
    while (due := deadlines.pop(now)) is not None:
        due(now)
        names.append(called.pop())
    return names


called: list[str] = []


def add(deadlines: Deadlines, when: float, name: str, owner: Owner) -> None:
    deadlines.at(when, owner, lambda _now: called.append(name))


def test_deadlines_come_in_order_of_time_and_of_insertion_where_that_is_the_same() -> None:
    deadlines, owner = Deadlines(), Owner()
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")):
        add(deadlines, when, name, owner)
    assert deadlines.next() == 1.0
    assert due_names(deadlines, 2.0) == ["a", "b", "c"]
    assert deadlines.next() == 3.0


def test_nothing_is_due_before_its_time_nor_where_there_is_nothing() -> None:
    deadlines = Deadlines()
    assert deadlines.next() is None
    assert deadlines.pop(1.0) is None
    add(deadlines, 2.0, "a", Owner())
    assert deadlines.pop(1.5) is None


def test_a_deadline_of_an_owner_that_is_gone_does_not_come() -> None:
    deadlines, first, second = Deadlines(), Owner(), Owner()
    add(deadlines, 1.0, "a", first)
    add(deadlines, 2.0, "b", second)
    first.gone = True
    assert deadlines.next() == 2.0
    assert due_names(deadlines, 5.0) == ["b"]


def test_owners_that_are_gone_are_swept_though_they_are_never_due() -> None:
    deadlines, lives = Deadlines(), Owner()
    add(deadlines, 1.0, "lives", lives)
    for _ in range(50 * SLACK):
        owner = Owner()
        add(deadlines, 1e9, "gone", owner)
        owner.gone = True
    assert len(deadlines) <= 2 * SLACK


def test_clear_forgets_all() -> None:
    deadlines = Deadlines()
    add(deadlines, 1.0, "a", Owner())
    deadlines.clear()
    assert deadlines.next() is None
