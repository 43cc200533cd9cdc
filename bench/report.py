"""From runs to figures: what each handler adds to the null handler; the table, and JSON.

A machine has other things to do, and whoever is interrupted finds cold caches. So the cost of a page is not a mean but
the lower quartile over the windows of all rounds, where the windows of a case are alike; else that of the cheapest round.
"""

from __future__ import annotations

import os
import platform
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.cases import Case, Door
from bench.crawl import CONCURRENT_ITEMS
from bench.handlers import H2, HTTP11, NULL, Contender
from bench.round_trip import count
from bench.runner import Run

MEBI = 1024 * 1024
LEAST_WINDOWS = 10
"""Fewer have no quartiles worth the name."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a handler in a case; where nothing else is said the medians over rounds.

    `added`: CPU µs per request over the null handler, or, in a case that is `beyond` another, µs per new connection;
    for the null handler, all it takes. `ratio`: to the stock handler of the protocol. `per_idle`: KiB of memory for each
    connection that rests; `rest_cpu`: share of a core that they take. `problems` of the runs that are not in here.
    """

    case: str
    handler: str
    rounds: int
    added: float | None
    ratio: float | None
    wall: float | None
    rate: float | None
    peak: float | None
    connections: float | None
    handshakes: float | None
    resumed: float | None
    per_idle: float | None = None
    rest_cpu: float | None = None
    problems: tuple[str, ...] = ()


def figures(runs: Iterable[Run], cases: Sequence[Case], contenders: Sequence[Contender]) -> list[Figures]:
    """One for each handler that ran in a case."""
    found: dict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
    for run in runs:
        found[run.case, run.handler][run.round] = run
    named = {case.name: case for case in cases}
    return [
        _figures(case, contender.name, found, named)
        for case in cases
        for contender in contenders
        if (case.name, contender.name) in found
    ]


def stock_of(case: Case) -> str:
    """The handler that Scrapy has for the protocol."""
    return H2.name if case.door is Door.H2 else HTTP11.name


def _figures(case: Case, handler: str, found: dict[tuple[str, str], dict[int, Run]], cases: dict[str, Case]) -> Figures:
    every = found[case.name, handler]
    good = {number: run for number, run in every.items() if run.problem is None}

    def cost(which: Case, name: str) -> float | None:
        return page_cost(which, [run for run in found[which.name, name].values() if run.problem is None])

    def added(name: str) -> float | None:
        total = _less(cost(case, name), cost(case, NULL.name))
        if case.beyond is None:
            return total
        steady = cases[case.beyond]
        return _less(total, _less(cost(steady, name), cost(steady, NULL.name)))

    own, stock = added(handler), added(stock_of(case))
    walls = [float(run.cost["wall"]) for run in good.values()]
    seen = [run.seen for run in good.values() if run.seen is not None]
    nulls = found[case.name, NULL.name]
    resting = [
        (run.cost["resting"] - nulls[number].cost["resting"]) / case.pages / 1024
        for number, run in good.items()
        if case.rest and run.cost["resting"] and number in nulls and handler != NULL.name
    ]
    return Figures(
        case.name,
        handler,
        len(good),
        cost(case, handler) if handler == NULL.name else own,
        own / stock if own is not None and stock and handler != NULL.name else None,
        _median(walls),
        _median([case.pages * max(case.size, case.upload) / wall / MEBI for wall in walls]),
        _median([run.cost["peak"] / MEBI for run in good.values()]),
        _median([entry.connections for entry in seen]),
        _median([entry.handshakes for entry in seen]),
        _median([entry.resumed for entry in seen]),
        _median(resting),
        _median([run.cost["rest_cpu"] / case.rest for run in good.values()]) if case.rest else None,
        tuple(sorted({run.problem for run in every.values() if run.problem is not None})),
    )


def page_cost(case: Case, runs: Sequence[Run]) -> float | None:
    """CPU µs per page; None where there is no run."""
    windows = [window for run in runs for window in run.cost["windows"]]
    if case.cold or len(windows) < LEAST_WINDOWS:
        return min((float(run.cost["cpu"]) / case.pages * 1e6 for run in runs), default=None)
    lower: float = quantiles(windows, n=4)[0]
    return lower * 1e6


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def table(rows: Sequence[Figures], cases: Sequence[Case], round_trip: float | None = None) -> str:
    """As text. `round_trip`: what one through the relay takes, in seconds."""
    lines = []
    for case in cases:
        mine = [row for row in rows if row.case == case.name]
        if not mine:
            continue
        what = "µs/connection" if case.beyond else "µs/request"
        lines.append(f"\n{case.name}: {describe(case)}")
        lines.append(
            f"  {'handler':11}{what:>15}{'x ' + stock_of(case):>10}{'wall s':>9}{'MiB/s':>8}{'peak MiB':>10}"
            f"{'TCP':>6}{'handshakes':>12}" + ("  KiB/idle   CPU at rest" if case.rest else "")
        )
        for row in sorted(mine, key=lambda row: (row.added is None, row.handler != NULL.name, row.added)):
            sign = "" if row.handler == NULL.name else "+"
            lines.append(
                f"  {row.handler:11}{_shown(row.added, '.0f', sign):>15}{_shown(row.ratio, '.2f'):>10}"
                f"{_shown(row.wall, '.2f'):>9}{_shown(row.rate, '.1f'):>8}{_shown(row.peak, '.0f'):>10}"
                f"{_shown(row.connections, '.0f'):>6}{_shown(row.handshakes, '.0f'):>12}"
                + (f"{_shown(row.per_idle, '.0f'):>10}{_shown(row.rest_cpu, '.2%'):>14}" if case.rest else "")
            )
            lines.extend(f"              ! {problem}" for problem in row.problems)
        if case.round_trip and case.size < MEBI and round_trip is not None:
            lines.append(f"  {_floor(case, round_trip, mine)}")
    return "\n".join(lines)


def _floor(case: Case, round_trip: float, rows: Sequence[Figures]) -> str:
    """The least that a crawl can take in a line, with what Scrapy itself takes."""
    number = count(case)
    text = f"floor: {number} round trips, measured at {round_trip * 1000:.1f} ms each: {number * round_trip:.2f} s"
    null = next((row.wall for row in rows if row.handler == NULL.name), None)
    return text if null is None else f"{text}; with the null handler's {null:.2f} s: {number * round_trip + null:.2f} s"


def _shown(value: float | None, form: str, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}{form}}"


def describe(case: Case) -> str:
    """In words."""
    size = f"{case.size // MEBI} MiB" if case.size >= MEBI else f"{case.size // 1024} KiB"
    parts = [f"{case.pages} pages of {size} over {case.door.value}", f"{case.concurrency} at once"]
    if case.upload:
        parts.append(f"each posts {case.upload // 1024} KiB")
    if case.hosts > 1:
        parts.append(f"{case.hosts} hosts")
    if case.round_trip:
        parts.append(f"round trip {case.round_trip * 1000:.0f} ms")
    if case.verify:
        parts.append("certificates verified")
    if case.rest:
        parts.append("then the connections rest")
    return ", ".join(parts)


def machine(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Where and with what it ran."""
    versions: dict[str, str] = {}
    for contender in contenders:
        versions.update(contender.versions() or {})
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "concurrent_items": CONCURRENT_ITEMS,
        "versions": dict(sorted(versions.items())),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def as_json(
    rows: Sequence[Figures], runs: Sequence[Run], about: dict[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    """Everything: the figures, and each run behind them."""
    return {
        "command": " ".join(command),
        "machine": about,
        "figures": [asdict(row) for row in rows],
        "runs": [asdict(run) for run in runs],
    }
