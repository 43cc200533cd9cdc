"""The two middlewares: what they write into requests, hand down, give back, and say at start."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request, Spider, signals
from scrapy.exceptions import NotConfigured
from scrapy.http import Response
from scrapy.utils.test import get_crawler

from scrapy_poolplus.core.sessions import Claim, Tie
from scrapy_poolplus.labels import (
    CLAIM,
    COOKIES,
    FLOW,
    HELD,
    KEPT,
    MERGE,
    NONE,
    OWN,
    PARENT,
    PARENT_FLOW,
    PARENT_HOST,
    PIN,
    PREFIX,
    SAME,
    SESSION,
    VALIDATORS,
    read_claim,
)
from scrapy_poolplus.rotation import ConnectionRotationMiddleware, SessionFollowMiddleware, same_session
from scrapy_poolplus.shared import close_pool, shared_pool
from tests.crawling import HANDLER

URL = "https://shop.example/page"
LISTED: dict[str, Any] = {
    "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
    "DOWNLOADER_MIDDLEWARES": {"scrapy_poolplus.ConnectionRotationMiddleware": 690},
    "SPIDER_MIDDLEWARES": {"scrapy_poolplus.SessionFollowMiddleware": 50},
}


class Rotation:
    """Both middlewares of a crawler."""

    def __init__(self, **settings: Any) -> None:
        self.crawler = get_crawler(settings_dict={**LISTED, "POOLPLUS_ROTATION": "strict", **settings})
        self.labels = ConnectionRotationMiddleware.from_crawler(self.crawler)
        self.follow = SessionFollowMiddleware.from_crawler(self.crawler)

    def label(self, request: Request) -> Claim | None:
        self.labels.process_request(request)
        claim = request.meta.get(CLAIM)
        return None if claim is None else read_claim(claim)

    def yielded(self, page: Request, *items: Any) -> list[Any]:
        response = Response(page.url, request=page)
        return list(self.follow.process_spider_output(response, items))


@pytest.fixture
def rotation() -> Rotation:
    return Rotation()


def page(**meta: Any) -> Request:
    return Request(URL, meta={SESSION: "r-1", **meta})


# ---- cookies


def test_cookies_middleware_is_passed_by_and_the_request_given_back(rotation: Rotation) -> None:
    request = Request(URL)
    assert rotation.label(request) == Claim()
    assert request.meta["dont_merge_cookies"] is True
    assert request.meta[COOKIES] == MERGE
    rotation.labels.process_response(request, Response(URL))
    assert not {"dont_merge_cookies", COOKIES} & request.meta.keys()
    rotation.label(request)
    rotation.labels.process_exception(request, OSError())
    assert "dont_merge_cookies" not in request.meta


def test_dont_merge_cookies_of_the_users_stays(rotation: Rotation) -> None:
    request = Request(URL, meta={"dont_merge_cookies": True})
    rotation.label(request)
    assert COOKIES not in request.meta
    rotation.labels.process_response(request, Response(URL))
    assert request.meta["dont_merge_cookies"] is True


def test_with_cookies_off_no_jar_has_the_request() -> None:
    request = Request(URL)
    Rotation(POOLPLUS_POLICY={"cookies": "off"}).label(request)
    assert (request.meta["dont_merge_cookies"], request.meta[COOKIES]) == (True, OWN)


@pytest.mark.parametrize("settings", [{"POOLPLUS_POLICY": {"cookies": "shared"}}, {"COOKIES_ENABLED": False}])
def test_shared_cookies_are_left_to_scrapy(settings: dict[str, Any]) -> None:
    request = Request(URL)
    assert Rotation(**settings).label(request) == Claim()
    assert not {"dont_merge_cookies", COOKIES} & request.meta.keys()


def test_robots_txt_is_of_no_session_and_without_cookies(rotation: Rotation) -> None:
    request = Request("https://shop.example/robots.txt", meta={"dont_obey_robotstxt": True, PARENT: "r-1"})
    assert rotation.label(request) == Claim(bare=True)
    assert request.meta[COOKIES] == NONE


def test_validators_that_were_not_sent_do_not_stay_behind_for_a_redirect(rotation: Rotation) -> None:
    noted = json.dumps({"if-none-match": '"1"', "if-modified-since": "yesterday"})
    headers = {"If-None-Match": '"1"', "If-Modified-Since": "mine", "X-A": "1"}
    request = Request(URL, headers=headers, meta={VALIDATORS: noted})
    rotation.labels.process_response(request, Response(URL))
    assert dict(request.headers) == {b"If-Modified-Since": [b"mine"], b"X-A": [b"1"]}
    assert VALIDATORS not in request.meta


# ---- which requests


def test_where_nothing_rotates_a_request_is_not_touched() -> None:
    rotation = Rotation(POOLPLUS_DOMAINS={"shop.example": {"rotation": "off"}})
    request = Request(URL)
    assert rotation.label(request) is None
    assert request.meta == {"_poolplus_hops": "0"}


def test_what_our_handler_does_not_download_is_not_touched() -> None:
    rotation = Rotation(DOWNLOAD_HANDLERS={"https": HANDLER})
    request = Request("http://shop.example/")
    assert rotation.label(request) is None
    assert request.meta == {}


def test_a_claim_copied_along_is_made_anew(rotation: Rotation) -> None:
    request = Request(URL, meta={CLAIM: '["pin", null, "ada", "", false, null, false]'})
    assert rotation.label(request) == Claim()


def test_rotate_goes_with_the_claim_and_is_a_line_in_the_log_where_the_session_is_pinned(
    rotation: Rotation, caplog: pytest.LogCaptureFixture
) -> None:
    assert rotation.label(Request(URL, meta={"poolplus_rotate": True})) == Claim(rotate=True)
    assert not caplog.messages
    for _ in range(2):
        pinned = Request(URL, meta={"poolplus_rotate": True, "poolplus_session": "ada"})
        assert rotation.label(pinned) == Claim(Tie.PIN, name="ada")
    (message,) = caplog.messages
    assert "poolplus_rotate" in message
    assert "is ignored" in message


# ---- what a page hands down


def test_the_session_of_a_page_is_handed_down(rotation: Rotation) -> None:
    child, item = rotation.yielded(page(**{FLOW: KEPT, PIN: "ada"}), Request(URL), {"an": "item"})
    assert child.meta == {
        PARENT: "r-1",
        HELD: "r-1",
        PARENT_HOST: "shop.example",
        PARENT_FLOW: KEPT,
        PIN: "ada",
    }
    assert item == {"an": "item"}


@ensureDeferred
async def test_an_asynchronous_callback_hands_down_the_same(rotation: Rotation) -> None:
    async def callback() -> Any:
        yield Request(URL)

    response = Response(URL, request=page())
    (child,) = [item async for item in rotation.follow.process_spider_output_async(response, callback())]
    assert child.meta[PARENT] == "r-1"


def test_meta_that_a_spider_passes_on_does_not_carry_labels_along(rotation: Rotation) -> None:
    above = page(**{CLAIM: "x", COOKIES: MERGE, HELD: "r-0", PARENT: "r-0", "depth": 1})
    (child,) = rotation.yielded(above, Request(URL, meta=above.meta))
    assert child.meta == {PARENT: "r-1", HELD: "r-1", PARENT_HOST: "shop.example", "depth": 1}


def test_a_cached_page_hands_down_its_label_and_no_session(rotation: Rotation) -> None:
    (child,) = rotation.yielded(Request(URL, meta={PIN: "ada"}), Request(URL))
    assert child.meta == {PIN: "ada"}


def test_a_page_is_held_until_what_it_yielded_is_answered_or_dropped(
    rotation: Rotation, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    pool = shared_pool(rotation.crawler)
    monkeypatch.setattr(pool, "hold", lambda session: calls.append(("hold", session)))
    monkeypatch.setattr(pool, "release", lambda session: calls.append(("release", session)))
    first, second, third = rotation.yielded(page(), Request(URL), Request(URL), Request(URL))
    assert calls == [("hold", "r-1")] * 3
    rotation.labels.process_response(first, Response(URL))
    rotation.labels.process_exception(second, OSError())
    rotation.crawler.signals.send_catch_log(signals.request_dropped, request=third, spider=None)
    rotation.labels.process_response(first, Response(URL))
    assert calls[3:] == [("release", "r-1")] * 3


def test_same_session_is_the_session_or_the_label_or_nothing(rotation: Rotation) -> None:
    assert same_session(page()) == same_session(Response(URL, request=page())) == {SAME: "r-1"}
    assert same_session(page(**{PIN: "ada"})) == {"poolplus_session": "ada"}
    assert same_session(Request(URL)) == same_session(Response(URL)) == {}
    (child,) = rotation.yielded(page(), Request(URL, meta=same_session(page(**{SESSION: "r-9"}))))
    assert (child.meta[SAME], child.meta[PARENT]) == ("r-9", "r-9")


def test_all_that_is_handed_down_is_text(rotation: Rotation) -> None:
    (child,) = rotation.yielded(page(**{FLOW: KEPT, PIN: "ada"}), Request(URL, method="POST"))
    rotation.label(child)
    ours = {key: value for key, value in child.meta.items() if key.startswith(PREFIX)}
    assert {type(value) for value in ours.values()} == {str}
    assert child.to_dict(spider=Spider("x"))["meta"] == child.meta


# ---- at start


def warnings(caplog: pytest.LogCaptureFixture, **settings: Any) -> list[str]:
    Rotation(**settings)
    return [record.getMessage() for record in caplog.records if record.name == "scrapy_poolplus.rotation"]


def test_nothing_is_said_where_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SPIDER_MIDDLEWARES": {}}, '"scrapy_poolplus.rotation.SessionFollowMiddleware": 50 to SPIDER_MIDDLEWARES'),
        ({"POOLPLUS_POLICY": {"cookies": "shared"}}, "rotation promises nothing"),
        ({"POOLPLUS_ROTATION": 4}, "Sessions of 4 requests"),
        (
            {
                "DOWNLOADER_MIDDLEWARES": {
                    **LISTED["DOWNLOADER_MIDDLEWARES"],
                    "scrapy.downloadermiddlewares.cookies.CookiesMiddleware": None,
                }
            },
            "CookiesMiddleware was replaced or removed",
        ),
    ],
)
def test_what_weakens_rotation_is_one_warning_at_start(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], words: str
) -> None:
    (message,) = warnings(caplog, **settings)
    assert words in message


def test_without_rotation_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings(caplog, POOLPLUS_ROTATION="off", SPIDER_MIDDLEWARES={}) == []


@pytest.mark.parametrize("middleware", [ConnectionRotationMiddleware, SessionFollowMiddleware])
def test_the_middlewares_step_aside_where_the_project_is_switched_off(middleware: Any) -> None:
    with pytest.raises(NotConfigured):
        middleware.from_crawler(get_crawler(settings_dict={"POOLPLUS_ENABLED": False}))


@ensureDeferred
async def test_each_run_has_session_ids_of_its_own() -> None:
    crawlers = [Rotation().crawler for _ in range(2)]
    first, second = (shared_pool(crawler).scheduler.state.book.prefix for crawler in crawlers)
    assert first != second
    for crawler in crawlers:
        await close_pool(crawler)
