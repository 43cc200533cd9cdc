"""The shortcuts past Scrapy's own ways give what those give, and are not taken where they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydispatch import dispatcher
from scrapy import Request
from scrapy.http import Headers, HtmlResponse, Response, TextResponse

from scrapy_poolplus import shortcuts
from scrapy_poolplus.shortcuts import header_lists, scrapy_headers, scrapy_response, somebody_listens

FIELDS = st.lists(st.tuples(st.binary(min_size=1, max_size=12), st.binary(max_size=20)), max_size=12)


def test_with_this_scrapy_the_shortcuts_are_taken():
    """If this fails, Scrapy's Headers have changed: downloads work, and each costs some 60 µs more."""
    assert shortcuts.HEADERS_ARE_A_DICT_OF_LISTS


@given(FIELDS)
def test_headers_are_those_that_scrapy_makes(fields):
    mine, theirs = scrapy_headers(fields), Headers(fields)
    assert type(mine) is Headers
    assert list(mine.items()) == list(theirs.items())
    assert vars(mine) == vars(theirs)
    for name, _ in fields:
        assert mine.getlist(name) == theirs.getlist(name)


@given(FIELDS)
def test_header_lists_are_the_items_of_the_headers(fields):
    headers = Headers(fields)
    assert list(header_lists(headers)) == list(headers.items())


def test_header_lists_of_a_class_of_the_user_are_what_it_says():
    class Mine(Headers):
        def items(self):
            return [(b"X", [b"1"])]

    assert list(header_lists(Mine({"A": "b"}))) == [(b"X", [b"1"])]


@pytest.mark.parametrize("cls", [Response, TextResponse, HtmlResponse])
def test_a_response_is_the_one_that_scrapy_makes(cls):
    arguments = {"url": "http://a.example/", "status": 201, "body": b"\xff", "flags": ["x"], "protocol": "h2"}
    headers = Headers({"Content-Type": "text/html; charset=latin-1"})
    mine, theirs = scrapy_response(cls, headers, **arguments), cls(headers=headers, **arguments)
    assert type(mine) is cls
    assert {name: getattr(mine, name) for name in cls.attributes} == {
        name: getattr(theirs, name) for name in cls.attributes
    }
    assert mine.replace(status=200).headers == headers


def test_a_response_class_of_the_user_is_given_its_headers_when_it_is_made():
    class Mine(TextResponse):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.seen = self.headers.get("X")

    assert scrapy_response(Mine, Headers({"X": "1"}), url="http://a.example/").seen == b"1"


def test_where_scrapy_has_changed_its_own_way_is_taken(monkeypatch):
    def other(fields):
        headers = Headers()
        for name, value in fields:
            dict.__setitem__(headers, name.lower(), [value])
        return headers

    assert not shortcuts._agrees(other)
    monkeypatch.setattr(shortcuts, "HEADERS_ARE_A_DICT_OF_LISTS", False)
    monkeypatch.setattr(shortcuts, "_fast_headers", other)
    headers = scrapy_headers([(b"a", b"b")])
    assert headers == Headers({"A": "b"})
    assert list(header_lists(headers)) == [(b"A", [b"b"])]
    assert scrapy_response(Response, headers, url="http://a.example/").headers == headers


@pytest.mark.parametrize("sender", [None, dispatcher.Any])
@pytest.mark.parametrize("signal", [None, dispatcher.Any])
def test_a_receiver_is_heard_of_whatever_it_asked_for(sender, signal):
    """Against pydispatch's own search, for the four ways to ask for a signal."""
    me, mine, request = object(), object(), Request("http://a.example/")

    def receiver():
        return request

    assert not somebody_listens(me, mine)
    wanted_sender, wanted_signal = sender or me, signal or mine
    dispatcher.connect(receiver, signal=wanted_signal, sender=wanted_sender)
    try:
        assert list(dispatcher.getAllReceivers(me, mine))
        assert somebody_listens(me, mine)
    finally:
        dispatcher.disconnect(receiver, signal=wanted_signal, sender=wanted_sender)
    assert not somebody_listens(me, mine)
