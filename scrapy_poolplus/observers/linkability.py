"""What servers could link, and what that cost: the figures of rotation, written when the spider closes.

=======================================================  ==========================================================
``poolplus/linkability/{level}/units``                   linkable units: requests that share a token of that level
``poolplus/linkability/{level}/mean``, ``p95``, ``max``  their sizes in requests
``poolplus/linkability/{level}/experienced``             size of the unit of a random request
``poolplus/linkability/{level}/link_probability``        that two random requests are in one unit
``poolplus/linkability/{level}/effective_profiles``      2 to the entropy of the sizes
``poolplus/linkability/crossings/{cause}``               redirects and retries that went on in another session
``poolplus/linkability/flows``, ``pins``                 sessions kept whole, apart from the figures above
``.../flows_requests``, ``.../flows_max``                what they carried, all of them and the longest (pins alike)
``poolplus/rotation/handshakes_per_1000``                connections made for 1,000 requests
``poolplus/rotation/connect_seconds``                    seconds that making them took, added up
``poolplus/rotation/stall_seconds``                      seconds that requests waited while one was being made
``poolplus/rotation/preconnect_unused``                  connections that never carried a request
=======================================================  ==========================================================

Levels are nested: ``connection``; ``tls`` also joins connections that resumed a TLS session; ``session`` also joins
those with one cookie jar and proxy login. The IP address is left aside: it links everything that comes from it. All
requests count that were given to a connection; so what a server refused, and did not look at, counts as well.

There are no records of single requests: those of a session that is over are one more in a histogram of sizes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from scrapy_poolplus.core.events import (
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    DialStarted,
    PoolEvent,
    Replayed,
    RequestDispatched,
    RequestDone,
    RequestQueued,
    SessionCrossed,
    SessionEnded,
    SessionKept,
    SessionOpened,
)
from scrapy_poolplus.core.linkage import Linkability
from scrapy_poolplus.observers.stalls import Stalls

if TYPE_CHECKING:
    from scrapy.statscollectors import StatsCollector

logger = logging.getLogger(__name__)

MOST_HOSTS = 10_000
"""Hosts whose requests are counted, to tell when one flow holds most of them."""


@dataclass(slots=True)
class _Unit:
    """A session that is not over. `kept`: ``"flow"`` or ``"pin"``, empty while it rotates."""

    promised: int | None = None
    kept: str = ""
    begun_by: str = ""
    connections: Counter[int] = field(default_factory=Counter)
    """Requests by connection."""
    resumed: set[int] = field(default_factory=set)
    hosts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Kept:
    """Sessions of one kind that are outside the promise. `longest`: requests of the longest, and what began it."""

    count: int = 0
    requests: int = 0
    longest: tuple[int, str] = (0, "")

    def add(self, requests: int, begun_by: str) -> None:
        self.count += 1
        self.requests += requests
        self.longest = max(self.longest, (requests, begun_by))


class LinkabilityObserver:
    """Watches the sessions of one crawl. `shared_jar` says of a host whether one cookie jar serves all its sessions."""

    def __init__(self, stats: StatsCollector, *, shared_jar: Callable[[str], bool] = lambda _host: False) -> None:
        self._stats = stats
        self._shared_jar = shared_jar
        self._units: dict[str, _Unit] = {}
        self._by_connection: Counter[int] = Counter()
        self._by_tls: Counter[int] = Counter()
        self._by_session: Counter[int] = Counter()
        self._resumed = 0
        """Requests over resumed connections: they are one unit, as the server that was resumed at knows its chain."""
        self._joined = 0
        """Requests of sessions that resumed connections or a shared jar tie together."""
        self._kept = {"flow": _Kept(), "pin": _Kept()}
        self._promises: set[int] = set()
        self._broken = 0
        self._hosts: Counter[str] = Counter()
        self._flow_of: dict[str, tuple[int, str]] = {}
        """The longest flow of a host, and what began it."""
        self._requests = 0
        self._connections = 0
        self._connect_seconds = 0.0
        self._unused: dict[int, bool] = {}
        """Open connections that have carried nothing yet, and whether they resumed a TLS session."""
        self._preconnect_unused = 0
        self._resuming: set[int] = set()
        self._stalls = Stalls()
        self._closed = False
        self._do: dict[type, Callable[[Any], None]] = {
            RequestQueued: self._stalls.queued,
            RequestDispatched: self._dispatched,
            RequestDone: self._stalls.done,
            Replayed: self._stalls.replayed,
            DialStarted: self._stalls.dial_started,
            DialFailed: self._stalls.dial_ended,
            ConnectionOpened: self._opened,
            ConnectionClosed: self._connection_closed,
            SessionOpened: self._session_opened,
            SessionKept: self._session_kept,
            SessionCrossed: self._session_crossed,
            SessionEnded: self._session_ended,
        }

    @property
    def kinds(self) -> frozenset[type]:
        """The events that it wants to hear of."""
        return frozenset(self._do)

    def __call__(self, event: PoolEvent) -> None:
        """Count the event."""
        do = self._do.get(type(event))
        if do is not None and not self._closed:
            do(event)

    # ---- connections

    def _opened(self, event: ConnectionOpened) -> None:
        self._stalls.dial_ended(event)
        self._connections += 1
        self._connect_seconds += event.dial_seconds
        self._unused[event.connection] = event.resumed

    def _connection_closed(self, event: ConnectionClosed) -> None:
        self._resuming.discard(event.connection)
        if self._unused.pop(event.connection, None) is not None:
            self._preconnect_unused += 1

    def _dispatched(self, event: RequestDispatched) -> None:
        self._stalls.dispatched(event)
        self._requests += 1
        if self._unused.pop(event.connection, False):
            self._resuming.add(event.connection)
        if event.session is None:
            # Of a host whose rotation is off: nothing is promised about it.
            return
        unit = self._unit(event.session)
        unit.connections[event.connection] += 1
        if event.connection in self._resuming:
            unit.resumed.add(event.connection)
        host = event.key.origin.host
        unit.hosts[host] += 1
        if host in self._hosts or len(self._hosts) < MOST_HOSTS:
            self._hosts[host] += 1

    # ---- sessions

    def _unit(self, session: str) -> _Unit:
        unit = self._units.get(session)
        if unit is None:
            unit = self._units[session] = _Unit()
        return unit

    def _session_opened(self, event: SessionOpened) -> None:
        self._unit(event.session).promised = event.promised
        if event.promised is not None:
            self._promises.add(event.promised)

    def _session_kept(self, event: SessionKept) -> None:
        unit = self._unit(event.session)
        unit.kept, unit.begun_by = event.cause, event.begun_by

    def _session_crossed(self, event: SessionCrossed) -> None:
        self._stats.inc_value(f"poolplus/linkability/crossings/{event.cause}")

    def _session_ended(self, event: SessionEnded) -> None:
        unit = self._units.pop(event.session, None)
        if unit is not None:
            self._fold(unit)

    def _fold(self, unit: _Unit) -> None:
        requests = unit.connections.total()
        if not requests:
            return
        if unit.kept:
            self._kept[unit.kept].add(requests, unit.begun_by)
            if unit.kept == "flow":
                for host, count in unit.hosts.items():
                    self._flow_of[host] = max(self._flow_of.get(host, (0, "")), (count, unit.begun_by))
            return
        self._by_connection.update(unit.connections.values())
        for connection, count in unit.connections.items():
            if connection in unit.resumed:
                self._resumed += count
            else:
                self._by_tls[count] += 1
        if unit.resumed or any(map(self._shared_jar, unit.hosts)):
            self._joined += requests
        else:
            self._by_session[requests] += 1
        if unit.promised is not None and requests > unit.promised:
            self._broken += 1

    # ---- the end

    def close(self) -> None:
        """Write the figures and the line of the log; what comes later is not counted. May be called again."""
        if self._closed:
            return
        self._closed = True
        for unit in self._units.values():
            self._fold(unit)
        self._units.clear()
        self._preconnect_unused += len(self._unused)
        session = self._write("session", self._by_session, self._joined)
        self._write("tls", self._by_tls, self._resumed)
        self._write("connection", self._by_connection, 0)
        for name, kept in (("flows", self._kept["flow"]), ("pins", self._kept["pin"])):
            self._stats.set_value(f"poolplus/linkability/{name}", kept.count)
            self._stats.set_value(f"poolplus/linkability/{name}_requests", kept.requests)
            self._stats.set_value(f"poolplus/linkability/{name}_max", kept.longest[0])
        handshakes = 1000 * self._connections / self._requests if self._requests else 0.0
        self._stats.set_value("poolplus/rotation/handshakes_per_1000", handshakes)
        self._stats.set_value("poolplus/rotation/connect_seconds", self._connect_seconds)
        self._stats.set_value("poolplus/rotation/stall_seconds", self._stalls.seconds)
        self._stats.set_value("poolplus/rotation/preconnect_unused", self._preconnect_unused)
        if self._requests:
            self._tell(session, handshakes)

    def _write(self, level: str, histogram: Counter[int], joined: int) -> Linkability:
        figures = Linkability.of_histogram(histogram + Counter([joined]) if joined else histogram)
        for name, value in asdict(figures).items():
            if name != "requests":
                self._stats.set_value(f"poolplus/linkability/{level}/{name}", value)
        return figures

    def _tell(self, session: Linkability, handshakes: float) -> None:
        parts = [
            f"at most {session.max} requests linkable{self._promised()}, IP address aside",
            f"{handshakes:,.0f} handshakes per 1,000 requests",
        ]
        for kept, one, many in (
            (self._kept["flow"], "flow kept whole", "flows kept whole"),
            (self._kept["pin"], "pinned session", "pinned sessions"),
        ):
            if kept.count:
                longest, begun_by = kept.longest
                named = one if kept.count == 1 else many
                parts.append(f"{kept.count} {named}, the longest {longest} ({begun_by})")
        logger.info("%s", "; ".join(parts))
        if self._joined:
            logger.warning(
                "%d of the requests are tied together by a shared cookie jar or by resumed TLS sessions: rotation "
                'cannot hold its promise. Set cookies to "session", and leave DOWNLOADER_CLIENTCONTEXTFACTORY out.',
                self._joined,
            )
        if self._broken:
            logger.warning("%d sessions carried more requests than promised; please report this", self._broken)
        for host, (count, begun_by) in self._flow_of.items():
            if count > self._hosts[host] / 2 and host in self._hosts:
                logger.info(
                    "One flow holds %d of the %d requests to %s (begun by %s): rotation leaves it whole.",
                    count,
                    self._hosts[host],
                    host,
                    begun_by,
                )

    def _promised(self) -> str:
        if not self._promises:
            return ""
        least, most = min(self._promises), max(self._promises)
        return f" (promised {most})" if least == most else f" (promised {least} to {most}, by host)"
