"""What the scheduler decides, one rule a test: the states of a connection, who is served, and the end. Caps and
dialling have files of their own; all of it together is test_scheduler_machine.py."""

from __future__ import annotations

import gc
import pickle
from copy import copy, deepcopy

import pytest

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain, Fail
from scrapy_poolplus.core.budget import Budget
from scrapy_poolplus.core.errors import Phase, PhaseTimeoutError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import PoolKey, Proxy, Route
from scrapy_poolplus.core.records import ConnectionRecord, ConnectionState, KeyRecord
from tests.core.pool import CLOSED, H1, H2, KEY, ONE, ORIGIN, OTHER, RESET, TWO, Pool, key_of

# ---- the table of states


def test_the_first_request_is_dialled_for_and_dispatched_when_its_dial_succeeds() -> None:
    pool = Pool()
    assert pool.submit() == [Dial(1, KEY)]
    assert repr(pool) == "<Pool open: 1 waiting | a.example:443: 1 CONNECTING age 0.0s>"
    pool.now = 0.25
    assert pool.connect(1, H2) == [Dispatch(1, 1, reused=False, waited=0.25)]
    assert repr(pool) == "<Pool open: 0 waiting | a.example:443 h2: 1 READY 1/100 sent 1 age 0.0s>"


def test_a_connection_is_in_one_state_after_the_other() -> None:
    pool = Pool()
    pool.submit()
    connection = pool.scheduler.connections[1]
    states = [connection.state]
    pool.connect(1, H1)
    states.append(connection.state)
    pool.finish(1)
    states.append(connection.state)
    pool.submit()
    pool.retire(1)
    states.append(connection.state)
    pool.finish(2)
    states.append(connection.state)
    assert states == [
        ConnectionState.CONNECTING,
        ConnectionState.BUSY,
        ConnectionState.READY,
        ConnectionState.DRAINING,
        ConnectionState.CLOSED,
    ]


def test_a_connection_whose_last_room_is_taken_is_busy_until_a_stream_ends() -> None:
    pool = Pool(max_streams=2)
    pool.open()
    assert pool.submit() == [Dispatch(2, 1, reused=True, waited=0.0)]
    assert repr(pool) == "<Pool open: 0 waiting | a.example:443 h2: 1 BUSY 2/2 sent 2 age 0.0s>"
    pool.finish(1)
    assert repr(pool) == "<Pool open: 0 waiting | a.example:443 h2: 1 READY 1/2 sent 2 age 0.0s>"


def test_an_http1_connection_takes_one_request_at_a_time_whatever_the_policy_says() -> None:
    pool = Pool(max_streams=100, max_connections=1)
    pool.open(H1)
    assert pool.submit() == []
    pool.now = 1.5
    assert pool.finish(1) == [Dispatch(2, 1, reused=True, waited=1.5)]


def test_a_connection_is_busy_where_its_peer_allows_no_stream_when_it_is_ready() -> None:
    pool = Pool()
    pool.submit()
    assert pool.limit(1, 0) == []
    assert pool.connect(1) == []
    assert repr(pool) == "<Pool open: 1 waiting | a.example:443 h2: 1 BUSY 0/0 sent 0 age 0.0s idle 0.0s>"


def test_a_raised_limit_is_used_at_once() -> None:
    pool = Pool(max_connections=1)
    pool.submit_all(3)
    pool.limit(1, 1)
    assert pool.connect(1) == [Dispatch(1, 1, reused=False, waited=0.0)]
    assert pool.limit(1, 3) == [Dispatch(2, 1, reused=True, waited=0.0), Dispatch(3, 1, reused=True, waited=0.0)]


def test_a_lowered_limit_leaves_what_is_in_flight_and_lets_nothing_new_in() -> None:
    pool = Pool(max_connections=1)
    pool.open()
    pool.submit_all(2)
    assert pool.limit(1, 1) == []
    pool.submit()
    assert pool.finish(1) == []
    assert pool.finish(2) == []
    assert pool.finish(3) == [Dispatch(4, 1, reused=True, waited=0.0)]


def test_the_policy_limits_what_the_peer_allows() -> None:
    pool = Pool(max_streams=2, max_connections=1)
    pool.submit_all(3)
    pool.limit(1, 1000)
    assert len(pool.connect(1)) == 2


