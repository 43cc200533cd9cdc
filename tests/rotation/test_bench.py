"""``python -m bench.rotation`` crawls, and says of its figures what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import rotation, servers
from bench.cases import Door
from bench.rotation import Crawl, fault, figures, verdict

OFF = Crawl(Door.H2.value, 0.1, None, 0, 400, seconds=10.0, longest=400, profiles=1, connections=1)
ON = replace(OFF, length=50, seconds=10.4, longest=49, profiles=11, connections=11)


def test_a_crawl_is_compared_with_the_one_without_rotation_of_its_own_round() -> None:
    busy = [replace(crawl, round=1, seconds=crawl.seconds * 3) for crawl in (OFF, ON)]
    (row,) = (row for row in figures([OFF, ON, *busy]) if row.length == 50)
    assert row.ratio == row.least == row.most == pytest.approx(10.0 / 10.4)
    assert row.handshakes == pytest.approx(27.5)


def test_a_crawl_without_one_to_compare_it_with_has_no_row() -> None:
    assert [row.length for row in figures([OFF, replace(ON, round=1)])] == [None]
    assert figures([replace(OFF, problem="399 of 400 pages"), ON]) == []


@pytest.mark.parametrize(
    ("door", "seconds", "said"),
    [("H2", 10.4, "met"), ("H2", 10.6, "missed"), ("TLS", 10.6, "met"), ("TLS", 11, "missed")],
)
def test_each_protocol_has_its_own_target(door: str, seconds: float, said: str) -> None:
    name = Door[door].value
    crawls = [replace(OFF, door=name), replace(ON, door=name, seconds=seconds)]
    (row,) = (row for row in figures(crawls) if row.length == 50)
    assert verdict(row).endswith(said)


def test_a_profile_that_is_longer_than_promised_is_a_fault() -> None:
    assert fault(OFF) is None
    assert fault(ON) is None
    assert fault(replace(ON, longest=51)) == "a profile of 51 requests, 50 were promised"


@pytest.mark.skipif(servers.PROGRAM is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")
def test_the_servers_log_shows_one_profile_without_rotation_and_short_ones_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "DOORS", (Door.H2,))
    written = tmp_path / "figures.json"
    arguments = ["--rounds", "1", "--pages", "30", "--lengths", "10", "--round-trips", "0.001", "--json", str(written)]
    assert rotation.main(arguments) == 0
    off, on = json.loads(written.read_text())["runs"]
    # The warm-up of twice the concurrency is in the log as well.
    assert (off["longest"], off["profiles"]) == (46, 1)
    assert on["longest"] <= 10
    assert on["profiles"] >= 5
