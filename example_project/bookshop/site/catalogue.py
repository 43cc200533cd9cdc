"""Every public page of the shop as a function of the number of books: the same bytes in every process and every run.

So a crawl is checked page by page: by status and by a hash of the body, against what the shop meant to send.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

SEED = "scrapy-poolplus"
BOOKS = 1000
BOOKS_PER_LISTING = 20
BOOKS_PER_COVER = 8
# Every so many books one is linked by its old address, which redirects.
MOVED_EVERY = 25
# Every so many listing pages one links to a book that is gone.
WITHDRAWN_EVERY = 2
PRODUCT_BYTES = (5_500, 58_500)
CATEGORIES = ("Poetry", "Travel", "Mystery", "History", "Cookery", "Science", "Gardens", "Music", "Fantasy", "Essays")
ADJECTIVES = ("Quiet", "Salt", "Second", "Paper", "Winter", "Borrowed", "Glass", "Northern", "Hidden", "Late", "Red")
NOUNS = ("Harbour", "Orchard", "Letter", "Compass", "River", "Lantern", "Garden", "Archive", "Bridge", "Season")
WORDS = (
    "the a of and to in that for with on at by from as into over under after before while old new small wide "
    "house road table window morning evening winter summer field stone water light voice story page hand year town "
    "walks reads keeps finds leaves returns remembers forgets carries opens closes begins ends waits turns listens"
)


class Kind(Enum):
    """What a path of the shop is."""

    ROBOTS = "robots.txt"
    LISTING = "listing page"
    BOOK = "book"
    COVER = "cover"
    MOVED = "redirect"
    WITHDRAWN = "404"
    STAFF = "disallowed"
    MEMBERS = "members' area"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the shop; `location` is set for a redirect."""

    kind: Kind
    status: int
    content_type: str
    body: bytes
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What a crawl must get for one path."""

    kind: Kind
    status: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Book:
    """One book, as the shop knows it; `price` is in cents."""

    number: int
    title: str
    category: int
    price: int
    stock: int
    upc: str

    @property
    def path(self) -> str:
        return f"/book/{self.number}/"

    @property
    def old_path(self) -> str:
        return f"/old/{self.number}/"

    @property
    def linked_path(self) -> str:
        """Where the listing pages point: for some books still the old address."""
        return self.old_path if self.number % MOVED_EVERY == 0 else self.path

    @property
    def cover_path(self) -> str:
        return f"/cover/{(self.number - 1) // BOOKS_PER_COVER + 1}.png"


class Catalogue:
    """All pages of a shop with `books` books (at least 1), made once and kept: about 32 KB a book."""

    def __init__(self, books: int = BOOKS) -> None:
        if books < 1:
            raise ValueError(f"a shop needs at least 1 book, not {books}")
        self._categories = CATEGORIES[: max(1, min(len(CATEGORIES), books // 50))]
        self._paragraphs = tuple(_paragraphs(random.Random(SEED)))
        self.books = tuple(self._book(number) for number in range(1, books + 1))
        self._pages = dict(self._all_pages())

    def page(self, path: str) -> Page | None:
        """The page at a path without query, or None where the catalogue has nothing."""
        return self._pages.get(path)

    def expected(self) -> dict[str, Expected]:
        """What a crawl of the whole shop that obeys robots.txt and follows redirects ends up with, by path."""
        return {
            path: Expected(page.kind, page.status, hashlib.sha256(page.body).hexdigest())
            for path, page in self._pages.items()
            if page.kind not in {Kind.MOVED, Kind.STAFF}
        }

    def _all_pages(self) -> Iterator[tuple[str, Page]]:
        yield "/robots.txt", Page(Kind.ROBOTS, 200, "text/plain; charset=utf-8", b"User-agent: *\nDisallow: /staff/\n")
        yield "/", html_page(200, "Bookshop", self._home(), Kind.LISTING)
        listing = 0
        for index, name in enumerate(self._categories):
            books = [book for book in self.books if book.category == index]
            for start in range(0, len(books), BOOKS_PER_LISTING):
                listing += 1
                shown, number = books[start : start + BOOKS_PER_LISTING], start // BOOKS_PER_LISTING + 1
                following = _listing_path(name, number + 1) if start + BOOKS_PER_LISTING < len(books) else None
                withdrawn = f"/book/withdrawn-{listing}/" if listing % WITHDRAWN_EVERY == 1 else None
                staff = f"/staff/notes-{listing}/"
                heading = f"{name}, page {number}"
                body = _listing(heading, shown, following=following, withdrawn=withdrawn, staff=staff)
                yield _listing_path(name, number), html_page(200, heading, body, Kind.LISTING)
                yield staff, html_page(200, "Staff notes", "<p>Not for robots.</p>", Kind.STAFF)
                if withdrawn is not None:
                    yield withdrawn, html_page(404, "Withdrawn", "<p>This book is gone.</p>", Kind.WITHDRAWN)
        for book in self.books:
            yield book.path, html_page(200, book.title, self._product(book), Kind.BOOK)
            if book.linked_path == book.old_path:
                yield book.old_path, Page(Kind.MOVED, 301, "text/plain; charset=utf-8", b"Moved.\n", book.path)
        for path in dict.fromkeys(book.cover_path for book in self.books):
            yield path, Page(Kind.COVER, 200, "image/png", _cover(path))

    def _book(self, number: int) -> Book:
        rng = random.Random(f"{SEED} book {number}")
        return Book(
            number=number,
            title=f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}, volume {number}",
            category=(number - 1) % len(self._categories),
            price=rng.randrange(500, 9_000),
            stock=rng.randrange(0, 40),
            upc=f"{rng.getrandbits(48):012x}",
        )

    def _home(self) -> str:
        links = "".join(f'<li><a class="category" href="{_listing_path(n, 1)}">{n}</a></li>' for n in self._categories)
        return (
            f"<p>{len(self.books)} books in {len(self._categories)} categories.</p><ul>{links}</ul>"
            '<nav><a href="/login">Account</a> <a href="/stock">Stock list</a> <a href="/search">Search</a></nav>'
        )

    def _product(self, book: Book) -> str:
        rng = random.Random(f"{SEED} text {book.number}")
        head = (
            f'<img class="cover" src="{book.cover_path}" alt="">'
            f'<p class="price">&pound;{book.price // 100}.{book.price % 100:02}</p>'
            f'<p class="stock">{book.stock}</p><p class="upc">{book.upc}</p>'
            f'<p class="shelf">{self._categories[book.category]}</p><div class="text">'
        )
        least, most = PRODUCT_BYTES
        # Most pages are short, as on the web: half of them have less than 13 KB.
        missing = least + int((most - least) * rng.random() ** 3) - len(head)
        parts = [head]
        while missing > 0:
            parts.append(f"<p>{rng.choice(self._paragraphs)}</p>")
            missing -= len(parts[-1])
        return "".join((*parts, "</div>"))


def _listing_path(category: str, number: int) -> str:
    return f"/category/{category.lower()}/" + (f"page-{number}/" if number > 1 else "")


def _listing(heading: str, books: list[Book], *, following: str | None, withdrawn: str | None, staff: str) -> str:
    links = [f'<li><a class="book" href="{book.linked_path}">{book.title}</a></li>' for book in books]
    if withdrawn is not None:
        links.append(f'<li><a class="book" href="{withdrawn}">A book that is no longer here</a></li>')
    links.append(f'<li><a class="book" href="{staff}">Staff notes</a></li>')
    next_link = f'<a class="next" href="{following}">Next</a>' if following is not None else ""
    return f"<h2>{heading}</h2><ul>{''.join(links)}</ul>{next_link}"


def html_page(status: int, title: str, body: str, kind: Kind = Kind.MEMBERS) -> Page:
    """A whole HTML page; links in it are without a host, so that the bytes are the same behind every address."""
    document = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f"<body><h1>{title}</h1>{body}</body></html>\n"
    )
    return Page(kind, status, "text/html; charset=utf-8", document.encode())


def see_other(location: str) -> Page:
    """A redirect that is followed by GET whatever the method was (RFC 9110 15.4.4)."""
    return Page(Kind.MEMBERS, 303, "text/plain; charset=utf-8", b"See other.\n", location)


def _paragraphs(rng: random.Random) -> Iterator[str]:
    for _ in range(200):
        words = rng.choices(WORDS.split(), k=rng.randrange(60, 150))
        yield f"{' '.join(words).capitalize()}."


def _cover(path: str) -> bytes:
    """A PNG of random colours (PNG specification, sections 5 and 11: IHDR, IDAT, IEND)."""
    rng = random.Random(f"{SEED} {path}")
    width, height = 32, rng.randrange(24, 64)
    rows = b"".join(b"\0" + rng.randbytes(3 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
