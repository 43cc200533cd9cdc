"""Who is told of what."""

from __future__ import annotations

from scrapy_poolplus.audience import Audience
from scrapy_poolplus.core.events import RequestDone, RequestQueued

DONE = RequestDone(1, None, None, 0.0)


def test_an_observer_of_some_kinds_hears_those_alone():
    audience, some, every = Audience(), [], []
    audience.add(some.append, frozenset({RequestQueued}))
    assert not audience.hears(RequestDone)
    audience.tell(DONE)
    audience.add(every.append)
    assert audience.hears(RequestDone)
    audience.tell(DONE)
    assert some == []
    assert every == [DONE]


def test_one_that_raises_is_dropped_and_the_others_still_hear(caplog):
    audience, heard = Audience(), []

    def broken(event):
        raise ZeroDivisionError

    audience.add(broken)
    audience.add(heard.append)
    audience.tell(DONE)
    audience.tell(DONE)
    assert heard == [DONE, DONE]
    assert caplog.text.count("is dropped") == 1
