"""Requests that ask for a session: where they wait, when they cross into another one, and when a session is kept whole."""

from __future__ import annotations

from typing import Any

import pytest

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain, EndSession, Fail, Kept, Tell
from scrapy_poolplus.core.events import CloseReason, SessionCrossed, SessionOpened, SessionRetired
from scrapy_poolplus.core.origin import PoolKey
from scrapy_poolplus.core.sessions import Claim, Session, Tie
from tests.core.pool import H1, H2, KEY, OTHER, REFUSED, RESET, Pool, key_of

HOST = "a.example"
OWN, FLOW, KEPT = (Claim(tie, "s-1", host=HOST) for tie in (Tie.OWN, Tie.FLOW, Tie.KEPT))
PIN = Claim(Tie.PIN, name="ada")
S1 = key_of(label="s-1")
"""What is bound to the first session and to no connection of it waits here."""


def rotating(crawl_cap: int = 100, **limits: Any) -> Pool:
    return Pool(crawl_cap, **{"rotation": "strict", "session_requests": 10, "session_age": 600.0, **limits})


def session_of(pool: Pool, number: str = "s-1") -> Session:
    session = pool.scheduler.state.book.find(number)
    assert session is not None
    return session


def dialled(actions: list[Action]) -> list[tuple[PoolKey, str | None]]:
    return [(action.key, action.session) for action in actions if isinstance(action, Dial)]


def dispatched(actions: list[Action]) -> list[tuple[int, int, str | None, bool]]:
    return [
        (action.ticket, action.connection, action.session, action.kept)
        for action in actions
        if isinstance(action, Dispatch)
    ]


def told(actions: list[Action]) -> list[object]:
    return [action.event for action in actions if isinstance(action, Tell)]


# ---- into its own session


def test_what_is_bound_waits_for_the_connection_of_its_session_and_for_no_other_one() -> None:
    pool = rotating()
    pool.open(H1)
    pool.open_idle(H1)
    assert pool.submit(claim=OWN) == []
    assert dispatched(pool.finish(1)) == [(3, 1, "s-1", False)]


def test_the_older_of_what_is_bound_and_what_is_not_goes_first() -> None:
    pool = rotating(max_connections=1)
    pool.open(H1)
    pool.submit()
    pool.submit(claim=OWN)
    pool.submit()
    order = [dispatched(pool.finish(ticket))[0][0] for ticket in (1, 2, 3)]
    assert order == [2, 3, 4]


def test_what_is_bound_and_cancelled_leaves_its_place() -> None:
    pool = rotating()
    pool.open(H1)
    pool.submit(claim=OWN)
    assert pool.cancel(2) == []
    assert session_of(pool).bound == 0
    assert pool.finish(1) == []


def test_what_is_bound_to_a_session_without_a_connection_is_dialled_for_in_a_key_of_its_own() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.lose(1)
    assert pool.submit(claim=OWN) == [Dial(2, S1, "s-1")]
    # The session is no orphan any more: what is not bound does not wait for it.
    assert dialled(pool.submit()) == [(KEY, "s-2")]
    assert dispatched(pool.connect(2, H1)) == [(2, 2, "s-1", False)]
    # The second time it waits in that key again.
    assert dispatched(pool.submit(claim=OWN)) == []


def test_what_is_bound_goes_to_another_origin_in_its_session() -> None:
    pool = rotating()
    pool.open_idle(H1)
    there = pool.submit(OTHER, claim=OWN)
    assert there == [Dial(2, key_of("b.example", "s-1"), "s-1")]
    assert pool.connect(2, H1) == [Dispatch(2, 2, False, 0.0, "s-1")]
    assert session_of(pool).requests == 2


def test_what_is_bound_waits_without_a_connection_while_the_first_answer_of_its_session_is_awaited() -> None:
    pool = rotating()
    pool.open()
    assert pool.submit(OTHER, claim=OWN) == []
    assert dialled(pool.answer(1)) == [(key_of("b.example", "s-1"), "s-1")]


def test_when_the_first_request_ends_without_an_answer_what_was_bound_goes_on() -> None:
    pool = rotating()
    pool.open()
    pool.submit(OTHER, claim=OWN)
    assert dialled(pool.finish(1)) == [(key_of("b.example", "s-1"), "s-1")]


def test_when_the_first_request_is_lost_what_was_bound_goes_on() -> None:
    pool = rotating()
    pool.open()
    pool.submit(OTHER, claim=OWN)
    assert dialled(pool.lose(1)) == [(key_of("b.example", "s-1"), "s-1")]


# ---- over the connection's end


