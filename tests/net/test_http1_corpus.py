"""A corpus of odd responses: what we make of each, and where h11, twisted.web and httptools see it otherwise, why."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest

from tests.net.corpus.odd_responses import ODD_RESPONSES, Odd
from tests.net.corpus.readers import OTHERS, Verdict, ours

WRITTEN_FOR = {"h11": "0.16", "twisted": "26.10", "httptools": "0.9"}
"""The versions whose differences the corpus lists."""

# twisted.web keeps these apart from the headers of its response.
CONNECTION_CONTROL = frozenset(
    {b"content-length", b"connection", b"keep-alive", b"te", b"trailers", b"transfer-encoding", b"upgrade"}
    | {b"proxy-connection"}
)

each = pytest.mark.parametrize("odd", ODD_RESPONSES, ids=lambda odd: odd.name)


def differs(odd: Odd, reader: str) -> bool:
    """Whether `reader` makes something else of it than we do. httptools is told of no close, so neither are we."""
    closes = odd.closes and reader != "httptools"
    mine = ours(odd.method, odd.data, closes=closes)
    other = OTHERS[reader](odd.method, odd.data, closes=closes)
    if reader == "twisted":
        mine, other = without_connection_control(mine), without_connection_control(other)
    return mine != other


def without_connection_control(verdict: Verdict) -> Verdict:
    kept = tuple((name, value) for name, value in verdict.headers if name not in CONNECTION_CONTROL)
    return replace(verdict, headers=kept)


def comparable(odd: Odd, reader: str) -> bool:
    return reader != "httptools" or odd.method == b"GET"  # httptools knows nothing of the request


def test_the_corpus_is_large_and_its_names_are_distinct() -> None:
    assert len({odd.name for odd in ODD_RESPONSES}) == len(ODD_RESPONSES) >= 100


@each
def test_an_odd_response_is_read_as_the_corpus_says(odd: Odd) -> None:
    verdict = ours(odd.method, odd.data, closes=odd.closes)
    assert replace(verdict, headers=()) == odd.want
    if odd.headers is not None:
        assert verdict.headers == odd.headers


@each
def test_every_difference_to_other_readers_has_its_reason(odd: Odd) -> None:
    unexplained = [r for r in OTHERS if comparable(odd, r) and r not in odd.differs and differs(odd, r)]
    assert not unexplained, {reader: OTHERS[reader](odd.method, odd.data, closes=odd.closes) for reader in unexplained}


@each
def test_every_reason_in_the_corpus_stands_for_a_difference(odd: Odd) -> None:
    for reader in odd.differs:
        if version(reader).startswith(WRITTEN_FOR[reader]):
            assert differs(odd, reader), f"{reader} now agrees with us"


@each
def test_an_odd_response_is_read_alike_byte_by_byte(odd: Odd) -> None:
    pieces = [odd.data[at : at + 1] for at in range(len(odd.data))]
    assert ours(odd.method, *pieces, closes=odd.closes) == ours(odd.method, odd.data, closes=odd.closes)
