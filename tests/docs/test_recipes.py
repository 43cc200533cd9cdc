"""The spiders and settings of docs/recipes.rst, run as they stand there, but for the address. Sessions are of two requests,
so that what does not hold its session together loses it."""

from __future__ import annotations

import importlib.util
import json
import re
import textwrap
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler, CrawlerRunner
from scrapy.exceptions import DontCloseSpider, DownloadTimeoutError
from scrapy.http import Response
from scrapy.utils.defer import deferred_from_coro
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IResolverSimple
from zope.interface import implementer

import scrapy_poolplus
from tests.crawling import REPOSITORY, FetchSpider
from tests.crawling import Crawled as Fetched
from tests.rotation.flows import site

PAGE = (REPOSITORY / "docs/recipes.rst").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^(\S.*)\n-+\n\n((?:.*\n)*?)(?=^\S.*\n-+\n|\Z)", PAGE, re.MULTILINE))
BLOCK = re.compile(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)")
TITLES = """\
A CrawlSpider behind a login
A bearer token
Cookies from elsewhere
One login pinned, the rest rotates
Media behind a login
Going on from an errback
GraphQL, paged by POST
A proxy whose exit must change
NTLM
A broad crawl of 10,000 hosts
A polite crawl
A crawl that is stuck
Many crawlers in one process
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the shop saw it."""

    connection: int
    method: str
    path: str
    cookie: str
    authorization: str
    proxy_authorization: str


@dataclass(frozen=True, slots=True)
class Shop:
    """The server."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def seen(self) -> list[Seen]:
        with urlopen(f"{self.url}/seen", timeout=10) as answer:
            return [Seen(*entry) for entry in json.load(answer)]


@dataclass(slots=True)
class Crawled:
    """Items, and the crawl's statistics."""

    items: list[dict[str, Any]] = field(default_factory=list)
    stats: Mapping[str, Any] = field(default_factory=dict)

    def statuses(self) -> Counter[int]:
        return Counter(item["status"] for item in self.items)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with site("tests.docs.recipe_site", folder=REPOSITORY) as port:
        yield Shop(port, tmp_path)


