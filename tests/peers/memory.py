"""Both ends of an engine, in memory: what it writes, what its owner hears, what its exchanges hear.

All of them may share one journal, a list of ``(who, what, value)`` in the order in which the engine called out, so a
test can say that ``draining`` came before ``done``. A RecordingExchange also holds the engine to the contract of
``net/wire.py``: order of calls, no empty chunk, ``done`` once, nothing after it.
"""

from __future__ import annotations

from collections.abc import Callable

from scrapy_poolplus.core.errors import PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.net.wire import Outcome, ResponseHead

Journal = list[tuple[str, str, object]]


class MemoryTransport:
    """EngineTransport that keeps each write; `take` gives what was written since the last `take`. `waiting`: what
    `unread` says."""

    waiting = False

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self._taken = 0

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def unread(self) -> bool:
        return self.waiting

    def take(self) -> bytes:
        new = b"".join(self.writes[self._taken :])
        self._taken = len(self.writes)
        return new


class RecordingOwner:
    """EngineOwner that keeps what it heard. `flushes` counts the calls of ``flush_soon``; the test calls ``flush``."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal: Journal = [] if journal is None else journal
        self.capacities: list[int] = []
        self.drained: CloseReason | None = None
        self.failure: tuple[PoolPlusError, CloseReason] | None = None
        self.flushes = 0

    def capacity(self, streams: int) -> None:
        self.capacities.append(streams)
        self.journal.append(("owner", "capacity", streams))

    def draining(self, reason: CloseReason) -> None:
        assert self.drained is None, f"draining twice: {self.drained}, {reason}"
        self.drained = reason
        self.journal.append(("owner", "draining", reason))

    def failed(self, error: PoolPlusError, reason: CloseReason) -> None:
        assert self.failure is None, f"failed twice: {self.failure}, {error!r}"
        self.failure = (error, reason)
        self.journal.append(("owner", "failed", reason))

    def flush_soon(self) -> None:
        self.flushes += 1


class RecordingExchange:
    """Exchange that keeps what it heard. The hooks run inside the engine's call, for a cancel or a next request there."""

    def __init__(
        self,
        name: str = "exchange",
        journal: Journal | None = None,
        *,
        on_head: Callable[[], None] | None = None,
        on_data: Callable[[], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.journal: Journal = [] if journal is None else journal
        self.was_sent = False
        self.response: ResponseHead | None = None
        self.chunks: list[bytes] = []
        self.outcome: Outcome | None = None
        self.wire: tuple[int, int] | None = None
        self._on_head, self._on_data, self._on_done = on_head, on_data, on_done

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def sent(self) -> None:
        assert not self.was_sent, f"{self.name}: sent twice"
        assert self.outcome is None, f"{self.name}: sent after done"
        self.was_sent = True
        self.journal.append((self.name, "sent", None))

    def head(self, head: ResponseHead) -> None:
        assert self.was_sent, f"{self.name}: head before sent"
        assert self.response is None, f"{self.name}: two heads"
        assert self.outcome is None, f"{self.name}: head after done"
        self.response = head
        self.journal.append((self.name, "head", head))
        if self._on_head:
            self._on_head()

    def data(self, chunk: bytes) -> None:
        assert self.response is not None, f"{self.name}: data before head"
        assert self.outcome is None, f"{self.name}: data after done"
        assert type(chunk) is bytes, f"{self.name}: data is a {type(chunk).__name__}"
        assert chunk, f"{self.name}: empty data"
        self.chunks.append(chunk)
        self.journal.append((self.name, "data", chunk))
        if self._on_data:
            self._on_data()

    def carried(self, sent: int, received: int) -> None:
        assert self.outcome is None, f"{self.name}: carried after done"
        self.wire = (sent, received)

    def done(self, outcome: Outcome) -> None:
        assert self.outcome is None, f"{self.name}: done twice: {self.outcome}, {outcome}"
        self.outcome = outcome
        self.journal.append((self.name, "done", outcome))
        if self._on_done:
            self._on_done()