def test_a_connection_past_its_budget_takes_no_new_stream_and_closes_with_its_last_one() -> None:
    pool = Pool(preconnect=False)
    number = pool.open(requests=2)
    assert pool.submit() == [
        Dispatch(2, number, reused=True, waited=0.0),
        Drain(number, CloseReason.REQUESTS_SPENT),
    ]
    assert repr(pool) == (
        "<Pool open: 0 waiting | a.example:443 h2: 1 DRAINING (requests_spent) 2/100 sent 2/2 age 0.0s>"
    )
    assert pool.submit() == [Dial(2, KEY)]
    assert pool.finish(1) == []
    assert pool.finish(2) == [Close(number, CloseReason.REQUESTS_SPENT)]


def test_a_connection_drains_at_its_age_with_what_is_in_flight() -> None:
    pool = Pool(preconnect=False)
    number = pool.open(age=5.0)
    assert pool.wait(4.5) == []
    assert pool.wait(0.5) == [Drain(number, CloseReason.AGE_SPENT)]
    assert pool.finish(1) == [Close(number, CloseReason.AGE_SPENT)]


def test_an_empty_connection_closes_at_its_age() -> None:
    pool = Pool()
    number = pool.open_idle(age=5.0)
    assert pool.wait(5.0) == [Close(number, CloseReason.AGE_SPENT)]


def test_a_connection_that_is_too_old_takes_nothing_though_nobody_has_called_in_time() -> None:
    pool = Pool(preconnect=False)
    number = pool.open_idle(age=5.0)
    pool.now = 5.0
    assert pool.submit() == [Close(number, CloseReason.AGE_SPENT), Dial(2, KEY)]


def test_a_connection_that_has_carried_its_bytes_drains_at_once() -> None:
    pool = Pool()
    number = pool.open(size=1000)
    assert pool.carry(number, 999) == []
    assert pool.carry(number, 1000) == [Drain(number, CloseReason.BYTES_SPENT)]


def test_a_dial_whose_handshake_carries_bytes_has_spent_nothing_yet() -> None:
    pool = Pool()
    pool.submit()
    assert pool.carry(1, 1000) == []
    # They count when it is ready.
    pool.connect(1, size=1001)
    assert pool.carry(1, 1001) == [Drain(1, CloseReason.BYTES_SPENT)]


def test_bytes_told_at_the_end_of_a_request_count_too() -> None:
    pool = Pool()
    number = pool.open(size=1000)
    assert pool.finish(1, size=1001) == [Close(number, CloseReason.BYTES_SPENT)]


def test_a_connection_that_said_goaway_finishes_what_it_has_and_gets_nothing_new() -> None:
    pool = Pool()
    number = pool.open()
    assert pool.retire(number) == [Drain(number, CloseReason.GOAWAY)]
    assert pool.submit() == [Dial(2, KEY)]
    assert pool.finish(1) == [Close(number, CloseReason.GOAWAY)]


def test_a_retired_connection_that_is_empty_closes_at_once() -> None:
    pool = Pool()
    number = pool.open_idle()
    assert pool.retire(number, CloseReason.RETIRED) == [Close(number, CloseReason.RETIRED)]


def test_the_first_reason_to_drain_wins() -> None:
    pool = Pool()
    number = pool.open(age=1.0)
    pool.retire(number)
    assert pool.retire(number, CloseReason.NOT_REUSABLE) == []
    assert pool.wait(1.0) == []
    assert pool.finish(1) == [Close(number, CloseReason.GOAWAY)]


def test_a_request_to_a_connection_that_is_not_reusable_is_the_last_one() -> None:
    pool = Pool()
    number = pool.open(H1)
    assert pool.retire(number, CloseReason.NOT_REUSABLE) == [Drain(number, CloseReason.NOT_REUSABLE)]
    assert pool.finish(1) == [Close(number, CloseReason.NOT_REUSABLE)]


def test_an_idle_connection_closes_after_its_idle_timeout() -> None:
    pool = Pool(idle_timeout=3.0)
    number = pool.open_idle()
    assert pool.wait(2.5) == []
    assert pool.wait(0.5) == [Close(number, CloseReason.IDLE_TIMEOUT)]
    assert repr(pool) == "<Pool open: 0 waiting>"


