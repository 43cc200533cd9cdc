"""Providers for scrapy-poet: a page object sees its connection, keeps its session, and can end it.

The add-on registers them where scrapy-poet is installed. By hand::

    SCRAPY_POET_PROVIDERS = {
        "scrapy_poolplus.poet.SessionHttpClientProvider": 550,
        "scrapy_poolplus.poet.ConnectionInfoProvider": 1050,
        "scrapy_poolplus.poet.SessionProvider": 1051,
    }

A page that asks for one of them is, as with most dependencies of scrapy-poet, another request for the duplicates filter
than the same URL without it.
"""

# No `from __future__ import annotations`: scrapy-poet injects by the types that annotations are at run time.

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from andi.typeutils import strip_annotated
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy_poet.downloader import _create_scrapy_downloader
from scrapy_poet.page_input_providers import PageObjectInputProvider
from web_poet import HttpClient
from web_poet.annotated import AnnotatedInstance
from web_poet.serialization import SerializedLeafData, register_serialization

from scrapy_poolplus.rotation import same_session
from scrapy_poolplus.shared import shared_pool
from scrapy_poolplus.tracing import ConnectionInfo, connection_info

TRIED = ("0.27.0", "0.27.2")
"""The versions of scrapy-poet whose private function, which makes a downloader for HttpClient, this room was tried with."""

KEPT_META = ("proxy", "_auth_proxy", "cookiejar", "dont_merge_cookies", "bindaddress")
"""What an extra request takes over from its page's, beside the session."""


class Session:
    """The session of the page's request, as a dependency of a page object. `id` is None where there is none: rotation
    off, a cached response, another download handler."""

    def __init__(self, id: str | None, retire: Callable[[str], object] | None = None) -> None:  # noqa: A002 - its name
        self.id = id
        self.retired = False
        """``retire`` was called."""
        self._retire = retire

    def __repr__(self) -> str:
        return f"<Session {self.id}{' retired' if self.retired else ''}>"

    def retire(self) -> None:
        """Have nothing new go out in this session: its connections finish what they have, and what would have gone on in
        it, ``web_poet.exceptions.Retry`` included, begins in another one. Does nothing where there is none."""
        if not self.retired:
            self.retired = True
            if self.id is not None and self._retire is not None:
                self._retire(self.id)


class _Provider(PageObjectInputProvider):
    """One class, also where a page asks for it as Annotated."""

    gives: type

    def provided_classes(self, asked: Callable[..., Any]) -> bool:
        """Whether it is ours."""
        return strip_annotated(asked) is self.gives

    @staticmethod
    def _each(to_provide: set[Callable[..., Any]], found: object) -> Sequence[object]:
        return [
            AnnotatedInstance(found, metadata) if (metadata := getattr(asked, "__metadata__", None)) else found
            for asked in to_provide
        ]


class ConnectionInfoProvider(_Provider):
    """:class:`~scrapy_poolplus.ConnectionInfo` of the page's response. A page that asks for it is downloaded; one that
    did not come through the pool has empty fields."""

    gives = ConnectionInfo
    name = "poolplus_connection"

    def __call__(self, to_provide: set[Callable[..., Any]], request: Request, response: Response) -> Sequence[object]:
        """By the request: at this point the response has none yet."""
        return self._each(to_provide, connection_info(request))


class SessionProvider(_Provider):
    """The :class:`Session` of the page's request."""

    gives = Session
    name = "poolplus_session"

    def __call__(
        self, to_provide: set[Callable[..., Any]], request: Request, response: Response, crawler: Crawler
    ) -> Sequence[object]:
        """By the request, as above."""
        session = Session(connection_info(request).session, lambda name: shared_pool(crawler).retire(session=name))
        return self._each(to_provide, session)


class SessionHttpClientProvider(PageObjectInputProvider):
    """``web_poet.HttpClient`` whose requests go out as their page's did: its session, proxy and proxy login, cookie jar,
    bind address. scrapy-poet's own sends them as strangers.

    With rotation on, the session of a page that sends such a request is kept whole from there on, as for any flow
    (see :func:`~scrapy_poolplus.same_session`).
    """

    provided_classes = {HttpClient}  # noqa: RUF012 - scrapy-poet's own interface

    def __call__(self, to_provide: set[Callable[..., Any]], request: Request, crawler: Crawler) -> Sequence[HttpClient]:
        """A client for this page."""
        authorization = request.headers.get(b"Proxy-Authorization")

        async def download(extra: Request) -> Response:
            extra.meta.update({key: request.meta[key] for key in KEPT_META if key in request.meta})
            extra.meta.update(same_session(request))
            if authorization is not None:
                extra.headers[b"Proxy-Authorization"] = authorization
            assert crawler.engine is not None
            return await crawler.engine.download_async(extra)

        save = crawler.settings.getbool("_SCRAPY_POET_SAVEFIXTURE")
        downloader = _create_scrapy_downloader(download)  # type: ignore[no-untyped-call]
        return [HttpClient(request_downloader=downloader, save_responses=save)]


PROVIDERS: dict[type[PageObjectInputProvider], int] = {
    SessionHttpClientProvider: 550,
    ConnectionInfoProvider: 1050,
    SessionProvider: 1051,
}
"""In SCRAPY_POET_PROVIDERS. 550 is before scrapy-poet's own provider of HttpClient."""


# ---- fixtures of web-poet, and scrapy-poet's cache


def _write_info(info: ConnectionInfo) -> SerializedLeafData:
    return {"info.json": json.dumps(asdict(info)).encode()}


def _read_info(cls: type[ConnectionInfo], data: SerializedLeafData) -> ConnectionInfo:
    return cls(**json.loads(data["info.json"]))


def _write_session(session: Session) -> SerializedLeafData:
    return {"session.json": json.dumps({"id": session.id}).encode()}


def _read_session(cls: type[Session], data: SerializedLeafData) -> Session:
    return cls(json.loads(data["session.json"])["id"])


register_serialization(_write_info, _read_info)
register_serialization(_write_session, _read_session)
