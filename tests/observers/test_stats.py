from __future__ import annotations

from typing import Any

import pytest
from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.statscollectors import MemoryStatsCollector

from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    ConnectionDraining,
    ConnectionOpened,
    DialFailed,
    DialStarted,
    HostPaused,
    Replayed,
    RequestDispatched,
    RequestDone,
    RequestHeld,
    RequestQueued,
    SessionOpened,
)
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.observers.stats import StatsObserver

KEY = PoolKey(Route(Origin.of("https", "a.example")))
H2, HTTP1 = HttpProtocol.HTTP2, HttpProtocol.HTTP1


@pytest.fixture
def stats() -> MemoryStatsCollector:
    return MemoryStatsCollector(Crawler(Spider))


@pytest.fixture
def see(stats: MemoryStatsCollector) -> StatsObserver:
    return StatsObserver(stats)


def opened(number: int, seconds: float = 0.25, protocol: HttpProtocol = H2) -> ConnectionOpened:
    return ConnectionOpened(number, KEY, protocol, seconds, 1.0)


def closed(number: int, reason: CloseReason, protocol: HttpProtocol | None = H2) -> ConnectionClosed:
    return ConnectionClosed(number, KEY, protocol, reason, 5, 100, 200, 3.0, 4.0)


def dispatched(reused: bool, waited: float = 0.0, protocol: HttpProtocol = H2) -> RequestDispatched:
    return RequestDispatched(1, 1, KEY, protocol, reused, waited, 1.0)


def found(stats: MemoryStatsCollector) -> dict[str, Any]:
    return dict(stats.get_stats())


def test_opened_and_closed_connections_are_counted_by_reason(stats: MemoryStatsCollector, see: StatsObserver) -> None:
    for number in (1, 2, 3):
        see(opened(number))
    see(closed(1, CloseReason.IDLE_TIMEOUT))
    see(closed(2, CloseReason.GOAWAY))
    see(closed(3, CloseReason.IDLE_TIMEOUT))
    assert found(stats) == {
        "poolplus/connections/opened": 3,
        "poolplus/connections/open_max": 3,
        "poolplus/connections/closed/idle_timeout": 2,
        "poolplus/connections/closed/goaway": 1,
        "poolplus/dial/seconds_total": 0.75,
    }


def test_the_peak_is_the_most_that_were_open_at_once(stats: MemoryStatsCollector, see: StatsObserver) -> None:
    see(opened(1))
    see(opened(2))
    see(closed(1, CloseReason.IDLE_TIMEOUT))
    see(opened(3))
    see(closed(2, CloseReason.IDLE_TIMEOUT))
    see(closed(3, CloseReason.IDLE_TIMEOUT))
    see(opened(4))
    assert found(stats)["poolplus/connections/open_max"] == 2
    assert found(stats)["poolplus/connections/opened"] == 4


def test_a_connection_that_drains_is_still_open(stats: MemoryStatsCollector, see: StatsObserver) -> None:
    see(opened(1))
    see(ConnectionDraining(1, KEY, CloseReason.GOAWAY, 2.0))
    see(opened(2))
    assert found(stats)["poolplus/connections/open_max"] == 2


def test_requests_are_counted_by_protocol_and_by_reuse(stats: MemoryStatsCollector, see: StatsObserver) -> None:
    see(dispatched(reused=False, waited=0.5))
    see(dispatched(reused=True, waited=0.25))
    see(dispatched(reused=True))
    see(dispatched(reused=False, protocol=HTTP1))
    assert found(stats) == {
        "poolplus/requests/h2": 3,
        "poolplus/requests/http/1.1": 1,
        "poolplus/connections/reused": 2,
        "poolplus/wait/seconds_total": 0.75,
    }


