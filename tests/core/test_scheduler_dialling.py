"""When to dial: the probe, capacity, dials that fail, calm, and successors dialled ahead."""

from __future__ import annotations

import pytest

from scrapy_poolplus.core import scheduler as scheduler_room
from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain, Fail
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import PoolKey, Proxy, Route
from tests.core.pool import H1, H2, KEY, ONE, ORIGIN, OTHER, REFUSED, THREE, TWO, Pool, key_of

# ---- dialling


def test_one_probe_then_the_rest_at_once_where_the_server_speaks_http1() -> None:
    pool = Pool()
    assert pool.submit_all(4) == [Dial(1, KEY)]
    assert pool.connect(1, H1) == [Dispatch(1, 1, reused=False, waited=0.0), *(Dial(n, KEY) for n in (2, 3, 4))]


def test_one_connection_for_all_where_the_server_speaks_h2() -> None:
    pool = Pool()
    pool.submit_all(50)
    assert pool.connect(1, H2) == [Dispatch(ticket, 1, reused=ticket > 1, waited=0.0) for ticket in range(1, 51)]


def test_what_a_route_speaks_is_remembered_when_nothing_of_it_is_open() -> None:
    pool = Pool()
    pool.retire(pool.open_idle(H1))
    assert pool.submit_all(3) == [Dial(number, KEY) for number in (2, 3, 4)]


def test_what_a_route_speaks_is_known_to_all_its_sessions_at_once() -> None:
    pool = Pool()
    pool.submit_all(3, TWO)
    pool.submit(ONE)
    assert pool.connect(2, H1) == [Dispatch(4, 2, reused=False, waited=0.0), Dial(3, TWO), Dial(4, TWO)]


def test_a_key_for_http1_alone_is_not_probed_and_teaches_others_nothing() -> None:
    pool = Pool()
    plain = key_of("a.example", None, H1)
    assert pool.submit_all(2, plain) == [Dial(1, plain), Dial(2, plain)]
    pool.connect(1, H1)
    assert pool.submit_all(2, KEY) == [Dial(3, KEY)]


def test_a_key_for_h2_alone_is_not_probed() -> None:
    pool = Pool(max_streams=2)
    only = key_of("a.example", None, H2)
    assert pool.submit_all(3, only) == [Dial(1, only), Dial(2, only)]


def test_what_a_route_through_a_proxy_speaks_is_remembered_while_one_of_its_keys_is_there() -> None:
    pool = Pool()
    route = Route(ORIGIN, Proxy("http", "p.example", 3128))
    one, two = PoolKey(route, "s1"), PoolKey(route, "s2")
    first, second = pool.open_idle(H1, one), pool.open_idle(H1, two)
    pool.retire(first)
    assert len(pool.submit_all(2, one)) == 2
    for number in (second, 3, 4):
        pool.fail_dial(number) if number > second else pool.retire(number)
    # Nothing of the route is left: one dial asks again.
    assert len(pool.submit_all(2, one)) == 1


def test_only_the_routes_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_room, "ROUTES_REMEMBERED", 2)
    pool = Pool()
    hosts = [key_of(f"{name}.example") for name in "abc"]
    for key in (hosts[0], hosts[1], hosts[0], hosts[2]):
        pool.retire(pool.open_idle(H1, key))
    assert [len(pool.submit_all(2, key)) for key in (hosts[0], hosts[1])] == [2, 1]


def test_another_h2_connection_is_dialled_where_the_streams_of_the_first_are_used_up() -> None:
    pool = Pool(max_streams=2)
    pool.open()
    assert pool.submit() == [Dispatch(2, 1, reused=True, waited=0.0)]
    assert pool.submit_all(2) == [Dial(2, KEY)]
    assert pool.submit() == [Dial(3, KEY)]


def test_the_limit_that_the_peer_has_told_is_expected_of_its_next_connection() -> None:
    pool = Pool()
    pool.limit(pool.open(), 2)
    assert pool.submit_all(4) == [Dispatch(2, 1, reused=True, waited=0.0), Dial(2, KEY), Dial(3, KEY)]
    assert len(pool.connect(2)) == 2


def test_a_limit_that_is_told_again_changes_nothing() -> None:
    pool = Pool()
    number = pool.open()
    assert pool.limit(number, 4) == []
    assert pool.limit(number, 4) == []
    assert len(pool.submit_all(4)) == 4


def test_a_limit_that_the_peer_lowers_is_dialled_for() -> None:
    pool = Pool()
    pool.open(key=ONE)
    pool.limit(1, 4)
    pool.submit_all(4, TWO)
    assert pool.limit(1, 2) == [Dial(3, TWO)]


def test_a_connection_is_not_expected_to_take_more_than_its_budget_may_be() -> None:
    pool = Pool(max_requests_per_connection=5, preconnect=False)
    pool.retire(pool.open_idle())
    assert pool.submit_all(11) == [Dial(2, KEY), Dial(3, KEY), Dial(4, KEY)]


