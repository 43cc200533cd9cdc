"""The drawings can be read: as text, by those who do not see them, and they name what the code has."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scrapy_poolplus.core.records import ConnectionState

DOCS = Path(__file__).parents[2] / "docs"
DRAWINGS = sorted(path for path in DOCS.rglob("*.svg") if "_build" not in path.parts)
"""What is drawn, without the copies in the pages that were built of it."""
SVG = "{http://www.w3.org/2000/svg}"
WIDTH = 7.5
"""Pixels that a letter may take."""


def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    shown = 0
    for page in DOCS.rglob("*.rst"):
        text = page.read_text(encoding="utf-8")
        for name, options in re.findall(r"^\.\. (?:image|figure):: (\S+)\n((?:   .*\n)*)", text, re.MULTILINE):
            assert (page.parent / name).is_file(), f"{page.name}: there is no {name}"
            assert re.search(r":alt: \S", options), f"{page.name}: {name} has no :alt:"
            shown += name.endswith(".svg")
    assert shown == len(DRAWINGS) == 3


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_is_small_and_its_words_are_text_within_its_own_ground(path: Path) -> None:
    assert path.stat().st_size < 10_000
    root = ElementTree.parse(path).getroot()
    width, height = (int(root.attrib[side]) for side in ("width", "height"))
    # The first shape is the ground, which makes it readable on light and on dark pages.
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert (ground.attrib["width"], ground.attrib["height"]) == (str(width), str(height))
    for name in ("title", "desc"):
        assert root.findtext(f"{SVG}{name}")
    texts = root.findall(f"{SVG}text")
    assert len(texts) > 5
    for element in texts:
        words = element.text or ""
        assert words
        x, y, space = float(element.attrib["x"]), float(element.attrib["y"]), WIDTH * len(words)
        middle = "middle" in element.attrib.get("class", "").split()
        left = x - space / 2 if middle else x - space if element.attrib.get("text-anchor") == "end" else x
        assert left >= 0, words
        assert left + space <= width, words
        assert 0 < y < height, words


def test_the_states_of_a_connection_are_all_drawn() -> None:
    root = ElementTree.parse(DOCS / "design/connection.svg").getroot()
    words = {element.text for element in root.iter(f"{SVG}text")}
    assert {state.value for state in ConnectionState} <= words
