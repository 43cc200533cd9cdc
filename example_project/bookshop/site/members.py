"""The part of the shop that remembers its visitors: a login, a form that carries its state, a search kept by the server.

All state hangs on one cookie, `visitor`. Each of the three is a chain of pages that only works inside one visitor:

- `/login`: a form with a token that belongs to the visitor; afterwards `/account` and its orders open.
- `/stock`: pages by POST. Each POST must carry the state of the page before, once, as an ASP.NET `__VIEWSTATE` does.
- `/search`: `/search/find` keeps the searched word in the visitor; the result pages are plain GETs that rely on it.
"""

from __future__ import annotations

import base64
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bookshop.site.catalogue import Book, Catalogue, Page, html_page, see_other

USERNAME, PASSWORD = "ada", "lovelace"
ORDERS = 40
ORDERS_PER_PAGE = 10
STOCK_PAGES = 40
RESULTS_PER_PAGE = 10
# The visitors seen longest ago are forgotten beyond this, so that a long run stays small.
MAX_VISITORS = 10_000


def is_members_path(path: str) -> bool:
    """Whether a path is of this part of the shop and not of the catalogue."""
    return path.startswith(("/login", "/account", "/stock", "/search"))


@dataclass(frozen=True, slots=True)
class Call:
    """One request as far as these pages look at it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Visitor:
    """What the shop remembers of one cookie; `number` counts visitors from 1 and is what the log shows."""

    number: int
    cookie: str
    csrf: str = field(default_factory=lambda: secrets.token_hex(16))
    logged_in: bool = False
    stock_page: int = 0
    stock_state: str = ""
    search: str | None = None


class Visitors:
    """All visitors by cookie."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Visitor] = OrderedDict()
        self._count = 0

    def find(self, cookie: str | None) -> Visitor | None:
        """The visitor with this cookie, or None for a stranger or a forgotten one."""
        visitor = self._known.get(cookie or "")
        if visitor is not None:
            self._known.move_to_end(visitor.cookie)
        return visitor

    def welcome(self) -> Visitor:
        """A new visitor with a cookie of its own."""
        self._count += 1
        visitor = Visitor(self._count, secrets.token_hex(16))
        self._known[visitor.cookie] = visitor
        if len(self._known) > MAX_VISITORS:
            self._known.popitem(last=False)
        return visitor


Handler = Callable[[Call, Visitor], Page]


