"""The pool: actions are run, facts reported, each request is answered once (rung 4: a clock and a fake dialer)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scrapy_poolplus.core.errors import (
    ConnectionLostError,
    ConnectRefusedError,
    Phase,
    PhaseTimeoutError,
    PoolClosedError,
)
from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    DialFailed,
    Replayed,
    SessionOpened,
    SessionRetired,
)
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.core.sessions import ANY, Claim
from scrapy_poolplus.net.wire import BodyEnd, Outcome, ResponseHead

from .peers.pooling import LOST, Bench

H2 = HttpProtocol.HTTP2
ANSWER = ["sent", 200, b"body", BodyEnd.COMPLETE]
REFUSED = ConnectRefusedError("connecting to a.example:443 was refused", phase=Phase.CONNECT)


def test_a_request_is_dialled_dispatched_and_answered():
    bench = Bench()
    _, sink = bench.ask()
    bench.clock.advance(2.0)
    bench.dials[0].connect().respond()
    assert sink.heard == ["dispatched", *ANSWER]
    assert bench.names() == [
        "RequestQueued",
        "DialStarted",
        "ConnectionOpened",
        "RequestDispatched",
        "RequestDone",
    ]


def test_the_next_request_reuses_the_connection():
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect()
    connection.respond()
    _, sink = bench.ask()
    connection.respond()
    assert sink.heard == ["dispatched", *ANSWER]
    assert len(bench.dials) == 1


def test_a_request_made_while_an_answer_is_told_finds_the_connection_free():
    bench = Bench()
    _, first = bench.ask()
    connection = bench.dials[0].connect()
    later = []
    first.on_end = lambda: later.append(bench.ask()[1])
    connection.respond()
    assert len(bench.dials) == 1
    connection.respond()
    assert later[0].heard[-1] is BodyEnd.COMPLETE


def test_many_streams_go_over_one_h2_connection():
    bench = Bench()
    sinks = [bench.ask()[1] for _ in range(10)]
    connection = bench.dials[0].connect(H2)
    assert len(connection.exchanges) == 10
    for _ in range(10):
        connection.respond()
    assert [sink.heard[-1] for sink in sinks] == [BodyEnd.COMPLETE] * 10
    assert len(bench.dials) == 1


def test_a_second_h2_connection_is_opened_when_the_peer_allows_fewer_streams():
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect(H2)
    connection.owner.capacity(1)
    bench.ask()
    assert len(bench.dials) == 2


def test_a_failed_dial_answers_everyone_who_waits_with_its_own_error():
    bench = Bench()
    sinks = [bench.ask()[1] for _ in range(3)]
    bench.dials[0].fail(REFUSED)
    assert [sink.heard for sink in sinks] == [[REFUSED]] * 3
    _, sink = bench.ask()
    bench.dials[1].connect().respond()
    assert sink.heard[-1] is BodyEnd.COMPLETE
    assert [event.error for event in bench.events if isinstance(event, DialFailed)] == ["ConnectRefusedError"]


def test_a_dial_that_fails_with_something_unknown_still_answers(caplog):
    bench = Bench()
    _, sink = bench.ask()
    bench.dials[0].result.errback(ZeroDivisionError("ours"))
    assert isinstance(sink.heard[0], ConnectionLostError)
    assert "failed unexpectedly" in caplog.text


def test_the_dial_is_given_the_connect_timeout_of_its_policy_and_its_name():
    bench = Bench(connect_timeout=7.5, name="*.example")
    bench.ask()
    assert (bench.dials[0].timeout, bench.dials[0].setting) == (7.5, 'connect_timeout of "*.example"')
    bench = Bench(dial_timeout=42.0)
    bench.ask()
    assert (bench.dials[0].timeout, bench.dials[0].setting) == (42.0, "DOWNLOAD_TIMEOUT")


# ---- cancelling, at every step


def test_a_cancelled_waiter_hears_nothing_and_its_dial_is_given_up():
    bench = Bench()
    ticket, sink = bench.ask()
    ticket.cancel()
    ticket.cancel()
    assert sink.heard == []
    assert bench.dials[0].cancelled
    assert bench.pool.scheduler.connections == {}


def test_a_cancelled_waiter_leaves_the_connection_to_the_next_one():
    bench = Bench()
    ticket, cancelled = bench.ask()
    _, sink = bench.ask()
    ticket.cancel()
    bench.dials[0].connect().respond()
    assert (cancelled.heard, sink.heard[-1]) == ([], BodyEnd.COMPLETE)


@pytest.mark.parametrize("step", ["dispatched", "sent", "head", "data"])
@pytest.mark.parametrize("protocol", list(HttpProtocol))
def test_a_request_cancelled_in_flight_hears_nothing_more(step, protocol):
    bench = Bench()
    ticket, sink = bench.ask()
    connection = bench.dials[0].connect(protocol)
    exchange = connection.exchanges[0]
    if step in ("sent", "head", "data"):
        exchange.sent()
    if step in ("head", "data"):
        exchange.head(ResponseHead(200, [], 100, protocol.value))
    if step == "data":
        sink.on_data = ticket.cancel
        exchange.data(b"some")
    else:
        ticket.cancel()
    heard = list(sink.heard)
    assert connection.exchanges == []
    assert connection.ended == ("aborted" if protocol is HttpProtocol.HTTP1 else "")
    assert bench.pool.scheduler.in_flight == {}
    bench.clock.advance(1000)
    assert sink.heard == heard


def test_a_request_cancelled_before_its_dispatch_is_run_frees_its_place():
    bench = Bench()
    _, first = bench.ask()
    second, _ = bench.ask()
    # The first is told of its dispatch while the second's is still to be run.
    first_dispatched = first.dispatched

    def cancel_second(*args, **kwargs):
        second.cancel()
        first_dispatched(*args, **kwargs)

    first.dispatched = cancel_second
    connection = bench.dials[0].connect(H2)
    assert len(connection.exchanges) == 1
    assert bench.pool.scheduler.in_flight.keys() == {1}


# ---- time


def test_the_deadline_covers_waiting_and_names_what_was_waited_for():
    bench = Bench()
    _, sink = bench.ask(seconds=5.0)
    bench.clock.advance(5.0)
    (error,) = sink.heard
    assert isinstance(error, PhaseTimeoutError)
    assert (str(error), error.phase, error.seconds) == ("TLS handshake with a.example:443", Phase.TLS, 5.0)
    assert bench.dials[0].cancelled


def test_waiting_for_room_is_named_so():
    bench = Bench(max_connections=1)
    bench.ask(seconds=50.0)
    bench.dials[0].connect()
    _, sink = bench.ask(seconds=5.0)
    bench.clock.advance(5.0)
    assert str(sink.heard[0]) == "waiting for a connection to a.example:443"


def test_the_deadline_covers_the_body_and_costs_only_its_stream():
    bench = Bench()
    _, slow = bench.ask(seconds=5.0)
    _, other = bench.ask(seconds=50.0)
    connection = bench.dials[0].connect(H2)
    bench.clock.advance(5.0)
    error = slow.heard[-1]
    assert (error.phase, error.setting) == (Phase.SEND, "download_timeout")
    connection.respond()
    assert other.heard[-1] is BodyEnd.COMPLETE


def test_the_first_byte_has_a_time_out_of_its_own():
    bench = Bench(first_byte_timeout=3.0, name="slow.example")
    _, sink = bench.ask()
    connection = bench.dials[0].connect()
    bench.clock.advance(1.0)
    connection.exchanges[0].sent()
    bench.clock.advance(2.0)
    assert sink.heard[-1] == "sent"
    bench.clock.advance(1.0)
    expected = 'waiting for the response of a.example:443 took longer than 3.0 s (first_byte_timeout of "slow.example")'
    assert str(sink.heard[-1]) == expected
    assert connection.ended == "aborted"


def test_the_body_has_a_time_out_that_starts_anew_with_each_piece():
    bench = Bench(read_timeout=3.0)
    _, sink = bench.ask()
    exchange = bench.dials[0].connect().exchanges[0]
    exchange.sent()
    exchange.head(ResponseHead(200, [], 100, "HTTP/1.1"))
    for _ in range(4):
        bench.clock.advance(2.5)
        exchange.data(b"x")
    bench.clock.advance(2.9)
    assert sink.heard[-1] == b"x"
    bench.clock.advance(0.2)
    assert sink.heard[-1].setting == "read_timeout"


def test_a_requests_own_connect_timeout_ends_it_alone():
    bench = Bench(connect_timeout=20.0)
    _, impatient = bench.ask(own=replace(bench.policy, connect_timeout=2.0))
    _, patient = bench.ask()
    assert bench.dials[0].timeout == 20.0
    bench.clock.advance(2.0)
    expected = 'TLS handshake with a.example:443 took longer than 2.0 s (connect_timeout of "POOLPLUS_POLICY")'
    assert [str(error) for error in impatient.heard] == [expected]
    bench.dials[0].connect().respond()
    assert patient.heard[-1] is BodyEnd.COMPLETE


def test_a_requests_own_policy_is_not_that_of_its_key():
    bench = Bench(idle_timeout=50.0)
    bench.ask(own=replace(bench.policy, read_timeout=1.0))
    connection = bench.dials[0].connect()
    connection.respond()
    _, other = bench.ask()
    connection.exchanges[0].head(ResponseHead(200, [], 5, "HTTP/1.1"))
    bench.clock.advance(10.0)
    assert other.heard[-1] == 200


def test_an_idle_connection_is_closed_after_its_time():
    bench = Bench(idle_timeout=90.0)
    bench.ask()
    connection = bench.dials[0].connect()
    connection.respond()
    bench.clock.advance(89.9)
    assert connection.ended == ""
    bench.clock.advance(0.2)
    assert connection.ended == "closed"
    (closed,) = [event for event in bench.events if isinstance(event, ConnectionClosed)]
    assert (closed.reason, closed.requests) == (CloseReason.IDLE_TIMEOUT, 1)


def test_the_engine_is_called_when_its_deadline_comes():
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect(H2, deadline=30.0)
    bench.clock.advance(29.0)
    assert connection.expired == 0
    bench.clock.advance(1.0)
    assert connection.expired == 1


def test_there_is_one_timer_however_many_requests_there_are():
    bench = Bench()
    for _ in range(50):
        bench.ask()
    assert len(bench.clock.getDelayedCalls()) == 1


# ---- replay


def test_what_was_never_sent_is_sent_again_whatever_the_method():
    bench = Bench()
    _, sink = bench.ask(method=b"POST")
    bench.dials[0].connect().lose(Progress.NOT_SENT)
    bench.dials[1].connect().respond()
    assert sink.heard == ["dispatched", "dispatched", *ANSWER]
    assert [event.reason for event in bench.events if isinstance(event, Replayed)] == ["not sent"]


@pytest.mark.parametrize(("method", "replays"), [(b"GET", 1), (b"POST", 0)])
def test_what_was_sent_on_a_reused_connection_is_sent_again_where_twice_is_as_once(method, replays):
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect()
    connection.respond()
    _, sink = bench.ask(method=method)
    connection.lose(Progress.SENT)
    bench.clock.advance(0)
    assert len(bench.dials) == 1 + replays
    if replays:
        bench.dials[1].connect().lose(Progress.SENT)
        bench.clock.advance(0)
    assert sink.heard[-1] is LOST


def test_what_was_sent_waits_until_all_that_the_peer_ended_with_that_connection_is_known():
    bench = Bench()
    bench.ask()
    bench.ask()
    first, second = bench.dials[0].connect(), bench.dials[1].connect()
    first.respond()
    second.respond()
    _, sink = bench.ask()
    first.lose(Progress.SENT)
    # Both have ended, but the pool is told one by one.
    assert not second.exchanges
    second.lose(Progress.SENT)
    bench.clock.advance(0)
    bench.dials[2].connect().respond()
    assert sink.heard == ["dispatched", "dispatched", *ANSWER]


def test_what_was_sent_may_meet_one_ended_connection_after_the_other():
    bench = Bench()
    for _ in range(3):
        bench.ask()
    stale = [dial.connect() for dial in bench.dials]
    for connection in stale:
        connection.respond()
    _, sink = bench.ask()
    for connection in stale:
        connection.lose(Progress.SENT)
        bench.clock.advance(0)
    bench.dials[3].connect().respond()
    assert sink.heard[-1] is BodyEnd.COMPLETE
    assert bench.names().count("Replayed") == 3


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_a_request_between_two_attempts_can_end(end):
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect()
    connection.respond()
    ticket, sink = bench.ask()
    connection.lose(Progress.SENT)
    if end == "close":
        bench.pool.close()
        assert isinstance(sink.heard[-1], PoolClosedError)
    else:
        ticket.cancel()
    heard = list(sink.heard)
    bench.clock.advance(0)
    assert sink.heard == heard
    assert len(bench.dials) == 1


def test_a_replayed_request_keeps_its_place_in_the_queue():
    bench = Bench(max_connections=1)
    _, older = bench.ask()
    connection = bench.dials[0].connect()
    _, younger = bench.ask()
    connection.owner.draining(CloseReason.NOT_REUSABLE)
    connection.exchanges.clear()
    attempt = bench.pool._tickets[1].attempt
    attempt.done(Outcome(LOST, progress=Progress.REFUSED))
    second = bench.dials[1].connect()
    second.respond()
    assert older.heard[-1] is BodyEnd.COMPLETE
    assert younger.heard[0] == "dispatched"


def test_replays_have_a_limit():
    bench = Bench(max_replays=3)
    _, sink = bench.ask()
    connection = bench.dials[0].connect(H2)
    for _ in range(4):
        connection.refuse(Progress.REFUSED)
    assert sink.heard[-1] is LOST
    assert bench.names().count("Replayed") == 3


def test_connections_that_were_found_closed_do_not_count():
    """A server that restarts closes all that are kept: one request may meet each of them."""
    bench = Bench(max_replays=3)
    for _ in range(12):
        bench.ask()
    # The first one tells what is spoken; then the others are dialled.
    kept = [bench.dials[number].connect() for number in range(12)]
    for connection in kept:
        connection.respond()
    _, sink = bench.ask()
    for _ in range(12):
        next(connection for connection in kept if connection.exchanges).lose(Progress.NOT_SENT)
    bench.dials[-1].connect().respond()
    assert sink.heard[-1] is BodyEnd.COMPLETE
    assert bench.names().count("Replayed") == 12


def test_a_misdirected_request_goes_to_a_fresh_connection():
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect(H2)
    connection.respond()
    _, sink = bench.ask(method=b"POST")
    connection.respond(status=421)
    assert connection.ended == "closed"
    bench.dials[1].connect(H2).respond()
    assert sink.heard == ["dispatched", "sent", "dispatched", *ANSWER]


def test_a_misdirected_first_answer_is_an_answer():
    bench = Bench()
    _, sink = bench.ask()
    bench.dials[0].connect(H2).respond(status=421)
    assert sink.heard[2] == 421


def test_what_must_go_over_http1_does_so_and_the_route_is_remembered():
    bench = Bench()
    _, sink = bench.ask()
    bench.dials[0].connect(H2).refuse(Progress.HTTP1_REQUIRED)
    assert bench.dials[1].protocols == (HttpProtocol.HTTP1,)
    bench.dials[1].connect().respond()
    assert sink.heard[-1] is BodyEnd.COMPLETE
    bench.ask()
    bench.ask()
    assert [dial.protocols for dial in bench.dials[2:]] == [(HttpProtocol.HTTP1,)]


def test_calm_is_kept_and_never_replayed():
    bench = Bench()
    _, sink = bench.ask()
    connection = bench.dials[0].connect(H2)
    connection.lose(Progress.REFUSED_CALM)
    assert sink.heard[-1] is LOST
    bench.ask()
    assert len(bench.dials) == 1
    bench.clock.advance(1.0)
    assert len(bench.dials) == 2


# ---- the end


def test_close_answers_everyone_once_and_waits_for_the_sockets():
    bench = Bench(max_connections=2)
    sinks = [bench.ask(f"{name}.example")[1] for name in "abc"]
    connection = bench.dials[0].connect()
    done = []
    bench.pool.close().addCallback(done.append)
    bench.pool.close().addCallback(done.append)
    assert [type(sink.heard[-1]) for sink in sinks] == [PoolClosedError] * 3
    assert (connection.ended, bench.dials[1].cancelled, done) == ("closed", True, [])
    connection.gone()
    assert done == [None, None]
    assert bench.clock.getDelayedCalls() == []
    for sink in sinks:
        assert sum(isinstance(heard, PoolClosedError) for heard in sink.heard) == 1


def test_close_does_not_wait_for_ever():
    bench = Bench()
    bench.ask()
    connection = bench.dials[0].connect()
    done = []
    bench.pool.close().addCallback(done.append)
    bench.clock.advance(1.5)
    assert (connection.ended, done) == ("aborted", [None])


def test_a_closed_pool_fails_a_request_at_once():
    bench = Bench()
    done = []
    bench.pool.close().addCallback(done.append)
    assert done == [None]
    _, sink = bench.ask()
    assert isinstance(sink.heard[0], PoolClosedError)


def test_a_connection_that_comes_after_the_close_is_dropped():
    bench = Bench()
    bench.ask()
    bench.pool.close()
    assert bench.dials[0].connect().ended == "aborted"


# ---- observers


def test_an_observer_that_raises_is_logged_once_and_dropped(caplog):
    bench = Bench()

    def broken(event):
        raise ZeroDivisionError

    bench.pool.observe(broken)
    bench.ask()
    bench.ask()
    assert caplog.text.count("is dropped") == 1
    assert bench.names()[:2] == ["RequestQueued", "DialStarted"]


def test_draining_and_closed_are_two_events_with_the_first_reason():
    bench = Bench(max_requests_per_connection=1)
    bench.ask()
    bench.dials[0].connect().respond()
    assert bench.names()[-3:] == ["ConnectionDraining", "RequestDone", "ConnectionClosed"]
    assert bench.events[-1].reason is CloseReason.REQUESTS_SPENT


def test_retire_closes_the_idle_connections_of_a_host():
    bench = Bench()
    for host in ("a.example", "b.example"):
        bench.ask(host)
    connections = [dial.connect() for dial in bench.dials]
    for connection in connections:
        connection.respond()
    assert bench.pool.retire(host="b.example") == 1
    assert [connection.ended for connection in connections] == ["", "closed"]


@pytest.mark.parametrize(("claim", "after_the_first"), [(ANY, 3), (Claim(bare=True), 1)], ids=["a page", "robots.txt"])
def test_what_keeps_no_cookies_is_not_the_first_answer_of_its_session(claim, after_the_first):
    bench = Bench(rotation=50, session_requests=50, max_connections=1)
    bench.ask(claim=claim)
    connection = bench.dials[0].connect(H2)
    for _ in range(3):
        bench.ask()
    assert len(connection.exchanges) == 1
    connection.respond()
    assert len(connection.exchanges) == after_the_first
    connection.respond()
    assert len(connection.exchanges) == 2
    assert len(bench.dials) == 1


def test_retire_ends_the_sessions_of_a_host_and_of_no_other():
    bench = Bench(rotation=50, session_requests=50)
    for host in ("a.example", "b.example"):
        bench.ask(host)
    idle, busy = (dial.connect() for dial in bench.dials)
    idle.respond()
    assert bench.pool.retire(host="a.example") == 1
    assert bench.pool.retire(host="a.example") == 0
    assert [idle.ended, busy.ended] == ["closed", ""]
    retired = [event for event in bench.events if isinstance(event, SessionRetired)]
    assert [(event.reason, event.requests) for event in retired] == [(CloseReason.RETIRED, 1)]
    _, other = bench.ask("b.example")
    bench.ask("a.example")
    # The other host's goes on, this one's next request is of another session.
    busy.respond()
    busy.respond()
    assert other.heard[-1] is BodyEnd.COMPLETE
    bench.dials[2].connect()
    opened = [event.session for event in bench.events if isinstance(event, SessionOpened)]
    assert len(opened) == len(set(opened)) == 3
    assert opened[:1] == [event.session for event in retired]


def test_a_session_whose_connection_was_closed_early_is_retired_with_its_host():
    bench = Bench(rotation=50, session_requests=50)
    bench.ask()
    connection = bench.dials[0].connect()
    connection.respond()
    connection.lose(Progress.SENT)
    assert bench.pool.retire(host="b.example") == 0
    assert "SessionRetired" not in bench.names()
    # No connection took its leave, but the next one would have gone on with the session.
    assert bench.pool.retire(host="a.example") == 0
    assert bench.names()[-2:] == ["SessionRetired", "SessionEnded"]
    bench.ask()
    bench.dials[1].connect()
    first, second = (event.session for event in bench.events if isinstance(event, SessionOpened))
    assert first != second


def test_what_a_retired_session_has_in_flight_is_finished_and_what_waits_goes_into_another():
    bench = Bench(rotation=50, session_requests=50, max_connections=1)
    _, first = bench.ask()
    connection = bench.dials[0].connect()
    _, second = bench.ask()
    (session,) = (event.session for event in bench.events if isinstance(event, SessionOpened))
    assert bench.pool.retire(session=session) == 1
    assert bench.pool.retire(session=session) == 0
    assert connection.ended == ""
    connection.respond()
    assert first.heard[-1] is BodyEnd.COMPLETE
    assert connection.ended == "closed"
    bench.dials[1].connect().respond()
    assert second.heard[-1] is BodyEnd.COMPLETE


def test_retire_of_what_there_is_not_does_nothing():
    bench = Bench(rotation=50, session_requests=50)
    bench.ask()
    connection = bench.dials[0].connect()
    connection.respond()
    assert bench.pool.retire(session="unknown") == 0
    assert bench.pool.retire(host="unknown.example") == 0
    assert connection.ended == ""


def test_retire_of_all_retires_every_session():
    bench = Bench(rotation=50, session_requests=50)
    for host in ("a.example", "b.example"):
        bench.ask(host)
    connections = [dial.connect() for dial in bench.dials]
    for connection in connections:
        connection.respond()
    assert bench.pool.retire() == 2
    assert [connection.ended for connection in connections] == ["closed", "closed"]
    assert bench.names().count("SessionRetired") == bench.names().count("SessionEnded") == 2
    assert not bench.pool.scheduler.state.book.sessions


def test_a_budget_of_bytes_retires_the_connection():
    bench = Bench(max_connection_bytes=10)
    _, sink = bench.ask()
    connection = bench.dials[0].connect()
    connection.bytes_received = 11
    connection.respond()
    assert sink.heard[-1] is BodyEnd.COMPLETE
    assert bench.events[-1].reason is CloseReason.BYTES_SPENT
