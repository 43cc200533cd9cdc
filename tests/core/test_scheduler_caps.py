"""Caps, and who has his turn where one is used up."""

from __future__ import annotations

from scrapy_poolplus.core.actions import Close, Dial, Dispatch, Drain, Fail
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.policy import Policy
from tests.core.pool import H1, KEY, ONE, OTHER, REFUSED, THREE, TWO, Pool, key_of

# ---- caps


def test_the_cap_of_the_crawl_counts_every_origin() -> None:
    pool = Pool(2)
    pool.open(key=key_of("a.example"))
    pool.open(key=key_of("b.example"))
    assert pool.submit(key_of("c.example")) == []
    assert pool.scheduler.peak == 2


def test_the_cap_of_an_origin_counts_all_its_sessions_and_no_other_origin() -> None:
    pool = Pool(max_connections=2)
    pool.open(key=ONE)
    pool.open(key=TWO)
    assert pool.submit(THREE) == []
    assert pool.submit(OTHER) == [Dial(3, OTHER)]


def test_a_dial_that_is_out_counts() -> None:
    pool = Pool(max_connections=1)
    pool.submit(ONE)
    assert pool.submit(TWO) == []


def test_a_draining_connection_counts_until_it_is_closed() -> None:
    pool = Pool(max_connections=1)
    pool.retire(pool.open())
    assert pool.submit() == []
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(2, KEY)]


def test_a_failed_dial_gives_its_place_back() -> None:
    pool = Pool(max_connections=1)
    pool.submit(ONE)
    pool.submit(TWO)
    assert pool.fail_dial(1) == [Fail(1, REFUSED), Dial(2, TWO)]


def test_by_default_there_are_as_many_connections_as_requests() -> None:
    pool = Pool()
    pool.open(H1)
    assert pool.submit_all(30) == [Dial(number, KEY) for number in range(2, 32)]


def test_no_more_connections_than_the_downloaders_slots_where_it_hands_down_more() -> None:
    pool = Pool()
    pool.slots = 2
    pool.open(H1)
    assert pool.submit_all(5) == [Dial(2, KEY)]
    pool.connect(2, H1)
    assert pool.finish(1) == [Dispatch(3, 1, True, 0.0)]


def test_beside_a_draining_connection_there_is_a_spare_one() -> None:
    pool = Pool()
    pool.slots = 1
    pool.open(H1)
    assert pool.submit() == []
    assert pool.retire(1) == [Drain(1, CloseReason.GOAWAY), Dial(2, KEY)]
    assert pool.submit() == []


def test_a_successor_is_dialled_beside_a_full_set_of_slots() -> None:
    pool = Pool()
    pool.slots = 1
    pool.open(H1, requests=3)
    pool.finish(1)
    pool.wait(1.0)
    assert pool.submit() == [Dispatch(2, 1, True, 0.0), Dial(2, KEY)]


def test_a_key_blocked_by_the_slots_is_served_when_a_request_of_another_ends() -> None:
    pool = Pool()
    pool.slots = 1
    pool.open(H1, ONE)
    assert pool.submit(TWO) == []
    assert pool.finish(1) == [Dial(2, TWO)]


def test_by_default_idle_connections_are_no_reason_to_close_one() -> None:
    pool = Pool()
    for label in ("s1", "s2", "s3"):
        pool.open_idle(key=key_of(label=label))
    assert pool.submit(KEY) == [Dial(4, KEY)]


def test_by_default_a_dial_that_nobody_waits_for_gives_way_before_there_are_more_than_requests_and_one() -> None:
    pool = Pool()
    pool.open(H1, ONE)
    pool.submit_all(2, ONE)
    pool.finish(1)
    pool.finish(2)
    # One request in flight, its connection, and two dials that were owed.
    assert pool.submit(TWO) == [Close(3, CloseReason.DIAL_ABANDONED), Dial(4, TWO)]


def test_by_default_there_are_no_more_connections_than_the_downloader_means_to_have_requests() -> None:
    pool = Pool()
    pool.slots = 2
    pool.open(H1)
    # It hands down more in a burst.
    assert pool.submit_all(5) == [Dial(2, KEY)]
    pool.connect(2, H1)
    assert pool.finish(1) == [Dispatch(3, 1, reused=True, waited=0.0)]


def test_one_more_than_these_while_one_drains() -> None:
    pool = Pool()
    pool.slots = 1
    pool.open(H1)
    pool.submit_all(2)
    assert pool.retire(1) == [Drain(1, CloseReason.GOAWAY), Dial(2, KEY)]
    pool.connect(2, H1)
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY)]


def test_one_more_than_these_for_a_successor() -> None:
    pool = Pool()
    pool.slots = 1
    pool.submit_all(3)
    assert pool.connect(1, H1, requests=2) == [Dispatch(1, 1, reused=False, waited=0.0), Dial(2, KEY)]
    assert pool.connect(2, H1) == [Dispatch(2, 2, reused=False, waited=0.0)]


