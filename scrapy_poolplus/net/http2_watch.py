"""Is the peer still there, and does it still read? (RFC 9113 6.7; DESIGN 9, ``ping_interval`` and ``ping_timeout``)

A connection that is silent with streams open is pinged, and given up when nothing at all comes within the time-out.
One that was idle for some time is pinged along with its next request: a firewall may have forgotten it. Times are
seconds of the pool's clock.
"""

from __future__ import annotations

from enum import Enum

IDLE_CHECK = 10.0
"""Seconds without a word of the peer after which the next request takes a PING along."""


class Due(Enum):
    """What a deadline calls for."""

    NOTHING = "nothing"
    PING = "ping"
    GIVE_UP = "give up"


class Watch:
    """`interval`: seconds of silence before a PING; `timeout`: seconds for its answer."""

    def __init__(self, interval: float, timeout: float) -> None:
        self.interval = interval
        self.timeout = timeout
        self._heard = 0.0
        self._pinged: float | None = None
        self._starved: float | None = None

    def heard(self, now: float) -> None:
        """Something came; whatever it was, the peer is alive."""
        self._heard = now
        self._pinged = None

    def pinged(self, now: float) -> None:
        """A PING was sent."""
        if self._pinged is None:
            self._pinged = now

    def starving(self, now: float, *, starved: bool) -> None:
        """Whether bodies wait and the connection's send window is empty."""
        if not starved:
            self._starved = None
        elif self._starved is None:
            self._starved = now

    def idle_too_long(self, now: float) -> bool:
        """Whether a first request needs a PING beside it."""
        return self._pinged is None and now - self._heard > IDLE_CHECK

    def deadline(self, *, streams: bool, draining: bool) -> float | None:
        """When to look again. `streams`: some are open."""
        due = None
        if self._pinged is not None:
            due = self._pinged + self.timeout
        elif streams:
            due = self._heard + self.interval
        if self._starved is not None and not draining:
            drain = self._starved + self.interval
            due = drain if due is None else min(due, drain)
        return due

    def due(self, now: float, *, streams: bool) -> Due:
        """What is called for now."""
        if self._pinged is not None:
            return Due.GIVE_UP if now >= self._pinged + self.timeout else Due.NOTHING
        return Due.PING if streams and now >= self._heard + self.interval else Due.NOTHING

    def starved_too_long(self, now: float) -> bool:
        """Whether the peer has not widened the connection's window for `interval`: every further body given to this
        connection would stall too."""
        return self._starved is not None and now >= self._starved + self.interval
