"""An engine that speaks nothing: it keeps what a connection tells it, in order, and lets a test speak in its place."""

from __future__ import annotations

from scrapy_poolplus.core.errors import CancelledError, Phase, PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.wire import EngineConfig, EngineOwner, EngineTransport, Exchange, Outcome, WireRequest
from tests.peers.memory import Journal


class SilentEngine:
    """Engine. `journal` has ``("engine", what, value)``; what was started is in flight until it is cancelled or lost."""

    def __init__(
        self,
        protocol: HttpProtocol,
        transport: EngineTransport,
        owner: EngineOwner,
        config: EngineConfig,
        journal: Journal | None = None,
    ) -> None:
        self.protocol = protocol
        self.transport = transport
        self.owner = owner
        self.config = config
        self.journal: Journal = [] if journal is None else journal
        self.in_flight: list[Exchange] = []
        self.received = b""
        self.deadline: float | None = None

    def begin(self, now: float) -> None:
        self.journal.append(("engine", "begin", now))

    def start(self, request: WireRequest, exchange: Exchange, now: float) -> None:
        self.journal.append(("engine", "start", now))
        self.in_flight.append(exchange)

    def cancel(self, exchange: Exchange, now: float) -> None:
        self.journal.append(("engine", "cancel", now))
        self.in_flight.remove(exchange)
        error = CancelledError("not wanted any more", phase=Phase.FIRST_BYTE)
        exchange.done(Outcome(error=error, progress=Progress.ENDED))

    def receive(self, data: bytes, now: float) -> None:
        self.journal.append(("engine", "receive", data))
        self.received += data

    def lost(self, error: PoolPlusError, now: float) -> None:
        self.journal.append(("engine", "lost", error))
        while self.in_flight:
            self.in_flight.pop(0).done(Outcome(error=error, progress=Progress.SENT))

    def flush(self, now: float) -> None:
        self.journal.append(("engine", "flush", now))

    def goodbye(self, now: float) -> None:
        self.journal.append(("engine", "goodbye", now))
        self.transport.write(b"goodbye")

    def next_deadline(self) -> float | None:
        return self.deadline

    def expire(self, now: float) -> None:
        self.journal.append(("engine", "expire", now))


class RecordingConnectionOwner:
    """ConnectionOwner that keeps what it heard, in the journal and by name."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal: Journal = [] if journal is None else journal
        self.end: tuple[PoolPlusError, CloseReason] | None = None

    def capacity(self, streams: int) -> None:
        self.journal.append(("owner", "capacity", streams))

    def draining(self, reason: CloseReason) -> None:
        self.journal.append(("owner", "draining", reason))

    def closed(self, error: PoolPlusError, reason: CloseReason) -> None:
        assert self.end is None, f"closed twice: {self.end}, {error!r}"
        self.end = (error, reason)
        self.journal.append(("owner", "closed", reason))