def test_what_waits_for_a_connection_that_is_lost_goes_on_in_its_session_with_its_old_time() -> None:
    pool = rotating()
    pool.open(H1)
    pool.answer(1)
    pool.now = 1.0
    pool.submit(claim=OWN)
    pool.now = 3.0
    assert pool.lose(1) == [Fail(1, RESET), Dial(2, S1, "s-1")]
    assert pool.connect(2, H1) == [Dispatch(2, 2, False, 2.0, "s-1")]


def test_what_waits_for_a_connection_that_drains_goes_on_in_its_session() -> None:
    pool = rotating(max_streams=1)
    pool.open()
    pool.answer(1)
    pool.submit(claim=OWN)
    assert pool.retire(1) == [Drain(1, CloseReason.GOAWAY), Dial(2, S1, "s-1")]


def test_when_the_session_is_over_what_waited_in_it_crosses() -> None:
    pool = rotating()
    pool.open(H1)
    pool.submit(claim=Claim(Tie.OWN, "s-1", cause="redirect"))
    assert pool.retire_all(session="s-1") == [
        Tell(SessionRetired("s-1", CloseReason.RETIRED, 1, 0.0)),
        Drain(1, CloseReason.RETIRED),
        Tell(SessionCrossed("s-1", "redirect", 0.0)),
        Dial(2, KEY, "s-2"),
    ]


def test_when_the_age_of_the_session_is_over_what_waits_in_its_own_key_crosses() -> None:
    pool = rotating(session_age=5.0)
    pool.open_idle(H1)
    pool.lose(1)
    pool.submit(claim=OWN)
    actions = pool.wait(5.0)
    assert dialled(actions) == [(KEY, "s-2")]
    assert Close(2, CloseReason.DIAL_ABANDONED) in actions
    assert told(actions) == [SessionRetired("s-1", CloseReason.AGE_SPENT, 1, 5.0)]


def test_a_failed_dial_answers_those_who_are_bound_and_ends_nothing_else() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.lose(1)
    pool.submit(claim=OWN)
    assert pool.fail_dial(2) == [Fail(2, REFUSED)]


# ---- crossing


@pytest.mark.parametrize("cause", [None, "retry"])
def test_what_finds_its_session_forgotten_crosses_and_is_counted_where_that_is_a_crossing(cause: str | None) -> None:
    pool = rotating()
    crossed = [] if cause is None else [SessionCrossed("other-1", cause, 0.0)]
    actions = pool.submit(claim=Claim(Tie.OWN, "other-1", cause=cause))
    assert told(actions) == crossed
    assert dialled(actions) == [(KEY, "s-1")]


def test_what_goes_to_another_site_crosses_unless_the_session_is_kept() -> None:
    pool = rotating()
    pool.open_idle(H1)
    far = Claim(Tie.OWN, "s-1", far=True)
    assert dialled(pool.submit(OTHER, claim=far)) == [(OTHER, "s-2")]
    pool.submit(claim=KEPT)
    assert dialled(pool.submit(OTHER, claim=far)) == [(key_of("b.example", "s-1"), "s-1")]


def test_no_more_are_bound_to_a_session_than_it_has_left() -> None:
    pool = rotating(session_requests=3)
    pool.open(H1)
    assert pool.submit(claim=OWN) == []
    assert pool.submit(claim=OWN) == []
    assert dialled(pool.submit(claim=OWN)) == [(KEY, "s-2")]


def test_a_session_whose_budget_is_not_drawn_yet_takes_all_that_is_bound_to_it() -> None:
    pool = rotating(session_requests=1)
    pool.submit()
    assert pool.submit(claim=OWN) == []
    assert session_of(pool).bound == 1


def test_what_is_bound_and_rotates_keeps_that_where_it_crosses() -> None:
    pool = rotating()
    pool.submit(claim=Claim(Tie.OWN, "other-1", rotate=True))
    actions = pool.connect(1, H1)
    assert SessionRetired("s-1", CloseReason.RETIRED, 1, 0.0) in told(actions)


# ---- flows


def test_a_flow_begins_where_the_session_has_a_cookie_for_the_host() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.scheduler.remember_cookies("s-1", [".a.example"])
    assert pool.submit(claim=FLOW) == [Kept("s-1", "flow", 2), Dispatch(2, 1, True, 0.0, "s-1", True)]
    # Its connection is its own from here on.
    assert dialled(pool.submit()) == [(KEY, "s-2")]


def test_without_a_cookie_for_the_host_no_flow_begins() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.scheduler.remember_cookies("s-1", [".b.example"])
    assert pool.submit(claim=FLOW) == [Dispatch(2, 1, True, 0.0, "s-1", False)]