def test_idle_connections_do_not_count_against_the_requests_that_the_downloader_means_to_have() -> None:
    pool = Pool()
    pool.slots = 1
    pool.open_idle(key=ONE)
    assert pool.submit(TWO) == [Dial(2, TWO)]


def test_when_the_downloader_wants_fewer_a_key_that_has_its_place_at_the_origin_gives_it_back() -> None:
    pool = Pool(2)
    pool.slots = 2
    pool.open(H1, ONE)
    pool.open(H1, OTHER)
    pool.submit(TWO)
    pool.slots = 1
    pool.submit(ONE)
    assert pool.retire(2) == [Drain(2, CloseReason.GOAWAY)]
    assert pool.finish(2) == [Close(2, CloseReason.GOAWAY)]
    pool.slots = 2
    assert pool.submit(ONE) == [Dial(3, TWO)]


def test_when_the_downloader_wants_fewer_dials_that_nobody_waits_for_are_given_up() -> None:
    pool = Pool()
    pool.slots = 3
    pool.open(H1, ONE)
    pool.submit_all(2, ONE)
    pool.slots = 1
    assert pool.submit(TWO) == []
    assert pool.finish(1) == [Dispatch(2, 1, reused=True, waited=0.0), Close(3, CloseReason.DIAL_ABANDONED)]


def test_the_least_recently_used_idle_connection_is_evicted_for_a_new_one() -> None:
    pool = Pool(2)
    pool.open_idle(key=ONE)
    pool.open_idle(key=TWO)
    pool.submit(ONE)
    pool.finish(3)
    assert pool.submit(OTHER) == [Close(2, CloseReason.EVICTED), Dial(3, OTHER)]


def test_the_idle_connection_of_another_session_is_evicted_at_the_cap_of_the_origin() -> None:
    pool = Pool(max_connections=1)
    pool.open_idle(key=ONE)
    assert pool.submit(TWO) == [Close(1, CloseReason.EVICTED), Dial(2, TWO)]


def test_a_dial_that_nobody_waits_for_gives_way_at_a_cap() -> None:
    pool = Pool(max_connections=2)
    pool.open(H1, ONE)
    pool.submit(ONE)
    pool.finish(1)
    assert pool.submit(TWO) == [Close(2, CloseReason.DIAL_ABANDONED), Dial(3, TWO)]


def test_a_connection_that_becomes_idle_at_once_gives_way_to_a_key_that_is_blocked() -> None:
    pool = Pool(1)
    pool.open(key=KEY)
    assert pool.submit(OTHER) == []
    assert pool.finish(1) == [Close(1, CloseReason.EVICTED), Dial(2, OTHER)]


def test_an_evicted_connection_that_was_expected_to_serve_wakes_those_who_waited_for_it() -> None:
    pool = Pool(1)
    pool.submit(KEY)
    pool.limit(1, 0)
    pool.connect(1)
    # Nothing may be sent on it yet, and it is idle: the other key takes its place. Its own waiter is next in turn.
    assert pool.submit(OTHER) == [Close(1, CloseReason.EVICTED), Dial(2, OTHER)]
    pool.connect(2)
    assert pool.finish(2) == [Close(2, CloseReason.EVICTED), Dial(3, KEY)]


def test_a_place_of_the_crawl_wakes_a_key_of_another_origin() -> None:
    pool = Pool(1)
    pool.retire(pool.open(key=KEY))
    pool.submit(OTHER)
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(2, OTHER)]


def test_a_key_that_has_a_place_of_its_origin_and_waits_for_the_crawls_keeps_it() -> None:
    pool = Pool(2, max_connections=1)
    pool.retire(pool.open(key=ONE))
    pool.open(key=OTHER)
    pool.submit(TWO)
    pool.submit(key_of("c.example"))
    # A place of the origin's comes free, and with it one of the crawl's; the younger key of the crawl comes after.
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(3, TWO)]
    # Another session of the origin does not get a second one.
    assert pool.submit(THREE) == []


def test_a_claim_that_is_given_up_wakes_the_next_key_of_the_origin() -> None:
    pool = Pool(1, max_connections=1)
    pool.retire(pool.open(key=OTHER))
    pool.submit(ONE)
    pool.submit(TWO)
    assert pool.cancel(2) == []
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(2, TWO)]


def test_an_origin_without_a_cap_waits_for_the_crawls_only() -> None:
    pool = Pool(1)
    pool.retire(pool.open(key=ONE))
    pool.submit(TWO)
    pool.submit(THREE)
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(2, TWO)]


# ---- turns and reclaiming


def test_free_places_go_round_the_keys_one_each() -> None:
    pool = Pool(max_connections=2, preconnect=False)
    for label in ("s1", "s2"):
        pool.open(H1, key_of(label=label), requests=1)
    pool.submit_all(2, THREE)
    pool.submit_all(2, KEY)
    assert pool.finish(1) == [Close(1, CloseReason.REQUESTS_SPENT), Dial(3, THREE)]
    # THREE is owed another one, since this instant: KEY comes first.
    assert pool.finish(2) == [Close(2, CloseReason.REQUESTS_SPENT), Dial(4, KEY)]