def test_the_idle_clock_begins_anew_after_each_request() -> None:
    pool = Pool(idle_timeout=3.0)
    number = pool.open_idle()
    pool.wait(2.0)
    pool.submit()
    assert pool.wait(5.0) == []
    pool.finish(2)
    assert pool.wait(2.0) == []
    assert repr(pool) == "<Pool open: 0 waiting | a.example:443 h2: 1 READY 0/100 sent 2 age 9.0s idle 2.0s>"
    assert pool.wait(1.0) == [Close(number, CloseReason.IDLE_TIMEOUT)]


def test_a_short_request_moves_the_end_of_the_idle_timeout() -> None:
    pool = Pool(idle_timeout=3.0)
    number = pool.open_idle()
    pool.wait(2.0)
    pool.submit()
    pool.finish(2)
    assert pool.wait(2.5) == []
    assert pool.wait(0.5) == [Close(number, CloseReason.IDLE_TIMEOUT)]


def test_a_lost_connection_answers_what_was_on_it_oldest_first() -> None:
    pool = Pool()
    number = pool.open()
    pool.submit_all(2)
    assert pool.lose(number) == [Fail(1, RESET), Fail(2, RESET), Fail(3, RESET)]
    assert repr(pool) == "<Pool open: 0 waiting>"


def test_those_who_wait_get_another_connection_for_the_one_that_is_lost() -> None:
    pool = Pool(max_connections=1)
    number = pool.open(H1)
    pool.submit()
    assert pool.lose(number) == [Fail(1, RESET), Dial(2, KEY)]


def test_a_connection_that_is_lost_before_it_is_ready_is_a_failed_dial() -> None:
    pool = Pool()
    pool.submit()
    assert pool.lose(1) == [Fail(1, RESET)]


def test_a_draining_connection_may_be_lost() -> None:
    pool = Pool()
    number = pool.open()
    pool.retire(number)
    assert pool.lose(number) == [Fail(1, RESET)]


# ---- the drain timeout


def test_without_a_drain_timeout_a_drain_lasts_as_long_as_its_requests() -> None:
    pool = Pool()
    number = pool.open()
    pool.retire(number)
    assert pool.wait(3600.0) == []


def test_the_drain_timeout_answers_what_is_left_then_closes_for_the_reason_of_the_drain() -> None:
    pool = Pool(drain_timeout=2.0, name="*.example")
    number = pool.open()
    pool.submit()
    pool.retire(number)
    pool.finish(1)
    fail, close = pool.wait(2.0)
    assert close == Close(number, CloseReason.GOAWAY)
    assert isinstance(fail, Fail)
    assert fail.ticket == 2
    assert isinstance(fail.error, PhaseTimeoutError)
    assert fail.error.phase is Phase.BODY
    assert (fail.error.seconds, fail.error.setting) == (2.0, "drain_timeout")
    assert str(fail.error) == (
        'draining a connection to a.example:443 took longer than 2.0 s (drain_timeout of "*.example")'
    )


def test_a_connection_that_has_drained_in_time_is_not_timed_out() -> None:
    pool = Pool(drain_timeout=2.0)
    pool.retire(pool.open())
    pool.finish(1)
    assert pool.wait(2.0) == []


# ---- who is served


def test_waiters_of_a_key_are_served_in_the_order_of_their_arrival() -> None:
    pool = Pool(max_connections=1)
    pool.open(H1)
    pool.submit_all(2)
    assert pool.finish(1) == [Dispatch(2, 1, reused=True, waited=0.0)]
    assert pool.finish(2) == [Dispatch(3, 1, reused=True, waited=0.0)]


def test_a_replayed_request_has_its_old_place_before_younger_ones() -> None:
    pool = Pool(max_connections=1)
    pool.open(H1)
    pool.submit_all(3)
    pool.finish(1)
    pool.submit(ticket=1)
    assert pool.finish(2) == [Dispatch(1, 1, reused=True, waited=0.0)]


def test_the_oldest_connection_with_room_is_taken() -> None:
    pool = Pool()
    for number in (1, 2, 3):
        pool.open(H1)
        assert f" {number} BUSY" in repr(pool)
    pool.finish(3)
    pool.finish(2)
    assert pool.submit() == [Dispatch(4, 2, reused=True, waited=0.0)]


