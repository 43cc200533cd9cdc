"""A heap of deadlines, each bound to an owner that may be gone before it is due."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Protocol

SLACK = 64
"""Stale entries that are not worth a sweep."""


class Owner(Protocol):
    """Whose deadline it is."""

    gone: bool
    """True from when its deadlines mean nothing any more."""


class Deadlines:
    """Deadlines in order of time, then of insertion. Entries of owners that are gone are dropped when they surface, and
    swept when they are more than half, so memory is bounded by twice what lives."""

    __slots__ = ("_heap", "_limit", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Owner, Callable[[float], None]]] = []
        self._limit = SLACK
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, when: float, owner: Owner, due: Callable[[float], None]) -> None:
        """Call ``due(now)`` when ``when`` has come, unless `owner` is gone by then."""
        self._sequence += 1
        heappush(self._heap, (when, self._sequence, owner, due))
        if len(self._heap) > self._limit:
            self._heap = [entry for entry in self._heap if not entry[2].gone]
            heapify(self._heap)
            self._limit = 2 * len(self._heap) + SLACK

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap and self._heap[0][2].gone:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> Callable[[float], None] | None:
        """The earliest that is due at `now`, removed; or None."""
        when = self.next()
        if when is None or when > now:
            return None
        return heappop(self._heap)[3]

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()
