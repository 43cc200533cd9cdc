from __future__ import annotations

import logging
from typing import Any

import pytest
from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.statscollectors import MemoryStatsCollector

from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    DialStarted,
    RequestDispatched,
    RequestDone,
    RequestQueued,
    SessionCrossed,
    SessionEnded,
    SessionKept,
    SessionOpened,
    SessionRetired,
)
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.observers.linkability import LinkabilityObserver

KEY = PoolKey(Route(Origin.of("https", "a.example")))
OTHER = PoolKey(Route(Origin.of("https", "b.example")))
H2 = HttpProtocol.HTTP2


class Crawl:
    """Tells an observer what a pool would tell it."""

    def __init__(self, **options: Any) -> None:
        self.stats = MemoryStatsCollector(Crawler(Spider))
        self.see = LinkabilityObserver(self.stats, **options)
        self.tickets = 0

    def open(self, session: str, *connections: int, promised: int | None = 50, resumed: bool = False) -> None:
        self.see(SessionOpened(session, KEY, promised, 0.0))
        for connection in connections:
            self.see(ConnectionOpened(connection, KEY, H2, 0.5, 0.0, resumed=resumed))

    def send(self, session: str | None, connection: int, times: int = 1, key: PoolKey = KEY) -> None:
        for _ in range(times):
            self.tickets += 1
            self.see(RequestQueued(self.tickets, key, 1.0))
            self.see(RequestDispatched(self.tickets, connection, key, H2, False, 0.0, 1.0, session))
            self.see(RequestDone(self.tickets, connection, None, 1.0))

    def end(self, session: str) -> None:
        self.see(SessionRetired(session, CloseReason.REQUESTS_SPENT, 0, 2.0))
        self.see(SessionEnded(session, 2.0))

    def figures(self, below: str) -> dict[str, Any]:
        self.see.close()
        below = f"poolplus/{below}/"
        return {
            key.removeprefix(below): value for key, value in self.stats.get_stats().items() if key.startswith(below)
        }


def test_a_session_over_two_connections_is_one_unit_and_two_of_the_lower_levels() -> None:
    crawl = Crawl()
    crawl.open("s1", 1, 2)
    crawl.send("s1", 1, 3)
    crawl.send("s1", 2, 1)
    crawl.end("s1")
    crawl.open("s2", 3)
    crawl.send("s2", 3, 4)
    session, tls = crawl.figures("linkability/session"), crawl.figures("linkability/tls")
    assert (session["units"], session["max"], session["link_probability"]) == (2, 4, pytest.approx(24 / 56))
    assert (tls["units"], tls["max"]) == (3, 4)
    assert crawl.figures("linkability/connection") == tls


def test_a_resumed_tls_session_joins_connections_and_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    crawl = Crawl()
    for number in (1, 2, 3):
        crawl.open(f"s{number}", number, resumed=number > 1)
        crawl.send(f"s{number}", number, 10)
        crawl.end(f"s{number}")
    assert crawl.figures("linkability/connection")["max"] == 10
    assert crawl.figures("linkability/tls")["max"] == 20
    assert crawl.figures("linkability/session")["max"] == 20
    assert "20 of the requests are tied together" in caplog.text


def test_a_shared_jar_makes_one_unit_of_all_sessions() -> None:
    crawl = Crawl(shared_jar=lambda host: host == "a.example")
    for number in (1, 2):
        crawl.open(f"s{number}", number)
        crawl.send(f"s{number}", number, 10)
    assert crawl.figures("linkability/session")["max"] == 20


