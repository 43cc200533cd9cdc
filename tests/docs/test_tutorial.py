"""docs/tutorial, as a newcomer would type it; the script checks what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


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
