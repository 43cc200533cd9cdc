"""Pauses: which host is left alone until when, because it said so by Retry-After, and which requests wait for that.

Facts go in, each with `now` in seconds of one clock; the numbers of the requests that go on come out, in the order in
which they arrived. A request is held from ``arrived`` (or ``recalled``) until its number comes out or it has ``left``.

A pause that was cut short ends with one request: the host may still mean what it said. The others follow when that
one's response head is in, or when it has failed; a new pause by its answer holds them further.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from heapq import heappop, heappush

from scrapy_poolplus.core.events import HostPaused

SLOW_DOWN = frozenset({429, 503})
"""Statuses whose Retry-After says when the server can take requests again (RFC 6585 4, RFC 9110 15.6.4). With a
redirect it says something about that one resource."""

_DELAY_SECONDS = re.compile("[0-9]+")


def retry_after(value: str, now: float) -> float:
    """The seconds that a Retry-After header asks to wait (RFC 9110 10.2.3): a number of seconds, or a date in any of
    the three forms of RFC 9110 5.6.7, of which `now`, in seconds since 1970, is subtracted. 0 for a date that has
    passed, inf for a number beyond all floats.

    Raises ValueError for anything else, negative and fractional numbers included.
    """
    value = value.strip(" \t")
    if _DELAY_SECONDS.fullmatch(value):
        return float(value)
    date = parsedate_to_datetime(value)
    if date.tzinfo is None:
        # The form of asctime() names no zone; it is UTC as well.
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, date.timestamp() - now)


@dataclass(slots=True)
class _Paused:
    """One host. `until`: when its pause ends; `wanted`: when it would, had it not been cut short. `held` are numbers in
    the order of arrival, `first` is the one that went ahead after a pause that was cut short."""

    until: float
    wanted: float
    first: int | None = None
    held: dict[int, None] = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        return self.until < self.wanted


class Pauses:
    """The hosts that asked for a pause. A host is forgotten when its pause is over and nobody waits, and one whose
    pause was cut short when a request for it has been answered after that."""

    __slots__ = ("_ends", "_hosts")

    def __init__(self) -> None:
        self._hosts: dict[str, _Paused] = {}
        self._ends: list[tuple[float, str]] = []
        """A heap. The end of a pause that was prolonged stands in it beside the later one, and means nothing."""

    def __repr__(self) -> str:
        shown = (f"{host} until {p.until:.1f}, {len(p.held)} held" for host, p in self._hosts.items())
        return f"<Pauses {'; '.join(shown) or 'none'}>"

    def next_end(self) -> float | None:
        """When ``ended`` wants to be called: at the earliest end of a pause, or None."""
        while self._ends and not self._is_end(*self._ends[0]):
            heappop(self._ends)
        return self._ends[0][0] if self._ends else None

    # ---- facts

    def asked(self, host: str, seconds: float, limit: float, now: float) -> HostPaused | None:
        """`host` asked to be left alone for so many `seconds`; it gets at most `limit`. Returns what that changes, or
        None. A shorter pause than the one it has changes nothing."""
        until = now + min(seconds, limit)
        if until <= now:
            return None
        paused = self._hosts.get(host)
        if paused is None or paused.until <= now:
            before, was_cut = now, False
            if paused is None:
                paused = self._hosts[host] = _Paused(until, now + seconds)
            else:
                paused.wanted = now + seconds
        else:
            before, was_cut = paused.until, paused.cut
            paused.wanted = max(paused.wanted, now + seconds)
            until = max(paused.until, until)
        paused.until = until
        cut = paused.cut and not was_cut
        if until == before and not cut:
            return None
        heappush(self._ends, (until, host))
        added, again = until - before, before > now
        return HostPaused(host=host, seconds=until - now, asked=seconds, added=added, again=again, cut=cut, at=now)

    def arrived(self, number: int, host: str, now: float) -> bool:
        """A request for `host` wants to go on; False: it is held. `number` is higher than any before."""
        paused = self._hosts.get(host)
        if paused is None:
            return True
        if now >= paused.until and not paused.held and paused.first is None:
            if now >= paused.wanted:
                del self._hosts[host]
            else:
                paused.first = number
            return True
        paused.held[number] = None
        return False

    def recalled(self, numbers: Iterable[int], host: str) -> None:
        """These went on to `host`, which is paused, but they were not sent yet: they are held, in their old order."""
        paused = self._hosts[host]
        paused.held = dict.fromkeys(sorted((*numbers, *paused.held)))
        if paused.first in paused.held:
            paused.first = None

    def ended(self, now: float) -> list[int]:
        """Some time has passed. Returns who goes on."""
        going: list[int] = []
        while (end := self.next_end()) is not None and end <= now:
            _, host = heappop(self._ends)
            going += self._over(host)
        return going

    def answered(self, number: int, host: str, now: float) -> list[int]:
        """The response head of a request has come, or it is over without one. Returns who goes on."""
        paused = self._hosts.get(host)
        if paused is None or paused.first != number:
            return []
        paused.first = None
        if now < paused.until:
            return []
        return self._open(host)

    def left(self, number: int, host: str) -> None:
        """A request that is held is not wanted any more."""
        del self._hosts[host].held[number]

    # ---- what follows from them

    def _is_end(self, end: float, host: str) -> bool:
        paused = self._hosts.get(host)
        return paused is not None and paused.until == end

    def _over(self, host: str) -> list[int]:
        """The pause of `host` has ended."""
        paused = self._hosts[host]
        if paused.first is not None:
            # Nobody goes beside it, whatever was asked since it went.
            return []
        if not paused.cut:
            return self._open(host)
        if not paused.held:
            return []
        paused.first = next(iter(paused.held))
        del paused.held[paused.first]
        return [paused.first]

    def _open(self, host: str) -> list[int]:
        return list(self._hosts.pop(host).held)
