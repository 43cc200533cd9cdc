"""Sessions that rotate: one connection each, a first request that goes alone, a budget, and what goes on when a server
closes early."""

from __future__ import annotations

from typing import Any

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain, EndSession, Fail, Tell
from scrapy_poolplus.core.budget import UNLIMITED, Budget
from scrapy_poolplus.core.events import CloseReason, SessionOpened, SessionRetired
from scrapy_poolplus.core.sessions import Claim, Tie
from tests.core.pool import H1, KEY, OTHER, REFUSED, RESET, Pool

SPENT, RETIRED = CloseReason.REQUESTS_SPENT, CloseReason.RETIRED


def rotating(crawl_cap: int = 100, **limits: Any) -> Pool:
    return Pool(crawl_cap, **{"rotation": "strict", "session_requests": 10, "session_age": 600.0, **limits})


def sent(ticket: int, connection: int, session: str, *, reused: bool = True, waited: float = 0.0) -> Dispatch:
    return Dispatch(ticket, connection, reused, waited, session)


def begun(session: str, at: float = 0.0, promised: int | None = 10) -> Tell:
    return Tell(SessionOpened(session, KEY, promised, at))


def over(session: str, reason: CloseReason, requests: int, at: float = 0.0) -> Tell:
    return Tell(SessionRetired(session, reason, requests, at))


def dialled(actions: list[Action]) -> list[tuple[int, str | None]]:
    return [(action.connection, action.session) for action in actions if isinstance(action, Dial)]


# ---- beginning


def test_each_connection_is_a_session_that_begins_when_it_is_ready() -> None:
    pool = rotating()
    assert pool.submit() == [Dial(1, KEY, "s-1")]
    assert pool.connect(1, H1) == [begun("s-1"), sent(1, 1, "s-1", reused=False)]
    assert pool.submit() == [Dial(2, KEY, "s-2")]


def test_the_first_request_of_a_session_goes_alone_until_its_response_head_is_in() -> None:
    pool = rotating()
    pool.submit_all(3)
    assert pool.connect(1) == [begun("s-1"), sent(1, 1, "s-1", reused=False)]
    assert pool.answer(1) == [sent(2, 1, "s-1"), sent(3, 1, "s-1")]
    assert pool.answer(2) == []


def test_the_request_that_goes_alone_may_end_without_an_answer_and_the_next_one_goes_alone_then() -> None:
    pool = rotating()
    pool.submit_all(3)
    pool.connect(1)
    assert pool.finish(1) == [sent(2, 1, "s-1")]
    assert pool.answer(2) == [sent(3, 1, "s-1")]


def test_over_http1_nothing_waits_for_the_first_answer_but_the_connection_itself() -> None:
    pool = rotating()
    pool.open(H1)
    assert pool.answer(1) == []
    assert pool.finish(1) == []
    assert pool.submit() == [sent(2, 1, "s-1")]


def test_over_http1_what_is_bound_at_another_host_waits_for_the_first_answer_and_for_no_later_one() -> None:
    pool = rotating()
    pool.open(H1)
    assert pool.submit(OTHER, claim=Claim(Tie.OWN, "s-1", host="b.example")) == []
    assert dialled(pool.answer(1)) == [(2, "s-1")]
    assert pool.finish(1) == []
    pool.submit()
    pool.cancel(2)
    assert dialled(pool.submit(OTHER, claim=Claim(Tie.OWN, "s-1", host="b.example"))) == [(3, "s-1")]


def test_i6_no_request_is_assigned_past_the_age_of_its_session_and_one_in_flight_may_finish() -> None:
    pool = rotating(session_age=60.0, preconnect=False)
    pool.open()
    pool.answer(1)
    assert over("s-1", CloseReason.AGE_SPENT, 1, 60.0) in pool.wait(60.0)
    assert dialled(pool.submit()) == [(2, "s-2")]
    assert not [action for action in pool.connect(2) if isinstance(action, Dispatch) and action.session != "s-2"]
    assert Close(1, CloseReason.AGE_SPENT) in pool.finish(1)


def test_an_older_session_serves_while_a_new_one_awaits_its_first_answer() -> None:
    pool = rotating(max_streams=2)
    pool.open()
    pool.answer(1)
    pool.submit_all(3)
    # The second connection takes one; the next one that comes free is the first connection's.
    assert pool.connect(2) == [begun("s-2"), sent(3, 2, "s-2", reused=False)]
    assert pool.finish(1) == [sent(4, 1, "s-1")]


def test_a_new_session_is_given_its_first_request_at_once_though_an_older_one_has_room() -> None:
    pool = rotating(max_streams=2)
    pool.open()
    pool.answer(1)
    pool.submit_all(2)
    pool.finish(1)
    pool.finish(2)
    # Only the third is left, on the first connection; nobody waits for the second one any more.
    pool.connect(2)
    assert pool.submit() == [sent(4, 2, "s-2", reused=False)]


