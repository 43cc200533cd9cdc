"""The two middlewares of rotation. They only label requests; the scheduler chooses the session when a request is sent.

ConnectionRotationMiddleware (downloader, 690) says what each request asks for. SessionFollowMiddleware (spider, 50, last
before the engine) hands the label of a page down to the requests that its callback yields.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scrapy import Request, signals
from scrapy.exceptions import NotConfigured
from scrapy.utils.httpobj import urlparse_cached

from scrapy_poolplus import labels
from scrapy_poolplus.core.sessions import Claim, Tie
from scrapy_poolplus.labels import (
    CLAIM,
    COOKIES,
    HELD,
    MERGE,
    NONE,
    OWN,
    PARENT,
    PARENT_FLOW,
    PARENT_HOST,
    PIN,
    SAME,
    SESSION,
    VALIDATORS,
)
from scrapy_poolplus.settings import is_enabled, is_ours, schemes_served
from scrapy_poolplus.shared import shared_config, shared_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from scrapy import Spider
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

logger = logging.getLogger(__name__)

FOLLOW = ("scrapy_poolplus.rotation", "SessionFollowMiddleware")
SCRAPY_COOKIES = ("scrapy.downloadermiddlewares.cookies", "CookiesMiddleware")
FEW = 5
"""Requests of a session under which its cost is worth a warning."""


class ConnectionRotationMiddleware:
    """Says of each request which session it asks for, and passes by CookiesMiddleware where the jar is the session's.

    Between RedirectMiddleware (600) and CookiesMiddleware (700), so at 690: redirects and retries come back through it,
    and what it takes from CookiesMiddleware it gives back before they see the meta.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._config = shared_config(crawler)
        if not self._config.enabled:
            raise NotConfigured
        self._schemes = schemes_served(crawler.settings)
        self._cookies = crawler.settings.getbool("COOKIES_ENABLED")
        self._told: set[str] = set()
        self._warn_at_start(crawler)
        crawler.signals.connect(self._dropped, signals.request_dropped)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy's way to make it. Raises ConfigError when the settings are wrong."""
        if not is_enabled(crawler.settings):
            raise NotConfigured
        return cls(crawler)

    def process_request(self, request: Request, spider: Spider | None = None) -> None:
        """Label the request. Raises ValueError for a label that is none."""
        meta = request.meta
        _give_back(request)
        meta.pop(CLAIM, None)
        if urlparse_cached(request).scheme not in self._schemes:
            return
        policy = self._config.table.for_host(labels.host_of(request))
        claim = Claim(bare=True) if policy.rotates and _is_robots(request) else labels.label(request, policy)
        if claim is None:
            return
        if meta.get("poolplus_rotate"):
            claim = self._rotate(request, claim)
        meta[CLAIM] = labels.write_claim(claim)
        if self._cookies and policy.cookies != "shared" and not meta.get("dont_merge_cookies"):
            meta["dont_merge_cookies"] = True
            meta[COOKIES] = NONE if _is_robots(request) else MERGE if policy.cookies == "session" else OWN

    def process_response(self, request: Request, response: Response, spider: Spider | None = None) -> Response:
        """Give back what was taken, and let go of the session of the page that the request came from."""
        self._answered(request)
        return response

    def process_exception(self, request: Request, exception: Exception, spider: Spider | None = None) -> None:
        """As process_response."""
        self._answered(request)

    def _answered(self, request: Request) -> None:
        _give_back(request)
        self._let_go(request)

    def _dropped(self, request: Request) -> None:
        """Scrapy's duplicates filter took it."""
        self._let_go(request)

    def _let_go(self, request: Request) -> None:
        held = request.meta.pop(HELD, None)
        if held is not None:
            shared_pool(self._crawler).release(held)

    def _rotate(self, request: Request, claim: Claim) -> Claim:
        if claim.tie in (Tie.PIN, Tie.KEPT):
            self._tell_once(
                "rotate",
                "poolplus_rotate of %s is ignored: its session is kept whole (a label, or a flow). Leave out "
                "poolplus_rotate, or set poolplus_session to None.",
                request,
            )
            return claim
        return replace(claim, rotate=True)

    def _tell_once(self, subject: str, message: str, *arguments: object) -> None:
        if subject not in self._told:
            self._told.add(subject)
            logger.warning(message, *arguments)

    def _warn_at_start(self, crawler: Crawler) -> None:
        config, settings = self._config, crawler.settings
        if not config.rotates:
            return
        follow = settings.getdict("SPIDER_MIDDLEWARES")
        if not any(is_ours(component, FOLLOW) for component, order in follow.items() if order is not None):
            logger.warning(
                "Rotation without SessionFollowMiddleware cannot keep flows (logins, forms) whole, and sends each Referer to "
                'whichever session comes next: add "%s": 50 to SPIDER_MIDDLEWARES.',
                ".".join(FOLLOW),
            )
        policies = (config.table.default, *config.table.exact.values(), *config.table.suffixes.values())
        on = [policy for policy in policies if policy.rotates]
        if any(policy.cookies == "shared" for policy in on):
            logger.warning(
                'With cookies="shared", one cookie jar ties all sessions together: rotation promises nothing about '
                'what servers can link. Set cookies to "session" or "off".'
            )
        fewest = min((policy.session_requests for policy in on if policy.session_requests is not None), default=FEW)
        if fewest < FEW:
            logger.warning(
                "Sessions of %d requests (session_requests) mean a new connection, with its handshake, for every few "
                "requests: that costs the servers too. From %d on the cost is small.",
                fewest,
                FEW,
            )
        listed = settings.getwithbase("DOWNLOADER_MIDDLEWARES")
        if self._cookies and not any(
            is_ours(component, SCRAPY_COOKIES) and order is not None for component, order in listed.items()
        ):
            logger.warning(
                "CookiesMiddleware was replaced or removed: while a host rotates, cookies are kept by its sessions, and a "
                'middleware of your own is asked to pass requests by (dont_merge_cookies). Set cookies to "shared" to '
                "leave them to it."
            )


