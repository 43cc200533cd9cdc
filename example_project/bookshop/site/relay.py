"""Put the shop far away: `python -m bookshop.site.relay --to 4242 --round-trip 0.05`; it prints its port.

Simulated: the time that light needs. Every byte arrives half a round trip after it was sent, in order, in both directions,
and a new connection costs its TCP handshake: what a client sends first waits one round trip more, as it would for SYN and
SYN-ACK (the client's own connect() returns at once). The end of a direction and a reset travel as late as the data.
Not simulated: bandwidth, loss, slow start, jitter.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from bookshop.site.lifetime import announce, told_to_end

HOST = "127.0.0.1"
# A direction that holds more than this stops reading until some of it is delivered. Far above what a page needs.
MAX_HELD_BYTES = 8 * 1024 * 1024


class Clock(Protocol):
    """The two methods of an event loop that a delay needs."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> object: ...


class DelayLine:
    """Calls what is put in after `delay` seconds, but not before `open_at` + `delay`, in the order it was put in."""

    def __init__(self, clock: Clock, delay: float, open_at: float) -> None:
        self._clock = clock
        self._delay = delay
        self._open_at = open_at
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def put(self, deliver: Callable[[], None]) -> None:
        due = max(self._clock.time(), self._open_at) + self._delay
        self._waiting.append((due, deliver))
        if len(self._waiting) == 1:
            self._clock.call_at(due, self._deliver)

    def _deliver(self) -> None:
        # A loop may call up to its clock's resolution early; what is due by then goes too.
        now = max(self._clock.time(), self._waiting[0][0])
        while self._waiting and self._waiting[0][0] <= now:
            self._waiting.popleft()[1]()
        if self._waiting:
            self._clock.call_at(self._waiting[0][0], self._deliver)


class End(asyncio.Protocol):
    """One end of a relayed connection: what it reads goes down `line` to the other end."""

    def __init__(self, line: DelayLine) -> None:
        self._line = line
        self._held = 0
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._undelivered: list[Callable[[], None]] = []
        self.other: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        for act in self._undelivered:
            act()
        self._undelivered.clear()

    def data_received(self, data: bytes) -> None:
        self._held += len(data)
        if self._held >= MAX_HELD_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._line.put(lambda: self._pass_on(data))

    def eof_received(self) -> bool:
        self._line.put(lambda: self._other_end().told(lambda end: end.finish()))
        # The other direction stays open.
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._line.put(lambda: self._other_end().told(lambda end: end.abort() if error else end.close()))

    def told(self, act: Callable[[End], None]) -> None:
        """Do it here: once this end is connected, and not at all when it is gone."""
        if self._transport is None:
            self._undelivered.append(lambda: act(self))
        elif not self._lost:
            act(self)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def finish(self) -> None:
        assert self._transport is not None
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def _pass_on(self, data: bytes) -> None:
        self._held -= len(data)
        if self._held < MAX_HELD_BYTES and self._transport is not None and not self._lost:
            self._transport.resume_reading()
        self._other_end().told(lambda end: end.write(data))

    def _other_end(self) -> End:
        assert self.other is not None
        return self.other


async def relay(target: int, round_trip: float) -> asyncio.Server:
    """Listen on a free port and carry every connection to `target`, `round_trip` seconds away."""
    loop = asyncio.get_running_loop()
    dials: set[asyncio.Task[object]] = set()

    async def dial(client: End, server: End) -> None:
        try:
            await loop.create_connection(lambda: server, HOST, target)
        except OSError:
            client.abort()

    def accepted() -> End:
        now = loop.time()
        client = End(DelayLine(loop, round_trip / 2, now + round_trip))
        server = End(DelayLine(loop, round_trip / 2, now))
        client.other, server.other = server, client
        task = loop.create_task(dial(client, server))
        dials.add(task)
        task.add_done_callback(dials.discard)
        return client

    return await loop.create_server(accepted, HOST, 0, backlog=512)


async def run(target: int, round_trip: float) -> None:
    server = await relay(target, round_trip)
    announce(server.sockets[0].getsockname()[1])
    await told_to_end()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A TCP relay that delays.")
    parser.add_argument("--to", type=int, required=True, help="the port to relay to")
    parser.add_argument("--round-trip", type=float, default=0.05, help="seconds")
    options = parser.parse_args()
    asyncio.run(run(options.to, options.round_trip))


if __name__ == "__main__":
    main()
