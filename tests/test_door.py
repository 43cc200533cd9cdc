"""The door: who is held by Retry-After, when it goes on, and that each request is answered once (rung 4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred

from scrapy_poolplus.core.errors import PhaseTimeoutError, PoolClosedError
from scrapy_poolplus.core.events import HostPaused, RequestHeld
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.door import Door, Visit, before_closing
from scrapy_poolplus.net.wire import BodyEnd, ResponseHead, WireRequest
from tests.peers.pooling import Bench, FakeConnection, RecordingSink

DATE = 784_111_777.0
"""Sun, 06 Nov 1994 08:49:37 GMT."""
FIVE_SECONDS = [(b"Retry-After", b"5")]
AN_HOUR = [(b"retry-after", b"3600")]
ANSWERED = [200, b"body", BodyEnd.COMPLETE]


class VisitorSink(RecordingSink):
    """What the handler is to the door."""

    visit: Visit

    def head(self, head: ResponseHead, now: float) -> None:
        self.visit.head(head)
        super().head(head, now)

    def end(self, end: BodyEnd, error: Any) -> None:
        super().end(end, error)
        self.visit.over()

    def failed(self, error: Any) -> None:
        super().failed(error)
        self.visit.over()

    @property
    def was_sent(self) -> bool:
        return "dispatched" in self.heard


class Entrance(Bench):
    """A door before a pool, on a clock."""

    def __init__(self, *, retry_after_max: float = 100.0, **policy: Any) -> None:
        super().__init__(retry_after_max=retry_after_max, idle_timeout=1000.0, **policy)
        self.door = Door(self.clock, lambda: DATE)
        self.door.stand_before(self.pool)

    @property
    def first(self) -> FakeConnection:
        """The first connection."""
        (member,) = (member for member in self.pool._members.values() if member.number == 1)
        return cast("FakeConnection", member.connection)

    def come(
        self, host: str = "a.example", *, scheme: str = "https", port: int | None = None, seconds: float = 60.0
    ) -> VisitorSink:
        sink = VisitorSink()
        wire = WireRequest(b"GET", scheme.encode(), host.encode(), b"/")
        key = PoolKey(Route(Origin.of(scheme, host, port)))

        def enter() -> Any:
            return self.pool.request(wire, key, self.policy, sink, seconds=seconds)

        sink.visit = self.door.visit(host, self.policy, enter, sink.failed)
        sink.visit.arrive()
        return sink

    def connected(self, host: str = "a.example", protocol: HttpProtocol = HttpProtocol.HTTP2) -> FakeConnection:
        """The connection of a first request, which was answered."""
        self.come(host)
        connection = self.dials[-1].connect(protocol)
        connection.respond()
        return connection

    def paused(self, headers: list[tuple[bytes, bytes]] = FIVE_SECONDS, status: int = 429) -> FakeConnection:
        """The connection to a.example, which has just asked for a pause."""
        connection = self.connected()
        self.come()
        connection.respond(status=status, headers=headers)
        return connection

    def happened(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def sent(*sinks: VisitorSink) -> list[bool]:
    return [sink.was_sent for sink in sinks]


@pytest.mark.parametrize("status", [429, 503])
def test_requests_for_a_host_that_asked_for_a_pause_wait_for_its_end(status: int) -> None:
    entrance = Entrance()
    connection = entrance.paused(status=status)
    held = [entrance.come(), entrance.come()]
    entrance.clock.advance(4.9)
    assert sent(*held) == [False, False]
    entrance.clock.advance(0.1)
    assert sent(*held) == [True, True]
    connection.respond()
    connection.respond()
    assert [sink.heard[-3:] for sink in held] == [ANSWERED, ANSWERED]
    assert len(entrance.happened(HostPaused)) == 1
    assert len(entrance.happened(RequestHeld)) == 2


@pytest.mark.parametrize("status", [200, 301, 404, 500, 502])
def test_retry_after_with_another_status_pauses_nothing(status: int) -> None:
    entrance = Entrance()
    entrance.paused(status=status)
    assert entrance.come().was_sent


def test_the_pause_is_the_hosts_whatever_the_scheme_and_the_port() -> None:
    entrance = Entrance()
    entrance.paused()
    entrance.come(scheme="http")
    entrance.come(port=8443)
    assert len(entrance.dials) == 1
    entrance.come("b.example")
    assert len(entrance.dials) == 2
    entrance.clock.advance(5.0)
    assert len(entrance.dials) == 4


def test_the_time_out_of_a_download_begins_when_it_goes_on() -> None:
    entrance = Entrance()
    entrance.paused([(b"Retry-After", b"50")])
    held = entrance.come(seconds=10.0)
    entrance.clock.pump([10.0] * 5)
    assert held.was_sent
    entrance.clock.advance(9.9)
    assert not isinstance(held.heard[-1], PhaseTimeoutError)
    entrance.clock.advance(0.1)
    assert isinstance(held.heard[-1], PhaseTimeoutError)


def test_a_date_is_taken_from_the_wall_clock() -> None:
    entrance = Entrance()
    entrance.paused([(b"Retry-After", b"Sun, 06 Nov 1994 08:49:40 GMT")])
    held = entrance.come()
    entrance.clock.advance(2.9)
    assert not held.was_sent
    entrance.clock.advance(0.1)
    assert held.was_sent


def test_one_timer_serves_all_that_are_held() -> None:
    entrance = Entrance()
    entrance.paused()
    before = len(entrance.clock.getDelayedCalls())
    held = [entrance.come() for _ in range(20)]
    assert len(entrance.clock.getDelayedCalls()) == before + 1
    entrance.clock.advance(5.0)
    assert all(sent(*held))


@pytest.mark.parametrize("value", [b"-5", b"1.5", b"soon", b"", b"\xff"])
def test_a_malformed_value_pauses_nothing_and_is_told_at_debug(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    entrance = Entrance()
    with caplog.at_level(logging.DEBUG, "scrapy_poolplus.door"):
        entrance.paused([(b"Retry-After", value)])
    assert entrance.come().was_sent
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert repr(value.decode("latin-1")) in record.getMessage()
    assert "a.example" in record.getMessage()


def test_a_429_without_retry_after_pauses_nothing() -> None:
    entrance = Entrance()
    entrance.paused([])
    assert entrance.come().was_sent


def test_the_longest_of_several_counts() -> None:
    entrance = Entrance()
    entrance.paused([(b"Retry-After", b"5"), (b"Retry-After", b"x"), (b"Retry-After", b"9")])
    held = entrance.come()
    entrance.clock.advance(8.9)
    assert not held.was_sent
    entrance.clock.advance(0.1)
    assert held.was_sent


def test_a_pause_is_told_once_with_its_seconds_and_its_setting(caplog: pytest.LogCaptureFixture) -> None:
    entrance = Entrance(name="*.example")
    connection = entrance.connected()
    with caplog.at_level(logging.INFO, "scrapy_poolplus.door"):
        for _ in range(3):
            entrance.come()
        for seconds in (b"5", b"5", b"7"):
            connection.respond(status=429, headers=[(b"Retry-After", seconds)])
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        "a.example answered 429 with Retry-After: 5: it is paused for 5.0 s "
        '(at most retry_after_max of "*.example", 100 s)'
    )


def test_a_pause_that_is_cut_short_is_a_warning_that_names_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    entrance = Entrance()
    with caplog.at_level(logging.INFO, "scrapy_poolplus.door"):
        entrance.paused(AN_HOUR, status=503)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        "a.example answered 503 with Retry-After: 3600, which is longer than retry_after_max of "
        '"POOLPLUS_POLICY", 100 s: it is paused for 100.0 s, and then asked with one request first'
    )


# ---- after a pause that was cut short


def cut_short() -> tuple[Entrance, FakeConnection, list[VisitorSink]]:
    entrance = Entrance()
    connection = entrance.paused(AN_HOUR)
    held = [entrance.come() for _ in range(3)]
    entrance.clock.pump([30.0] * 4)
    assert sent(*held) == [True, False, False]
    return entrance, connection, held


def test_the_others_follow_the_head_of_the_first_ones_response() -> None:
    _, connection, held = cut_short()
    exchange = connection.exchanges[0]
    exchange.sent()
    assert sent(*held) == [True, False, False]
    exchange.head(ResponseHead(200, [], None, "h2"))
    assert sent(*held) == [True, True, True]


def test_the_others_follow_when_the_first_one_has_failed() -> None:
    _, connection, held = cut_short()
    connection.lose(Progress.STARTED)
    assert held[0].heard[-1].__class__.__name__ == "ConnectionLostError"
    assert [sink.visit.ticket is not None for sink in held] == [True, True, True]


def test_the_others_follow_when_the_first_one_is_cancelled() -> None:
    _, _, held = cut_short()
    held[0].visit.cancel()
    assert sent(*held) == [True, True, True]


def test_a_first_one_whose_answer_asks_for_a_pause_leaves_the_others_held() -> None:
    entrance, connection, held = cut_short()
    connection.respond(status=429, headers=FIVE_SECONDS)
    assert sent(*held) == [True, False, False]
    entrance.clock.advance(5.0)
    assert sent(*held) == [True, True, True]


# ---- the pool


def test_what_waits_in_the_pool_steps_back_before_the_door_and_keeps_its_place() -> None:
    entrance = Entrance(max_connections=1)
    first = entrance.come()
    waiting = [entrance.come(seconds=10.0), entrance.come(seconds=10.0)]
    connection = entrance.dials[0].connect(HttpProtocol.HTTP1)
    assert sent(first, *waiting) == [True, False, False]
    connection.respond(status=429, headers=[(b"Retry-After", b"50")])
    later = entrance.come()
    entrance.clock.pump([9.0] * 5)
    assert sent(*waiting, later) == [False, False, False]
    entrance.clock.advance(5.0)
    for sink, others in ((waiting[0], [waiting[1], later]), (waiting[1], [later]), (later, [])):
        assert sink.was_sent
        assert not any(sent(*others))
        connection.respond()
        assert sink.heard[-3:] == ANSWERED
    assert len(entrance.happened(RequestHeld)) == 3


def test_what_is_replayed_goes_on_and_its_answer_pauses_too() -> None:
    entrance = Entrance()
    connection = entrance.connected()
    sink = entrance.come()
    connection.refuse(Progress.REFUSED)
    connection.respond(status=503, headers=FIVE_SECONDS)
    assert sink.heard[-3] == 503
    held = entrance.come()
    assert not held.was_sent
    entrance.clock.advance(5.0)
    assert held.was_sent


def test_what_waits_to_be_sent_again_goes_on_in_the_pause() -> None:
    entrance = Entrance(max_connections=2)
    first, second = entrance.come(), entrance.come()
    one = entrance.dials[0].connect(HttpProtocol.HTTP1)
    other = entrance.dials[1].connect(HttpProtocol.HTTP1)
    one.lose(Progress.NOT_SENT)
    other.respond(status=429, headers=FIVE_SECONDS)
    assert second.heard[-3] == 429
    assert first.heard == ["dispatched", "dispatched"]
    assert not entrance.happened(RequestHeld)


# ---- ending


def released(entrance: Entrance, release: Callable[[], object]) -> None:
    entrance.paused()
    held = [entrance.come() for _ in range(3)]
    release()
    assert [len(sink.heard) for sink in held] == [1, 1, 1]
    entrance.clock.pump([10.0] * 3)
    assert [[type(heard) for heard in sink.heard] for sink in held] == [[PoolClosedError]] * 3
    assert "a.example" in str(held[0].heard[0])


def test_closing_the_pool_answers_what_is_held_once() -> None:
    entrance = Entrance()
    released(entrance, entrance.pool.close)


def test_closing_the_door_leaves_no_timer() -> None:
    entrance = Entrance()
    entrance.paused()
    before = list(entrance.clock.getDelayedCalls())
    entrance.come()
    assert len(entrance.clock.getDelayedCalls()) == len(before) + 1
    entrance.door.close()
    assert entrance.clock.getDelayedCalls() == before


def test_closing_the_door_answers_what_is_held_once_and_holds_nothing_any_more() -> None:
    entrance = Entrance()
    released(entrance, entrance.door.close)
    open_again = entrance.come()
    entrance.first.respond(status=429, headers=FIVE_SECONDS)
    assert open_again.heard[-1] is BodyEnd.COMPLETE
    refused = entrance.come()
    assert [type(heard) for heard in refused.heard] == [PoolClosedError]
    entrance.come("b.example")
    assert len(entrance.dials) == 2
    entrance.pool.close()
    assert len(refused.heard) == 1


def test_a_pause_outlives_the_pool() -> None:
    entrance = Entrance()
    entrance.paused()
    entrance.pool.close()
    other = Entrance()
    entrance.door.stand_before(other.pool)
    entrance.pool = other.pool
    held = entrance.come()
    assert held.heard == []
    assert other.happened(RequestHeld)
    assert not other.dials
    entrance.clock.advance(5.0)
    assert other.dials


def test_a_request_that_is_cancelled_while_held_is_never_sent() -> None:
    entrance = Entrance()
    connection = entrance.paused()
    held = [entrance.come() for _ in range(3)]
    held[1].visit.cancel()
    held[1].visit.over()
    entrance.clock.advance(5.0)
    assert sent(*held) == [True, False, True]
    assert len(connection.exchanges) == 2


def test_a_request_that_is_cancelled_in_the_pool_leaves_it() -> None:
    entrance = Entrance()
    connection = entrance.connected()
    entrance.come().visit.cancel()
    assert not connection.exchanges
    assert not entrance.door._inside


def test_a_request_that_stepped_back_may_be_cancelled() -> None:
    entrance = Entrance(max_connections=1)
    first, second = entrance.come(), entrance.come()
    connection = entrance.dials[0].connect(HttpProtocol.HTTP1)
    connection.respond(status=429, headers=FIVE_SECONDS)
    second.visit.cancel()
    assert not entrance.door._inside
    entrance.clock.advance(5.0)
    assert sent(first, second) == [True, False]


def test_one_that_is_answered_may_cancel_those_that_would_come_next() -> None:
    entrance = Entrance()
    entrance.paused()
    first, second, third = held = [entrance.come() for _ in range(3)]
    first.visit.failed = lambda error: (first.failed(error), second.visit.cancel())[0]
    entrance.door.close()
    assert [len(sink.heard) for sink in held] == [1, 0, 1]
    assert third.heard


def test_an_exchange_that_is_over_leaves_nothing_at_the_door() -> None:
    entrance = Entrance()
    connection = entrance.paused()
    entrance.come()
    entrance.clock.advance(5.0)
    connection.respond()
    assert repr(entrance.door.pauses) == "<Pauses none>"
    assert not entrance.door._inside
    assert not entrance.door._held


class Engine:
    """Stands for Scrapy's."""

    def __init__(self) -> None:
        self.did: list[str] = []

    async def close_spider_async(self, *, reason: str = "cancelled") -> None:
        self.did.append(reason)


@ensureDeferred
async def test_the_engine_is_heard_before_it_begins_to_close_the_spider() -> None:
    engine = Engine()
    before_closing(engine, lambda: engine.did.append("heard"))
    await engine.close_spider_async(reason="finished")
    await engine.close_spider_async()
    assert engine.did == ["heard", "finished", "heard", "cancelled"]


def test_where_no_pause_is_allowed_none_is_made() -> None:
    entrance = Entrance(retry_after_max=0.0)
    entrance.paused()
    assert entrance.come().was_sent
    assert Policy().longest_pause == 0.0