def test_a_connection_serves_its_own_key_only() -> None:
    pool = Pool()
    pool.open_idle(key=ONE)
    assert pool.submit(TWO) == [Dial(2, TWO)]
    assert pool.submit(KEY) == [Dial(3, KEY)]
    proxied = PoolKey(Route(ORIGIN, Proxy("http", "p.example", 3128)))
    assert pool.submit(proxied) == [Dial(4, proxied)]


def test_a_cancelled_waiter_takes_no_connection_with_it() -> None:
    pool = Pool(max_connections=1)
    pool.open(H1)
    pool.submit_all(2)
    assert pool.cancel(2) == []
    assert pool.finish(1) == [Dispatch(3, 1, reused=True, waited=0.0)]
    assert pool.finish(3) == []


def test_many_cancelled_waiters_are_not_kept() -> None:
    pool = Pool(max_connections=1)
    pool.open(H1)
    pool.submit_all(100)
    for ticket in range(3, 102):
        pool.cancel(ticket)
    assert pool.finish(1) == [Dispatch(2, 1, reused=True, waited=0.0)]


def test_a_dial_is_given_up_with_the_last_request_that_waited_for_it() -> None:
    pool = Pool()
    pool.submit_all(2)
    assert pool.cancel(1) == []
    assert pool.cancel(2) == [Close(1, CloseReason.DIAL_ABANDONED)]
    assert repr(pool) == "<Pool open: 0 waiting>"


def test_a_dial_goes_on_where_the_key_has_a_connection() -> None:
    pool = Pool()
    pool.open(H1)
    assert pool.submit() == [Dial(2, KEY)]
    assert pool.cancel(2) == []


def test_a_fact_that_crosses_an_action_changes_nothing() -> None:
    pool = Pool()
    pool.submit()
    pool.cancel(1)
    assert pool.connect(1) == []
    assert pool.fail_dial(1) == []
    assert pool.lose(1) == []
    assert pool.retire(1) == []
    assert pool.limit(1, 5) == []
    assert pool.carry(1, 5) == []
    assert pool.finish(1) == []
    assert pool.cancel(1) == []


def test_those_behind_a_cancelled_waiter_move_up() -> None:
    pool = Pool(max_connections=1)
    pool.open(H1)
    pool.submit_all(3)
    pool.cancel(3)
    assert pool.finish(1) == [Dispatch(2, 1, reused=True, waited=0.0)]
    assert pool.finish(2) == [Dispatch(4, 1, reused=True, waited=0.0)]


def test_cancelling_a_request_in_flight_is_left_to_its_end() -> None:
    pool = Pool()
    pool.open()
    assert pool.cancel(1) == []
    assert pool.finish(1) == []


# ---- the end


def test_close_answers_everybody_and_closes_everything() -> None:
    pool = Pool(2)
    pool.retire(pool.open(key=KEY))
    pool.submit(KEY)
    pool.submit(OTHER)
    assert pool.close() == [
        Fail(2, CLOSED),
        Fail(3, CLOSED),
        Fail(1, CLOSED),
        Close(1, CloseReason.GOAWAY),
        Close(2, CloseReason.POOL_CLOSED),
    ]
    assert repr(pool) == "<Pool closed: 0 waiting>"
    assert pool.scheduler.next_deadline() is None


def test_close_may_come_twice_and_late_facts_do_nothing() -> None:
    pool = Pool()
    pool.open()
    pool.close()
    assert pool.close() == []
    assert pool.finish(1) == []
    assert pool.lose(1) == []
    assert pool.calm() == []
    assert pool.scheduler.next_deadline() is None


def test_a_closed_scheduler_takes_no_request() -> None:
    pool = Pool()
    pool.close()
    with pytest.raises(AssertionError):
        pool.submit()


def test_a_key_without_requests_and_connections_leaves_no_record_and_no_deadline() -> None:
    pool = Pool(idle_timeout=3.0)
    for number in range(50):
        pool.open_idle(key=key_of(f"h{number}.example"))
    pool.wait(3.0)
    state = pool.scheduler.state
    left = [state.origins, state.connections, state.crawl.keys, state.crawl.idle, state.crawl.surplus]
    assert not any(left)
    assert pool.scheduler.next_deadline() is None


