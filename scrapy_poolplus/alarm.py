"""One timer of the reactor for all deadlines of a pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """Calls `ring` no later than the earliest time asked for. It may ring early, and is then asked anew: cheaper than
    moving the timer with each request."""

    __slots__ = ("_at", "_clock", "_ring", "_timer")

    def __init__(self, clock: IReactorTime, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: IDelayedCall | None = None
        self._at = 0.0
        """When the timer rings."""

    def by(self, when: float) -> None:
        """Ring at `when`, in seconds of the clock, or before."""
        timer = self._timer
        if timer is not None and self._at <= when:
            return
        now = self._clock.seconds()
        self._at = max(now, when)
        delay = self._at - now
        if timer is None:
            self._timer = self._clock.callLater(delay, self._now)
        else:
            timer.reset(delay)

    def stop(self) -> None:
        """Do not ring."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _now(self) -> None:
        self._timer = None
        self._ring()
