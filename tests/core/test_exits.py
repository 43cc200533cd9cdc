"""The exit of a connection: what its session makes of the route that was asked for."""

from __future__ import annotations

from base64 import b64encode

import pytest

from scrapy_poolplus.core.exits import exit_of, takes_user
from scrapy_poolplus.core.origin import Origin, Proxy, Route
from scrapy_poolplus.core.policy import Policy

ORIGIN = Origin.of("https", "a.example")


def basic(login: bytes) -> bytes:
    return b"Basic " + b64encode(login)


def user(template: str, authorization: bytes | None, session: str | None = "ab12-7") -> bytes | None:
    route = Route(ORIGIN, Proxy("http", "p.example", 80, authorization))
    made = exit_of(route, Policy(proxy_user=template), session, 0).proxy
    assert made is not None
    return made.authorization


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (basic(b"me:pass:word"), b"u-ab127:pass:word"),
        (basic(b"me"), b"u-ab127:"),
        (None, b"u-ab127:"),
    ],
)
def test_the_user_is_the_templates_and_the_password_the_urls(authorization: bytes | None, expected: bytes) -> None:
    assert user("u-{session}", authorization) == basic(expected)


def test_braces_are_written_twice() -> None:
    assert user("{{{session}}}é", None) == basic("{ab127}é:".encode())


def test_without_a_session_or_a_proxy_the_route_stays() -> None:
    assert user("u-{session}", basic(b"me:x"), None) == basic(b"me:x")
    assert exit_of(Route(ORIGIN), Policy(proxy_user="{session}"), "ab12-7", 0) == Route(ORIGIN)


def test_what_the_exit_is_made_of_is_not_shown() -> None:
    route = Route(ORIGIN, Proxy("http", "p.example", 80, basic(b"me:secret")))
    made = exit_of(route, Policy(proxy_user="u-{session}"), "ab12-7", 0)
    assert "ab127" not in repr(made) + str(made)


def test_only_basic_credentials_have_a_user() -> None:
    takes = {text: takes_user(Proxy("http", "p", 1, text)) for text in (None, b"basic YTpi", b"Basic !", b"Bearer x")}
    assert takes == {None: True, b"basic YTpi": True, b"Basic !": False, b"Bearer x": False}


def binds(addresses: tuple[str, ...], number: int, route: Route | None = None) -> list[tuple[tuple[str, int], ...]]:
    policy = Policy(bind_addresses=addresses)
    return [exit_of(route or Route(ORIGIN), policy, "s-1", turn).binds for turn in range(number)]


def test_addresses_take_turns() -> None:
    assert binds(("10.0.0.1", "10.0.0.2"), 3) == [(("10.0.0.1", 0),), (("10.0.0.2", 0),), (("10.0.0.1", 0),)]


def test_one_of_each_family_goes_together() -> None:
    made = binds(("10.0.0.1", "2001:db8::1", "2001:db8::2"), 3)
    assert made == [
        (("10.0.0.1", 0), ("2001:db8::1", 0)),
        (("2001:db8::1", 0), ("10.0.0.1", 0)),
        (("2001:db8::2", 0), ("10.0.0.1", 0)),
    ]


def test_the_address_of_the_request_itself_stays() -> None:
    own = Route(ORIGIN, bind=("10.0.0.9", 5))
    assert binds(("10.0.0.1",), 1, own) == [(("10.0.0.9", 5),)]
