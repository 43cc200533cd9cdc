"""Holds what a crawl received against what the shop meant to send."""

from __future__ import annotations

import hashlib
from collections import Counter
from urllib.parse import urlsplit

from scrapy.http import Response

from bookshop.site.catalogue import Catalogue, Kind
from bookshop.site.members import is_members_path


class PageCheck:
    """Counts each path of the catalogue as right once its status and every byte of its body have come."""

    def __init__(self, books: int) -> None:
        self._expected = Catalogue(books).expected()
        self._right: set[str] = set()
        self._wrong: set[str] = set()

    def note(self, response: Response) -> None:
        """Connected to Scrapy's `response_received`; redirects do not come here, their targets do.

        The members' area is another page for each visitor: what came of it is in the shop's log.
        """
        path = urlsplit(response.url).path
        if is_members_path(path):
            return
        page = self._expected.get(path)
        if page is None:
            self._wrong.add(path)
        elif (response.status, hashlib.sha256(response.body).hexdigest()) == (page.status, page.sha256):
            self._right.add(path)
        else:
            self._wrong.add(path)

    @property
    def expected(self) -> int:
        return len(self._expected)

    @property
    def right(self) -> int:
        return len(self._right)

    @property
    def wrong(self) -> int:
        return len(self._wrong)

    def right_by_kind(self) -> Counter[Kind]:
        return Counter(self._expected[path].kind for path in self._right)