def count(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_connections_that_come_and_go_beside_an_old_one_are_not_kept() -> None:
    pool = Pool()
    pool.open_idle(H1)
    before = count(ConnectionRecord)
    for _ in range(500):
        pool.submit()
        number = pool.open(H1)
        pool.finish(pool.tickets - 1)
        pool.finish(pool.tickets)
        pool.lose(number)
    # Some wait to be swept, from the heap of deadlines and from that of connections with room.
    assert count(ConnectionRecord) < before + 200


def test_keys_that_come_and_go_behind_one_that_is_blocked_are_not_kept() -> None:
    pool = Pool(1)
    pool.open()
    pool.submit(OTHER)
    before = count(KeyRecord)
    for number in range(500):
        pool.submit(key_of(f"h{number}.example"))
        pool.cancel(pool.tickets)
    assert count(KeyRecord) < before + 50


# ---- determinism, keys, and the tools of the tests


def test_the_same_facts_give_the_same_actions() -> None:
    def run() -> list[Action]:
        pool = Pool(3, max_connections=2, max_streams=2, reclaim_after=0.5)
        actions = pool.submit_all(5, ONE) + pool.submit_all(3, TWO) + pool.submit_all(4, OTHER)
        actions += pool.connect(1, requests=3) + pool.connect(3, H1) + pool.wait(2.0)
        for ticket in sorted(pool.scheduler.in_flight):
            actions += pool.finish(ticket)
        return actions + pool.close()

    assert run() == run()


def test_a_key_that_was_copied_or_pickled_is_the_same_key() -> None:
    key = PoolKey(Route(ORIGIN, Proxy("http", "p.example", 3128, b"Basic eDp5"), ("127.0.0.1", 0), "old"), "s1", (H1,))
    for other in (copy(key), deepcopy(key), pickle.loads(pickle.dumps(key))):
        assert other == key
        assert hash(other) == hash(key)
        assert other.route == key.route


def test_a_pickle_of_a_key_holds_no_hash_which_differs_between_processes() -> None:
    key = key_of()
    expected = hash(key)
    object.__setattr__(key, "_hash", 1)
    object.__setattr__(key.route, "_hash", 2)
    assert hash(pickle.loads(pickle.dumps(key))) == expected


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("crawl.count", 7, "I2: 7 counted of 1"),
        ("crawl.limit", 0, "I2: 1 of 0, 0 claimed"),
        ("crawl.tickets", 7, "I3: 7 tickets counted of 2"),
        ("crawl.idle", {1: None}, "I6: {1} listed as idle, set() are"),
        ("connections.1.draining", True, "I13: connection 1 drains for no reason"),
        ("connections.1.policy_limit", 0, "I4: connection 1 has 1 streams"),
        ("connections.1.budget", Budget(requests=0), "I5: connection 1 was given 1 of 0"),
        ("connections.1.idle_since", 0.0, "I6: connection 1 is ConnectionState.BUSY, idle since 0.0"),
        ("connections.1.policy_limit", 2, "I7: a.example:443 waits beside connection 1"),
        ("connections.1.key.connecting", {1: None}, "I1: connection 1 is ConnectionState.BUSY, and the dials"),
        ("touched", [None], "I15: a key was touched and not settled"),
    ],
)
def test_check_names_what_does_not_hold(place: str, value: object, told: str) -> None:
    pool = Pool(1, max_streams=1)
    pool.open()
    pool.submit()
    thing: object = pool.scheduler.state
    *way, last = place.split(".")
    for step in way:
        thing = thing[int(step)] if isinstance(thing, dict) else getattr(thing, step)
    setattr(thing, last, value)
    with pytest.raises(AssertionError, match=r"^I") as seen:
        pool.scheduler.check()
    assert str(seen.value).startswith(told)


def test_repr_shows_sessions_budgets_and_reasons() -> None:
    pool = Pool()
    pool.open(H2, key_of(label="p1"), requests=50)
    pool.submit_all(2, key_of(label="p1"))
    pool.open_idle(H1, OTHER)
    pool.submit(KEY)
    pool.now = 12.5
    pool.retire(1, CloseReason.RETIRED)
    assert repr(pool) == (
        "<Pool open: 1 waiting"
        " | a.example:443#p1 h2: 1 DRAINING (retired) 3/100 sent 3/50 age 12.5s"
        " | b.example:443 http/1.1: 2 READY 0/1 sent 1 age 12.5s idle 12.5s"
        " | a.example:443: 3 CONNECTING age 12.5s>"
    )
