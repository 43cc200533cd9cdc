"""A session that is retired by hand, as the server sees it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from scrapy import Request
from scrapy.utils.test import get_crawler

from scrapy_poolplus import retire
from tests.conftest import StartNginx
from tests.rotation.flows import MIDDLEWARES, ShopSpider, fetch
from tests.servers.nginx import Door

LINES = """\
set $visit "";
if ($http_cookie !~ visitor=) { set $visit "visitor=$request_id; Path=/"; }
add_header Set-Cookie $visit always;
"""


class RetiringSpider(ShopSpider):
    """Pages under two labels and under none, in rounds; after the first round something is retired."""

    retired: Mapping[str, str]

    async def start(self) -> AsyncIterator[Any]:
        assert self.crawler.engine is not None
        for part in ("before", "after"):
            for number in range(3):
                for name in ("ada", "bob", "any"):
                    request = Request(f"{self.url}/100?{part}-{name}-{number}")
                    if name != "any":
                        request.meta["poolplus_session"] = name
                    self.fetched.note(await self.crawler.engine.download_async(request))
            if part == "before":
                retire(self.crawler, **self.retired)
        # Nothing is left to be crawled, but Scrapy wants a generator.
        for request in ():
            yield request


@pytest.mark.parametrize(
    ("retired", "begin_anew"),
    [
        ({"session": "ada"}, {"ada"}),
        ({"host": "127.0.0.1"}, {"ada", "bob", "any"}),
        ({}, {"ada", "bob", "any"}),
        ({"host": "a.example"}, set()),
        ({"session": "eve"}, set()),
    ],
    ids=["label", "host", "all", "another host", "an unknown label"],
)
@pytest.mark.parametrize("door", Door, ids=lambda door: door.value)
async def test_what_is_retired_begins_anew_and_the_rest_goes_on(
    nginx: StartNginx,
    reactor_settings: Mapping[str, Any],
    door: Door,
    retired: Mapping[str, str],
    begin_anew: set[str],
) -> None:
    server = nginx(lines=LINES)
    spider = type("Spider", (RetiringSpider,), {"url": server.url(door, "").rstrip("/"), "retired": retired})
    fetched = await fetch(spider, reactor_settings, POOLPLUS_ROTATION=50, **MIDDLEWARES)
    server.stop()
    assert sum(fetched.pages.values()) == 18
    visitors: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for line in server.lines():
        part, name, _ = line.target.partition("?")[2].split("-")
        visitors[name, part] |= line.cookies | line.got
    for name in ("ada", "bob", "any"):
        before, after = visitors[name, "before"], visitors[name, "after"]
        assert len(before) == len(after) == 1
        assert (before != after) == (name in begin_anew)
    firsts = [visitors[name, "before"].copy().pop() for name in ("ada", "bob", "any")]
    assert len(set(firsts)) == 3


def test_a_crawler_without_the_pool_has_nothing_to_retire() -> None:
    with pytest.raises(LookupError, match="DOWNLOAD_HANDLERS"):
        retire(get_crawler())