def test_a_flow_goes_beyond_the_budget_in_requests_and_age() -> None:
    pool = rotating(session_requests=2, session_age=5.0)
    pool.open_idle(H1)
    pool.submit(claim=KEPT)
    for ticket in (3, 4, 5):
        assert pool.finish(ticket - 1) == []
        assert dispatched(pool.submit(claim=OWN)) == [(ticket, 1, "s-1", True)]
    assert pool.wait(6.0) == []
    assert not session_of(pool).retired


def test_a_request_that_rotates_ends_no_flow() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.submit(claim=Claim(Tie.KEPT, "s-1", rotate=True))
    assert not session_of(pool).retired


def test_a_flow_has_as_many_connections_as_it_needs() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.submit(claim=KEPT)
    assert dialled(pool.submit(claim=KEPT)) == [(S1, "s-1")]


def test_what_was_bound_before_the_flow_began_goes_with_its_connection() -> None:
    pool = rotating()
    pool.open(H1)
    pool.submit(claim=OWN)
    pool.now = 1.0
    # The one in flight stays on it; both that wait want one connection more.
    assert dialled(pool.submit(claim=KEPT)) == [(S1, "s-1"), (S1, "s-1")]
    pool.now = 2.0
    assert pool.finish(1) == [Dispatch(2, 1, True, 2.0, "s-1", True)]


def test_a_flow_takes_along_what_is_in_flight_on_streams() -> None:
    pool = rotating()
    pool.open()
    pool.submit()
    # Nothing goes alone in a flow.
    assert dispatched(pool.submit(claim=KEPT)) == [(3, 1, "s-1", True)]
    assert dialled(pool.submit()) == []
    assert pool.answer(1) == []


def test_a_connection_that_drains_is_left_by_the_flow() -> None:
    pool = rotating()
    pool.open()
    pool.answer(1)
    pool.retire(1)
    assert pool.submit(claim=KEPT) == [Kept("s-1", "flow", 2), Dial(2, S1, "s-1")]
    # It is no orphan: what comes next is a session of its own.
    assert dialled(pool.submit()) == [(KEY, "s-2")]


def test_a_dial_that_was_to_go_on_with_the_session_is_the_flows() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.lose(1)
    assert dialled(pool.submit()) == [(KEY, "s-1")]
    assert pool.submit(claim=KEPT) == [Kept("s-1", "flow", 3), Dial(3, KEY, "s-2")]
    assert dispatched(pool.connect(2, H1)) == [(3, 2, "s-1", True)]


def test_a_connection_in_the_key_of_the_session_stays_there() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.lose(1)
    pool.submit(claim=OWN)
    pool.connect(2, H1)
    pool.finish(2)
    assert pool.submit(claim=KEPT) == [Kept("s-1", "flow", 3), Dispatch(3, 2, True, 0.0, "s-1", True)]


def test_a_connection_whose_peer_allows_no_stream_yet_is_expected_by_the_flow() -> None:
    pool = rotating()
    pool.open_idle()
    pool.limit(1, 0)
    assert pool.submit(claim=KEPT) == [Kept("s-1", "flow", 2)]
    assert dispatched(pool.limit(1, 5)) == [(2, 1, "s-1", True)]


def test_a_flow_whose_session_is_gone_is_kept_under_its_name() -> None:
    pool = rotating()
    named = Claim(Tie.KEPT, "other-1", name="cart")
    assert pool.submit(claim=named) == [Kept("s-1", "flow", 1), Dial(1, S1, "s-1")]
    assert dispatched(pool.connect(1, H1)) == [(1, 1, "s-1", True)]
    # The next one of that name finds it.
    assert dialled(pool.submit(claim=named)) == [(S1, "s-1")]


def test_a_flow_that_has_ended_begins_anew_under_its_name_or_crosses_without_one() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.scheduler.hold("s-1")
    pool.submit(claim=KEPT)
    pool.retire_all(session="s-1")
    assert dialled(pool.submit(claim=KEPT)) == [(KEY, "s-2")]
    assert dialled(pool.submit(claim=Claim(Tie.KEPT, "s-1", name="cart"))) == [(key_of(label="s-3"), "s-3")]


def test_a_flow_begins_in_a_retired_session_that_somebody_holds() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.scheduler.hold("s-1")
    assert EndSession("s-1") not in pool.retire_all(session="s-1")
    assert pool.submit(claim=KEPT) == [Kept("s-1", "flow", 2), Dial(2, S1, "s-1")]
    assert not session_of(pool).retired


# ---- pinned sessions


def test_a_label_is_one_session_without_a_budget() -> None:
    pool = rotating(session_requests=1)
    assert pool.submit(claim=PIN) == [Kept("s-1", "pin", 1), Dial(1, S1, "s-1")]
    opened = Tell(SessionOpened("s-1", S1, None, 0.0))
    assert pool.connect(1, H2) == [opened, Dispatch(1, 1, False, 0.0, "s-1", True)]
    assert dispatched(pool.submit(claim=PIN)) == [(2, 1, "s-1", True)]


