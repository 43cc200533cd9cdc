"""The reference pages name everything there is, and the code in the pages can be read."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

import scrapy_poolplus
from scrapy_poolplus import ConnectionInfo, signals
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.policy_fields import FIELDS
from scrapy_poolplus.handler import EXCEPTIONS
from scrapy_poolplus.settings import KNOWN, parse

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(scrapy_poolplus.__file__).parent
PAGES = sorted(DOCS.rglob("*.rst"))


def named(page: str, names: list[str]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    missing = [name for name in names if f"``{name}``" not in text]
    assert not missing, f"docs/{page} does not name {', '.join(missing)}"


def test_every_setting_and_policy_key() -> None:
    named("settings.rst", [*KNOWN, *FIELDS])


def test_every_policy_key_is_described_once() -> None:
    rows = re.findall(r"^   \* - (``.*)$", (DOCS / "settings.rst").read_text(encoding="utf-8"), re.MULTILINE)
    keys = [key for row in rows for key in re.findall(r"``(\w+)``", row)]
    assert sorted(keys) == sorted(FIELDS)


def test_every_meta_key() -> None:
    written = {found for path in SOURCE.rglob("*.py") for found in re.findall(r'"(poolplus_\w+)"', path.read_text())}
    # Names of the reason for which a spider is closed, and of providers.
    named("reference.rst", sorted(written - {"poolplus_settings", "poolplus_connection"}))


def test_every_signal() -> None:
    named("reference.rst", [name for name, value in vars(signals).items() if type(value) is object])


def test_every_reason_of_closing() -> None:
    named("reference.rst", [reason.value for reason in CloseReason])


def test_every_exception() -> None:
    named("reference.rst", sorted({error.__name__ for error in EXCEPTIONS.values()} | {"DownloadFailedError"}))


def test_every_stat() -> None:
    used = {
        re.sub(r"\{[^}]*[._](\w+)\.value\}|\{[^}]*\}", "{}", stat)
        for path in SOURCE.rglob("*.py")
        for stat in re.findall(r'f?"(poolplus/[^"]+)"', path.read_text())
    }
    page = (DOCS / "stats.rst").read_text(encoding="utf-8")
    documented = {re.sub(r"\{[^}]*\}", "{}", stat) for stat in re.findall(r"``(poolplus/[^`]+)``", page)}
    assert used - documented == set()
    assert documented - used == set(), "there is no such stat any more"


def test_every_field_of_connection_info() -> None:
    named("seeing.rst", [field.name for field in fields(ConnectionInfo)])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_in_the_pages_is_python_and_its_settings_are_right(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)+)", text):
        tree = ast.parse(textwrap.dedent(block))
        values = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id.startswith("POOLPLUS_")
        }
        if "POOLPLUS_ROTATION" not in values:
            problems = parse(json.loads(json.dumps(values)))[1]
            assert not problems, f"{page.name}: {problems}"
