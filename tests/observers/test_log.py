from __future__ import annotations

import logging

import pytest

from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    ConnectionDraining,
    ConnectionOpened,
    DialFailed,
    DialStarted,
    PoolEvent,
    Replayed,
    RequestDispatched,
    RequestDone,
    RequestQueued,
    SessionCrossed,
    SessionKept,
    SessionOpened,
    SessionRetired,
)
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Proxy, Route
from scrapy_poolplus.observers.log import LogObserver

KEY = PoolKey(Route(Origin.of("https", "a.example"), proxy=Proxy("http", "p.example", 3128, b"Basic c2VjcmV0")))
PLACE = "a.example:443 via proxy http://p.example:3128"

LINES: list[tuple[PoolEvent, str]] = [
    (DialStarted(7, KEY, 1.0), f"Connection 7: dialling {PLACE}"),
    (DialFailed(7, KEY, "TLSError", 0.5, 1.5), f"Connection 7: dialling {PLACE} ended after 0.500 s: TLSError"),
    (ConnectionOpened(7, KEY, HttpProtocol.HTTP2, 0.25, 1.0), f"Connection 7: open to {PLACE}, h2, after 0.250 s"),
    (ConnectionDraining(7, KEY, CloseReason.GOAWAY, 2.0), "Connection 7: drains, goaway"),
    (
        ConnectionClosed(7, KEY, HttpProtocol.HTTP2, CloseReason.GOAWAY, 5, 100, 200, 3.0, 4.0),
        "Connection 7: closed, goaway; 5 requests, 100 bytes sent, 200 received in 3.000 s",
    ),
    (Replayed(3, 7, "not sent", 1.0), "Connection 7: request 3 goes to another one: not sent"),
    (SessionOpened("s1", KEY, 50, 1.0), f"Session s1: open, for {PLACE}"),
    (
        SessionKept("s1", "flow", "POST https://a.example/login", 1.0),
        "Session s1: kept whole, flow: POST https://a.example/login",
    ),
    (SessionCrossed("s1", "retry", 1.0), "Session s1: a request goes on in another one: retry"),
    (
        SessionRetired("s1", CloseReason.REQUESTS_SPENT, 50, 1.0),
        "Session s1: retired, requests_spent; 50 requests",
    ),
]


@pytest.mark.parametrize(("event", "line"), LINES, ids=[type(event).__name__ for event, _ in LINES])
def test_each_transition_is_one_debug_line_with_the_number_of_its_connection(
    event: PoolEvent, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "scrapy_poolplus")
    LogObserver()(event)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.DEBUG, line)]


def test_single_requests_are_left_to_scrapys_own_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "scrapy_poolplus")
    observe = LogObserver()
    observe(RequestQueued(1, KEY, 1.0))
    observe(RequestDispatched(1, 7, KEY, HttpProtocol.HTTP2, True, 0.0, 1.0))
    observe(RequestDone(1, 7, None, 1.0))
    assert caplog.records == []
