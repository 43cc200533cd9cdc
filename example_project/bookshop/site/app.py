"""The shop as an ASGI application: the catalogue for everybody, the members' area by cookie."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

from bookshop.site.catalogue import Catalogue, Page, html_page
from bookshop.site.log import SiteLog
from bookshop.site.members import Call, MembersArea, Visitor, Visitors

# ASGI types its scope and messages as plain dicts.
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_FORM_BYTES = 64 * 1024


class Shop:
    """Answers every request and logs it once it is handed over."""

    def __init__(self, catalogue: Catalogue, log: SiteLog) -> None:
        self._catalogue = catalogue
        self._log = log
        self._visitors = Visitors()
        self._members = MembersArea(catalogue)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        page = self._catalogue.page(path) if method in {"GET", "HEAD"} else None
        # To the end whatever the page: hypercorn 0.18 loses the whole connection when DATA follows an answer (KeyError).
        form = await _form(receive)
        visitor = self._visitors.find(_visitor_cookie(scope))
        headers: list[tuple[bytes, bytes]] = []
        # Every HTML page makes a visitor of a stranger; robots.txt, covers and redirects do not.
        if visitor is None and (page is None or page.content_type.startswith("text/html")):
            visitor = self._visitors.welcome()
            headers.append(_set_cookie(visitor.cookie))
        if page is None:
            assert visitor is not None
            page = self._members_page(scope, form, visitor)
        if page.location is not None:
            headers.append((b"location", page.location.encode("ascii")))
        headers.append((b"content-type", page.content_type.encode("ascii")))
        headers.append((b"content-length", b"%d" % len(page.body)))
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": page.body})
        self._log.request(
            tuple(scope["client"]),
            scope["http_version"],
            method,
            path,
            status=page.status,
            size=len(page.body),
            visitor=visitor.number if visitor is not None else 0,
        )

    def _members_page(self, scope: Scope, form: dict[str, str] | None, visitor: Visitor) -> Page:
        if form is None:
            return html_page(413, "Too large", "<p>No form of this shop is that long.</p>")
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        page = self._members.page(Call(scope["method"], scope["path"], query, form), visitor)
        return page or html_page(404, "Not found", "<p>The shop has no such page.</p>")


def _set_cookie(value: str) -> tuple[bytes, bytes]:
    return b"set-cookie", f"visitor={value}; Path=/; HttpOnly; SameSite=Lax".encode("ascii")


def _visitor_cookie(scope: Scope) -> str | None:
    # HTTP/2 may send one field line for each cookie (RFC 9113 8.2.3).
    text = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"cookie")
    try:
        morsel = SimpleCookie(text).get("visitor")
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


async def _form(receive: Receive) -> dict[str, str] | None:
    """The posted fields, empty for a request without a body, None for one over MAX_FORM_BYTES, which is read but not kept."""
    body = bytearray()
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        size += len(message.get("body", b""))
        if size <= MAX_FORM_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    if size > MAX_FORM_BYTES:
        return None
    return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))


async def _lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's start and stop, the two messages of the ASGI lifespan protocol."""
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
