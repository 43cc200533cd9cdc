"""``python -m bench.rotation``: what rotation costs a crawl, by the length of a session. See docs/rotation.md.

The same pages are crawled with rotation off and with sessions of so many requests, over h2 and over TLS HTTP/1.1, with round
trips of 10, 50 and 100 ms and pages that the server takes 20 ms to make. All that is compared ran one after the other in
the same round; a ratio is of two crawls of one round. The longest profile is read from the server's log.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.cases import KIB, Case, Door
from bench.handlers import OURS
from bench.report import machine
from bench.runner import run_one
from bench.servers import Servers, servers

SERVICE = 0.02
"""Seconds for each page."""
ROUND_TRIPS = (0.01, 0.05, 0.1)
LENGTHS = (10, 25, 50, 100, 200)
DOORS = (Door.H2, Door.TLS)
CONCURRENCY = 8
"""Scrapy's own for one domain."""
TARGETS = {Door.H2: 0.05, Door.TLS: 0.08}
"""How much longer a crawl may take at 100 ms with 50 requests a session."""
TARGET_ROUND_TRIP, TARGET_LENGTH = 0.1, 50
ADDON = {"ADDONS": {"scrapy_poolplus.Addon": 500}}


@dataclass(frozen=True, slots=True)
class Crawl:
    """One crawl. `length`: requests of a session, None with rotation off. `seconds` of wall clock; `longest`, `profiles`:
    what the server's log ties together; `connections` to the server."""

    door: str
    round_trip: float
    length: int | None
    round: int
    pages: int
    seconds: float = 0.0
    cpu: float = 0.0
    longest: int = 0
    profiles: int = 0
    connections: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Of all rounds. `rate`: pages per second; `ratio`, `least`, `most`: of the rate with rotation off in the same round,
    median and extremes; `longest`: in any round; `handshakes`: connections for 1,000 requests."""

    door: str
    round_trip: float
    length: int | None
    rounds: int
    rate: float
    ratio: float
    least: float
    most: float
    longest: int
    handshakes: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a crawl failed, or a profile was longer than its session may be."""
    given = _parser().parse_args(arguments)
    if given.smoke:
        given.rounds, given.pages, given.lengths, given.round_trips = 1, 60, [10], [0.01]
    done: list[Crawl] = []
    with ExitStack() as stack:
        running = {round_trip: _server(stack, round_trip) for round_trip in given.round_trips}
        for crawl in crawls(running, given.lengths, rounds=given.rounds, pages=given.pages):
            done.append(crawl)
            print(_told(crawl), file=sys.stderr, flush=True)
            if given.json:
                given.json.write_text(json.dumps(_as_json(done), indent=1) + "\n")
    rows = figures(done)
    print(table(rows))
    if given.plot:
        plot(rows, given.plot)
    wrong = [crawl for crawl in done if fault(crawl)]
    for crawl in wrong:
        print(f"{_told(crawl)}: {fault(crawl)}", file=sys.stderr)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.rotation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="only whether all works: figures mean nothing")
    parser.add_argument("--rounds", type=int, default=3, help="how often each crawl is run (default: %(default)s)")
    parser.add_argument("--pages", type=int, default=400, help="of each crawl (default: %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="requests of a session")
    parser.add_argument("--round-trips", type=float, nargs="+", default=list(ROUND_TRIPS), help="seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and all runs")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="write a plot (needs the extra 'bench')")
    return parser


def _server(stack: ExitStack, round_trip: float) -> Servers:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-rotation-"))
    return stack.enter_context(servers(Path(folder), round_trip=round_trip, service=SERVICE))


def crawls(running: Mapping[float, Servers], lengths: Sequence[int], *, rounds: int, pages: int) -> Iterator[Crawl]:
    """All of them, as they end; who comes first is another one in each round."""
    for number in range(rounds):
        for door in DOORS:
            for round_trip, server in running.items():
                every = (None, *lengths)
                turn = number % len(every)
                for length in every[turn:] + every[:turn]:
                    yield _crawl(server, door, round_trip, length, number, pages)


def _crawl(server: Servers, door: Door, round_trip: float, length: int | None, number: int, pages: int) -> Crawl:
    case = Case(
        name=f"rotation-{door.name}",
        door=door,
        size=KIB,
        pages=pages,
        concurrency=CONCURRENCY,
        round_trip=round_trip,
        later=True,
    )
    settings = {**ADDON, "POOLPLUS_ROTATION": "off" if length is None else {"session_requests": length}}
    run = run_one(server, case, OURS, number, settings)
    profiles = server.profiles()
    told = Crawl(door.value, round_trip, length, number, pages, problem=run.problem)
    if run.seen is None or run.problem is not None:
        return told
    return Crawl(
        told.door,
        round_trip,
        length,
        number,
        pages,
        seconds=run.cost["wall"],
        cpu=run.cost["cpu"],
        longest=profiles[0],
        profiles=len(profiles),
        connections=run.seen.connections,
    )


