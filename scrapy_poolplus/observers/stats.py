"""Stats of the pool in Scrapy's stats collector.

============================================  =====================================================================
``poolplus/connections/opened``               connections that became ready
``poolplus/connections/closed/{reason}``      of these, closed again; reasons are core.events.CloseReason
``poolplus/connections/open_max``             most that were open at once
``poolplus/connections/reused``               requests sent on a connection that had been given one before
``poolplus/requests/{protocol}``              requests sent, replays included: ``h2``, ``http/1.1``
``poolplus/dial/seconds_total``               seconds that the opened connections took to be made
``poolplus/dial/failed``                      connections that could not be made
``poolplus/dial/abandoned``                   dials given up because nobody waited any more
``poolplus/wait/seconds_total``               seconds that requests waited for a connection
``poolplus/replays/{reason}``                 requests sent again; reasons are core.replay.Progress
``poolplus/retry_after/pauses``               pauses of hosts that asked for one with 429 or 503
``poolplus/retry_after/seconds_total``        seconds that these pauses were to last
``poolplus/retry_after/held``                 requests held for the end of a pause
============================================  =====================================================================
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    HostPaused,
    PoolEvent,
    Replayed,
    RequestDispatched,
    RequestHeld,
)
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress

if TYPE_CHECKING:
    from scrapy.statscollectors import StatsCollector

_ABANDONED = frozenset(reason.value for reason in CloseReason)
_REQUESTS = {protocol: f"poolplus/requests/{protocol.value}" for protocol in HttpProtocol}
_REPLAY_REASONS = {progress.value: progress.name.lower() for progress in Progress}


class StatsObserver:
    """Counts into `stats`."""

    kinds: frozenset[type] = frozenset(
        {
            RequestDispatched,
            ConnectionOpened,
            ConnectionClosed,
            DialFailed,
            Replayed,
            HostPaused,
            RequestHeld,
        }
    )
    """The events that are counted."""

    def __init__(self, stats: StatsCollector) -> None:
        self._stats = stats
        # Never read back: a collector that several processes share adds up what each counts.
        self._count = stats.inc_value
        self._open = self._open_max = 0
        self._sums: defaultdict[str, float] = defaultdict(float)
        """Seconds by name. Kept here and only written there: a collector may give back other than it was given, as
        scrapy-redis's gives bytes."""
        self._counts: dict[type, Callable[[Any], None]] = {
            RequestDispatched: self._dispatched,
            ConnectionOpened: self._opened,
            ConnectionClosed: self._closed,
            DialFailed: self._dial_failed,
            Replayed: self._replayed,
            HostPaused: self._host_paused,
            RequestHeld: self._held,
        }

    def __call__(self, event: PoolEvent) -> None:
        """Count the event, if it is one that is counted."""
        count = self._counts.get(type(event))
        if count is not None:
            count(event)

    def _dispatched(self, event: RequestDispatched) -> None:
        self._count(_REQUESTS[event.protocol])
        if event.waited:
            self._add("poolplus/wait/seconds_total", event.waited)
        if event.reused:
            self._count("poolplus/connections/reused")

    def _opened(self, event: ConnectionOpened) -> None:
        self._open += 1
        self._count("poolplus/connections/opened")
        if self._open > self._open_max:
            self._open_max = self._open
            self._stats.set_value("poolplus/connections/open_max", self._open)
        self._add("poolplus/dial/seconds_total", event.dial_seconds)

    def _closed(self, event: ConnectionClosed) -> None:
        if event.protocol is None:
            # It never became ready: DialFailed tells of it.
            return
        self._open -= 1
        self._count(f"poolplus/connections/closed/{event.reason.value}")

    def _dial_failed(self, event: DialFailed) -> None:
        abandoned = event.error in _ABANDONED
        self._count("poolplus/dial/abandoned" if abandoned else "poolplus/dial/failed")

    def _replayed(self, event: Replayed) -> None:
        self._count(f"poolplus/replays/{_REPLAY_REASONS[event.reason]}")

    def _host_paused(self, event: HostPaused) -> None:
        if not event.again:
            self._count("poolplus/retry_after/pauses")
        self._add("poolplus/retry_after/seconds_total", event.added)

    def _held(self, _event: RequestHeld) -> None:
        self._count("poolplus/retry_after/held")

    def _add(self, key: str, seconds: float) -> None:
        self._sums[key] += seconds
        self._stats.set_value(key, self._sums[key])
