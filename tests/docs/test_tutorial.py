"""docs/tutorial and docs/start.rst, as a newcomer would type them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.crawling import REPOSITORY, scrapy_command
from tests.rotation.flows import site

START = (REPOSITORY / "docs/start.rst").read_text(encoding="utf-8")
BLOCK = re.compile(r"\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)")


def test_the_tutorial_ends_with_a_report_of_a_rotating_h2_crawl(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["bash", str(REPOSITORY / "docs/tutorial/run"), str(tmp_path / "new"), sys.executable],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "sessions, at most" in ended.stdout
    typed = [line for line in ended.stdout.splitlines() if line.startswith("$ ")]
    assert len(typed) + 2 <= 6, "the commands, settings.py and the spider"


def test_the_tutorial_says_what_it_needs_and_begins_nothing_without(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    ended = subprocess.run(
        ["bash", str(REPOSITORY / "docs/tutorial/run"), str(tmp_path / "new"), str(python)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "[example]'" in ended.stderr
    assert not (tmp_path / "new").exists()


def test_the_first_page_of_the_docs_works_as_it_stands(tmp_path: Path) -> None:
    blocks = [(language, textwrap.dedent(code)) for language, code in BLOCK.findall(START)]
    (_, begin), (_, settings), (_, spider), (_, commands), *_ = blocks
    assert "scrapy startproject shop ../shop && cd ../shop" in begin
    assert scrapy_command(tmp_path, "startproject", "shop", ".").exit_code == 0
    with (tmp_path / "shop/settings.py").open("a") as file:
        # Without the second between two requests that a new project waits.
        file.write(f"{settings}\nDOWNLOAD_DELAY = 0\n")
    with site("tests.docs.recipe_site", folder=REPOSITORY) as port:
        spider = spider.replace("https://books.toscrape.com/", f"http://127.0.0.1:{port}/shelf")
        (tmp_path / "shop/spiders/books.py").write_text(spider.replace("books.toscrape.com", "127.0.0.1"))
        crawl, report = (shlex.split(line)[1:] for line in commands.split("\n") if line)
        crawled = scrapy_command(tmp_path, *crawl, "-O", "items.json")
    assert crawled.exit_code == 0, crawled.log
    assert len(json.loads((tmp_path / "items.json").read_text())) == 3
    assert scrapy_command(tmp_path, *report).exit_code == 0
    assert (tmp_path / "books.html").exists()
