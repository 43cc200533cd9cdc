"""What the benchmark says beside its figures, and that its smaller programs work; timings are not judged."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bench.cases import CASES
from bench.report import Figures, table
from bench.round_trip import count
from bench.servers import PROGRAM

BY_NAME = {case.name: case for case in CASES}


def null(case: str, wall: float) -> Figures:
    return Figures(case, "null", 1, 500.0, None, wall, None, None, None, None, None)


def test_a_slow_crawl_needs_the_round_trips_of_its_connection_and_of_its_requests() -> None:
    assert count(BY_NAME["rtt-c8-h2"]) == 2 + 50
    assert count(BY_NAME["rtt-c64-tls"]) == 2 + 7


def test_the_floor_is_said_where_round_trips_make_it_and_nowhere_else() -> None:
    cases = [BY_NAME[name] for name in ("1k-h2", "rtt-c8-h2", "rtt-20m-h2")]
    rows = [null(case.name, 0.25) for case in cases]
    floors = [line.strip() for line in table(rows, cases, 0.0515).splitlines() if "floor" in line]
    assert floors == ["floor: 52 round trips, measured at 51.5 ms each: 2.68 s; with the null handler's 0.25 s: 2.93 s"]
    assert "floor" not in table(rows, cases)


@pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (Debian: apt-get install nginx-light)")
def test_each_way_to_a_new_connection_is_timed() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.handshakes", "--rounds", "1", "--connections", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    costs = re.findall(r"^(\S.*?)  +(\d+)$", ended.stdout, re.MULTILINE)
    assert [name for name, _ in costs] == [
        "ssl, blocking socket",
        "asyncio and ssl",
        "pyOpenSSL, blocking socket",
        "Twisted and pyOpenSSL",
        "poolplus, a dial",
    ]
    assert all(int(cost) > 0 for _, cost in costs)
