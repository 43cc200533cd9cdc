"""Which session a request asks for: every rule, without a crawl."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from scrapy import Request
from scrapy.utils.request import fingerprint

from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.sessions import Claim, Tie
from scrapy_poolplus.labels import (
    BEGINS,
    FLOW,
    FOLLOWS,
    HELD,
    HOPS,
    KEPT,
    PARENT,
    PARENT_FLOW,
    PARENT_HOST,
    PIN,
    PREFIX,
    SAME,
    SESSION,
    clear,
    label,
    read_claim,
    site_of,
    write_claim,
)

ROTATING = Policy(rotation="strict", session_requests=10)
OFF = Policy(rotation="off")
URL = "https://shop.example/page"


def follow(policy: Policy, how: str) -> Policy:
    return replace(policy, follow=how)


def ask(policy: Policy = ROTATING, url: str = URL, **arguments: Any) -> tuple[Claim | None, dict[str, Any]]:
    """The claim of a request, and its meta then."""
    request = Request(url, **arguments)
    return label(request, policy), request.meta


# ---- (a) a label of the user's


def test_a_label_pins_the_request_and_what_inherits_it() -> None:
    claim, meta = ask(meta={"poolplus_session": "ada"})
    assert claim == Claim(Tie.PIN, name="ada")
    assert meta[PIN] == "ada"
    assert ask(meta={PIN: "ada", PARENT: "r-1"})[0] == Claim(Tie.PIN, name="ada")


def test_another_label_ends_the_one_that_was_inherited() -> None:
    claim, meta = ask(meta={PIN: "ada", "poolplus_session": "bob"})
    assert (claim, meta[PIN]) == (Claim(Tie.PIN, name="bob"), "bob")


def test_a_label_holds_on_hosts_that_do_not_rotate_and_across_redirects() -> None:
    assert ask(OFF, meta={"poolplus_session": "ada"})[0] == Claim(Tie.PIN, name="ada")
    assert ask(meta={PIN: "ada", SESSION: "r-1", HOPS: "0", "redirect_times": 1})[0] == Claim(Tie.PIN, name="ada")


def test_new_is_a_fresh_label_each_time_and_copies_of_its_meta_mean_the_same_one() -> None:
    first, meta = ask(meta={"poolplus_session": "new"})
    second, _ = ask(meta={"poolplus_session": "new"})
    assert first is not None
    assert second is not None
    assert first.tie is second.tie is Tie.PIN
    assert first.name != second.name
    assert ask(meta=meta)[0] == first


def test_none_leaves_the_label_the_flow_and_the_session_of_the_page() -> None:
    claim, meta = ask(meta={"poolplus_session": None, PIN: "ada", PARENT: "r-1", PARENT_FLOW: KEPT})
    assert claim == Claim()
    assert PIN not in meta
    assert FLOW not in meta
    assert ask(meta={"poolplus_session": None, SESSION: "r-1", HOPS: "0"})[0] == Claim()


@pytest.mark.parametrize("value", ["", 1, True, b"ada", ["ada"]])
def test_what_is_no_label_is_an_error_that_says_what_is_one(value: object) -> None:
    with pytest.raises(ValueError, match="poolplus_session") as error:
        ask(meta={"poolplus_session": value})
    assert repr(value) in str(error.value)
    assert '"new", or None' in str(error.value)


# ---- (b) the user's own cookiejar


def test_a_cookiejar_of_the_users_is_a_session_for_that_request_only() -> None:
    claim, meta = ask(meta={"cookiejar": 1})
    assert claim is not None
    assert claim.tie is Tie.PIN
    assert PIN not in meta
    assert ask(meta={"cookiejar": 0})[0] not in (claim, Claim())


def test_cookiejars_that_scrapy_keeps_apart_are_kept_apart() -> None:
    assert ask(meta={"cookiejar": 1})[0] != ask(meta={"cookiejar": "1"})[0]


def test_a_cookiejar_of_none_or_on_a_host_that_does_not_rotate_asks_for_nothing() -> None:
    assert ask(meta={"cookiejar": None})[0] == Claim()
    assert ask(OFF, meta={"cookiejar": 1})[0] is None


def test_a_label_comes_before_a_cookiejar() -> None:
    assert ask(meta={"poolplus_session": "ada", "cookiejar": 1})[0] == Claim(Tie.PIN, name="ada")


# ---- (c) redirects and retries


def redirected(policy: Policy = ROTATING, to: str = URL, **meta: Any) -> Claim | None:
    above = {SESSION: "r-1", HOPS: "0", "redirect_times": 1, "redirect_urls": [URL]}
    return ask(policy, to, meta=above | meta)[0]


def test_a_retry_goes_in_its_own_session_and_is_counted_where_it_crosses() -> None:
    claim, meta = ask(meta={SESSION: "r-1", HOPS: "0", "retry_times": 1})
    assert claim == Claim(Tie.OWN, "r-1", cause="retry")
    assert SESSION not in meta


def test_a_redirect_goes_in_its_own_session_also_to_another_host_of_the_site() -> None:
    assert redirected(to="https://www.shop.com/", redirect_urls=["https://shop.com/"]) == Claim(
        Tie.OWN, "r-1", cause="redirect"
    )


def test_a_redirect_to_another_site_crosses() -> None:
    assert redirected(to="https://other.example/") == Claim(Tie.OWN, "r-1", far=True, cause="redirect")


def test_a_retry_after_a_redirect_is_a_retry() -> None:
    claim, _ = ask(meta={SESSION: "r-1", HOPS: "1", "redirect_times": 1, "redirect_urls": ["https://other.example/"]})
    assert claim == Claim(Tie.OWN, "r-1", cause="retry")


@pytest.mark.parametrize("flow", [BEGINS, FOLLOWS, KEPT])
def test_a_redirect_of_a_flow_stays_in_it_on_every_host(flow: str) -> None:
    claim = redirected(to="https://other.example/", **{FLOW: flow})
    assert claim == Claim(Tie.FLOW, "r-1", host="shop.example", far=True, cause="redirect")


def test_a_redirect_of_a_flow_is_one_like_any_other_with_follow_never() -> None:
    assert redirected(follow(ROTATING, "never"), **{FLOW: KEPT}) == Claim(Tie.OWN, "r-1", cause="redirect")


def test_a_redirect_to_a_host_that_does_not_rotate_leaves_its_session_but_not_its_flow() -> None:
    assert redirected(OFF) is None
    assert redirected(OFF, **{FLOW: KEPT}) == Claim(Tie.KEPT, "r-1", name="r-1")


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("www.shop.com", "shop.com"),
        ("a.b.co.uk", "b.co.uk"),
        ("ada.github.io", "ada.github.io"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("localhost", "localhost"),
    ],
)
def test_a_site_is_the_registrable_domain(host: str, site: str) -> None:
    assert site_of(host) == site


# ---- (d) flows


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY"])
def test_a_method_that_is_not_safe_begins_a_flow_in_the_session_of_its_page(method: str) -> None:
    claim, meta = ask(method=method, meta={PARENT: "r-1"})
    assert claim == Claim(Tie.FLOW, "r-1", host="shop.example")
    assert meta[FLOW] == BEGINS


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_a_safe_method_begins_none(method: str) -> None:
    claim, meta = ask(method=method, meta={PARENT: "r-1"})
    assert claim == Claim()
    assert FLOW not in meta


@pytest.mark.parametrize("arguments", [{"cookies": {"a": "1"}}, {"headers": {"Authorization": "Basic YTpi"}}])
def test_cookies_of_its_own_and_authorization_begin_a_flow_with_and_without_a_page(arguments: dict[str, Any]) -> None:
    alone, meta = ask(**arguments)
    assert alone is not None
    assert alone.tie is Tie.KEPT
    assert alone.session is None
    assert alone.name.startswith("shop.example ")
    assert meta[FLOW] == BEGINS
    assert ask(meta={PARENT: "r-1"}, **arguments)[0] == replace(alone, session="r-1")


def test_who_says_the_same_of_himself_is_one_visitor_and_who_does_not_is_another() -> None:
    names = [
        claim.name
        for claim, _ in (
            ask(cookies={"a": "1"}),
            ask(cookies={"a": "1"}),
            ask(cookies={"a": "2"}),
            ask(headers={"Authorization": "x"}),
            ask(url="https://other.example/", cookies={"a": "1"}),
        )
        if claim is not None
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert "1" not in names[0].split()


def test_a_page_of_a_flow_hands_it_to_all_that_follows_from_it() -> None:
    above = {PARENT: "r-1", PARENT_HOST: "login.example"}
    claim, meta = ask(meta=above | {PARENT_FLOW: KEPT})
    assert (claim, meta[FLOW]) == (Claim(Tie.KEPT, "r-1"), FOLLOWS)
    claim, meta = ask(meta=above | {PARENT_FLOW: BEGINS})
    # It is one once the jar of the session has a cookie for the host where it began.
    assert (claim, meta[FLOW]) == (Claim(Tie.FLOW, "r-1", host="login.example", far=True), FOLLOWS)


def test_a_flow_goes_on_where_the_host_does_not_rotate() -> None:
    claim, _ = ask(OFF, meta={PARENT: "r-1", PARENT_FLOW: KEPT})
    # Should the session have ended, one of this name takes its place: that host's shared connections have no jar.
    assert claim is not None
    assert (claim.tie, claim.session, bool(claim.name)) == (Tie.KEPT, "r-1", True)


def test_follow_always_keeps_every_descendant() -> None:
    claim, meta = ask(follow(ROTATING, "always"), meta={PARENT: "r-1"})
    assert (claim, meta[FLOW]) == (Claim(Tie.KEPT, "r-1"), FOLLOWS)
    assert ask(follow(ROTATING, "always"))[0] == Claim()


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "POST", "meta": {PARENT: "r-1"}},
        {"cookies": {"a": "1"}},
        {"meta": {PARENT: "r-1", PARENT_FLOW: KEPT}},
        {"meta": {PARENT: "r-1", PARENT_FLOW: FOLLOWS}},
    ],
)
def test_follow_never_cuts_everything_but_labels(arguments: dict[str, Any]) -> None:
    assert ask(follow(ROTATING, "never"), **arguments)[0] == Claim()
    meta = {**arguments.get("meta", {}), PIN: "ada"}
    assert ask(follow(ROTATING, "never"), **{**arguments, "meta": meta})[0] == Claim(Tie.PIN, name="ada")


def test_same_session_holds_whatever_follow_says() -> None:
    for policy in (ROTATING, follow(ROTATING, "never")):
        assert ask(policy, meta={SAME: "r-1"})[0] == Claim(Tie.KEPT, "r-1")


# ---- (e) any other, and what is written


def test_any_other_request_is_automatic_and_where_nothing_rotates_it_asks_for_nothing() -> None:
    assert ask()[0] == Claim()
    assert ask(meta={PARENT: "r-1"})[0] == Claim()
    assert ask(OFF, method="POST", cookies={"a": "1"}, meta={PARENT: "r-1"})[0] is None


def test_a_flow_of_a_request_copied_along_does_not_count() -> None:
    claim, meta = ask(meta={FLOW: KEPT})
    assert claim == Claim()
    assert FLOW not in meta


def test_a_claim_comes_back_from_its_text() -> None:
    claim = Claim(Tie.FLOW, "r-1", "name", "a.example", True, "retry", True, True)
    assert read_claim(write_claim(claim)) == claim
    assert read_claim(write_claim(Claim())) == Claim()


@pytest.mark.parametrize("policy", [ROTATING, follow(ROTATING, "always")])
@pytest.mark.parametrize(
    "meta",
    [
        {"poolplus_session": "new"},
        {"cookiejar": 1},
        {PARENT: "r-1", PARENT_FLOW: BEGINS, PARENT_HOST: "a.example", HELD: "r-1"},
        {SESSION: "r-1", HOPS: "0", "redirect_times": 1},
        {},
    ],
)
def test_all_that_is_written_is_text_and_no_part_of_a_fingerprint(policy: Policy, meta: dict[str, Any]) -> None:
    request = Request(URL, method="POST", cookies={"a": "1"}, meta=meta)
    before = fingerprint(request)
    claim = label(request, policy)
    assert claim is not None
    ours = {key: value for key, value in request.meta.items() if key.startswith(PREFIX)}
    assert all(isinstance(value, str) for value in ours.values())
    assert isinstance(write_claim(claim), str)
    assert fingerprint(request) == before == fingerprint(request.replace(meta={}))


def test_clear_takes_what_is_ours_and_nothing_else() -> None:
    meta: dict[Any, Any] = {SESSION: "r-1", PIN: "ada", "poolplus_session": "ada", "depth": 1, 5: 6}
    clear(meta)
    assert meta == {"poolplus_session": "ada", "depth": 1, 5: 6}