class MembersArea:
    """Answers the paths of the three chains; knows the catalogue only to have something to show."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._books = catalogue.books
        self._pages: dict[tuple[str, str], Handler] = {
            ("GET", "/login"): self._login_form,
            ("POST", "/login"): self._login,
            ("GET", "/account"): _members_only(self._account),
            ("GET", "/account/orders"): _members_only(self._orders),
            ("GET", "/account/order"): _members_only(self._order),
            ("GET", "/stock"): self._stock_start,
            ("POST", "/stock"): self._stock_next,
            ("GET", "/search"): self._search_form,
            ("GET", "/search/find"): self._search_find,
            ("GET", "/search/results"): self._search_results,
        }
        self._paths = {path for _, path in self._pages}

    def page(self, call: Call, visitor: Visitor) -> Page | None:
        """The page, 405 for a method that the page does not take, or None for a path of somebody else."""
        if call.path not in self._paths:
            return None
        handler = self._pages.get(("GET" if call.method == "HEAD" else call.method, call.path))
        if handler is None:
            return html_page(405, "Method not allowed", "")
        return handler(call, visitor)

    def _login_form(self, call: Call, visitor: Visitor) -> Page:
        return html_page(
            200,
            "Log in",
            f"<p>The demo account is {USERNAME} with the password {PASSWORD}.</p>"
            '<form class="login" method="post" action="/login">'
            f'<input type="hidden" name="csrf" value="{visitor.csrf}">'
            '<input name="username"><input name="password" type="password"><button>Log in</button></form>',
        )

    def _login(self, call: Call, visitor: Visitor) -> Page:
        if call.form.get("csrf") != visitor.csrf:
            return html_page(403, "Forbidden", "<p>The form's token belongs to another visitor.</p>")
        if (call.form.get("username"), call.form.get("password")) != (USERNAME, PASSWORD):
            return html_page(403, "Forbidden", "<p>Wrong name or password.</p>")
        visitor.logged_in = True
        return see_other("/account")

    def _account(self, call: Call, visitor: Visitor) -> Page:
        return html_page(
            200, "Account", f'<p class="name">{USERNAME}</p><a class="orders" href="/account/orders">Orders</a>'
        )

    def _orders(self, call: Call, visitor: Visitor) -> Page:
        number = _number(call.query.get("page", "1"), ORDERS // ORDERS_PER_PAGE)
        if number is None:
            return html_page(404, "No such page", "")
        first = (number - 1) * ORDERS_PER_PAGE + 1
        links = "".join(
            f'<li><a class="order" href="/account/order?number={order}">Order {order}</a></li>'
            for order in range(first, first + ORDERS_PER_PAGE)
        )
        following = _next_link("/account/orders", number, ORDERS // ORDERS_PER_PAGE)
        return html_page(200, f"Orders, page {number}", f"<ul>{links}</ul>{following}")

    def _order(self, call: Call, visitor: Visitor) -> Page:
        number = _number(call.query.get("number", ""), ORDERS)
        if number is None:
            return html_page(404, "No such order", "")
        book = self._books[number % len(self._books)]
        return html_page(200, f"Order {number}", f'<p class="bought">{book.title}</p>')

    def _stock_start(self, call: Call, visitor: Visitor) -> Page:
        visitor.stock_page = 0
        return self._stock_page(visitor)

    def _stock_next(self, call: Call, visitor: Visitor) -> Page:
        state = call.form.get("__VIEWSTATE")
        if not state or state != visitor.stock_state or visitor.stock_page >= STOCK_PAGES:
            return html_page(400, "Expired", "<p>The posted state is not the one of the page before.</p>")
        return self._stock_page(visitor)

    def _stock_page(self, visitor: Visitor) -> Page:
        visitor.stock_page += 1
        # As long as a real one; only its being the latest counts.
        visitor.stock_state = base64.b64encode(b"page %d " % visitor.stock_page + secrets.token_bytes(600)).decode()
        rows = "".join(
            f'<tr class="row"><td>{book.title}</td><td>{book.stock}</td></tr>'
            for book in self._books[visitor.stock_page - 1 :: STOCK_PAGES]
        )
        button = '<button name="__EVENTTARGET" value="next">Next</button>' if visitor.stock_page < STOCK_PAGES else ""
        return html_page(
            200,
            f"Stock, page {visitor.stock_page} of {STOCK_PAGES}",
            f'<table>{rows}</table><form class="pager" method="post" action="/stock">'
            f'<input type="hidden" name="__VIEWSTATE" value="{visitor.stock_state}">{button}</form>',
        )

    def _search_form(self, call: Call, visitor: Visitor) -> Page:
        form = '<form class="search" action="/search/find"><input name="word"><button>Search</button></form>'
        return html_page(200, "Search", form)

    def _search_find(self, call: Call, visitor: Visitor) -> Page:
        visitor.search = call.query.get("word", "")
        return see_other("/search/results")

    def _search_results(self, call: Call, visitor: Visitor) -> Page:
        if visitor.search is None:
            # What a shop does with a visitor that it does not know: back to the start.
            return see_other("/search")
        found = [book for book in self._books if visitor.search.lower() in book.title.lower()]
        pages = max(1, -(-len(found) // RESULTS_PER_PAGE))
        number = _number(call.query.get("page", "1"), pages)
        if number is None:
            return html_page(404, "No such page", "")
        shown = found[(number - 1) * RESULTS_PER_PAGE : number * RESULTS_PER_PAGE]
        following = _next_link("/search/results", number, pages)
        return html_page(200, f"Results, page {number} of {pages}", f"<ul>{_book_links(shown)}</ul>{following}")


def _members_only(handler: Handler) -> Handler:
    def answer(call: Call, visitor: Visitor) -> Page:
        return handler(call, visitor) if visitor.logged_in else see_other("/login")

    return answer


def _number(text: str, highest: int) -> int | None:
    """The number in a query, or None when it is none of 1 to `highest`."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= highest else None


def _next_link(path: str, number: int, pages: int) -> str:
    return f'<a class="next" href="{path}?page={number + 1}">Next</a>' if number < pages else ""


def _book_links(books: list[Book]) -> str:
    return "".join(f'<li><a class="book" href="{book.path}">{book.title}</a></li>' for book in books)
