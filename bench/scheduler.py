"""What one request costs in the scheduler, from its submission to its end, and whether that grows with what is open.

``python -m bench.scheduler`` prints microseconds of processor time per request at 8, 100 and 1,000 open connections over as
many keys: the least of several rounds, for what else the machine does only ever adds. On connections that are open it
should stay under 20 at each size, and nothing should grow with the size. Where each request has a new connection, the cost
of dialling and closing it is in there too.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import process_time

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler

SIZES = (8, 100, 1_000)
ROUNDS = 9
REQUESTS = 10_000
LIMIT = 20.0
"""Microseconds per request."""
INTERVAL = 0.001
"""Seconds of the scheduler's clock between two requests."""


@dataclass(frozen=True, slots=True)
class Load:
    """`behind`: requests that are on each connection, or wait for it, when another one comes for it.
    `requests_each`: budget of a connection."""

    name: str
    protocol: HttpProtocol
    behind: int
    requests_each: int | None = None


LOADS = (
    Load("HTTP/1.1, idle connections", HttpProtocol.HTTP1, behind=0),
    Load("HTTP/1.1, 4 requests in line for each", HttpProtocol.HTTP1, behind=4),
    Load("HTTP/1.1, each request on a new connection", HttpProtocol.HTTP1, behind=1, requests_each=1),
    Load("h2, idle connections", HttpProtocol.HTTP2, behind=0),
    Load("h2, 50 streams on each", HttpProtocol.HTTP2, behind=50),
)


class Crawl:
    """A scheduler, with the pool's part played without I/O: dials succeed at once, requests end when told."""

    def __init__(self, load: Load, size: int) -> None:
        self._load = load
        self._keys = [PoolKey(Route(Origin("https", f"host{number}.example", 443))) for number in range(size)]
        self._policy = Policy(max_connections=1, preconnect=False)
        self._budget = Budget(requests=load.requests_each)
        self._scheduler = Scheduler(max_connections=size)
        self._in_flight: deque[int] = deque()
        self._tickets = 0
        self._now = 0.0
        for _ in range(size * max(1, load.behind)):
            self._submit()
        while not load.behind and self._in_flight:
            self._finish_oldest()

    @property
    def open(self) -> int:
        """Connections."""
        return len(self._scheduler.connections)

    def run(self, requests: int) -> None:
        """One request after the other, each to the next host."""
        for _ in range(requests):
            self._submit()
            self._finish_oldest()

    def _submit(self) -> None:
        self._tickets += 1
        self._now += INTERVAL
        due = self._scheduler.next_deadline()
        if due is not None and due <= self._now:
            self._act(self._scheduler.tick(self._now))
        key = self._keys[self._tickets % len(self._keys)]
        self._act(self._scheduler.submit(self._tickets, key, self._policy, self._now))

    def _finish_oldest(self) -> None:
        self._act(self._scheduler.finished(self._in_flight.popleft(), self._now))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dispatch):
                self._in_flight.append(action.ticket)
            elif isinstance(action, Dial):
                protocol = self._load.protocol
                self._act(self._scheduler.connected(action.connection, protocol, self._budget, self._now))
            else:
                assert isinstance(action, Close | Drain), action


def microseconds(load: Load, size: int) -> float:
    """Per request: the least of the rounds."""
    crawl = Crawl(load, size)
    crawl.run(REQUESTS)
    rounds = []
    for _ in range(ROUNDS):
        start = process_time()
        crawl.run(REQUESTS)
        rounds.append((process_time() - start) / REQUESTS * 1e6)
    assert crawl.open == size
    return min(rounds)


def main() -> None:
    """Print the table."""
    print(f"Scheduler: µs per request, least of {ROUNDS} rounds of {REQUESTS:,} requests; limit {LIMIT:.0f}")
    print(f"{'open connections, as many keys':44}" + "".join(f"{size:>8,}" for size in SIZES))
    for load in LOADS:
        print(f"{load.name:44}" + "".join(f"{microseconds(load, size):8.1f}" for size in SIZES))


if __name__ == "__main__":
    main()
