"""What a server can link: the arithmetic over *linkable units*, and how units are found.

A unit is a set of requests that share a token, or are joined by a chain of such (a connected component). Kept are only
counts of units by size, never the requests, so a crawl of any length needs the room of its largest sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, log2
from typing import Generic, TypeVar

Token = TypeVar("Token", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Linkability:
    """The figures of units of sizes s, R requests in all; everything is 0 where there is none.

    `max` is the length of the longest profile. `p95`: 95 % of the units are no larger. `experienced`: the length of the
    profile around a random request, sum(s²) / R. `link_probability`: that two random requests are in one unit,
    sum(s (s - 1)) / (R (R - 1)) (Simpson). `effective_profiles`: 2 to the entropy of s / R, at most `units`.
    """

    units: int = 0
    requests: int = 0
    mean: float = 0.0
    p95: int = 0
    max: int = 0
    experienced: float = 0.0
    link_probability: float = 0.0
    effective_profiles: float = 0.0

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Linkability:
        """Of units of these sizes; empty ones do not count."""
        return cls.of_histogram(Counter(sizes))

    @classmethod
    def of_histogram(cls, histogram: Counter[int]) -> Linkability:
        """Of units counted by size."""
        # Sorted: the same units give the same floats, in whatever order they came.
        counted = sorted((size, count) for size, count in histogram.items() if size > 0 and count > 0)
        units = sum(count for _, count in counted)
        if not units:
            return cls()
        requests = sum(size * count for size, count in counted)
        pairs = sum(size * (size - 1) * count for size, count in counted)
        entropy = sum(-count * (size / requests) * log2(size / requests) for size, count in counted)
        return cls(
            units=units,
            requests=requests,
            mean=requests / units,
            p95=_size_at(counted, ceil(0.95 * units)),
            max=counted[-1][0],
            experienced=sum(size * size * count for size, count in counted) / requests,
            link_probability=pairs / (requests * (requests - 1)) if requests > 1 else 0.0,
            effective_profiles=2**entropy,
        )


def _size_at(counted: list[tuple[int, int]], place: int) -> int:
    """The size of the unit at `place`, from 1, when they are sorted by size."""
    passed = accumulate(count for _, count in counted)
    return next(size for (size, _), up_to in zip(counted, passed, strict=True) if up_to >= place)


class UnionFind(Generic[Token]):
    """Disjoint sets of tokens that grow together (Tarjan; path halving, union by size)."""

    def __init__(self) -> None:
        self._above: dict[Token, Token] = {}
        self._sizes: dict[Token, int] = {}

    def find(self, token: Token) -> Token:
        """The token that stands for its set; a new one is a set of its own."""
        above = self._above
        if token not in above:
            above[token] = token
            self._sizes[token] = 1
        while above[token] != token:
            above[token] = token = above[above[token]]
        return token

    def join(self, one: Token, other: Token) -> None:
        """Make one set of the two that these are in."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        if self._sizes[one] < self._sizes[other]:
            one, other = other, one
        self._above[other] = one
        self._sizes[one] += self._sizes.pop(other)
