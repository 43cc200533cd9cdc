"""What goes on the wire head of a session's request, and what does not."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from scrapy import Request
from scrapy.http import Headers, Response
from scrapy.utils.test import get_crawler

from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.dressing import Dresser
from scrapy_poolplus.jars import SessionJars
from scrapy_poolplus.labels import BEGINS, COOKIES, FLOW, FOLLOWS, KEPT, MERGE, NONE, OWN, PARENT, SESSION
from scrapy_poolplus.net.wire import WireRequest

POLICY = Policy(rotation="strict", session_requests=10)
URL = "https://shop.example/page"


class Book:
    """The sessions of a pool, as the dresser knows them."""

    def __init__(self) -> None:
        self.holds: Counter[str] = Counter()
        self.domains: dict[str, set[str]] = {}

    def hold(self, session: str) -> None:
        self.holds[session] += 1

    def release(self, session: str) -> None:
        self.holds[session] -= 1

    def remember_cookies(self, session: str, domains: Iterable[str]) -> None:
        self.domains[session] = set(domains)

    def has_cookie(self, session: str, host: str) -> bool:
        return host in self.domains.get(session, ())


class Dressed:
    """A dresser with jars, and what it makes of requests."""

    def __init__(self) -> None:
        self.book = Book()
        self.jars = SessionJars.of(get_crawler())
        self.dresser = Dresser(self.book, self.jars)

    def __call__(
        self, request: Request, session: str = "r-1", policy: Policy = POLICY, *, kept: bool = False
    ) -> dict[bytes, bytes]:
        """The headers on the wire."""
        headers = tuple((name, value) for name, values in request.headers.items() for value in values)
        wire = WireRequest(b"GET", b"https", b"shop.example", b"/page", headers)
        return dict(self.dresser.dress(request, wire, session, policy, kept=kept).headers)

    def hear(self, request: Request, session: str = "r-1", *cookies: str) -> None:
        self.dresser.heard(request, session, 200, Headers({"Set-Cookie": list(cookies)} if cookies else {}))


@pytest.fixture
def dressed() -> Dressed:
    return Dressed()


def merging(**meta: Any) -> Request:
    return Request(URL, meta={COOKIES: MERGE, **meta})


# ---- cookies


def test_a_session_sends_what_it_was_given_and_no_other_does(dressed: Dressed) -> None:
    dressed.hear(merging(), "r-1", "id=1")
    assert dressed(merging())[b"Cookie"] == b"id=1"
    assert b"Cookie" not in dressed(merging(), "r-2")
    assert dressed.book.domains == {"r-1": {"shop.example"}}


def test_the_request_keeps_its_headers(dressed: Dressed) -> None:
    dressed.hear(merging(), "r-1", "id=1")
    request = merging()
    dressed(request)
    assert not request.headers
    assert request.meta[SESSION] == "r-1"


@pytest.mark.parametrize("how", [MERGE, NONE])
def test_a_cookie_header_from_elsewhere_is_not_sent(dressed: Dressed, how: str) -> None:
    assert dressed(Request(URL, headers={"Cookie": "id=of another"}, meta={COOKIES: how})) == {}


@pytest.mark.parametrize("meta", [{"dont_merge_cookies": True}, {COOKIES: OWN}])
def test_where_cookies_are_the_users_their_header_is_sent_and_nothing_kept(
    dressed: Dressed, meta: dict[str, Any]
) -> None:
    dressed.hear(merging(), "r-1", "id=1")
    request = Request(URL, headers={"Cookie": "mine=1"}, meta=meta)
    assert dressed(request)[b"Cookie"] == b"mine=1"
    dressed.hear(request, "r-1", "id=2")
    assert dressed(merging())[b"Cookie"] == b"id=1"


def test_robots_txt_neither_sends_nor_keeps_cookies(dressed: Dressed) -> None:
    robots = Request("https://shop.example/robots.txt", meta={COOKIES: NONE})
    dressed.hear(robots, "r-1", "id=1")
    assert dressed(merging()) == {}
    dressed.hear(merging(), "r-1", "id=1")
    assert dressed(robots) == {}


def test_a_jar_ends_with_its_session(dressed: Dressed) -> None:
    dressed.hear(merging(), "r-1", "id=1")
    dressed.dresser.ended("r-1")
    assert dressed.jars is not None
    assert len(dressed.jars) == 0


# ---- Referer


@pytest.mark.parametrize(
    ("referer", "parent", "kept", "sent"),
    [
        ("same-session", "r-1", False, True),
        ("same-session", "r-2", False, False),
        ("same-session", "r-2", True, True),
        ("same-session", None, False, True),
        ("always", "r-2", False, True),
        ("never", "r-1", False, False),
        ("never", "r-1", True, False),
    ],
)
def test_a_referer_is_sent_by_the_session_that_fetched_it_and_by_flows(
    dressed: Dressed, referer: str, parent: str | None, kept: bool, sent: bool
) -> None:
    meta = {} if parent is None else {PARENT: parent}
    request = Request(URL, headers={"Referer": "https://shop.example/"}, meta=meta)
    policy = Policy(rotation="strict", session_requests=10, referer=referer)
    assert (b"Referer" in dressed(request, policy=policy, kept=kept)) is sent


# ---- validators of the HTTP cache


def test_validators_of_the_cache_are_not_sent_and_the_users_own_are(dressed: Dressed) -> None:
    cached = Response(URL, headers={"ETag": '"1"', "Last-Modified": "yesterday"})
    headers = {"If-None-Match": '"1"', "If-Modified-Since": "yesterday", "X-A": "1"}
    request = Request(URL, headers=headers, meta={"cached_response": cached})
    assert dressed(request) == {b"X-A": b"1"}
    own = Request(URL, headers={"If-None-Match": '"2"'}, meta={"cached_response": Response(URL)})
    assert dressed(own) == {b"If-None-Match": b'"2"'}
    assert dressed(Request(URL, headers=headers))[b"If-None-Match"] == b'"1"'
    assert b"If-None-Match" in dressed(request, policy=Policy(rotation="off"))


# ---- flows and holds


def test_what_was_kept_is_noted_and_what_turned_out_to_be_no_flow_as_well(dressed: Dressed) -> None:
    for kept, before, after in (
        (True, BEGINS, KEPT),
        (True, FOLLOWS, KEPT),
        (False, BEGINS, BEGINS),
        (False, FOLLOWS, None),
    ):
        request = Request(URL, meta={FLOW: before})
        dressed(request, kept=kept)
        assert request.meta.get(FLOW) == after


def test_a_session_is_held_while_its_request_is_about_also_where_that_was_sent_twice(dressed: Dressed) -> None:
    request = Request(URL)
    dressed(request, "r-1")
    dressed(request, "r-2")
    assert dressed.book.holds == {"r-1": 1, "r-2": 1}
    del request
    gc.collect()
    last = Request(URL)
    dressed(last, "r-3")
    assert +dressed.book.holds == {"r-3": 1}


def test_a_login_that_gave_a_cookie_is_held_for_what_follows(dressed: Dressed) -> None:
    dressed.hear(merging(**{FLOW: BEGINS}), "r-1")
    assert dressed.book.holds["r-1"] == 0
    dressed.hear(merging(**{FLOW: BEGINS}), "r-1", "id=1")
    assert dressed.book.holds["r-1"] == 1


def test_a_chain_cut_while_its_jar_holds_cookies_is_told_once_for_its_host(
    dressed: Dressed, caplog: pytest.LogCaptureFixture
) -> None:
    dressed.hear(merging(), "r-1", "id=1")
    with caplog.at_level("INFO", logger="scrapy_poolplus"):
        for _ in range(2):
            dressed(merging(**{PARENT: "r-1"}), "r-2")
        dressed(merging(**{PARENT: "r-1"}), "r-1")
    (message,) = caplog.messages
    assert '{"shop.example": {"follow": "always"}}' in message