def test_a_dial_that_failed_and_one_that_nobody_waited_for_are_counted_apart(
    stats: MemoryStatsCollector, see: StatsObserver
) -> None:
    see(DialStarted(1, KEY, 1.0))
    see(DialFailed(1, KEY, "ConnectRefusedError", 0.5, 1.5))
    see(closed(1, CloseReason.DIAL_FAILED, protocol=None))
    see(DialFailed(2, KEY, CloseReason.DIAL_ABANDONED.value, 0.5, 1.5))
    assert found(stats) == {"poolplus/dial/failed": 1, "poolplus/dial/abandoned": 1}
    see(opened(3))
    assert found(stats)["poolplus/connections/open_max"] == 1, "what never opened does not count as open or closed"


@pytest.mark.parametrize(
    ("progress", "reason"),
    [
        (Progress.NOT_SENT, "not_sent"),
        (Progress.REFUSED, "refused"),
        (Progress.REFUSED_SUSPECT, "refused_suspect"),
        (Progress.HTTP1_REQUIRED, "http1_required"),
        (Progress.SENT, "sent"),
    ],
)
def test_replays_are_counted_by_their_proof(
    stats: MemoryStatsCollector, see: StatsObserver, progress: Progress, reason: str
) -> None:
    see(Replayed(1, 1, progress.value, 1.0))
    assert found(stats) == {f"poolplus/replays/{reason}": 1}


def test_a_pause_counts_once_with_all_its_seconds(stats: MemoryStatsCollector, see: StatsObserver) -> None:
    see(HostPaused(host="a.example", seconds=5.0, asked=5.0, added=5.0, again=False, cut=False, at=1.0))
    see(RequestHeld("a.example", 2.0))
    see(RequestHeld("a.example", 3.0))
    see(HostPaused(host="a.example", seconds=9.0, asked=9.0, added=6.5, again=True, cut=False, at=3.5))
    assert found(stats) == {
        "poolplus/retry_after/pauses": 1,
        "poolplus/retry_after/seconds_total": 11.5,
        "poolplus/retry_after/held": 2,
    }


def test_other_events_leave_no_stat(stats: MemoryStatsCollector, see: StatsObserver) -> None:
    see(RequestQueued(1, KEY, 1.0))
    see(RequestDone(1, None, None, 1.0))
    see(SessionOpened("s", KEY, 50, 1.0))
    assert found(stats) == {}


class BytesCollector(MemoryStatsCollector):
    """As scrapy-redis's, whose values come back as bytes (rmax/scrapy-redis stats.py)."""

    def get_value(self, key: str, default: Any = None, spider: Any = None) -> Any:
        value = super().get_value(key, default)
        return default if value is default else str(value).encode()

    def max_value(self, key: str, value: Any, spider: Any = None) -> None:
        self.set_value(key, max(self.get_value(key, value), value))


def test_a_collector_that_gives_back_bytes_is_never_read() -> None:
    stats = BytesCollector(Crawler(Spider))
    see = StatsObserver(stats)
    for number in (1, 2):
        see(opened(number))
        see(dispatched(reused=False, waited=0.5))
    assert found(stats)["poolplus/connections/open_max"] == 2
    assert found(stats)["poolplus/wait/seconds_total"] == 1.0
    assert found(stats)["poolplus/dial/seconds_total"] == 0.5


def test_a_second_pool_of_the_crawl_adds_to_the_stats_of_the_first(
    stats: MemoryStatsCollector, see: StatsObserver
) -> None:
    """The observer is the crawler's: pools that follow one another have the same."""
    for _ in range(2):
        see(opened(1, seconds=0.5))
        see(dispatched(reused=False, waited=1.0))
        see(closed(1, CloseReason.POOL_CLOSED))
    assert found(stats) == {
        "poolplus/connections/opened": 2,
        "poolplus/connections/open_max": 1,
        "poolplus/connections/closed/pool_closed": 2,
        "poolplus/dial/seconds_total": 1.0,
        "poolplus/requests/h2": 2,
        "poolplus/wait/seconds_total": 2.0,
    }
