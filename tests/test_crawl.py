"""The `scrapy` command and whole crawls, as users run them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy.exceptions import CannotResolveHostError

from tests.conftest import RunCrawl, StartNginx
from tests.crawling import HANDLER, Finished, scrapy_command
from tests.servers.nginx import Door, Nginx

BY_HAND = f"DOWNLOAD_HANDLERS = {{'http': '{HANDLER}', 'https': '{HANDLER}'}}"
BY_EXTENSION = f"{BY_HAND}\nEXTENSIONS = {{'scrapy_poolplus.PoolPlusExtension': 0}}"
BY_ADDON = "ADDONS = {'scrapy_poolplus.Addon': 500}"

SPIDER = """
import scrapy


class UrlsSpider(scrapy.Spider):
    name = "urls"

    def __init__(self, urls, **kwargs):
        super().__init__(**kwargs)
        self.start_urls = urls.split()

    def parse(self, response):
        yield {"url": response.url, "status": response.status, "length": len(response.body)}
"""


class Project:
    """A Scrapy project with one spider, which crawls the URLs it is given."""

    def __init__(self, folder: Path, always: Mapping[str, Any]) -> None:
        self.folder = folder
        self._always = {"BOT_NAME": "shop", "SPIDER_MODULES": ["shop.spiders"], **always}
        spiders = folder / "shop" / "spiders"
        spiders.mkdir(parents=True)
        (folder / "scrapy.cfg").write_text("[settings]\ndefault = shop.settings\n")
        (folder / "shop" / "__init__.py").touch()
        (spiders / "__init__.py").touch()
        (spiders / "urls.py").write_text(SPIDER)
        self.settings("")

    def settings(self, text: str) -> None:
        """Put `text` into settings.py."""
        lines = [f"{name} = {value!r}" for name, value in self._always.items()]
        (self.folder / "shop" / "settings.py").write_text("\n".join([*lines, text, ""]))

    def crawl(self, *urls: str, options: tuple[str, ...] = ()) -> Finished:
        """`scrapy crawl urls`; its items are in `items` then."""
        return scrapy_command(
            self.folder, "crawl", "urls", "-a", f"urls={' '.join(urls)}", "-O", "items.jsonl", *options
        )

    def items(self) -> list[dict[str, object]]:
        """Of the last crawl."""
        return [json.loads(line) for line in (self.folder / "items.jsonl").read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path, reactor_settings: Mapping[str, Any]) -> Project:
    # Where a test fails because no answer comes, it should not take Scrapy's three minutes, three times.
    return Project(tmp_path / "project", {**reactor_settings, "RETRY_ENABLED": False, "DOWNLOAD_TIMEOUT": 20})


class SilentServer:
    """Accepts connections and says nothing."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

    def was_connected_to(self) -> bool:
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield SilentServer(listening)


def protocols(server: Nginx) -> set[str]:
    server.stop()
    return {entry.protocol for entry in server.log()}


@pytest.mark.parametrize("enabled", [BY_HAND, BY_EXTENSION, BY_ADDON], ids=["handler", "extension", "addon"])
def test_each_way_of_enabling_it_crawls_over_h2(project: Project, nginx: StartNginx, enabled: str) -> None:
    server = nginx()
    project.settings(enabled)
    finished = project.crawl(*(server.url(Door.H2, f"/100?{n}") for n in range(20)))
    assert finished.exit_code == 0, finished.log
    assert [(item["status"], item["length"]) for item in project.items()] == [(200, 100)] * 20
    assert protocols(server) == {"HTTP/2.0"}
    # The pool was closed and its figures were in before Scrapy printed its statistics.
    assert "'poolplus/connections/opened': 1" in finished.log
    assert "'poolplus/connections/closed/pool_closed': 1" in finished.log
    assert "'poolplus/requests/h2': 20" in finished.log
    assert "Traceback" not in finished.log


def test_settings_on_the_command_line_are_json(project: Project, nginx: StartNginx) -> None:
    server = nginx()
    finished = project.crawl(
        server.url(Door.H2, "/100"),
        options=(
            *("-s", f'DOWNLOAD_HANDLERS={{"https": "{HANDLER}"}}'),
            *("-s", 'POOLPLUS_POLICY={"max_connections": 1}'),
            *("-s", 'POOLPLUS_DOMAINS={"127.0.0.1": {"protocols": ["http/1.1"]}}'),
        ),
    )
    assert finished.exit_code == 0, finished.log
    assert len(project.items()) == 1
    assert protocols(server) == {"HTTP/1.1"}