def fault(crawl: Crawl) -> str | None:
    """What is wrong with a crawl, or None."""
    if crawl.problem is not None:
        return crawl.problem
    if crawl.length is not None and crawl.longest > crawl.length:
        return f"a profile of {crawl.longest} requests, {crawl.length} were promised"
    return None


def figures(done: Iterable[Crawl]) -> list[Row]:
    """One for each door, round trip and length that has a crawl to be compared with in its round."""
    good = [crawl for crawl in done if crawl.problem is None]
    off = {(crawl.door, crawl.round_trip, crawl.round): crawl.seconds for crawl in good if crawl.length is None}
    grouped: dict[tuple[str, float, int | None], list[Crawl]] = {}
    for crawl in good:
        if (crawl.door, crawl.round_trip, crawl.round) in off:
            grouped.setdefault((crawl.door, crawl.round_trip, crawl.length), []).append(crawl)
    rows = []
    for (door, round_trip, length), same in grouped.items():
        ratios = [off[door, round_trip, crawl.round] / crawl.seconds for crawl in same]
        rows.append(
            Row(
                door,
                round_trip,
                length,
                len(same),
                rate=median(crawl.pages / crawl.seconds for crawl in same),
                ratio=median(ratios),
                least=min(ratios),
                most=max(ratios),
                longest=max(crawl.longest for crawl in same),
                handshakes=median(1000 * crawl.connections / crawl.pages for crawl in same),
                cpu=median(1000 * crawl.cpu / crawl.pages for crawl in same),
            )
        )
    order = [door.value for door in DOORS]
    return sorted(rows, key=lambda row: (order.index(row.door), row.round_trip, row.length or sys.maxsize))


def table(rows: Sequence[Row]) -> str:
    """As text, and whether the targets hold."""
    head = (
        f"{'protocol':15}{'round trip':>11}{'session':>9}{'pages/s':>9}{'of off':>8}{'least':>7}{'most':>7}"
        f"{'longest profile':>17}{'handshakes/1000':>17}{'CPU ms/page':>13}"
    )
    lines = [head]
    for row in rows:
        length = "off" if row.length is None else str(row.length)
        lines.append(
            f"{row.door:15}{f'{row.round_trip * 1000:.0f} ms':>11}{length:>9}{row.rate:>9.1f}{row.ratio:>8.3f}"
            f"{row.least:>7.3f}{row.most:>7.3f}{row.longest:>17}{row.handshakes:>17.0f}{row.cpu:>13.2f}"
        )
    return "\n".join([*lines, *(verdict(row) for row in rows if _is_target(row))])


def _is_target(row: Row) -> bool:
    return row.length == TARGET_LENGTH and row.round_trip == TARGET_ROUND_TRIP


def verdict(row: Row) -> str:
    """Whether the target is met."""
    allowed = next(share for door, share in TARGETS.items() if door.value == row.door)
    longer = 1 / row.ratio - 1
    return (
        f"{row.door}, {row.length} requests a session, round trip {row.round_trip * 1000:.0f} ms: {longer:+.1%} time "
        f"(from {1 / row.most - 1:+.1%} to {1 / row.least - 1:+.1%}), {allowed:.0%} allowed: "
        + ("met" if longer <= allowed else "missed")
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write a PNG: throughput against the length of a session. Needs matplotlib (the extra ``bench``)."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot is asked for

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(1, len(DOORS), figsize=(5.4 * len(DOORS), 4), sharey=True)
    for axis, door in zip(axes, DOORS, strict=True):
        _draw(axis, [row for row in rows if row.door == door.value and row.length is not None])
        axis.set_title(door.value)
    axes[0].set_ylabel("pages per second, of those without rotation")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _draw(axis: Any, rows: Sequence[Row]) -> None:
    for round_trip in sorted({row.round_trip for row in rows}):
        mine = [row for row in rows if row.round_trip == round_trip]
        ratios = [row.ratio for row in mine]
        spread = [[row.ratio - row.least for row in mine], [row.most - row.ratio for row in mine]]
        counts = [row.length for row in mine]
        axis.errorbar(counts, ratios, yerr=spread, marker="o", capsize=3, label=f"{round_trip * 1000:.0f} ms")
    lengths = sorted({row.length for row in rows if row.length is not None})
    axis.axhline(1, color="#7f8c8d", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_xticks(lengths, [str(length) for length in lengths])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("requests of a session, at most")
    axis.legend(title="round trip")


def _as_json(done: Sequence[Crawl]) -> dict[str, Any]:
    return {
        "command": " ".join(["python", "-m", "bench.rotation", *sys.argv[1:]]),
        "machine": machine([OURS]),
        "service": SERVICE,
        "concurrency": CONCURRENCY,
        "figures": [asdict(row) for row in figures(done)],
        "runs": [asdict(crawl) for crawl in done],
    }


def _told(crawl: Crawl) -> str:
    how = crawl.problem or f"{crawl.seconds:.2f} s, longest profile {crawl.longest} of {crawl.profiles}"
    length = "off" if crawl.length is None else crawl.length
    return f"round {crawl.round} {crawl.door:14} {crawl.round_trip * 1000:3.0f} ms {length:>4} {how}"


if __name__ == "__main__":
    sys.exit(main())