def test_a_peer_that_allows_no_stream_yet_is_waited_for() -> None:
    pool = Pool()
    pool.submit()
    pool.limit(1, 0)
    pool.connect(1)
    assert pool.submit_all(20) == []
    pool.now = 1.0
    assert len(pool.limit(1, 100)) == 21


def test_a_peer_that_goes_on_allowing_no_stream_is_not_waited_for_after_its_grace() -> None:
    pool = Pool()
    pool.submit()
    pool.limit(1, 0)
    pool.connect(1)
    assert pool.wait(4.5) == []
    assert pool.limit(1, 0) == []
    assert pool.wait(0.5) == [Dial(2, KEY)]


def test_the_grace_is_given_once_to_a_connection() -> None:
    pool = Pool()
    number = pool.open_idle()
    pool.limit(number, 0)
    pool.wait(5.0)
    pool.limit(number, 1)
    pool.limit(number, 0)
    assert pool.submit() == [Dial(2, KEY)]


def test_a_connection_in_its_grace_is_not_expected_to_take_more_than_its_budget() -> None:
    pool = Pool(max_requests_per_connection=3, preconnect=False)
    number = pool.open_idle(requests=3)
    pool.limit(number, 0)
    assert pool.submit_all(2) == []
    assert pool.submit() == [Dial(2, KEY)]


def test_a_connection_that_drains_in_its_grace_is_not_waited_for() -> None:
    pool = Pool()
    number = pool.open()
    pool.limit(number, 0)
    pool.submit()
    assert pool.retire(number) == [Drain(number, CloseReason.GOAWAY), Dial(2, KEY)]
    assert pool.limit(number, 0) == []


# ---- dials that fail


def test_when_the_only_dial_of_a_key_fails_all_that_wait_for_it_are_answered_with_its_error() -> None:
    pool = Pool()
    pool.submit_all(3)
    assert pool.fail_dial(1) == [Fail(1, REFUSED), Fail(2, REFUSED), Fail(3, REFUSED)]
    assert pool.submit() == [Dial(2, KEY)]


def test_a_dial_that_fails_while_others_are_out_answers_nobody_and_brings_no_other() -> None:
    pool = Pool()
    pool.retire(pool.open_idle(H1))
    pool.submit_all(2)
    assert pool.fail_dial(2) == []
    assert pool.submit() == []
    assert pool.fail_dial(3) == [Fail(2, REFUSED), Fail(3, REFUSED), Fail(4, REFUSED)]


def test_when_another_dial_succeeds_those_who_still_wait_are_dialled_for_again() -> None:
    pool = Pool()
    pool.retire(pool.open_idle(H1))
    pool.submit_all(2)
    pool.fail_dial(2)
    assert pool.connect(3, H1) == [Dispatch(2, 3, reused=False, waited=0.0), Dial(4, KEY)]


def test_while_a_connection_serves_a_failed_dial_answers_nobody_and_is_tried_again_after_a_second() -> None:
    pool = Pool()
    pool.open(H1)
    pool.submit()
    assert pool.fail_dial(2) == []
    assert pool.submit() == []
    assert pool.wait(0.5) == []
    assert pool.wait(0.5) == [Dial(3, KEY), Dial(4, KEY)]


def test_a_draining_connection_does_not_serve() -> None:
    pool = Pool()
    pool.retire(pool.open(H1))
    pool.submit()
    assert pool.fail_dial(2) == [Fail(2, REFUSED)]


def test_a_connection_that_says_goaway_before_anything_was_sent_is_no_reason_to_dial_at_once() -> None:
    pool = Pool()
    pool.submit()
    assert pool.retire(1) == [Close(1, CloseReason.GOAWAY)]
    assert pool.wait(0.5) == []
    assert pool.wait(0.5) == [Dial(2, KEY)]


def test_a_connection_that_is_lost_before_it_allowed_a_stream_is_no_reason_to_dial_at_once() -> None:
    pool = Pool()
    pool.submit()
    pool.limit(1, 0)
    pool.connect(1)
    assert pool.lose(1) == []
    assert pool.wait(1.0) == [Dial(2, KEY)]


# ---- ENHANCE_YOUR_CALM


def test_an_origin_that_wants_calm_is_not_dialled_for_a_second() -> None:
    pool = Pool(max_streams=1)
    pool.open()
    pool.calm()
    assert pool.submit() == []
    assert pool.submit(OTHER) == [Dial(2, OTHER)]
    assert pool.wait(0.5) == []
    assert pool.wait(0.5) == [Dial(3, KEY)]


def test_calm_holds_for_keys_that_come_later_and_after_all_is_forgotten() -> None:
    pool = Pool(max_connections=1)
    pool.calm()
    assert pool.submit(ONE) == []
    assert pool.submit(TWO) == []
    assert pool.wait(1.0) == [Dial(1, ONE)]
    # The cap is that of the policy, though the origin was known before it.
    assert pool.submit(THREE) == []


