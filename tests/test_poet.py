"""Page objects: they see their connection, their extra requests are of their session, and they can end it."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

import attrs
import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred
from scrapy import Request, Spider
from scrapy.crawler import CrawlerRunner
from scrapy.http import Response
from scrapy.settings import Settings
from scrapy_poet import DummyResponse
from scrapy_poet.page_input_providers import HttpClientProvider
from web_poet import HttpClient, ItemPage, RequestUrl, WebPage
from web_poet.exceptions import Retry
from web_poet.serialization import deserialize_leaf, serialize_leaf

from scrapy_poolplus import Addon, ConnectionInfo, connection_info
from scrapy_poolplus.poet import PROVIDERS, TRIED, ConnectionInfoProvider, Session, SessionProvider
from tests.conftest import StartNginx
from tests.crawling import REPOSITORY, scrapy_command
from tests.peers.listening import Listening
from tests.peers.proxies import HttpProxy
from tests.servers.nginx import Door, Nginx

Crawl = Callable[..., Any]


@attrs.define
class SeenPage(WebPage[dict[str, Any]]):
    connection: ConnectionInfo
    session: Session

    async def to_item(self) -> dict[str, Any]:
        return {"info": self.connection, "session": self.session.id}


@attrs.define
class AnnotatedPage(WebPage[dict[str, Any]]):
    connection: Annotated[ConnectionInfo, "mine"]

    async def to_item(self) -> dict[str, Any]:
        return {"info": self.connection}


@attrs.define
class AskingPage(WebPage[dict[str, Any]]):
    http: HttpClient
    connection: ConnectionInfo

    async def to_item(self) -> dict[str, Any]:
        extra = await self.http.get(str(self.response.urljoin("/100?extra")))
        return {"info": self.connection, "extra": extra.status}


@attrs.define
class BurntPage(WebPage[dict[str, Any]]):
    session: Session

    async def to_item(self) -> dict[str, Any]:
        self.session.retire()
        return {"session": self.session.id, "retired": self.session.retired}


@attrs.define
class RetriedPage(WebPage[dict[str, Any]]):
    """Burnt the first time."""

    session: Session
    seen: ClassVar[list[str | None]] = []

    async def to_item(self) -> dict[str, Any]:
        self.seen.append(self.session.id)
        if len(self.seen) == 1:
            self.session.retire()
            raise Retry
        return {"session": self.session.id}


@attrs.define
class UndownloadedPage(ItemPage[dict[str, Any]]):
    """Its own page is never asked for."""

    url: RequestUrl
    http: HttpClient

    async def to_item(self) -> dict[str, Any]:
        return {"extra": (await self.http.get(str(self.url))).status}


class PagesSpider(Spider):
    name = "pages"
    page: type
    items: list[dict[str, Any]]
    urls: list[str]
    meta: dict[str, Any]

    async def start(self) -> AsyncIterator[Any]:
        for url in self.urls:
            yield Request(
                url, meta=dict(self.meta), dont_filter=True, callback=getattr(self, f"parse_{self.page.__name__}")
            )

    async def parse_SeenPage(self, response: DummyResponse, page: SeenPage) -> None:
        self.items.append(await page.to_item())

    async def parse_AnnotatedPage(self, response: DummyResponse, page: AnnotatedPage) -> None:
        self.items.append(await page.to_item())

    async def parse_AskingPage(self, response: Response, page: AskingPage) -> None:
        self.items.append(await page.to_item())

    async def parse_UndownloadedPage(self, response: DummyResponse, page: UndownloadedPage) -> None:
        self.items.append({"response": response, "info": connection_info(response), **await page.to_item()})

    async def parse_RetriedPage(self, response: DummyResponse, page: RetriedPage) -> AsyncIterator[Any]:
        self.items.append(await page.to_item())
        for nothing in ():
            yield nothing

    async def parse_BurntPage(self, response: Response, page: BurntPage) -> AsyncIterator[Request]:
        self.items.append(await page.to_item())
        # One after the other: a request that is under way while its session is retired still goes out in it.
        if len(self.items) < 3:
            yield Request(f"{response.url}&again", callback=self.parse_BurntPage)


@pytest_twisted.async_yield_fixture
async def proxy() -> AsyncIterator[HttpProxy]:
    """In this process; it keeps what it was told."""
    from twisted.internet import reactor

    listening = Listening(reactor)
    yield HttpProxy(listening.start())
    await listening.stop()


@pytest.fixture
def pages(reactor_settings: dict[str, Any]) -> Crawl:
    """`await pages(page, [url, ...], SETTING=value)`: the items, one request at a time."""

    async def run(page: type, urls: list[str], meta: dict[str, Any] | None = None, **settings: Any) -> Any:
        runner = CrawlerRunner(
            {
                "ADDONS": {"scrapy_poolplus.Addon": 500, "scrapy_poet.Addon": 300},
                "CONCURRENT_REQUESTS": 1,
                "TELNETCONSOLE_ENABLED": False,
                "REMOTE_CONTROL_ENABLED": False,
                **reactor_settings,
                **settings,
            }
        )
        items: list[dict[str, Any]] = []
        await runner.crawl(PagesSpider, page=page, urls=urls, items=items, meta=meta or {})
        return items

    return run


def log(server: Nginx) -> dict[str, Any]:
    """By target, after the server has ended."""
    server.stop()
    return {entry.target: entry for entry in server.log()}


def test_the_versions_of_scrapy_poet() -> None:
    assert version("scrapy-poet") in TRIED, "a new version: see that tests/test_poet.py passes, then name it"


def test_the_addon_registers_the_providers_and_leaves_what_the_project_says() -> None:
    settings = Settings()
    Addon().update_settings(settings)
    assert settings.getdict("SCRAPY_POET_PROVIDERS") == PROVIDERS
    first = next(iter(PROVIDERS))
    settings = Settings({"SCRAPY_POET_PROVIDERS": {first: None}})
    Addon().update_settings(settings)
    assert settings.getdict("SCRAPY_POET_PROVIDERS")[first] is None


@ensureDeferred
async def test_a_page_sees_the_connection_and_the_session_of_its_response(pages: Crawl, nginx: StartNginx) -> None:
    server = nginx()
    urls = [server.url(Door.H2, f"/100?{n}") for n in range(3)]
    items = await pages(SeenPage, urls, POOLPLUS_ROTATION="balanced")
    assert [(item["info"].id, item["info"].request_number, item["info"].protocol) for item in items] == [
        (1, 1, "h2"),
        (1, 2, "h2"),
        (1, 3, "h2"),
    ]
    assert {item["session"] for item in items} == {items[0]["info"].session}
    assert items[0]["session"] is not None


@ensureDeferred
async def test_an_annotated_input_is_given_too(pages: Crawl, nginx: StartNginx) -> None:
    (item,) = await pages(AnnotatedPage, [nginx().url(Door.TLS, "/100")])
    assert (item["info"].id, item["info"].session) == (1, None)


@ensureDeferred
async def test_a_cached_response_has_empty_fields(pages: Crawl, nginx: StartNginx, tmp_path: Path) -> None:
    url = nginx().url(Door.TLS, "/100")
    cache = {"HTTPCACHE_ENABLED": True, "HTTPCACHE_DIR": str(tmp_path)}
    await pages(SeenPage, [url], **cache)
    (item,) = await pages(SeenPage, [url], **cache)
    assert item == {"info": ConnectionInfo(), "session": None}


@ensureDeferred
async def test_another_handlers_response_has_empty_fields(pages: Crawl, nginx: StartNginx) -> None:
    stock = "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler"
    (item,) = await pages(SeenPage, [nginx().url(Door.TLS, "/100")], DOWNLOAD_HANDLERS={"https": stock})
    assert item == {"info": ConnectionInfo(), "session": None}


@ensureDeferred
async def test_a_dummy_response_has_empty_fields_and_its_page_can_still_ask(pages: Crawl, nginx: StartNginx) -> None:
    server = nginx()
    (item,) = await pages(UndownloadedPage, [server.url(Door.H2, "/100")], POOLPLUS_ROTATION="balanced")
    assert type(item["response"]) is DummyResponse
    assert (item["info"], item["extra"]) == (ConnectionInfo(), 200)
    assert list(log(server)) == ["/100"], "only the extra request went out"


def test_the_providers_give_empty_fields_for_a_request_that_was_not_downloaded() -> None:
    request = Request("https://shop.example/")
    dummy = DummyResponse(request.url, request=request)
    injector: Any = None
    (info,) = ConnectionInfoProvider(injector)({ConnectionInfo}, request, dummy)
    assert info == ConnectionInfo()
    crawler: Any = None
    (session,) = SessionProvider(injector)({Session}, request, dummy, crawler)
    session.retire()  # type: ignore[attr-defined]
    assert session.id is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("requests", [50, 1])
@ensureDeferred
async def test_extra_requests_go_out_in_the_session_of_their_page(
    pages: Crawl, nginx: StartNginx, requests: int
) -> None:
    server = nginx()
    (item,) = await pages(AskingPage, [server.url(Door.H2, "/visit")], POOLPLUS_ROTATION=requests)
    assert item["extra"] == 200
    seen = log(server)
    assert seen["/100?extra"].cookies == f"visit={seen['/visit'].request_id}", "its cookie jar"


@ensureDeferred
async def test_extra_requests_keep_cookie_jar_and_bind_address_without_rotation(
    pages: Crawl, nginx: StartNginx
) -> None:
    server = nginx()
    meta = {"cookiejar": "mine", "bindaddress": "127.0.0.1"}
    await pages(AskingPage, [server.url(Door.H2, "/visit")], meta)
    seen = log(server)
    assert seen["/100?extra"].cookies == f"visit={seen['/visit'].request_id}"
    assert seen["/100?extra"].connection == seen["/visit"].connection, "the bind address is a part of the route"


@pytest.mark.parametrize("rotation", ["off", "balanced"])
@pytest.mark.parametrize("door", [Door.TLS, Door.H2], ids=lambda door: door.value)
@ensureDeferred
async def test_extra_requests_keep_proxy_and_its_login(
    pages: Crawl, nginx: StartNginx, proxy: HttpProxy, door: Door, rotation: str
) -> None:
    server = nginx()
    meta = {"proxy": f"http://user:secret@127.0.0.1:{proxy.port}"}
    (item,) = await pages(AskingPage, [server.url(door, "/visit")], meta, POOLPLUS_ROTATION=rotation)
    assert item["extra"] == 200
    (head,) = proxy.heads
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in head
    seen = log(server)
    assert seen["/100?extra"].connection == seen["/visit"].connection, "through the page's own tunnel"
    assert seen["/100?extra"].cookies == f"visit={seen['/visit'].request_id}"


@ensureDeferred
async def test_extra_requests_of_a_page_that_was_not_downloaded_go_through_its_proxy(
    pages: Crawl, nginx: StartNginx, proxy: HttpProxy
) -> None:
    meta = {"proxy": f"http://user:secret@127.0.0.1:{proxy.port}"}
    (item,) = await pages(UndownloadedPage, [nginx().url(Door.H2, "/100")], meta)
    assert item["extra"] == 200
    (head,) = proxy.heads
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n" in head


@ensureDeferred
async def test_a_page_that_says_so_ends_its_session(pages: Crawl, nginx: StartNginx) -> None:
    server = nginx()
    items = await pages(BurntPage, [server.url(Door.H2, "/visit?0")], POOLPLUS_ROTATION="balanced")
    assert all(item["retired"] for item in items)
    assert len({item["session"] for item in items}) == 3
    server.stop()
    assert len({entry.connection for entry in server.log()}) == 3
    assert all(entry.cookies == "" for entry in server.log())


@ensureDeferred
async def test_a_page_that_ends_its_session_and_asks_for_a_retry_gets_another_one(
    pages: Crawl, nginx: StartNginx
) -> None:
    server = nginx()
    RetriedPage.seen.clear()
    (item,) = await pages(RetriedPage, [server.url(Door.H2, "/visit")], POOLPLUS_ROTATION="balanced")
    first, second = RetriedPage.seen
    assert None not in (first, second)
    assert item["session"] == second != first
    server.stop()
    assert len({entry.connection for entry in server.log()}) == 2
    assert [entry.cookies for entry in server.log()] == ["", ""]


def test_a_session_that_is_none_can_be_retired_without_effect() -> None:
    session = Session(None, lambda name: pytest.fail("there is nothing to retire"))
    session.retire()
    assert session.retired


def test_fixtures_hold_what_a_page_was_given() -> None:
    info = ConnectionInfo(id=7, protocol="h2", waited=0.25, session="s-1")
    written = serialize_leaf(info)
    assert json.loads(written["info.json"])["id"] == 7
    assert deserialize_leaf(ConnectionInfo, written) == info
    again = deserialize_leaf(Session, serialize_leaf(Session("s-1", lambda name: None)))
    again.retire()
    assert (again.id, again.retired) == ("s-1", True)


PAGES = """
import attrs
from scrapy_poolplus import ConnectionInfo
from scrapy_poolplus.poet import Session
from web_poet import HttpClient, WebPage