class SessionFollowMiddleware:
    """Hands the session of a page down to the requests that its callback yields: a form, a login, a label must go on in
    it. At 50, the last before the engine, so that it sees what is really yielded."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy's way to make it."""
        if not is_enabled(crawler.settings):
            raise NotConfigured
        return cls(crawler)

    def process_spider_output(
        self, response: Response, result: Iterable[Any], spider: Spider | None = None
    ) -> Iterator[Any]:
        """Label the requests of a callback."""
        for item in result:
            self._follow(response, item)
            yield item

    async def process_spider_output_async(
        self, response: Response, result: AsyncIterator[Any], spider: Spider | None = None
    ) -> AsyncIterator[Any]:
        """Label the requests of a callback."""
        async for item in result:
            self._follow(response, item)
            yield item

    def _follow(self, response: Response, item: Any) -> None:
        if not isinstance(item, Request):
            return
        meta, page = item.meta, response.request
        same = meta.get(SAME)
        labels.clear(meta)
        if same is not None:
            meta[SAME] = same
        if page is None:
            return
        above = page.meta
        for key, value in ((PARENT_FLOW, above.get(labels.FLOW)), (PIN, above.get(PIN))):
            if value is not None:
                meta[key] = value
        parent = same or above.get(SESSION)
        if parent is not None:
            meta[PARENT] = meta[HELD] = parent
            meta[PARENT_HOST] = labels.host_of(page)
            shared_pool(self._crawler).hold(parent)


def same_session(of: Response | Request) -> dict[str, str]:
    """Meta that ties a request to the session of another one, or of its response, whatever the budget says:
    ``Request(url, meta=same_session(response))``.

    For requests that no callback yields (from errbacks, pipelines, ``engine.download_async()``) and for chains that
    must stay together without a login. Empty where there was no session: rotation off, or a cached response.
    """
    request = of if isinstance(of, Request) else of.request
    if request is None:
        return {}
    if PIN in request.meta:
        return {"poolplus_session": request.meta[PIN]}
    session = request.meta.get(SESSION)
    return {} if session is None else {SAME: session}


def _give_back(request: Request) -> None:
    """The request as the user left it: its ``dont_merge_cookies``, and without the validators that were not sent, which
    a redirect would carry to where nobody knows whose they are."""
    if request.meta.pop(COOKIES, None) is not None:
        request.meta.pop("dont_merge_cookies", None)
    for name, value in json.loads(request.meta.pop(VALIDATORS, "{}")).items():
        if request.headers.get(name) == value.encode("latin-1"):
            del request.headers[name]


def _is_robots(request: Request) -> bool:
    """Of RobotsTxtMiddleware, which is of no session."""
    return bool(request.meta.get("dont_obey_robotstxt")) and urlparse_cached(request).path == "/robots.txt"