def test_a_key_at_work_does_not_take_the_place_that_it_has_freed_before_those_who_wait() -> None:
    pool = Pool(max_connections=1, preconnect=False)
    pool.open(H1, ONE, requests=1)
    pool.now = 1.0
    pool.submit_all(5, ONE)
    pool.submit(TWO)
    pool.now = 1.5
    # ONE was served until now, though it asked first.
    assert pool.finish(1) == [Close(1, CloseReason.REQUESTS_SPENT), Dial(2, TWO)]


def test_a_key_that_starves_gets_the_place_of_one_that_has_more_after_reclaim_after() -> None:
    pool = Pool(max_connections=1, reclaim_after=1.0)
    pool.open(key=ONE)
    pool.submit_all(3, ONE)
    assert pool.submit(TWO) == []
    assert pool.wait(0.5) == []
    assert pool.wait(0.5) == [Drain(1, CloseReason.RECLAIMED)]
    for ticket in (1, 2, 3):
        assert pool.finish(ticket) == []
    assert pool.finish(4) == [Close(1, CloseReason.RECLAIMED), Dial(2, TWO)]


def test_a_busy_key_that_always_wants_more_does_not_stand_before_one_that_has_nothing() -> None:
    pool = Pool(max_connections=1, reclaim_after=1.0)
    pool.open(H1, ONE)
    pool.submit_all(50, ONE)
    pool.wait(0.5)
    pool.submit(TWO)
    for ticket in range(1, 4):
        pool.wait(0.25)
        pool.finish(ticket)
    assert Drain(1, CloseReason.RECLAIMED) in pool.wait(0.25)
    assert pool.finish(4) == [Close(1, CloseReason.RECLAIMED), Dial(2, TWO)]


def test_the_oldest_connection_of_the_key_with_most_is_reclaimed() -> None:
    pool = Pool(max_connections=3, reclaim_after=1.0)
    pool.open(H1, ONE)
    for _ in range(2):
        pool.open(H1, TWO)
    pool.submit(THREE)
    assert pool.wait(1.0) == [Drain(2, CloseReason.RECLAIMED)]


def test_an_idle_connection_that_takes_no_place_is_not_reclaimed() -> None:
    pool = Pool(reclaim_after=1.0)
    pool.slots = 2
    pool.open(H1, ONE)
    pool.open(H1, ONE)
    pool.finish(1)
    pool.finish(2)
    pool.slots = 1
    pool.open(H1, TWO)
    pool.submit(THREE)
    assert pool.wait(1.0) == [Drain(3, CloseReason.RECLAIMED), Dial(4, THREE)]


def test_two_keys_with_as_many_connections_leave_each_other_alone() -> None:
    pool = Pool(max_connections=2, reclaim_after=1.0)
    pool.open(H1, ONE)
    pool.open(H1, TWO)
    pool.submit(ONE)
    pool.submit(TWO)
    assert pool.wait(10.0) == []


def test_one_connection_is_reclaimed_at_a_time_and_none_for_a_key_for_which_one_drains() -> None:
    pool = Pool(max_connections=3, reclaim_after=1.0)
    for _ in range(3):
        pool.open(H1, ONE)
    pool.submit(TWO)
    pool.submit(THREE)
    assert pool.wait(1.0) == [Drain(1, CloseReason.RECLAIMED)]
    assert pool.wait(1.0) == [Drain(2, CloseReason.RECLAIMED)]
    assert pool.wait(10.0) == []
    assert pool.finish(1) == [Close(1, CloseReason.RECLAIMED), Dial(4, TWO)]
    # TWO's dial is out: nothing more is taken for it.
    assert pool.wait(10.0) == []


def test_the_shortest_reclaim_after_of_those_who_starve_counts() -> None:
    pool = Pool(1, reclaim_after=10.0)
    pool.open(key=KEY)
    pool.submit(OTHER)
    pool.policy = Policy(reclaim_after=0.5)
    pool.submit(key_of("c.example"))
    assert pool.wait(0.5) == [Drain(1, CloseReason.RECLAIMED)]
    assert pool.wait(20.0) == []
    assert pool.finish(1) == [Close(1, CloseReason.RECLAIMED), Dial(2, OTHER)]


def test_a_key_that_waits_for_its_origin_takes_over_the_claim_of_one_that_has_more() -> None:
    pool = Pool(2, max_connections=2, reclaim_after=1.0)
    pool.open(H1, OTHER)
    pool.submit_all(3, ONE)
    pool.connect(2, H1)
    # ONE has a connection, and with what it is owed yet it has claimed the origin's second place.
    pool.submit(TWO)
    pool.wait(0.5)
    pool.finish(2)
    assert pool.wait(0.5) == [Drain(1, CloseReason.RECLAIMED)]
    assert pool.finish(1) == [Close(1, CloseReason.RECLAIMED), Dial(3, TWO)]