def test_nobody_dials_for_those_who_may_follow_the_first_answer() -> None:
    pool = rotating(session_requests=3)
    pool.submit()
    pool.connect(1)
    assert pool.submit_all(2) == []
    assert dialled(pool.submit()) == [(2, "s-2")]


def test_what_the_peer_allows_is_what_may_follow() -> None:
    pool = rotating()
    pool.open()
    pool.limit(1, 2)
    assert pool.submit_all(2) == []
    assert dialled(pool.submit()) == [(2, "s-2")]


def test_a_dial_that_fails_ends_the_session_that_it_was_for() -> None:
    pool = rotating()
    pool.submit()
    assert pool.fail_dial(1) == [Fail(1, REFUSED), EndSession("s-1")]


def test_a_session_that_carried_nothing_ends_with_its_connection() -> None:
    pool = rotating(idle_timeout=5.0)
    pool.open(H1)
    pool.submit()
    pool.finish(1)
    assert pool.connect(2, H1) == [begun("s-2")]
    ends = [over("s-2", CloseReason.IDLE_TIMEOUT, 0, 5.0), EndSession("s-2")]
    assert pool.wait(5.0) == [Close(2, CloseReason.IDLE_TIMEOUT), *ends]


# ---- its budget


def test_the_last_request_of_a_session_retires_it_and_what_waits_goes_into_another_one() -> None:
    pool = rotating(session_requests=2)
    pool.open(H1)
    pool.submit()
    assert pool.finish(1) == [sent(2, 1, "s-1"), over("s-1", SPENT, 2), Drain(1, SPENT)]
    assert pool.finish(2) == [Close(1, SPENT), EndSession("s-1")]


def test_all_streams_of_a_connection_are_charged_when_they_are_dispatched() -> None:
    pool = rotating(session_requests=3)
    pool.open()
    pool.submit_all(3)
    follow = [sent(2, 1, "s-1"), sent(3, 1, "s-1"), over("s-1", SPENT, 3), Drain(1, SPENT)]
    assert pool.answer(1) == follow
    assert list(pool.scheduler.waiting) == [4]


def test_a_session_of_one_request_ends_with_it() -> None:
    pool = rotating(session_requests=1)
    pool.submit()
    first = [begun("s-1", promised=1), sent(1, 1, "s-1", reused=False), over("s-1", SPENT, 1), Drain(1, SPENT)]
    assert pool.connect(1) == first
    assert pool.finish(1) == [Close(1, SPENT), EndSession("s-1")]


def test_a_session_is_retired_at_its_age_and_what_is_in_flight_finishes() -> None:
    pool = rotating(session_age=5.0, idle_timeout=60.0)
    pool.open(H1)
    assert pool.wait(5.0) == [over("s-1", CloseReason.AGE_SPENT, 1, 5.0), Drain(1, CloseReason.AGE_SPENT)]
    assert dialled(pool.submit()) == [(2, "s-2")]
    assert pool.finish(1) == [Close(1, CloseReason.AGE_SPENT), EndSession("s-1")]


def test_at_the_instant_of_its_age_a_session_takes_nothing_though_nobody_has_said_so_yet() -> None:
    pool = rotating(session_age=5.0)
    pool.open_idle(H1)
    pool.now = 5.0
    assert pool.submit() == [
        over("s-1", CloseReason.AGE_SPENT, 1, 5.0),
        Close(1, CloseReason.AGE_SPENT),
        Dial(2, KEY, "s-2"),
        EndSession("s-1"),
    ]


def test_a_connection_whose_own_age_is_over_is_retired_and_its_session_goes_on() -> None:
    pool = rotating()
    pool.open_idle(H1, age=5.0)
    pool.now = 5.0
    assert pool.submit() == [Close(1, CloseReason.AGE_SPENT), Dial(2, KEY, "s-1")]


def test_the_budget_of_a_connection_ends_it_and_its_session_goes_on_with_what_is_left() -> None:
    pool = rotating(session_requests=3)
    pool.open(H1, requests=1)
    assert pool.finish(1) == [Close(1, SPENT)]
    assert dialled(pool.submit()) == [(2, "s-1")]
    assert pool.connect(2, H1, requests=1) == [sent(2, 2, "s-1", reused=False), Drain(2, SPENT)]
    pool.finish(2)
    pool.submit()
    assert over("s-1", SPENT, 3) in pool.connect(3, H1)


def test_a_request_that_rotates_is_the_last_of_its_session() -> None:
    pool = rotating()
    pool.submit(claim=Claim(rotate=True))
    rotated = [begun("s-1"), sent(1, 1, "s-1", reused=False), over("s-1", RETIRED, 1), Drain(1, RETIRED)]
    assert pool.connect(1, H1) == rotated
    assert dialled(pool.submit()) == [(2, "s-2")]


