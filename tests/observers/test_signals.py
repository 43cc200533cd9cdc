from __future__ import annotations

from typing import Any

import pytest
from scrapy import Spider
from scrapy.utils.test import get_crawler

from scrapy_poolplus import signals
from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    ConnectionDraining,
    ConnectionOpened,
    PoolEvent,
    Replayed,
    RequestQueued,
    SessionOpened,
    SessionRetired,
)
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.observers.signals import SIGNALS, SignalsObserver

KEY = PoolKey(Route(Origin.of("https", "a.example")))
CLOSED = ConnectionClosed(1, KEY, HttpProtocol.HTTP2, CloseReason.GOAWAY, 5, 100, 200, 3.0, 4.0)
EVENTS: list[tuple[PoolEvent, object]] = [
    (ConnectionOpened(1, KEY, HttpProtocol.HTTP2, 0.1, 1.0), signals.connection_opened),
    (ConnectionDraining(1, KEY, CloseReason.GOAWAY, 2.0), signals.connection_draining),
    (CLOSED, signals.connection_closed),
    (Replayed(1, 1, "refused", 2.0), signals.request_replayed),
    (SessionOpened("s", KEY, 50, 1.0), signals.session_opened),
    (SessionRetired("s", CloseReason.RETIRED, 7, 2.0), signals.session_retired),
]


@pytest.mark.parametrize(("event", "signal"), EVENTS, ids=lambda value: type(value).__name__)
def test_an_event_is_a_signal_for_those_who_listen(event: PoolEvent, signal: object) -> None:
    crawler = get_crawler(Spider)
    heard: list[dict[str, Any]] = []

    def receiver(**arguments: Any) -> None:
        heard.append(arguments)

    see = SignalsObserver(crawler)
    see(event)
    crawler.signals.connect(receiver, signal)
    see(event)
    assert [(found["event"], found["spider"], found["signal"]) for found in heard] == [
        (event, crawler.spider, signal)
    ], "once, and nothing before somebody listened"


def test_nothing_is_sent_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    crawler = get_crawler(Spider)
    monkeypatch.setattr(crawler.signals, "send_catch_log", lambda **_: pytest.fail("sent to nobody"))
    for event, _ in EVENTS:
        SignalsObserver(crawler)(event)


def test_a_connection_that_never_opened_is_not_told_as_closed() -> None:
    crawler = get_crawler(Spider)
    heard: list[Any] = []
    crawler.signals.connect(heard.append, signals.connection_closed, weak=False)
    failed = ConnectionClosed(1, KEY, None, CloseReason.DIAL_FAILED, 0, 0, 0, 0.0, 4.0)
    SignalsObserver(crawler)(failed)
    SignalsObserver(crawler)(RequestQueued(1, KEY, 0.0))
    assert heard == []


def test_each_signal_has_its_event() -> None:
    named = {name: value for name, value in vars(signals).items() if type(value) is object}
    assert list(SIGNALS.values()) == list(named.values())