WRONG = """
POOLPLUS_POLICY = {"max_conections": 4, "jitter": 2}
POOLPLUS_MAX_CONNECTIONS = "many"
"""


@pytest.mark.parametrize("enabled", [BY_EXTENSION, BY_ADDON], ids=["extension", "addon"])
def test_wrong_settings_end_the_command_at_its_start(project: Project, silent: SilentServer, enabled: str) -> None:
    project.settings(enabled + WRONG)
    finished = project.crawl(silent.url)
    assert finished.exit_code != 0
    # Every problem is told, with the nearest key that there is.
    for part in ("max_conections", "max_connections", "jitter", "POOLPLUS_MAX_CONNECTIONS", "many"):
        assert part in finished.log
    assert not silent.was_connected_to()
    assert "Spider opened" not in finished.log


def test_wrong_settings_of_a_handler_alone_close_the_spider_before_its_first_request(
    project: Project, silent: SilentServer
) -> None:
    project.settings(BY_HAND + WRONG)
    finished = project.crawl(silent.url)
    assert "'finish_reason': 'poolplus_settings'" in finished.log
    (line,) = (line for line in finished.log.splitlines() if "CRITICAL" in line)
    assert "poolplus" in line.lower()
    # All of them in one message, and the way to have the command fail.
    for part in ("max_conections", "jitter", "POOLPLUS_MAX_CONNECTIONS", "PoolPlusExtension"):
        assert part in finished.log
    assert not silent.was_connected_to()


def test_switched_off_the_addon_changes_nothing(project: Project, nginx: StartNginx) -> None:
    server = nginx()
    project.settings(f"{BY_ADDON}\nPOOLPLUS_ENABLED = False\n{WRONG}")
    finished = project.crawl(server.url(Door.H2, "/100"))
    assert finished.exit_code == 0, finished.log
    assert len(project.items()) == 1
    # Scrapy's own handler, which speaks no HTTP/2.
    assert protocols(server) == {"HTTP/1.1"}
    assert "'poolplus/" not in finished.log


def test_switched_off_a_handler_named_by_hand_downloads_with_the_default_policy(
    project: Project, nginx: StartNginx
) -> None:
    server = nginx()
    project.settings(f"{BY_HAND}\nPOOLPLUS_ENABLED = False\nPOOLPLUS_POLICY = {{'protocols': ['http/1.1']}}")
    finished = project.crawl(server.url(Door.H2, "/100"))
    assert finished.exit_code == 0, finished.log
    assert len(project.items()) == 1
    assert protocols(server) == {"HTTP/2.0"}


def test_the_addon_leaves_a_handler_that_the_project_named(project: Project, nginx: StartNginx) -> None:
    server = nginx()
    stock = "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler"
    project.settings(f"{BY_ADDON}\nDOWNLOAD_HANDLERS = {{'https': '{stock}', 'ftp': None}}")
    finished = project.crawl(server.url(Door.H2, "/1"), server.url(Door.CLEARTEXT, "/100"))
    assert finished.exit_code == 0, finished.log
    assert len(project.items()) == 2
    assert protocols(server) == {"HTTP/1.1"}
    (warning,) = (line for line in finished.log.splitlines() if "[scrapy_poolplus.addon] WARNING" in line)
    assert stock in warning
    # http is ours.
    assert "'poolplus/requests/http/1.1': 1" in finished.log


@pytest.mark.parametrize("scheme", ["http", "https"])
@ensureDeferred
async def test_a_host_that_does_not_exist_is_an_error_of_its_own(run_crawl: RunCrawl, scheme: str) -> None:
    # RFC 2606: .invalid never resolves.
    crawled = await run_crawl([f"{scheme}://dns.resolution.invalid/{n}" for n in range(3)])
    assert [type(failure) for failure in crawled.failures] == [CannotResolveHostError] * 3
    assert "dns.resolution.invalid" in str(crawled.failures[0])


def test_scrapy_fetch_prints_the_body(project: Project, nginx: StartNginx, site: Path) -> None:
    server = nginx()
    project.settings(BY_ADDON)
    (site / "page.txt").write_text("a page")
    finished = scrapy_command(project.folder, "fetch", "--nolog", server.url(Door.H2, "/page.txt"))
    assert (finished.exit_code, finished.log) == (0, "a page\n")
    assert protocols(server) == {"HTTP/2.0"}
