from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_poolplus.core.linkage import Linkability, UnionFind


def test_the_figures_of_two_profiles() -> None:
    figures = Linkability.of([3, 1])
    assert (figures.units, figures.requests, figures.mean, figures.p95, figures.max) == (2, 4, 2.0, 3, 3)
    assert figures.experienced == 10 / 4
    assert figures.link_probability == 6 / 12
    assert figures.effective_profiles == pytest.approx(1.7548, abs=1e-4)


def test_one_profile_links_everything_and_profiles_of_one_link_nothing() -> None:
    whole, single = Linkability.of([1000]), Linkability.of([1] * 1000)
    assert (whole.link_probability, whole.experienced, whole.effective_profiles) == (1.0, 1000.0, 1.0)
    assert (single.link_probability, single.experienced) == (0.0, 1.0)
    assert single.effective_profiles == pytest.approx(1000)


def test_95_percent_of_the_units_are_no_larger_than_p95() -> None:
    assert Linkability.of([1] * 95 + [9] * 5).p95 == 1
    assert Linkability.of([1] * 94 + [9] * 6).p95 == 9


def test_nothing_has_no_figures() -> None:
    assert Linkability.of([]) == Linkability() == Linkability.of([0])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_the_order_of_units_changes_no_figure(sizes: list[int]) -> None:
    shuffled = sorted(sizes, reverse=True)
    figures = Linkability.of(sizes)
    assert Linkability.of(shuffled) == figures
    assert 1 <= figures.mean <= figures.experienced <= figures.max
    assert figures.effective_profiles <= figures.units * (1 + 1e-9)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=40))
def test_tokens_are_together_if_a_chain_joins_them(pairs: list[tuple[int, int]]) -> None:
    found: UnionFind[int] = UnionFind()
    sets: list[set[int]] = [{number} for number in range(21)]
    for one, other in pairs:
        found.join(one, other)
        together = set().union(*(each for each in sets if one in each or other in each))
        sets = [each for each in sets if not each & together] + [together]
    for each in sets:
        assert len({found.find(number) for number in each}) == 1
    assert len({found.find(number) for number in range(21)}) == len(sets)
