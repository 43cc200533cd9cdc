"""The pool's part, played by a test: it tells the scheduler facts and looks at the actions."""

from __future__ import annotations

from typing import Any

from scrapy_poolplus.core.actions import Action, Dial
from scrapy_poolplus.core.budget import UNLIMITED, Budget, draw_session
from scrapy_poolplus.core.errors import (
    ConnectionLostError,
    ConnectRefusedError,
    Phase,
    PoolClosedError,
    PoolPlusError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler
from scrapy_poolplus.core.sessions import ANY, Claim

H1, H2 = HttpProtocol.HTTP1, HttpProtocol.HTTP2
REFUSED = ConnectRefusedError("a.example:443 refused the connection", phase=Phase.CONNECT)
RESET = ConnectionLostError("reset by peer", phase=Phase.BODY)
CLOSED = PoolClosedError("the pool was closed", phase=Phase.WAIT)
ORIGIN = Origin("https", "a.example", 443)


def key_of(host: str = "a.example", label: str | None = None, *protocols: HttpProtocol) -> PoolKey:
    return PoolKey(Route(Origin("https", host, 443)), label, protocols or (H2, H1))


KEY, ONE, TWO, THREE = key_of(), key_of(label="s1"), key_of(label="s2"), key_of(label="s3")
OTHER = key_of("b.example")


class Pool:
    """The pool's part, played by the test, on a clock that it sets. What always holds is checked after each fact."""

    def __init__(self, crawl_cap: int = 100, /, **limits: Any) -> None:
        self.scheduler = Scheduler(crawl_cap)
        self.policy = Policy(**limits)
        self.slots: int | None = None
        """What the downloader means to have at an origin at once."""
        self.now = 0.0
        self.tickets = 0

    def submit(self, key: PoolKey = KEY, *, ticket: int | None = None, claim: Claim = ANY) -> list[Action]:
        if ticket is None:
            self.tickets += 1
        number = ticket or self.tickets
        return self._done(self.scheduler.submit(number, key, self.policy, self.now, slots=self.slots, claim=claim))

    def submit_all(self, number: int, key: PoolKey = KEY) -> list[Action]:
        return [action for _ in range(number) for action in self.submit(key)]

    def connect(
        self,
        number: int,
        protocol: HttpProtocol = H2,
        *,
        requests: int | None = None,
        age: float | None = None,
        size: int | None = None,
    ) -> list[Action]:
        limited = (requests, age, size) != (None, None, None)
        budget = Budget(requests, age, size) if limited else UNLIMITED
        # A session is given all that its policy allows.
        session = draw_session(self.policy, lambda: 0.0)
        return self._done(self.scheduler.connected(number, protocol, budget, self.now, session=session))

    def open(self, protocol: HttpProtocol = H2, key: PoolKey = KEY, **budget: Any) -> int:
        """The number of a new connection, with one request in flight."""
        (dial,) = self.submit(key)
        assert isinstance(dial, Dial)
        self.connect(dial.connection, protocol, **budget)
        return dial.connection

    def open_idle(self, protocol: HttpProtocol = H2, key: PoolKey = KEY, **budget: Any) -> int:
        number = self.open(protocol, key, **budget)
        self.finish(self.tickets)
        return number

    def answer(self, ticket: int) -> list[Action]:
        """The response head of the request comes."""
        return self._done(self.scheduler.answered(ticket, self.now))

    def finish(self, ticket: int, size: int = 0) -> list[Action]:
        return self._done(self.scheduler.finished(ticket, self.now, size=size))

    def cancel(self, ticket: int) -> list[Action]:
        return self._done(self.scheduler.cancel(ticket, self.now))

    def fail_dial(self, number: int, error: PoolPlusError = REFUSED) -> list[Action]:
        return self._done(self.scheduler.dial_failed(number, error, self.now))

    def limit(self, number: int, streams: int) -> list[Action]:
        return self._done(self.scheduler.capacity(number, streams, self.now))

    def retire(self, number: int, reason: CloseReason = CloseReason.GOAWAY) -> list[Action]:
        return self._done(self.scheduler.retire(number, reason, self.now))

    def retire_all(self, **of: str) -> list[Action]:
        return self._done(self.scheduler.retire_all(self.now, **of))

    def let_go(self, session: str) -> list[Action]:
        """What was held in the session is not any more."""
        return self._done(self.scheduler.release(session, self.now))

    def carry(self, number: int, size: int) -> list[Action]:
        return self._done(self.scheduler.traffic(number, size, self.now))

    def lose(self, number: int) -> list[Action]:
        return self._done(self.scheduler.lost(number, RESET, self.now))

    def calm(self, origin: Origin = ORIGIN) -> list[Action]:
        return self._done(self.scheduler.calm(origin, self.now))

    def wait(self, seconds: float) -> list[Action]:
        """Time passes, and the scheduler is called when it has asked to be, and at the end."""
        actions: list[Action] = []
        end = self.now + seconds
        while (due := self.scheduler.next_deadline()) is not None and due <= end:
            self.now = due
            actions += self._done(self.scheduler.tick(due))
        self.now = end
        return actions + self._done(self.scheduler.tick(end))

    def close(self) -> list[Action]:
        return self._done(self.scheduler.close(CLOSED))

    def _done(self, actions: list[Action]) -> list[Action]:
        self.scheduler.check()
        return actions

    def __repr__(self) -> str:
        return repr(self.scheduler)
