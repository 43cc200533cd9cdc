from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.crawling import REPOSITORY, scrapy_command


def test_the_page_objects_of_the_example_see_their_connection_and_fetch_covers_in_its_session(tmp_path: Path) -> None:
    project = tmp_path / "example"
    shutil.copytree(REPOSITORY / "example_project", project, ignore=shutil.ignore_patterns("out", "__pycache__"))
    ended = scrapy_command(project, "crawl", "pages", "-a", "books=60")
    assert ended.exit_code == 0, ended.log
    items = [json.loads(line) for line in (project / "out" / "pages.jsonl").read_text().splitlines()]
    assert len(items) >= 5, ended.log
    assert all(item["title"] and item["connection"] and item["session"] for item in items), items
    assert any(item["cover_bytes"] for item in items)