def test_each_wish_for_calm_counts_from_its_own_time() -> None:
    pool = Pool()
    pool.calm()
    pool.submit()
    pool.wait(0.75)
    pool.calm()
    assert pool.wait(0.75) == []
    assert pool.wait(0.25) == [Dial(1, KEY)]


def test_a_calm_origin_without_keys_is_forgotten_after_its_time() -> None:
    pool = Pool()
    pool.calm()
    assert pool.scheduler.next_deadline() == 1.0
    pool.wait(1.0)
    assert pool.scheduler.next_deadline() is None


def test_a_key_that_waits_in_turn_leaves_its_turn_when_its_origin_wants_calm() -> None:
    pool = Pool(1)
    pool.retire(pool.open(key=OTHER))
    pool.submit(KEY)
    pool.submit(key_of("c.example"))
    pool.calm()
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(2, key_of("c.example"))]
    assert pool.wait(1.0) == []
    pool.connect(2)
    assert pool.finish(3) == [Close(2, CloseReason.EVICTED), Dial(3, KEY)]


# ---- successors dialled ahead


def test_the_successor_is_dialled_with_the_last_request_of_a_budget() -> None:
    pool = Pool()
    pool.open_idle(requests=2)
    pool.now = 1.0
    assert pool.submit() == [
        Dispatch(2, 1, reused=True, waited=0.0),
        Drain(1, CloseReason.REQUESTS_SPENT),
        Dial(2, KEY),
    ]


def test_the_successor_is_dialled_when_what_is_left_lasts_no_longer_than_setting_up() -> None:
    pool = Pool()
    pool.submit()
    pool.now = 2.0
    pool.connect(1, H1, requests=5)
    pool.finish(1)
    dialled = []
    for ticket in (2, 3, 4):
        pool.now += 1.0
        dialled.append(Dial(2, KEY) in pool.submit())
        pool.finish(ticket)
    # Two seconds to set up, one request a second: two left are too few for 2 s and a fifth.
    assert dialled == [False, True, False]


def test_the_successor_is_dialled_before_the_end_of_the_age() -> None:
    pool = Pool()
    pool.submit()
    pool.now = 2.0
    pool.connect(1, age=10.0)
    dialled = []
    for age in (1.0, 7.5, 8.0):
        pool.now = 2.0 + age
        dialled.append(Dial(2, KEY) in pool.submit())
    assert dialled == [False, False, True]


def test_a_burst_tells_no_rate() -> None:
    pool = Pool()
    pool.submit_all(5)
    assert not [action for action in pool.connect(1, requests=10) if isinstance(action, Dial)]


def test_no_successor_without_demand() -> None:
    pool = Pool()
    pool.submit()
    assert pool.connect(1, requests=1) == [
        Dispatch(1, 1, reused=False, waited=0.0),
        Drain(1, CloseReason.REQUESTS_SPENT),
    ]


def test_no_successor_where_the_policy_wants_none() -> None:
    pool = Pool(preconnect=False)
    pool.open_idle(requests=2)
    assert pool.submit() == [Dispatch(2, 1, reused=True, waited=0.0), Drain(1, CloseReason.REQUESTS_SPENT)]


def test_no_successor_above_a_cap() -> None:
    pool = Pool(max_connections=1)
    pool.open_idle(requests=2)
    assert pool.submit() == [Dispatch(2, 1, reused=True, waited=0.0), Drain(1, CloseReason.REQUESTS_SPENT)]


def test_no_idle_connection_is_evicted_for_a_successor() -> None:
    pool = Pool(2)
    pool.open_idle(key=OTHER)
    pool.open_idle(requests=2)
    assert pool.submit() == [Dispatch(3, 2, reused=True, waited=0.0), Drain(2, CloseReason.REQUESTS_SPENT)]


def test_no_successor_where_another_connection_has_room() -> None:
    pool = Pool()
    pool.open(H1, requests=3)
    pool.open(H1)
    pool.finish(1)
    pool.finish(2)
    pool.submit()
    pool.finish(3)
    assert pool.submit() == [Dispatch(4, 1, reused=True, waited=0.0), Drain(1, CloseReason.REQUESTS_SPENT)]


def test_no_successor_where_more_is_arriving_than_waits() -> None:
    pool = Pool(max_streams=1)
    pool.open(requests=2)
    pool.submit()
    pool.finish(1)
    assert pool.submit() == []


def test_no_successor_in_a_pause() -> None:
    pool = Pool()
    pool.open_idle(requests=2)
    pool.calm()
    assert pool.submit() == [Dispatch(2, 1, reused=True, waited=0.0), Drain(1, CloseReason.REQUESTS_SPENT)]


def test_one_successor_for_each_connection() -> None:
    pool = Pool()
    pool.submit()
    pool.now = 1.0
    pool.connect(1, requests=10)
    dials: list[Action] = []
    for _ in range(9):
        pool.now += 0.125
        dials += [action for action in pool.submit() if isinstance(action, Dial)]
        if dials == [Dial(2, KEY)]:
            pool.fail_dial(2)
    assert dials == [Dial(2, KEY)]