# ---- connections that are closed early


def test_the_next_connection_goes_on_with_the_session_of_one_that_was_lost() -> None:
    pool = rotating()
    pool.open_idle(H1)
    assert pool.lose(1) == []
    assert pool.submit() == [Dial(2, KEY, "s-1")]
    # It does not begin anew, and is charged for what it carried.
    assert pool.connect(2, H1) == [sent(2, 2, "s-1", reused=False)]
    session = pool.scheduler.state.book.find("s-1")
    assert session is not None
    assert session.left() == 8


def test_the_session_of_a_connection_that_drains_goes_on_over_the_next_one_at_once() -> None:
    pool = rotating()
    pool.open()
    pool.answer(1)
    pool.retire(1)
    assert dialled(pool.submit()) == [(2, "s-1")]
    assert pool.connect(2) == [sent(2, 2, "s-1", reused=False)]
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY)]


def test_a_session_whose_connection_drains_before_its_first_answer_goes_on_when_that_is_in() -> None:
    pool = rotating()
    pool.open()
    pool.retire(1)
    # A session anew would be without the cookies that are coming.
    assert pool.submit() == []
    assert dialled(pool.answer(1)) == [(2, "s-1")]
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY)]
    assert pool.connect(2) == [sent(2, 2, "s-1", reused=False)]


def test_a_session_whose_connection_drains_goes_on_when_its_first_request_ends_without_an_answer() -> None:
    pool = rotating()
    pool.open()
    pool.retire(1)
    pool.submit()
    assert pool.finish(1) == [Close(1, CloseReason.GOAWAY), Dial(2, KEY, "s-1")]


def test_a_session_of_which_requests_are_in_flight_when_its_connection_is_lost_may_begin_again() -> None:
    pool = rotating()
    pool.open()
    pool.submit()
    assert pool.lose(1) == [Fail(1, RESET), Dial(2, KEY, "s-1")]
    # It has no cookies yet: its first request goes alone again.
    pool.submit()
    assert pool.connect(2) == [sent(2, 2, "s-1", reused=False)]
    assert pool.answer(2) == [sent(3, 2, "s-1")]


def lost_with_something_bound() -> Pool:
    """The connection of s-1 was closed after one answer; a retry in it has got the next one, and is on its way."""
    pool = rotating()
    pool.open(H1)
    pool.answer(1)
    pool.lose(1)
    pool.submit(claim=Claim(Tie.OWN, "s-1", host="a.example", cause="retry"))
    pool.connect(2, H1)
    return pool


def test_a_connection_made_for_what_was_bound_to_its_session_serves_all_of_the_origin_afterwards() -> None:
    pool = lost_with_something_bound()
    pool.finish(2)
    assert pool.submit() == [sent(3, 2, "s-1")]


def test_such_a_connection_serves_what_waits_without_another_dial() -> None:
    pool = lost_with_something_bound()
    assert dialled(pool.submit()) == [(3, "s-2")]
    assert sent(3, 2, "s-1") in pool.finish(2)


def test_what_is_still_bound_to_its_session_goes_before() -> None:
    pool = lost_with_something_bound()
    pool.submit(claim=Claim(Tie.OWN, "s-1", host="a.example"))
    assert pool.finish(2) == [sent(3, 2, "s-1")]
    pool.finish(3)
    assert pool.submit() == [sent(4, 2, "s-1")]


def test_a_connection_for_what_is_bound_at_another_origin_serves_nothing_else() -> None:
    pool = rotating()
    pool.open(H1)
    pool.answer(1)
    pool.submit(OTHER, claim=Claim(Tie.OWN, "s-1", host="b.example"))
    pool.connect(2, H1)
    pool.finish(2)
    assert dialled(pool.submit(OTHER)) == [(3, "s-2")]


def test_a_session_without_an_answer_that_comes_back_still_goes_alone() -> None:
    pool = rotating()
    pool.open()
    pool.lose(1)
    pool.submit(claim=Claim(Tie.OWN, "s-1", host="a.example", cause="retry"))
    pool.connect(2)
    pool.finish(2)
    assert pool.submit() == [sent(3, 2, "s-1")]
    assert pool.submit() == []
    assert pool.answer(3) == [sent(4, 2, "s-1")]


def test_a_host_is_left_by_a_session_that_is_on_its_way_back_to_it() -> None:
    pool = rotating(crawl_cap=1)
    pool.open(H1)
    pool.answer(1)
    pool.lose(1)
    pool.submit(OTHER)
    pool.submit(claim=Claim(Tie.OWN, "s-1", host="a.example"))
    assert EndSession("s-1") in pool.retire_all(host="a.example")
    pool.connect(2, H1)
    # The place in the crawl's cap is free: what was bound goes on in another session.
    assert dialled(pool.finish(2)) == [(3, "s-3")]


