"""Cookie jars, one for each session.

Scrapy's own CookiesMiddleware keeps and reads them, under the session's id as its ``cookiejar``: what is a valid
cookie, which goes where, and COOKIES_DEBUG are the same as everywhere else in a project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy import Request
from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.http import Response

from scrapy_poolplus.labels import host_of

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.http import Headers
    from typing_extensions import Self

    from scrapy_poolplus.core.policy import Policy


class SessionJars:
    """The jars of all sessions of a crawl. Raises NotConfigured, when made, where COOKIES_ENABLED is False."""

    def __init__(self, crawler: Crawler) -> None:
        self._middleware = CookiesMiddleware.from_crawler(crawler)
        self._begun: dict[str, set[str]] = {}
        """The hosts for which a session has its `session_cookies`: a flow may come to several."""

    @classmethod
    def of(cls, crawler: Crawler) -> Self | None:
        """The jars, or None where the project has no cookies."""
        return cls(crawler) if crawler.settings.getbool("COOKIES_ENABLED") else None

    def header(self, session: str, request: Request, policy: Policy) -> bytes | None:
        """The value of Cookie for a request: what the session's jar has for it, its own cookies merged in."""
        begun = self._begun.setdefault(session, set())
        host = host_of(request)
        if policy.session_cookies and host not in begun:
            self._merge(session, request.url, dict(policy.session_cookies))
        begun.add(host)
        return self._merge(session, request.url, request.cookies)

    def store(self, session: str, request: Request, status: int, headers: Headers) -> None:
        """Take the cookies of a response."""
        if b"Set-Cookie" in headers:
            response = Response(request.url, status=status, headers=headers)
            self._middleware.process_response(_stub(session, request.url), response)

    def domains(self, session: str) -> set[str]:
        """The domains of all cookies that the session has."""
        if session not in self._middleware.jars:
            return set()
        return {cookie.domain for cookie in self._middleware.jars[session]}

    def drop(self, session: str) -> None:
        """The session has ended."""
        self._middleware.jars.pop(session, None)
        self._begun.pop(session, None)

    def __len__(self) -> int:
        return len(self._middleware.jars)

    def _merge(self, session: str, url: str, cookies: object) -> bytes | None:
        stub = _stub(session, url, cookies)
        self._middleware.process_request(stub)
        value: bytes | None = stub.headers.get(b"Cookie")
        return value


def _stub(session: str, url: str, cookies: object = None) -> Request:
    """What CookiesMiddleware may write into: the user's request is not changed."""
    return Request(url, cookies=cookies, meta={"cookiejar": session})  # type: ignore[arg-type]
