"""Stalls: how long requests waited while a connection to their server was being made.

Each route has a clock that runs while at least one of its dials is out; a request has stalled for what that clock ran
between its coming and its dispatch. A route is forgotten when it neither dials nor has requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy_poolplus.core.events import (
        ConnectionOpened,
        DialFailed,
        DialStarted,
        Replayed,
        RequestDispatched,
        RequestDone,
        RequestQueued,
    )
    from scrapy_poolplus.core.origin import Route


class _Dialling:
    """The clock of a route."""

    __slots__ = ("dials", "ran", "requests", "route", "since")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.dials: set[int] = set()
        self.requests = 0
        self.ran = 0.0
        self.since = 0.0

    def at(self, now: float) -> float:
        """Seconds that it has run."""
        return self.ran + (now - self.since if self.dials else 0.0)


class Stalls:
    """Of one crawl; `seconds` adds up over requests. Each method takes the event of its name."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._routes: dict[Route, _Dialling] = {}
        self._tickets: dict[int, _Dialling] = {}
        self._waiting: dict[int, float] = {}

    def queued(self, event: RequestQueued) -> None:
        """It waits from now on."""
        dialling = self._tickets[event.ticket] = self._of(event.key.route)
        dialling.requests += 1
        self._waiting[event.ticket] = dialling.at(event.at)

    def dispatched(self, event: RequestDispatched) -> None:
        """It waits no more."""
        dialling, began = self._tickets.get(event.ticket), self._waiting.pop(event.ticket, None)
        if dialling is not None and began is not None:
            self.seconds += dialling.at(event.at) - began

    def replayed(self, event: Replayed) -> None:
        """It waits again."""
        dialling = self._tickets.get(event.ticket)
        if dialling is not None:
            self._waiting[event.ticket] = dialling.at(event.at)

    def done(self, event: RequestDone) -> None:
        """It is over, perhaps before it was dispatched."""
        dialling, began = self._tickets.pop(event.ticket, None), self._waiting.pop(event.ticket, None)
        if dialling is None:
            return
        if began is not None:
            self.seconds += dialling.at(event.at) - began
        dialling.requests -= 1
        self._forget(dialling)

    def dial_started(self, event: DialStarted) -> None:
        """A connection is being made."""
        dialling = self._of(event.key.route)
        if not dialling.dials:
            dialling.since = event.at
        dialling.dials.add(event.connection)

    def dial_ended(self, event: ConnectionOpened | DialFailed) -> None:
        """It is there, or will not come."""
        dialling = self._routes.get(event.key.route)
        if dialling is None or event.connection not in dialling.dials:
            return
        ran = dialling.at(event.at)
        dialling.dials.discard(event.connection)
        dialling.ran = ran
        dialling.since = event.at
        self._forget(dialling)

    def _of(self, route: Route) -> _Dialling:
        dialling = self._routes.get(route)
        if dialling is None:
            dialling = self._routes[route] = _Dialling(route)
        return dialling

    def _forget(self, dialling: _Dialling) -> None:
        if not dialling.dials and not dialling.requests:
            self._routes.pop(dialling.route, None)