def test_flows_and_pins_are_apart_whatever_they_carried_before(caplog: pytest.LogCaptureFixture) -> None:
    crawl = Crawl()
    crawl.open("s1", 1)
    crawl.send("s1", 1, 47)
    crawl.end("s1")
    crawl.open("s2", 2)
    crawl.send("s2", 2, 50)
    crawl.see(SessionRetired("s2", CloseReason.REQUESTS_SPENT, 50, 2.0))
    crawl.see(SessionKept("s2", "flow", "POST https://a.example/login", 3.0))
    crawl.send("s2", 2, 78)
    crawl.end("s2")
    crawl.see(SessionKept("s3", "flow", "POST https://b.example/form", 3.0))
    crawl.open("s3", 3, promised=None)
    crawl.send("s3", 3, 2, key=OTHER)
    crawl.send(None, 4, 1)
    with caplog.at_level(logging.INFO):
        assert crawl.figures("linkability/session")["max"] == 47
    figures = crawl.figures("linkability")
    assert (figures["flows"], figures["flows_requests"], figures["flows_max"], figures["pins"]) == (2, 130, 128, 0)
    assert [record.getMessage() for record in caplog.records] == [
        (
            "at most 47 requests linkable (promised 50), IP address aside; 17 handshakes per 1,000 requests; "
            "2 flows kept whole, the longest 128 (POST https://a.example/login)"
        ),
        (
            "One flow holds 128 of the 175 requests to a.example (begun by POST https://a.example/login): rotation leaves it "
            "whole."
        ),
        "One flow holds 2 of the 2 requests to b.example (begun by POST https://b.example/form): rotation leaves it whole.",
    ]


def test_more_than_was_promised_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    crawl = Crawl()
    crawl.open("s1", 1, promised=5)
    crawl.send("s1", 1, 6)
    crawl.see.close()
    assert "1 sessions carried more requests than promised" in caplog.text


def test_crossings_are_counted_by_cause() -> None:
    crawl = Crawl()
    for cause in ("redirect", "retry", "retry"):
        crawl.see(SessionCrossed("s1", cause, 1.0))
    assert crawl.figures("linkability/crossings") == {"redirect": 1, "retry": 2}


def test_what_it_cost() -> None:
    crawl = Crawl()
    crawl.see(RequestQueued(1, KEY, 10.0))
    crawl.see(DialStarted(1, KEY, 10.0))
    crawl.see(RequestQueued(2, KEY, 10.5))
    crawl.see(DialStarted(2, OTHER, 10.5))
    crawl.see(ConnectionOpened(1, KEY, H2, 1.0, 11.0))
    crawl.see(RequestDispatched(1, 1, KEY, H2, False, 1.0, 11.0, "s1"))
    # It waits on, for room: nothing is being made.
    crawl.see(RequestDispatched(2, 1, KEY, H2, True, 4.5, 15.0, "s1"))
    crawl.see(DialFailed(2, OTHER, "ResolveError", 1.0, 11.5))
    crawl.see(ConnectionOpened(3, KEY, H2, 0.25, 15.0))
    crawl.see(ConnectionClosed(3, KEY, H2, CloseReason.IDLE_TIMEOUT, 0, 0, 0, 90.0, 105.0))
    crawl.see(ConnectionOpened(4, KEY, H2, 0.25, 105.0))
    assert crawl.figures("rotation") == {
        "handshakes_per_1000": 1500.0,
        "connect_seconds": 1.5,
        "stall_seconds": 1.5,
        "preconnect_unused": 2,
    }


def test_nothing_is_kept_of_what_is_over() -> None:
    crawl = Crawl()
    for number in range(1, 200):
        crawl.see(DialStarted(number, KEY, 1.0))
        crawl.open(f"s{number}", number)
        crawl.send(f"s{number}", number, 5)
        crawl.see(ConnectionClosed(number, KEY, H2, CloseReason.REQUESTS_SPENT, 5, 0, 0, 1.0, 2.0))
        crawl.end(f"s{number}")
    see: Any = crawl.see
    stalls = see._stalls
    assert not (see._units)
    assert not (see._unused)
    assert not (see._resuming)
    assert not (stalls._routes)
    assert not (stalls._tickets)
    assert not (stalls._waiting)
    assert len(see._by_session) == 1
