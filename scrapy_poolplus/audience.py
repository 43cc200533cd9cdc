"""Who is told of what happens in the pool.

Three events are made for each request, and one that nobody wants to hear need not be.
"""

from __future__ import annotations

import logging

from scrapy_poolplus.core.events import Observer, PoolEvent

logger = logging.getLogger(__name__)


class Audience:
    """The observers of a pool. One that raises is logged once and dropped."""

    def __init__(self) -> None:
        self._observers: list[tuple[Observer, frozenset[type] | None]] = []
        self._by_kind: dict[type, tuple[Observer, ...]] = {}

    def add(self, observer: Observer, kinds: frozenset[type] | None = None) -> None:
        """Have `observer` told of every event from now on, or of those `kinds` alone."""
        self._observers.append((observer, kinds))
        self._by_kind.clear()

    def hears(self, kind: type) -> bool:
        """Whether anybody wants to hear of events of this kind."""
        return bool(self._listeners(kind))

    def tell(self, event: PoolEvent) -> None:
        """Tell those who want to hear of it."""
        for observer in self._listeners(type(event)):
            try:
                observer(event)
            except Exception:
                logger.exception("Observer %r failed at %r; it is dropped", observer, event)
                self._drop(observer)

    def _listeners(self, kind: type) -> tuple[Observer, ...]:
        listeners = self._by_kind.get(kind)
        if listeners is None:
            wanted = (observer for observer, kinds in self._observers if kinds is None or kind in kinds)
            listeners = self._by_kind[kind] = tuple(wanted)
        return listeners

    def _drop(self, dropped: Observer) -> None:
        self._observers = [entry for entry in self._observers if entry[0] is not dropped]
        self._by_kind.clear()
