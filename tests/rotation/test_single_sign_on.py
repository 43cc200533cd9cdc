"""Single sign-on over two hosts comes through rotation whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

from scrapy import Request
from scrapy.http import Response

from tests.crawling import REPOSITORY
from tests.rotation.flows import MIDDLEWARES, Fetched, ShopSpider, fetch, site, submit


class SignOnSpider(ShopSpider):
    """From the shop to the login at another host and back; beside it pages that anyone sees."""

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.url}/login", callback=self.login)
        for number in range(60):
            yield Request(f"{self.url}/page?number={number}", callback=self.note)

    def login(self, response: Response) -> Any:
        yield submit(response, "form", callback=self.password)

    def password(self, response: Response) -> Any:
        yield submit(response, "form", callback=self.account)

    def account(self, response: Response) -> Any:
        self.note(response)
        for number in range(1, 30):
            yield Request(f"{self.url}/account/{number}", callback=self.note)

    def note(self, response: Response) -> None:
        self.fetched.note(response)


async def test_single_sign_on_over_two_hosts_stays_in_one_session(reactor_settings: Mapping[str, Any]) -> None:
    fetched: list[Fetched] = []
    with site("tests.rotation.sso_site", folder=REPOSITORY) as port:
        spider = type("Spider", (SignOnSpider,), {"url": f"http://localhost:{port}"})
        fetched.append(await fetch(spider, reactor_settings, CONCURRENT_REQUESTS=1))
        fetched.append(await fetch(spider, reactor_settings, POOLPLUS_ROTATION="strict", **MIDDLEWARES))
    alone, rotated = (crawl.pages for crawl in fetched)
    assert Counter(status for _, _, status in alone.elements()) == {200: 90}
    assert rotated == alone
