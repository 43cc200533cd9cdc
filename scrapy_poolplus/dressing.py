"""What travels with a session, put on the wire head of a request when it is sent.

Cookies are the session's; Referer and cache validators that another session learned would tie the two together. The
Scrapy request keeps its headers as they are.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from scrapy_poolplus.labels import (
    BEGINS,
    COOKIES,
    FLOW,
    FOLLOWS,
    KEPT,
    MERGE,
    NONE,
    PARENT,
    SESSION,
    VALIDATORS,
    host_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scrapy import Request
    from scrapy.http import Headers

    from scrapy_poolplus.core.policy import Policy
    from scrapy_poolplus.jars import SessionJars
    from scrapy_poolplus.net.wire import WireRequest

logger = logging.getLogger(__name__)

SOURCES = ((b"if-none-match", b"ETag"), (b"if-modified-since", b"Last-Modified"))
"""What HttpCacheMiddleware makes of which header of the response that it has."""


class Sessions(Protocol):
    """The pool, as far as it knows of sessions."""

    def hold(self, session: str) -> None:
        """Keep the session, with its cookies, although its budget is spent."""

    def release(self, session: str) -> None:
        """Take back one hold."""

    def remember_cookies(self, session: str, domains: Iterable[str]) -> None:
        """The domains of all its cookies."""

    def has_cookie(self, session: str, host: str) -> bool:
        """Whether it has a cookie for the host."""


class Dresser:
    """Dresses the requests of one crawl. `jars` is None where the project has no cookies."""

    def __init__(self, sessions: Sessions, jars: SessionJars | None) -> None:
        self._sessions = sessions
        self._jars = jars
        self._pages: dict[int, ref[Request]] = {}
        """By their own id: references to one request, which may be sent twice, are equal."""
        self._let_go: deque[str] = deque()
        self._told: set[str] = set()

    def dress(self, request: Request, wire: WireRequest, session: str, policy: Policy, *, kept: bool) -> WireRequest:
        """The head with what is the session's and without what is not. Notes the session in the request's meta."""
        meta = request.meta
        self._release_pages()
        self._hold_page(request, session)
        meta[SESSION] = session
        flow = meta.get(FLOW)
        if kept and flow is not None:
            meta[FLOW] = KEPT
        elif flow == FOLLOWS:
            del meta[FLOW]
        parent = meta.get(PARENT)
        other = not kept and parent is not None and parent != session
        if other and policy.follow == "flows" and not flow:
            self._tell_of_cut(str(parent), request)
        unsent = {b"cookie"} if meta.get(COOKIES) in {MERGE, NONE} else set()
        if policy.referer == "never" or (policy.referer == "same-session" and other):
            unsent.add(b"referer")
        if policy.rotates and "cached_response" in meta:
            learned = _validators_of_cache(request)
            unsent |= learned.keys()
            meta[VALIDATORS] = json.dumps({name.decode(): value.decode("latin-1") for name, value in learned.items()})
        headers = [(name, value) for name, value in wire.headers if name.lower() not in unsent]
        if self._jars is not None and meta.get(COOKIES) == MERGE:
            cookie = self._jars.header(session, request, policy)
            if cookie is not None:
                headers.append((b"Cookie", cookie))
            if request.cookies or policy.session_cookies:
                self._sessions.remember_cookies(session, self._jars.domains(session))
        return wire._replace(headers=tuple(headers))

    def heard(self, request: Request, session: str, status: int, headers: Headers) -> None:
        """A response head of the session: its cookies are there before anything else is sent in it."""
        if self._jars is None or request.meta.get(COOKIES) != MERGE or b"Set-Cookie" not in headers:
            return
        self._jars.store(session, request, status, headers)
        self._sessions.remember_cookies(session, self._jars.domains(session))
        if request.meta.get(FLOW) == BEGINS:
            # It may be followed by a redirect, and what waits in Scrapy's queue holds nothing.
            self._sessions.hold(session)

    def ended(self, session: str) -> None:
        """Nothing is left of the session."""
        if self._jars is not None:
            self._jars.drop(session)

    def _hold_page(self, request: Request, session: str) -> None:
        """While the request is about, with its response and the callback that works on it, a form may follow."""
        self._sessions.hold(session)

        def gone(page: ref[Request]) -> None:
            # The collector calls in the middle of anything.
            del self._pages[id(page)]
            self._let_go.append(session)

        page = ref(request, gone)
        self._pages[id(page)] = page

    def _release_pages(self) -> None:
        while self._let_go:
            self._sessions.release(self._let_go.popleft())

    def _tell_of_cut(self, parent: str, request: Request) -> None:
        host = host_of(request)
        if host not in self._told and self._sessions.has_cookie(parent, host):
            if len(self._told) < 10_000:
                self._told.add(host)
            logger.info(
                "%s has set cookies, and rotation continues its pages in other sessions. If they depend on them, set "
                'POOLPLUS_DOMAINS = {"%s": {"follow": "always"}}.',
                host,
                host,
            )


def _validators_of_cache(request: Request) -> dict[bytes, bytes]:
    """The conditional headers that HttpCacheMiddleware added: another session, or another crawl, learned them."""
    cached = request.meta["cached_response"]
    return {
        name: cached.headers[source]
        for name, source in SOURCES
        if source in cached.headers and request.headers.get(name) == cached.headers[source]
    }
