from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Spider
from scrapy.crawler import Crawler, CrawlerRunner
from scrapy.exceptions import NotConfigured
from scrapy.http import Response
from scrapy.settings import Settings

from scrapy_poolplus.core.errors import ConfigError
from scrapy_poolplus.extension import PoolPlusExtension
from scrapy_poolplus.pool import ConnectionPool
from scrapy_poolplus.shared import shared_pool
from tests.crawling import Finished, scrapy_command

OURS = "{'http': 'scrapy_poolplus.PoolPlusDownloadHandler', 'https': 'scrapy_poolplus.PoolPlusDownloadHandler'}"
BY_ADDON = "ADDONS = {'scrapy_poolplus.Addon': 500}"
BY_EXTENSION = f"DOWNLOAD_HANDLERS = {OURS}\nEXTENSIONS = {{'scrapy_poolplus.PoolPlusExtension': 0}}"
WRONG = """
POOLPLUS_POLICY = {"idle_timout": 30, "jitter": 1}
POOLPLUS_DOMAINS = {"https://shop.example": {}}
POOLPLUS_MAX_CONECTIONS = 8
"""
PROBLEMS = [
    "found 4 problems in the settings",
    'POOLPLUS_POLICY has no key "idle_timout" (set to 30); the nearest is "idle_timeout"',
    'POOLPLUS_POLICY["jitter"] is 1; allowed: a number from 0 up to, but not, 1',
    'POOLPLUS_DOMAINS["https://shop.example"] is no pattern of hosts',
    "POOLPLUS_MAX_CONECTIONS (set to 8) is no setting; the nearest is POOLPLUS_MAX_CONNECTIONS",
]


def run(folder: Path, settings: str, *options: str) -> Finished:
    """`scrapy crawl shop` in a project with these settings; the spider needs no network."""
    package = folder / "shop"
    package.mkdir()
    (folder / "scrapy.cfg").write_text("[settings]\ndefault = shop.settings\n")
    (package / "__init__.py").touch()
    (package / "settings.py").write_text(f"SPIDER_MODULES = ['shop.spiders']\n{settings}\n")
    (package / "spiders.py").write_text(
        "import scrapy\n"
        "class ShopSpider(scrapy.Spider):\n"
        "    name = 'shop'\n"
        "    start_urls = ['data:,x']\n"
        "    def parse(self, response):\n"
        "        self.logger.info('the spider ran')\n"
    )
    return scrapy_command(folder, "crawl", "shop", *options)


@pytest.mark.parametrize("way", [BY_ADDON, BY_EXTENSION], ids=["add-on", "extension"])
def test_wrong_settings_end_the_crawl_at_start_with_every_problem_listed_once(tmp_path: Path, way: str) -> None:
    ended = run(tmp_path, f"{way}\n{WRONG}")
    assert ended.exit_code == 1, ended.log
    assert [ended.log.count(problem) for problem in PROBLEMS] == [1] * len(PROBLEMS), ended.log
    assert "CRITICAL: scrapy-poolplus found 4 problems" in ended.log
    assert "Spider opened" not in ended.log
    assert "the spider ran" not in ended.log


def test_the_same_with_the_reactor_that_is_not_asyncios(tmp_path: Path) -> None:
    ended = run(tmp_path, f"{BY_ADDON}\n{WRONG}", "-s", "TWISTED_REACTOR=")
    assert ended.exit_code == 1, ended.log
    assert [ended.log.count(problem) for problem in PROBLEMS] == [1] * len(PROBLEMS), ended.log
    assert "Spider opened" not in ended.log


def test_wrong_settings_on_the_command_line_end_the_crawl_too(tmp_path: Path) -> None:
    ended = run(tmp_path, BY_ADDON, "-s", 'POOLPLUS_POLICY={"idle_timeout": -1}', "-s", "POOLPLUS_SEED=x")
    assert ended.exit_code == 1, ended.log
    assert 'POOLPLUS_POLICY["idle_timeout"] is -1; allowed: a number of seconds over 0' in ended.log
    assert "POOLPLUS_SEED is 'x'; allowed: an integer, or None" in ended.log


@pytest.mark.parametrize("way", [BY_ADDON, BY_EXTENSION], ids=["add-on", "extension"])
def test_right_settings_let_it_run(tmp_path: Path, way: str) -> None:
    ended = run(tmp_path, way, "-s", 'POOLPLUS_POLICY={"idle_timeout": 5}', "-s", "POOLPLUS_MAX_CONNECTIONS=7")
    assert ended.exit_code == 0, ended.log
    assert "the spider ran" in ended.log
    assert ended.log.count("POOLPLUS_MAX_CONNECTIONS is 7, under CONCURRENT_REQUESTS, which is 16") == 1
    assert "'log_count/ERROR'" not in ended.log


def test_switched_off_wrong_settings_do_not_matter(tmp_path: Path) -> None:
    ended = run(tmp_path, f"{BY_EXTENSION}\n{WRONG}\nPOOLPLUS_ENABLED = False")
    assert ended.exit_code == 0, ended.log
    assert "the spider ran" in ended.log
    assert "PoolPlusExtension'" not in ended.log.partition("Enabled extensions:")[2].partition("]")[0]


# ---- in this process


class LookSpider(Spider):
    name = "look"
    start_urls = ("data:,x",)

    def parse(self, response: Response, **kwargs: Any) -> None:
        extension = self.crawler.get_extension(PoolPlusExtension)
        assert extension is not None
        self.crawler.seen = extension.pool, shared_pool(self.crawler), extension.pool.closed  # type: ignore[attr-defined]


@ensureDeferred
async def test_the_extension_has_the_pool_of_the_handlers_which_ends_with_the_crawl(
    reactor_settings: Mapping[str, Any],
) -> None:
    runner = CrawlerRunner(
        {
            **reactor_settings,
            "EXTENSIONS": {PoolPlusExtension: 0},
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
        }
    )
    crawler = runner.create_crawler(LookSpider)
    await runner.crawl(crawler)
    mine, theirs, closed = crawler.seen  # type: ignore[attr-defined]
    assert isinstance(mine, ConnectionPool)
    assert mine is theirs
    assert not closed
    assert mine.closed


def made_from(values: dict[str, Any]) -> PoolPlusExtension:
    return PoolPlusExtension.from_crawler(Crawler(LookSpider, Settings(values)))


def test_switched_off_it_steps_aside_without_a_word() -> None:
    with pytest.raises(NotConfigured) as raised:
        made_from({"POOLPLUS_ENABLED": False})
    assert raised.value.args == ()


def test_without_a_reactor_it_says_what_it_needs() -> None:
    with pytest.raises(NotConfigured, match="needs a Twisted reactor: set TWISTED_REACTOR_ENABLED to True"):
        made_from({"TWISTED_REACTOR_ENABLED": False})


def test_the_error_that_stops_the_crawl_holds_the_problems_that_were_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="see above") as raised:
        made_from({"POOLPLUS_SEED": "x", "POOLPLUS_HAR": 3})
    assert len(raised.value.problems) == 2
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert all(problem in record.getMessage() for problem in raised.value.problems)
