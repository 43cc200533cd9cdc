"""The door before the pool: requests for a host that asked to be left alone (Retry-After) are held here.

So they stay in the downloader's slot of their host, other hosts go on, and `download_timeout` begins when they go on.
Who is held is decided by ``core.pauses``; this room has the clock and the log.

A pause is for a host name, whatever scheme, port, proxy and session: politeness is owed to the machine behind it, and
Scrapy's slots and delays and our policies are per host name too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from scrapy_poolplus.alarm import Alarm
from scrapy_poolplus.core.errors import Phase, PoolClosedError, PoolPlusError
from scrapy_poolplus.core.events import HostPaused, PoolEvent, RequestHeld
from scrapy_poolplus.core.pauses import SLOW_DOWN, Pauses, retry_after

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from scrapy_poolplus.core.policy import Policy
    from scrapy_poolplus.exchange import Ticket
    from scrapy_poolplus.net.wire import ResponseHead

logger = logging.getLogger(__name__)


class Door:
    """All requests of one crawler go through it where their policy heeds Retry-After.

    `clock` is the reactor; `wall` gives seconds since 1970, for dates.
    """

    def __init__(self, clock: IReactorTime, wall: Callable[[], float]) -> None:
        self.pauses = Pauses()
        self._clock = clock
        self._wall = wall
        self._pool: Pool | None = None
        self._alarm = Alarm(clock, self._ring)
        self._held: dict[int, Visit] = {}
        self._inside: dict[str, dict[int, Visit]] = {}
        self._numbers = 0
        self._watches = False
        self._closing = False

    def stand_before(self, pool: Pool) -> None:
        """Requests go to `pool` from now on; when it is closed, those that are held are answered. Pauses go on."""
        self._pool = pool
        pool.when_closed(self.let_go)

    def watch(self, engine: Closable | None) -> None:
        """Close when `engine` begins to close the spider."""
        if engine is not None and not self._watches:
            self._watches = True
            before_closing(engine, self.close)

    def visit(
        self, host: str, policy: Policy, enter: Callable[[], Ticket], failed: Callable[[PoolPlusError], None]
    ) -> Visit:
        """A request for `host`, which stands before the door until its ``arrive`` is called. `enter` hands it to the
        pool; `failed` hears why that will never be."""
        self._numbers += 1
        return Visit(self, self._numbers, host, policy, enter, failed)

    def let_go(self) -> None:
        """Answer what is held, with the error of a closed pool."""
        self._alarm.stop()
        for visit in list(self._held.values()):
            self._refuse(visit)

    def close(self) -> None:
        """The crawl ends: hold nothing any more. What would be held is answered at once."""
        self._closing = True
        self.let_go()

    # ---- what a visit tells

    def arrived(self, visit: Visit) -> None:
        """It wants to go on."""
        now = self._clock.seconds()
        if self.pauses.arrived(visit.number, visit.host, now):
            self._enter(visit)
        else:
            self._hold(visit, now)

    def answered(self, visit: Visit, head: ResponseHead) -> None:
        """Its response head is in."""
        now = self._clock.seconds()
        if head.status in SLOW_DOWN:
            for name, value in head.headers:
                if name.lower() == b"retry-after":
                    self._slow_down(visit, head.status, value.decode("latin-1"), now)
        self._let_in(self.pauses.answered(visit.number, visit.host, now))

    def left(self, visit: Visit) -> None:
        """It is over, or not wanted any more."""
        if self._held.pop(visit.number, None) is not None:
            self.pauses.left(visit.number, visit.host)
            return
        inside = self._inside.get(visit.host)
        if inside is None or inside.pop(visit.number, None) is None:
            return
        if not inside:
            del self._inside[visit.host]
        self._let_in(self.pauses.answered(visit.number, visit.host, self._clock.seconds()))

    # ---- in and out

    def _hold(self, visit: Visit, now: float) -> None:
        self._held[visit.number] = visit
        if self._closing:
            self._refuse(visit)
            return
        self._tell(RequestHeld(visit.host, now))
        self._arm()

    def _tell(self, event: PoolEvent) -> None:
        if self._pool is not None:
            self._pool.tell(event)

    def _enter(self, visit: Visit) -> None:
        self._inside.setdefault(visit.host, {})[visit.number] = visit
        visit.ticket = visit.enter()

    def _refuse(self, visit: Visit) -> None:
        if self._held.pop(visit.number, None) is None:
            # What was answered before it has cancelled this one.
            return
        self.pauses.left(visit.number, visit.host)
        message = f"closed while the request waited for the Retry-After of {visit.host}"
        visit.failed(PoolClosedError(message, phase=Phase.WAIT))

    def _let_in(self, numbers: list[int]) -> None:
        for number in numbers:
            visit = self._held.pop(number, None)
            if visit is not None:
                # Else the one before it has cancelled this one.
                self._enter(visit)

    def _slow_down(self, visit: Visit, status: int, value: str, now: float) -> None:
        host, policy = visit.host, visit.policy
        try:
            seconds = retry_after(value, self._wall())
        except ValueError:
            logger.debug("Ignored Retry-After %r of %s: neither a number of seconds nor a date", value, host)
            return
        paused = self.pauses.asked(host, seconds, policy.longest_pause, now)
        if paused is None:
            return
        self._log(paused, status, value, policy)
        self._tell(paused)
        inside = self._inside[host]
        waiting = [other for other in inside.values() if other.is_waiting()]
        self.pauses.recalled([other.number for other in waiting], host)
        for other in waiting:
            del inside[other.number]
            other.step_back()
            self._hold(other, now)
        self._arm()

    @staticmethod
    def _log(paused: HostPaused, status: int, value: str, policy: Policy) -> None:
        setting = f'retry_after_max of "{policy.name}", {policy.longest_pause:g} s'
        if paused.cut:
            logger.warning(
                "%s answered %d with Retry-After: %s, which is longer than %s: it is paused for %.1f s, and then asked "
                "with one request first",
                paused.host,
                status,
                value,
                setting,
                paused.seconds,
            )
        elif not paused.again:
            logger.info(
                "%s answered %d with Retry-After: %s: it is paused for %.1f s (at most %s)",
                paused.host,
                status,
                value,
                paused.seconds,
                setting,
            )

    # ---- time

    def _arm(self) -> None:
        if self._held and (end := self.pauses.next_end()) is not None:
            self._alarm.by(end)

    def _ring(self) -> None:
        self._let_in(self.pauses.ended(self._clock.seconds()))
        self._arm()


class Visit:
    """One request at the door, or through it. It can be cancelled as if it were its ticket."""

    __slots__ = ("_door", "enter", "failed", "host", "number", "policy", "ticket")

    def __init__(
        self,
        door: Door,
        number: int,
        host: str,
        policy: Policy,
        enter: Callable[[], Ticket],
        failed: Callable[[PoolPlusError], None],
    ) -> None:
        self._door = door
        self.number = number
        self.host = host
        self.policy = policy
        self.enter = enter
        self.failed = failed
        self.ticket: Ticket | None = None

    def arrive(self) -> None:
        """Go on to the pool, now or after the pause."""
        self._door.arrived(self)

    def head(self, head: ResponseHead) -> None:
        """The response head is in."""
        self._door.answered(self, head)

    def cancel(self) -> None:
        """The response is not wanted any more."""
        ticket = self.ticket
        self._door.left(self)
        if ticket is not None:
            ticket.cancel()

    def over(self) -> None:
        """It is answered, has failed or was cancelled."""
        self._door.left(self)

    def is_waiting(self) -> bool:
        """Whether the pool has it and nothing of it was ever sent. What is sent again by proof goes on: it keeps its
        count of replays."""
        ticket = self.ticket
        return ticket is not None and ticket.attempt is None and not ticket.replays and not ticket.gone

    def step_back(self) -> None:
        """Out of the pool, before the door again."""
        assert self.ticket is not None
        self.ticket.cancel()
        self.ticket = None


class Pool(Protocol):
    """The pool, as the door knows it."""

    def tell(self, event: PoolEvent) -> None:
        """Tell the observers."""

    def when_closed(self, call: Callable[[], None]) -> None:
        """Call `call` as soon as it is closed."""


class Closable(Protocol):
    """Scrapy's engine."""

    async def close_spider_async(self, *, reason: str = "cancelled") -> None:
        """Wait for the requests that are out, then close the spider."""


def before_closing(engine: Closable, call: Callable[[], None]) -> None:
    """Call `call` when `engine` begins to close the spider.

    Scrapy has no signal for that: ``spider_closed`` comes when every request is answered, and those held would make it
    wait for the end of the pause. Every way to close a spider goes through this one method; tried with 2.15 and 2.19.
    """
    close = engine.close_spider_async

    async def close_spider_async(*, reason: str = "cancelled") -> None:
        call()
        await close(reason=reason)

    engine.close_spider_async = close_spider_async  # type: ignore[method-assign]
