"""Connections that have left the pool and whose sockets still say goodbye."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from scrapy_poolplus.net.connection import Connection

WAIT = 1.5
"""Seconds that ``wait`` gives them; their own grace is 1 s."""


class Goodbyes:
    """Keeps count of sockets, so that the end of a crawl can wait for them, though not for ever."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._leaving: set[Connection] = set()
        self._waiting: list[Deferred[None]] = []
        self._limit: IDelayedCall | None = None

    def say(self, connection: Connection, *, cut_off: bool) -> None:
        """Close the connection in an orderly way, or at once."""
        self._leaving.add(connection)
        connection.when_gone = lambda: self._gone(connection)
        if cut_off:
            connection.abort()
        else:
            connection.close()

    def wait(self) -> Deferred[None]:
        """Fires when all are gone, at the latest after WAIT seconds; then the rest is aborted."""
        all_gone: Deferred[None] = Deferred()
        if not self._leaving:
            all_gone.callback(None)
            return all_gone
        self._waiting.append(all_gone)
        if self._limit is None:
            self._limit = self._clock.callLater(WAIT, self._too_long)
        return all_gone

    def _gone(self, connection: Connection) -> None:
        self._leaving.discard(connection)
        if not self._leaving:
            self._tell()

    def _too_long(self) -> None:
        self._limit = None
        for connection in list(self._leaving):
            connection.abort()
        self._tell()

    def _tell(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
        waiting, self._waiting = self._waiting, []
        for all_gone in waiting:
            all_gone.callback(None)