def test_a_retired_session_does_not_go_on() -> None:
    pool = rotating()
    pool.open(H1)
    pool.retire_all(session="s-1")
    assert pool.lose(1) == [Fail(1, RESET), EndSession("s-1")]
    assert dialled(pool.submit()) == [(2, "s-2")]


def test_the_first_answer_may_come_on_another_connection_of_the_session() -> None:
    pool = rotating()
    pool.open()
    pool.lose(1)
    pool.submit(OTHER, claim=Claim(Tie.OWN, "s-1"))
    assert dialled(pool.submit()) == [(3, "s-1")]
    pool.connect(2)
    # The other connection has nothing to do until then, and nobody dials beside it.
    assert pool.connect(3) == []
    assert pool.answer(2) == [sent(3, 3, "s-1", reused=False)]


def test_an_answer_concerns_no_connection_of_the_session_on_which_nothing_goes_alone() -> None:
    pool = rotating()
    pool.open()
    pool.lose(1)
    pool.submit(OTHER, claim=Claim(Tie.OWN, "s-1"))
    pool.submit_all(2)
    pool.connect(2, H1)
    pool.finish(2)
    pool.connect(3)
    assert pool.answer(3) == [sent(4, 3, "s-1")]


def test_a_peer_that_allows_no_stream_has_nobody_who_may_follow() -> None:
    pool = rotating()
    pool.submit()
    pool.limit(1, 0)
    assert pool.connect(1) == [begun("s-1")]
    # It is waited for while it may be expected to allow some, and no longer.
    assert dialled(pool.wait(4.9)) == []
    assert dialled(pool.wait(0.1)) == [(2, "s-2")]


# ---- the successor


def test_the_successor_is_dialled_before_the_session_is_spent() -> None:
    pool = rotating(session_requests=4)
    pool.submit()
    pool.now = 1.0
    pool.connect(1, H1)
    for ticket in (2, 3):
        pool.finish(ticket - 1)
        pool.wait(1.0)
        actions = pool.submit()
    # One left, a request a second, and a second to set up.
    assert actions == [sent(3, 1, "s-1"), Dial(2, KEY, "s-2")]


def test_a_session_without_an_age_is_followed_when_its_requests_are_spent() -> None:
    pool = rotating(session_requests=2)
    pool.submit()
    pool.scheduler.connected(1, H1, UNLIMITED, pool.now, session=Budget(requests=2))
    pool.wait(1.0)
    pool.finish(1)
    pool.wait(1.0)
    assert pool.submit() == [sent(2, 1, "s-1"), over("s-1", SPENT, 2, 2.0), Drain(1, SPENT), Dial(2, KEY, "s-2")]


# ---- local addresses


def test_each_session_has_its_turn_at_the_addresses_and_keeps_it() -> None:
    pool = rotating(bind_addresses=("127.0.0.2", "127.0.0.3"))
    pool.submit()
    pool.connect(1, H1)
    assert pool.submit() == [Dial(2, KEY, "s-2", turn=2)]
    pool.connect(2, H1)
    pool.lose(1)
    # The first session goes on over the third connection.
    assert pool.submit() == [Dial(3, KEY, "s-1", turn=1)]


def test_without_sessions_each_connection_has_its_turn() -> None:
    pool = Pool(bind_addresses=("127.0.0.2", "127.0.0.3"))
    pool.open(H1)
    assert pool.submit() == [Dial(2, KEY, turn=2)]


# ---- retiring all


def test_the_sessions_of_a_host_are_retired_with_its_connections_and_no_others() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.open(H1, OTHER)
    assert pool.retire_all(host="a.example") == [
        over("s-1", RETIRED, 1),
        Close(1, RETIRED),
        EndSession("s-1"),
    ]
    assert pool.scheduler.connections.keys() == {2}


def test_without_sessions_connections_are_retired_and_dials_are_left_alone() -> None:
    pool = Pool()
    pool.open_idle(H1)
    pool.submit_all(2)
    assert pool.retire_all() == [Drain(1, RETIRED)]
    assert pool.scheduler.connections.keys() == {1, 2}


def test_a_dial_of_a_session_that_carried_nothing_yet_is_left_alone() -> None:
    pool = rotating()
    pool.submit()
    assert pool.retire_all() == []


def test_the_sessions_that_a_next_connection_would_go_on_with_are_retired() -> None:
    pool = rotating()
    for key in (KEY, OTHER):
        pool.open_idle(H1, key)
        pool.lose(pool.tickets)
    assert pool.retire_all(host="a.example") == [over("s-1", RETIRED, 1), EndSession("s-1")]
    assert pool.retire_all() == [over("s-2", RETIRED, 1), EndSession("s-2")]
