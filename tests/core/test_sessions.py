"""Sessions and their book, without connections."""

from __future__ import annotations

import pytest

from scrapy_poolplus.core.budget import UNLIMITED, Budget
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.sessions import ORPHANS_LOOKED_AT, Session, SessionBook
from tests.core.pool import KEY, OTHER

ROTATES = Policy(rotation="strict", session_requests=10)


def book() -> SessionBook:
    return SessionBook("r")


def used(sessions: SessionBook, **attributes: object) -> Session:
    """A session that rotates and has carried a request, which was answered."""
    session = sessions.open(ROTATES, 0.0)
    session.budget, session.opened_at, session.requests, session.answered = Budget(10, 60.0), 0.0, 1, True
    for name, value in attributes.items():
        setattr(session, name, value)
    return session


# ---- one session


def test_a_rotating_session_has_left_what_its_budget_leaves() -> None:
    session = book().open(ROTATES, 0.0)
    assert session.left() is None, "its budget is not drawn yet"
    session.budget = Budget(age=60.0)
    assert session.left() is None
    session.budget = Budget(requests=3)
    assert session.left() == 3
    session.requests = 3
    assert session.left() == 0


def test_a_session_that_is_kept_has_no_limit_whatever_its_budget_says() -> None:
    session = used(book(), budget=Budget(requests=1, age=1.0), kept=True)
    assert session.left() is None
    assert session.spent(100.0) is None


def test_a_session_is_spent_by_its_requests_by_its_age_from_its_opening_and_by_its_end() -> None:
    session = book().open(ROTATES, 0.0)
    assert session.spent(1000.0) is None, "it has no connection yet"
    session.budget, session.opened_at = Budget(requests=2, age=5.0), 1000.0
    assert session.spent(1004.0) is None
    assert session.spent(1005.0) is CloseReason.AGE_SPENT
    session.requests = 2
    assert session.spent(1004.0) is CloseReason.REQUESTS_SPENT
    session.reason = CloseReason.RETIRED
    assert session.spent(1004.0) is CloseReason.RETIRED
    assert session.retired


@pytest.mark.parametrize(
    ("in_flight", "answered", "kept", "awaited"),
    [(1, False, False, True), (0, False, False, False), (1, True, False, False), (1, False, True, False)],
)
def test_the_first_answer_of_a_session_is_awaited_while_its_request_is_in_flight(
    in_flight: int, answered: bool, kept: bool, awaited: bool
) -> None:
    assert used(book(), in_flight=in_flight, answered=answered, kept=kept).awaited is awaited


@pytest.mark.parametrize(
    ("domain", "host", "goes_there"),
    [
        ("a.example", "a.example", True),
        (".a.example", "a.example", True),
        (".a.example", "www.a.example", True),
        ("a.example", "www.a.example", False),
        (".a.example", "nota.example", False),
        (".www.a.example", "a.example", False),
        # As http.cookiejar has it for a host without a dot.
        ("shop.local", "shop", True),
    ],
)
def test_a_cookie_goes_to_its_host_and_with_a_dot_to_those_below_it(domain: str, host: str, goes_there: bool) -> None:
    sessions = book()
    session = sessions.open(ROTATES, 0.0)
    sessions.remember(session, ["other.example", domain])
    assert session.has_cookie(host) is goes_there
    sessions.remember(session, [])
    assert not session.has_cookie(host)


# ---- ids and names


def test_sessions_are_numbered_and_found_by_number_and_label() -> None:
    sessions = book()
    rotating = sessions.open(ROTATES, 0.0)
    pinned, new = sessions.named("pin ada", ROTATES, 0.0)
    assert [rotating.id, pinned.id, new] == ["r-1", "r-2", True]
    assert sessions.find("r-1") is sessions.called("r-1") is rotating
    assert sessions.called("ada") is pinned
    assert sessions.find(None) is sessions.find("ada") is sessions.called("bob") is None
    assert (rotating.kept, rotating.budget) == (False, None)
    assert (pinned.kept, pinned.budget) == (True, UNLIMITED)