def recipe(title: str, shop: Shop, **names: Any) -> dict[str, Any]:
    """What the code of a section defines. Its first block: others are variations."""
    found = BLOCK.search(SECTIONS[title])
    assert found is not None, f"there is no code under {title!r}"
    code = (
        textwrap.dedent(found.group(1)).replace("https://shop.example", shop.url).replace("shop.example", "127.0.0.1")
    )
    # In a file: Scrapy reads the source of callbacks.
    path = shop.folder / "recipe.py"
    path.write_text(code)
    specification = importlib.util.spec_from_file_location("recipe", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    vars(module).update(names)
    specification.loader.exec_module(module)
    return vars(module)


def spider_of(defined: dict[str, Any]) -> type[Spider]:
    (spider,) = (
        value
        for value in defined.values()
        if isinstance(value, type) and issubclass(value, Spider) and value.__module__ == "recipe"
    )
    return spider


def settings_of(defined: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defined.items() if name.isupper()}


@implementer(IResolverSimple)
class Here:
    """Every host is this machine."""

    def getHostByName(self, name: str, timeout: Sequence[int] = ()) -> Deferred[str]:
        return succeed("127.0.0.1")


@pytest.fixture
def hosts_are_here() -> Iterator[None]:
    from twisted.internet import reactor

    before = cast("Any", reactor).installResolver(Here())
    yield
    cast("Any", reactor).installResolver(before)


Run = Callable[..., Awaitable[Crawled]]


@pytest.fixture
def base(reactor_settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ADDONS": {"scrapy_poolplus.Addon": 500},
        "POOLPLUS_ROTATION": 2,
        "RETRY_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        **reactor_settings,
    }


@pytest.fixture
def run(base: dict[str, Any]) -> Run:
    """`await run(spider, SETTING=value, ...)`"""

    async def crawl(spider: type[Spider], arguments: dict[str, Any] | None = None, **settings: Any) -> Crawled:
        crawler = CrawlerRunner({**base, **settings}).create_crawler(spider)
        crawled = Crawled()

        def keep(item: dict[str, Any]) -> None:
            crawled.items.append(item)

        crawler.signals.connect(keep, signal=signals.item_scraped)
        await crawler.crawl(**arguments or {})
        assert crawler.stats is not None
        crawled.stats = crawler.stats.get_stats()
        assert crawled.stats["finish_reason"] == "finished"
        assert "log_count/ERROR" not in crawled.stats
        return crawled

    return crawl


async def fetch(run: Run, requests: list[Request], **settings: Any) -> Fetched:
    fetched = Fetched()
    fetched.stats = (await run(FetchSpider, {"requests": requests, "crawled": fetched}, **settings)).stats
    return fetched


def visitors(seen: list[Seen]) -> set[str]:
    """Cookies, each header's in order."""
    return {"; ".join(sorted(entry.cookie.split("; "))) for entry in seen}


def test_every_recipe_is_there() -> None:
    assert list(SECTIONS) == TITLES.splitlines()


@ensureDeferred
async def test_a_crawl_spider_stays_logged_in(shop: Shop, run: Run) -> None:
    crawled = await run(spider_of(recipe("A CrawlSpider behind a login", shop)))
    assert sorted(item["name"] for item in crawled.items) == ["Item 1", "Item 2", "Item 3"]
    assert visitors(shop.seen()) == {"", "card=1", "card=1; user=ada"}


@ensureDeferred
async def test_one_token_is_one_session(shop: Shop, run: Run) -> None:
    crawled = await run(spider_of(recipe("A bearer token", shop)), CONCURRENT_REQUESTS=1)
    assert crawled.items == [{"told": True}] * 5
    assert len({seen.connection for seen in shop.seen()}) == 1, "though a session of two requests would have ended"


@ensureDeferred
async def test_cookies_from_elsewhere_go_on(shop: Shop, run: Run) -> None:
    crawled = await run(spider_of(recipe("Cookies from elsewhere", shop)))
    assert crawled.statuses() == {200: 4}
    assert {seen.cookie for seen in shop.seen()} == {"user=ada"}


@ensureDeferred
async def test_a_pinned_login_beside_sessions_that_rotate(shop: Shop, run: Run) -> None:
    crawled = await run(spider_of(recipe("One login pinned, the rest rotates", shop)))
    assert crawled.statuses() == {200: 32}
    inside = [seen for seen in shop.seen() if seen.path in ("/login", "/account")]
    others = [seen for seen in shop.seen() if seen.path.startswith("/open/")]
    assert [(seen.method, seen.path) for seen in inside] == [("GET", "/login"), ("POST", "/login"), ("GET", "/account")]
    assert len({seen.connection for seen in inside}) == 1
    assert {seen.connection for seen in inside}.isdisjoint(seen.connection for seen in others)
    assert not any("user=" in seen.cookie for seen in others)
    assert max(Counter(seen.connection for seen in others).values()) <= 2


@ensureDeferred
async def test_media_behind_a_login(shop: Shop, run: Run, tmp_path: Path) -> None:
    defined = recipe("Media behind a login", shop)
    pipelines = {defined["SessionFiles"]: 1}
    (item,) = (await run(spider_of(defined), ITEM_PIPELINES=pipelines, FILES_STORE=str(tmp_path))).items
    assert [file["status"] for file in item["files"]] == ["downloaded", "downloaded"]
    assert visitors(shop.seen()) == {"", "card=1", "card=1; user=ada"}


@ensureDeferred
async def test_an_errback_goes_on_in_the_session_that_failed(shop: Shop, run: Run) -> None:
    crawled = await run(spider_of(recipe("Going on from an errback", shop)))
    assert crawled.statuses() == {200: 1}
    seen = shop.seen()
    # A GET on a kept connection that is lost without an answer is sent once more.
    assert [entry.path for entry in seen] == ["/login", "/login", "/gone", "/gone", "/account"]
    assert [entry.cookie for entry in seen] == ["", "card=1", *["card=1; user=ada"] * 3]


@ensureDeferred
async def test_cursors_of_graphql_stay_where_they_were_made(shop: Shop, run: Run) -> None:
    crawled = await run(spider_of(recipe("GraphQL, paged by POST", shop)))
    assert [item["name"] for item in crawled.items] == ["item 1", "item 2", "item 3"]


@ensureDeferred
async def test_exits_change_by_connection_and_by_user_name(shop: Shop, run: Run) -> None:
    # A server takes the absolute-form, and so stands for the proxy.
    settings = settings_of(recipe("A proxy whose exit must change", shop))
    settings["POOLPLUS_POLICY"] |= {"jitter": 0}
    meta = {"proxy": f"http://customer:secret@127.0.0.1:{shop.port}"}
    requests = [Request(f"http://shop.example/open/{number}", meta=dict(meta)) for number in range(60)]
    fetched = await fetch(run, requests, **settings, CONCURRENT_REQUESTS=1)
    assert [response.status for response in fetched.responses] == [200] * 60
    users: dict[str, set[int]] = {}
    for seen in shop.seen():
        login = b64decode(seen.proxy_authorization.removeprefix("Basic ")).decode()
        assert re.fullmatch(r"customer-session-[A-Za-z0-9]+:secret", login)
        users.setdefault(login, set()).add(seen.connection)
    assert len(users) == 3, "one for each session of 25"
    assert all(len(connections) == 1 for connections in users.values())


@ensureDeferred
async def test_ntlm_holds_its_connection(shop: Shop, run: Run) -> None:
    def authenticate(challenge: bytes) -> bytes:
        return b"answer to " + challenge

    sessions: list[str | None] = []
    spider = spider_of(recipe("NTLM", shop, negotiate=lambda: b"negotiate", authenticate=authenticate))

    class Beside(spider):  # type: ignore[misc, valid-type]
        """Other hosts rotate meanwhile."""

        async def start(self) -> AsyncIterator[Any]:
            async for request in super().start():
                yield request
            for number in range(10):
                yield Request(f"http://localhost:{shop.port}/open/{number}")

        def parse(self, response: Response) -> Any:
            if "/intranet/" in response.url:
                sessions.append(scrapy_poolplus.connection_info(response).session)
                yield from super().parse(response)

    for rotation in ("off", 2):
        crawled = await run(Beside, POOLPLUS_ROTATION=rotation)
        assert crawled.statuses() == {200: 5}
    inside = [seen for seen in shop.seen() if seen.path.startswith("/intranet/")]
    assert len(inside) == 12
    assert len({seen.connection for seen in inside}) == 2, "one for each crawl"
    assert None not in sessions
    assert [len(set(of_one)) for of_one in (sessions[:5], sessions[5:])] == [1, 1], "the label's, for each request"


def broad(shop: Shop, **changes: Any) -> dict[str, Any]:
    settings = settings_of(recipe("A broad crawl of 10,000 hosts", shop))
    assert set(settings) == {"CONCURRENT_REQUESTS", "POOLPLUS_MAX_CONNECTIONS", "POOLPLUS_POLICY"}
    return settings | {"POOLPLUS_ROTATION": "off"} | changes


def of_hosts(shop: Shop, number: int) -> list[Request]:
    return [Request(f"http://h{host}.example:{shop.port}/open/1") for host in range(number)]


def assert_each_arrived(fetched: Fetched, requests: list[Request]) -> None:
    assert fetched.failures == []
    assert {response.status for response in fetched.responses} == {200}
    assert sorted(response.url for response in fetched.responses) == sorted(request.url for request in requests)


@pytest.mark.usefixtures("hosts_are_here")
@ensureDeferred
async def test_a_broad_crawl_of_more_hosts_than_connections(shop: Shop, run: Run) -> None:
    requests = of_hosts(shop, 300)
    fetched = await fetch(run, requests, **broad(shop, POOLPLUS_MAX_CONNECTIONS=40))
    assert_each_arrived(fetched, requests)
    assert fetched.stats["poolplus/connections/opened"] == 300
    assert fetched.stats["poolplus/connections/open_max"] == 40
    assert fetched.stats["poolplus/connections/closed/evicted"] == 260, "an idle one, for each host that found no room"


@pytest.mark.usefixtures("hosts_are_here")
@ensureDeferred
async def test_a_broad_crawl_as_it_stands_gives_idle_connections_back(shop: Shop, run: Run) -> None:
    class Staying(FetchSpider):
        """Ends when the last connection is closed, or after some beats of the engine without it."""

        beats = 8

        @classmethod
        def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Any:
            spider = super().from_crawler(crawler, *args, **kwargs)
            crawler.signals.connect(spider.stay, signals.spider_idle)
            return spider

        def stay(self) -> None:
            assert self.crawler.stats is not None
            self.beats -= 1
            if self.beats and self.crawler.stats.get_value("poolplus/connections/closed/idle_timeout", 0) < 300:
                raise DontCloseSpider

    fetched, requests = Fetched(), of_hosts(shop, 300)
    settings = broad(shop)
    crawled = await run(Staying, {"requests": requests, "crawled": fetched}, **settings)
    assert_each_arrived(fetched, requests)
    assert crawled.stats["poolplus/connections/open_max"] <= settings["POOLPLUS_MAX_CONNECTIONS"]
    assert crawled.stats["poolplus/connections/closed/idle_timeout"] == 300
    assert "poolplus/connections/closed/pool_closed" not in crawled.stats


@ensureDeferred
async def test_a_polite_crawl(shop: Shop, run: Run) -> None:
    settings = settings_of(recipe("A polite crawl", shop))
    requests = [Request(f"{shop.url}/open/{number}") for number in range(8)]
    fetched = await fetch(run, requests, **settings | {"DOWNLOAD_DELAY": 0.01, "POOLPLUS_ROTATION": "off"})
    assert [response.status for response in fetched.responses] == [200] * 8
    assert len({seen.connection for seen in shop.seen()}) == 1


@ensureDeferred
async def test_a_stuck_crawl_shows_itself_and_its_errors_name_the_phase(shop: Shop, run: Run) -> None:
    settings = settings_of(recipe("A crawl that is stuck", shop))
    policy = settings["POOLPLUS_POLICY"]
    assert set(policy) == {"connect_timeout", "first_byte_timeout", "read_timeout"}
    looks: list[str] = []

    class Looking(FetchSpider):
        def parse(self, response: Response, **kwargs: Any) -> None:
            looks.append(scrapy_poolplus.snapshot(self.crawler))

    fetched = Fetched()
    requests = [Request(f"{shop.url}/never"), Request(f"{shop.url}/open/1")]
    settings["POOLPLUS_POLICY"] = policy | {"first_byte_timeout": 1.0}
    await run(Looking, {"requests": requests, "crawled": fetched}, **settings)
    (failure,) = fetched.failures
    assert isinstance(failure, DownloadTimeoutError)
    assert "first_byte_timeout" in str(failure)
    assert "127.0.0.1" in looks[0]
    assert "BUSY" in looks[0]


@ensureDeferred
async def test_crawlers_of_one_process_share_nothing(shop: Shop, base: dict[str, Any]) -> None:
    if base["TWISTED_REACTOR"] is None:
        pytest.skip("asyncio.gather needs the asyncio reactor")
    defined = recipe("Many crawlers in one process", shop)
    await deferred_from_coro(
        cast("Any", defined["crawl_all"](base | {"POOLPLUS_ROTATION": "off", "CONCURRENT_REQUESTS": 1}))
    )
    by_connection = Counter(seen.connection for seen in shop.seen())
    assert sorted(by_connection.values()) == [2, 2]
