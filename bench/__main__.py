"""``python -m bench``: what each download handler costs, side by side. See docs/performance.md for what the figures mean."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bench.cases import CASES, Case, Door
from bench.handlers import CONTENDERS, NULL, Contender
from bench.plot import plot
from bench.report import as_json, figures, machine, table
from bench.round_trip import measured
from bench.runner import Run, runs
from bench.servers import servers

SMOKE_CASES = ("1k-*", "20m-h2", "post-h2", "hosts-h2", "connect-verify", "rtt-c64-h2")
SMOKE_HANDLERS = ("null", "bare", "poolplus", "HTTP11", "H2")
SMOKE_SCALE = 0.02


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a body was wrong or a page is missing with our handler or the null handler; peers may
    fail, that is a finding."""
    given = _parser().parse_args(arguments)
    cases, contenders = _chosen(given)
    slow = {case.round_trip for case in cases} - {0.0}
    done: list[Run] = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        servers(Path(folder), round_trip=max(slow, default=0.0)) as running,
    ):
        round_trip = measured(running.port(Door.TLS, slow=True)) if slow else None
        for run in runs(
            running, cases, contenders, rounds=given.rounds, settings=dict(map(_setting, given.set)), told=_tell
        ):
            done.append(run)
            if given.json and not given.smoke:
                _write(given.json, done, cases, contenders)
    rows = figures(done, cases, contenders)
    print(table(rows, cases, round_trip))
    if given.json:
        _write(given.json, done, cases, contenders)
    if given.plot:
        plot(rows, cases, given.plot)
    wrong = [run for run in done if run.problem and run.handler in (NULL.name, "poolplus")]
    for run in wrong:
        print(f"{run.case} with {run.handler}, round {run.round}: {run.problem}", file=sys.stderr)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only whether all works: a minute, figures mean nothing")
    parser.add_argument("--rounds", type=int, default=3, help="how often each crawl is run (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", metavar="PATTERN", help=f"of: {' '.join(case.name for case in CASES)}")
    parser.add_argument(
        "--handlers", nargs="+", metavar="NAME", help=f"of: {' '.join(contender.name for contender in CONTENDERS)}"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of pages")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a Scrapy setting, for all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and all runs")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a plot (needs the extra 'bench')")
    return parser


def _chosen(given: argparse.Namespace) -> tuple[list[Case], list[Contender]]:
    """Cases and handlers; what a case is compared with comes along. Handlers that are not installed are named."""
    if given.smoke:
        given.rounds, given.scale = 1, SMOKE_SCALE
        given.cases, given.handlers = given.cases or SMOKE_CASES, given.handlers or SMOKE_HANDLERS
    names = {case.name for case in CASES if any(fnmatch(case.name, pattern) for pattern in given.cases or ("*",))}
    names |= {case.beyond for case in CASES if case.name in names and case.beyond is not None}
    if not names:
        raise SystemExit(f"no case matches {' '.join(given.cases)}")
    cases = [case.scaled(given.scale) for case in CASES if case.name in names]
    wanted = {NULL.name, *(given.handlers or (contender.name for contender in CONTENDERS))}
    unknown = wanted - {contender.name for contender in CONTENDERS}
    if unknown:
        raise SystemExit(f"no such handler: {', '.join(sorted(unknown))}")
    contenders = [contender for contender in CONTENDERS if contender.name in wanted]
    missing = [contender for contender in contenders if contender.versions() is None]
    for contender in missing:
        print(f"{contender.name} is left out: {', '.join(contender.needs)} are not all installed")
    return cases, [contender for contender in contenders if contender not in missing]


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _tell(run: Run) -> None:
    how = run.problem or f"{run.cost['cpu']:.2f} s CPU, {run.cost['wall']:.2f} s"
    print(f"round {run.round} {run.case:15} {run.handler:11} {how}", file=sys.stderr)


def _write(path: Path, done: Sequence[Run], cases: Sequence[Case], contenders: Sequence[Contender]) -> None:
    rows = figures(done, cases, contenders)
    content = as_json(rows, done, machine(contenders), ["python", "-m", "bench", *sys.argv[1:]])
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
