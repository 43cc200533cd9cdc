"""Jars: one for each session, by Scrapy's own rules of cookies."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy import Request
from scrapy.http import Headers
from scrapy.utils.test import get_crawler

from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.jars import SessionJars

POLICY = Policy(rotation="strict", session_requests=10)
PAGE = Request("https://shop.example/page")


def make(**settings: Any) -> SessionJars:
    jars = SessionJars.of(get_crawler(settings_dict=settings))
    assert jars is not None
    return jars


def answer(jars: SessionJars, session: str, *cookies: str, request: Request = PAGE) -> None:
    jars.store(session, request, 200, Headers({"Set-Cookie": list(cookies)}))


def test_a_cookie_goes_back_in_its_session_and_in_no_other() -> None:
    jars = make()
    answer(jars, "r-1", "id=1")
    assert jars.header("r-1", PAGE, POLICY) == b"id=1"
    assert jars.header("r-2", PAGE, POLICY) is None
    assert jars.header("r-1", Request("https://other.example/"), POLICY) is None


def test_cookies_of_the_request_are_merged_in_and_the_request_is_not_changed() -> None:
    jars = make()
    answer(jars, "r-1", "id=1")
    request = Request(PAGE.url, cookies={"mine": "2"}, headers={"X-A": "1"})
    assert jars.header("r-1", request, POLICY) == b"id=1; mine=2"
    assert (dict(request.headers), request.meta) == ({b"X-A": [b"1"]}, {})
    assert jars.header("r-1", PAGE, POLICY) == b"id=1; mine=2"


def test_session_cookies_are_in_each_new_jar_for_each_host_once() -> None:
    jars = make()
    policy = Policy(rotation="strict", session_requests=10, session_cookies={"consent": "yes"})
    assert jars.header("r-1", PAGE, policy) == b"consent=yes"
    assert jars.header("r-2", PAGE, policy) == b"consent=yes"
    assert jars.header("r-1", Request("https://login.example/"), policy) == b"consent=yes"
    answer(jars, "r-1", "consent=no")
    assert jars.header("r-1", PAGE, policy) == b"consent=no"


def test_the_domains_of_a_jar_are_those_of_its_cookies() -> None:
    jars = make()
    assert jars.domains("r-1") == set()
    answer(jars, "r-1", "id=1", "all=1; Domain=shop.example")
    assert jars.domains("r-1") == {"shop.example", ".shop.example"}


def test_a_dropped_jar_is_gone() -> None:
    jars = make()
    answer(jars, "r-1", "id=1")
    assert len(jars) == 1
    jars.drop("r-1")
    jars.drop("r-1")
    assert len(jars) == 0
    assert jars.header("r-1", PAGE, POLICY) is None


def test_a_project_without_cookies_has_no_jars() -> None:
    assert SessionJars.of(get_crawler(settings_dict={"COOKIES_ENABLED": False})) is None


def test_cookies_debug_shows_what_is_sent_and_received(caplog: pytest.LogCaptureFixture) -> None:
    jars = make(COOKIES_DEBUG=True)
    with caplog.at_level("DEBUG", logger="scrapy.downloadermiddlewares.cookies"):
        answer(jars, "r-1", "id=1")
        jars.header("r-1", PAGE, POLICY)
    assert "Set-Cookie: id=1" in caplog.text
    assert "Cookie: id=1" in caplog.text.partition("Sending cookies to")[2]
