"""The soak's machinery works; the long runs are `tox -e soak` and, for two minutes, the CI's."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.crawling import REPOSITORY


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.0/8 and /proc")
def test_a_soak_of_some_seconds_finds_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.reliability.soak", "--duration", "5"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "lost                 0" in ended.stdout