@attrs.define
class ShopPage(WebPage):
    connection: ConnectionInfo
    session: Session
    http: HttpClient

    async def to_item(self):
        extra = await self.http.get(self.response.urljoin("/100?extra"))
        self.session.retire()
        return {
            "protocol": self.connection.protocol,
            "waited": self.connection.waited,
            "session": self.session.id,
            "retired": self.session.retired,
            "extra": len(extra.body),
        }
"""


def test_a_saved_fixture_passes_without_the_server(nginx: StartNginx, tmp_path: Path) -> None:
    (tmp_path / "shop_pages.py").write_text(PAGES)
    (tmp_path / "shop_settings.py").write_text(
        'ADDONS = {"scrapy_poolplus.Addon": 500, "scrapy_poet.Addon": 300}\nPOOLPLUS_ROTATION = "balanced"\n'
    )
    (tmp_path / "scrapy.cfg").write_text("[settings]\ndefault = shop_settings\n")
    server = nginx()
    saved = scrapy_command(tmp_path, "savefixture", "shop_pages.ShopPage", server.url(Door.H2, "/visit"))
    assert saved.exit_code == 0, saved.log
    seen = log(server)
    assert seen["/100?extra"].cookies == f"visit={seen['/visit'].request_id}"
    (output,) = (tmp_path / "fixtures").rglob("output.json")
    item = json.loads(output.read_text())
    assert (item["protocol"], item["retired"], item["extra"]) == ("h2", True, 100)
    assert item["session"]
    assert item["waited"] is not None
    # In a process of its own: web-poet's plugin for pytest collects the fixture and gives the page what it holds.
    replayed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:pytest_twisted", "fixtures"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(tmp_path)))},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "passed" in replayed.stdout, replayed.stdout


@ensureDeferred
async def test_scrapy_poets_cache_gives_a_page_what_it_was_given(
    pages: Crawl, nginx: StartNginx, tmp_path: Path
) -> None:
    url = nginx().url(Door.H2, "/visit")
    cached = {"SCRAPY_POET_CACHE": str(tmp_path / "cache"), "POOLPLUS_ROTATION": "balanced"}
    (first,) = await pages(SeenPage, [url], **cached)
    (again,) = await pages(SeenPage, [url], **cached)
    assert first["info"].id == 1
    assert again == first, "with its times, which no second download would have"


def test_what_the_cache_keeps_has_names_of_its_own_and_a_client_is_not_kept() -> None:
    assert [provider.name for provider in PROVIDERS] == ["", "poolplus_connection", "poolplus_session"]
    assert HttpClientProvider.name == "", "scrapy-poet's own: when it can be cached, so must ours"
