"""What the crawls of other tests would not let pass."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from scrapy import Request
from scrapy.http import Response

from tests.conftest import RunCrawl
from tests.crawling import scrapy_command

PROBE = """
import warnings
import scrapy
from scrapy_poolplus import pool

class Probe(scrapy.Spider):
    name = "probe"

    async def start(self):
        module = pool.__name__ if self.of == "ours" else "somebody.else"
        warnings.warn_explicit("old", UserWarning, "file", 1, module=module)
        self.logger.info("went on")
        return
        yield
"""


async def test_an_exception_that_scrapy_only_logs_fails_a_crawl(run_crawl: RunCrawl) -> None:
    def parse(response: Response) -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    with pytest.raises(AssertionError, match="DeprecationWarning: old"):
        await run_crawl([Request("data:,x", callback=parse)])


def test_a_warning_in_any_of_our_modules_is_an_error_of_the_command_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    assert "went on" in scrapy_command(tmp_path, "runspider", "probe.py", "-a", "of=other").log
    ours = scrapy_command(tmp_path, "runspider", "probe.py", "-a", "of=ours").log
    assert "UserWarning: old" in ours
    assert "went on" not in ours