def test_without_rotation_there_are_pinned_sessions_and_others_have_none() -> None:
    pool = Pool()
    pool.submit(claim=PIN)
    assert dialled(pool.submit()) == [(KEY, None)]


def test_a_label_that_was_retired_begins_anew() -> None:
    pool = rotating()
    pool.submit(claim=PIN)
    pool.connect(1, H1)
    assert pool.retire_all(session="ada") == [
        Tell(SessionRetired("s-1", CloseReason.RETIRED, 1, 0.0)),
        Drain(1, CloseReason.RETIRED),
    ]
    assert dialled(pool.submit(claim=PIN)) == [(key_of(label="s-2"), "s-2")]


# ---- what is held, and how it ends


def test_a_retired_session_stays_while_somebody_holds_it() -> None:
    pool = rotating()
    pool.open_idle(H1)
    pool.scheduler.hold("s-1")
    pool.scheduler.hold("s-1")
    pool.retire_all(session="s-1")
    assert pool.let_go("s-1") == []
    assert pool.let_go("s-1") == [EndSession("s-1")]


def test_what_is_said_of_a_session_that_is_forgotten_changes_nothing() -> None:
    pool = rotating()
    pool.open_idle(H1)
    before = repr(pool)
    pool.scheduler.hold("other-1")
    pool.scheduler.remember_cookies("other-1", ["a.example"])
    assert pool.let_go("other-1") == pool.retire_all(session="other-1") == []
    assert repr(pool) == before
    assert session_of(pool).holds == 0


def test_a_held_session_ends_when_nothing_has_happened_for_its_time() -> None:
    pool = rotating(session_idle=8.0)
    pool.open_idle(H1)
    pool.scheduler.hold("s-1")
    pool.retire_all(session="s-1")
    assert pool.wait(7.9) == []
    assert pool.wait(0.1) == [EndSession("s-1")]


def test_a_flow_ends_when_nothing_has_happened_in_it_for_its_time() -> None:
    pool = rotating(session_idle=8.0)
    pool.open_idle(H1)
    pool.submit(claim=KEPT)
    pool.wait(5.0)
    pool.finish(2)
    # Its time counts from there.
    assert pool.wait(7.9) == []
    ended = [Tell(SessionRetired("s-1", CloseReason.IDLE_TIMEOUT, 2, 13.0)), Close(1, CloseReason.IDLE_TIMEOUT)]
    assert pool.wait(0.1) == [*ended, EndSession("s-1")]


def test_a_flow_with_a_request_in_flight_does_not_end_however_long_that_takes() -> None:
    pool = rotating(session_idle=8.0)
    pool.open_idle(H1)
    pool.submit(claim=KEPT)
    assert pool.wait(40.0) == []
    assert session_of(pool).kept


def test_a_session_that_is_retired_twice_has_its_first_reason() -> None:
    pool = rotating()
    pool.open(H1)
    pool.retire_all(session="s-1")
    assert pool.retire_all(session="s-1") == []
    assert session_of(pool).reason is CloseReason.RETIRED


def test_a_session_that_is_retired_before_it_began_leaves_its_request_to_another_one() -> None:
    pool = rotating()
    pool.submit()
    replaced = [Close(1, CloseReason.DIAL_ABANDONED), Dial(2, KEY, "s-2"), EndSession("s-1")]
    assert pool.retire_all(session="s-1") == replaced


def test_a_session_is_retired_after_its_own_key_was_forgotten() -> None:
    pool = rotating(idle_timeout=5.0)
    pool.open_idle(H1)
    pool.submit(OTHER, claim=OWN)
    pool.fail_dial(2)
    assert key_of("b.example", "s-1") not in pool.scheduler.state.crawl.keys
    ended = [Tell(SessionRetired("s-1", CloseReason.RETIRED, 1, 0.0)), Close(1, CloseReason.RETIRED)]
    assert pool.retire_all(session="s-1") == [*ended, EndSession("s-1")]


def test_the_last_request_of_a_session_sends_what_was_bound_to_it_into_another_one() -> None:
    pool = rotating(session_requests=2, max_connections=1)
    pool.open(H1)
    pool.submit()
    pool.submit(claim=Claim(Tie.OWN, "s-1", cause="redirect"))
    actions = pool.finish(1)
    assert dispatched(actions) == [(2, 1, "s-1", False)]
    assert SessionCrossed("s-1", "redirect", 0.0) in told(actions)
    assert dialled(pool.finish(2)) == [(KEY, "s-2")]
