"""Links: those within the documentation lead somewhere, those to elsewhere are well formed. Whether somebody is at home there,
`tox -e links` asks, which needs the network."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.crawling import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.rst"), *DOCS.rglob("*.md"), *REPOSITORY.glob("*.md")])
SHOWN = (
    re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL),
    re.compile(r"::[^\n]*\n\n(?:(?: +[^\n]*)?\n)+"),
    re.compile(r"``[^`]+``|`[^`<\n]+`(?!_)"),
    re.compile(r"^    .*$", re.MULTILINE),
)
"""Code and commands: blocks, then what is within a line, then indented lines."""


def prose(page: Path) -> str:
    """Without what is only shown."""
    text = page.read_text(encoding="utf-8")
    for pattern in SHOWN:
        text = pattern.sub("\n", text)
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_to_elsewhere_are_https_and_well_formed(page: Path) -> None:
    for link in re.findall(r"\w+://[^\s>)\]\"'`]+", prose(page)):
        parts = urlsplit(link.rstrip(".,;:"))
        assert parts.scheme == "https", link
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link
        assert re.fullmatch(r"[\w./~%+-]*", parts.path), link


@pytest.mark.parametrize("page", sorted(REPOSITORY.glob("*.md")), ids=lambda path: path.name)
def test_links_between_files_lead_to_one(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", prose(page)):
        assert "://" in target or (page.parent / target).exists(), target


def test_references_within_the_documentation_resolve(tmp_path: Path) -> None:
    if missing := [name for name in ("sphinx", "furo", "myst_parser") if find_spec(name) is None]:
        pytest.skip(f"the extra docs is not installed: no {missing[0]}")
    built = subprocess.run(
        # The builder that writes nothing, nitpicky: each reference that cannot be resolved is an error.
        [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "dummy", str(DOCS), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=110,
        check=False,
    )
    assert built.returncode == 0, built.stderr
