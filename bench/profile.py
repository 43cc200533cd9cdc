"""Where a crawl's processor time goes: ``python -m bench.profile CASE`` samples one crawl with py-spy.

Printed are the shares of what the innermost frame belongs to (our rooms, h2 and its parts, Twisted, Scrapy, ...), which
of it happens below our handler, and the functions that take most. Calls into C (OpenSSL, the socket) count for the
Python function that made them. Without py-spy (the extra ``bench``) it is cProfile, which overstates small functions.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from pstats import Stats

from bench.cases import CASES, Case
from bench.handlers import CONTENDERS, OURS, Contender
from bench.runner import environment, job
from bench.servers import Servers, servers

RATE = 400
"""Samples a second."""
SHOWN = 25


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("case", choices=[case.name for case in CASES])
    parser.add_argument("--handler", default=OURS.name, choices=[contender.name for contender in CONTENDERS])
    parser.add_argument("--pages", type=int, help="instead of the case's own number; more of them, a clearer picture")
    parser.add_argument("--cprofile", action="store_true", help="with cProfile")
    given = parser.parse_args()
    case = next(case for case in CASES if case.name == given.case)
    if given.pages:
        case = case.scaled(given.pages / case.pages)
    contender = next(contender for contender in CONTENDERS if contender.name == given.handler)
    sampler = None if given.cprofile else shutil.which("py-spy", path=str(Path(sys.executable).parent))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with servers(folder, round_trip=case.round_trip) as running:
            if sampler is None:
                _traced(running, case, contender, folder / "profile")
            else:
                _sampled(sampler, running, case, contender, folder / "profile")


def _sampled(sampler: str, running: Servers, case: Case, contender: Contender, path: Path) -> None:
    command = [sampler, "record", "--format", "raw", "--rate", str(RATE), "--output", str(path), "--"]
    _crawl([*command, sys.executable, "-m", "bench.crawl"], running, case, contender)
    stacks = [
        (line.rpartition(" ")[0].split(";"), int(line.rpartition(" ")[2])) for line in path.read_text().splitlines()
    ]
    # What the crawl itself took: no imports, no start.
    crawl = [(stack, count) for stack, count in stacks if "run_forever" in str(stack) and "importlib" not in str(stack)]
    total = sum(count for _, count in crawl)
    rooms, functions, ours = Counter[str](), Counter[str](), Counter[str]()
    for stack, count in crawl:
        rooms[_room(stack[-1])] += count
        functions[stack[-1].rpartition(":")[0].replace(" (", "  ").rstrip(")")] += count
        if any("scrapy_poolplus/" in frame for frame in stack):
            ours[_room(stack[-1])] += count
    print(f"{case.name} with {contender.name}: {total} samples at {RATE} a second")
    print(f"{sum(ours.values()) / total:.1%} of them at or below a function of scrapy_poolplus")
    for title, counts in (("belongs to", rooms), ("of what is at or below ours", ours), ("function", functions)):
        print(f"\n{title:60}share")
        for name, count in counts.most_common(SHOWN):
            print(f"{name:60}{count / total:6.1%}")


def _traced(running: Servers, case: Case, contender: Contender, path: Path) -> None:
    _crawl([sys.executable, "-m", "cProfile", "-o", str(path), "-m", "bench.crawl"], running, case, contender)
    Stats(str(path)).sort_stats("tottime").print_stats(SHOWN)


def _crawl(command: Iterable[str], running: Servers, case: Case, contender: Contender) -> None:
    subprocess.run(
        [*command],
        input=job(running, case, contender, {}),
        env=environment(running),
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
    )


def _room(frame: str) -> str:
    """``name (path/of/module.py:line)`` -> whose it is."""
    place = frame.rpartition("(")[2]
    parts = place.partition(":")[0].removesuffix(".py").split("/")
    if "scrapy_poolplus" in parts:
        return "poolplus: " + "/".join(parts[parts.index("scrapy_poolplus") + 1 :])
    for package in ("h2", "hpack", "hyperframe", "OpenSSL", "twisted", "scrapy", "asyncio", "bench"):
        if package in parts:
            inner = parts[parts.index(package) + 1 :][:2] if package in ("twisted", "scrapy") else []
            return ": ".join([package, *(["/".join(inner)] if inner else [])])
    return parts[0]


if __name__ == "__main__":
    main()