def test_a_name_is_one_session_until_that_is_retired() -> None:
    sessions = book()
    first, _ = sessions.named("pin ada", ROTATES, 0.0)
    assert sessions.named("pin ada", ROTATES, 1.0) == (first, False)
    first.reason = CloseReason.RETIRED
    second, new = sessions.named("pin ada", ROTATES, 2.0)
    assert new
    assert second is not first
    # The end of the first one takes no name from the second.
    assert sessions.forget(first)
    assert sessions.called("ada") is second


# ---- orphans


def test_a_new_connection_goes_on_with_the_session_whose_own_was_closed_first() -> None:
    sessions = book()
    one, two = used(sessions), used(sessions)
    sessions.orphan(one, KEY)
    sessions.orphan(two, KEY)
    found = [sessions.next_for(KEY, ROTATES, 1.0) for _ in range(3)]
    assert found[:2] == [one, two]
    assert found[2].requests == 0


def test_an_orphan_of_another_key_is_left_alone() -> None:
    sessions = book()
    one = used(sessions)
    sessions.orphan(one, OTHER)
    assert sessions.next_for(KEY, ROTATES, 1.0) is not one
    assert sessions.next_for(OTHER, ROTATES, 1.0) is one


def test_a_session_without_a_request_is_no_orphan() -> None:
    sessions = book()
    fresh = sessions.open(ROTATES, 0.0)
    sessions.orphan(fresh, KEY)
    assert fresh.home is None
    assert sessions.next_for(KEY, ROTATES, 1.0) is not fresh


def test_an_orphan_whose_budget_is_spent_or_that_was_kept_is_passed_over_for_good() -> None:
    sessions = book()
    spent, kept, good = used(sessions, requests=10), used(sessions, kept=True), used(sessions)
    for session in (spent, kept, good):
        sessions.orphan(session, KEY)
    assert sessions.next_for(KEY, ROTATES, 1.0) is good
    assert [spent.home, kept.home] == [None, None]


def test_an_orphan_that_awaits_its_first_answer_elsewhere_stays_for_a_later_connection() -> None:
    sessions = book()
    awaited = used(sessions, in_flight=1, answered=False)
    sessions.orphan(awaited, KEY)
    assert sessions.next_for(KEY, ROTATES, 1.0) is not awaited
    awaited.answered = True
    assert sessions.next_for(KEY, ROTATES, 2.0) is awaited


def test_no_more_than_a_few_orphans_are_looked_at() -> None:
    sessions = book()
    for _ in range(ORPHANS_LOOKED_AT):
        sessions.orphan(used(sessions, in_flight=1, answered=False), KEY)
    beyond = used(sessions)
    sessions.orphan(beyond, KEY)
    assert sessions.next_for(KEY, ROTATES, 1.0) is not beyond


# ---- the end


@pytest.mark.parametrize("what", ["in_flight", "bound", "holds"])
def test_what_is_in_use_is_not_forgotten(what: str) -> None:
    sessions = book()
    session = used(sessions, reason=CloseReason.RETIRED, **{what: 1})
    assert not sessions.forget(session)
    setattr(session, what, 0)
    session.connections.add(1)
    assert not sessions.forget(session)
    session.connections.clear()
    assert sessions.forget(session)
    assert sessions.find(session.id) is None
    assert not sessions.forget(session), "once"


def test_a_session_that_may_go_on_is_not_forgotten_but_one_that_never_began_is() -> None:
    sessions = book()
    begun, fresh = used(sessions), sessions.open(ROTATES, 0.0)
    assert not sessions.forget(begun)
    assert sessions.forget(fresh)


def test_what_is_forgotten_is_no_orphan_and_leaves_its_name() -> None:
    sessions = book()
    orphan, (pinned, _) = used(sessions), sessions.named("pin ada", ROTATES, 0.0)
    sessions.orphan(orphan, KEY)
    for session in (orphan, pinned):
        session.reason = CloseReason.RETIRED
        assert sessions.forget(session)
    assert sessions.next_for(KEY, ROTATES, 1.0) is not orphan
    assert sessions.called("ada") is None


def test_clear_forgets_all() -> None:
    sessions = book()
    orphan, (pinned, _) = used(sessions), sessions.named("pin ada", ROTATES, 0.0)
    sessions.orphan(orphan, KEY)
    sessions.clear()
    assert orphan.gone
    assert pinned.gone
    assert not sessions.sessions
    assert sessions.called("ada") is None
    assert sessions.next_for(KEY, ROTATES, 1.0) is not orphan
