"""The figures as a picture: bars of what each handler adds per request, for each case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cases import Case
from bench.handlers import NULL, OURS
from bench.report import Figures, describe

COLUMNS = 3


def plot(rows: Sequence[Figures], cases: Sequence[Case], path: Path) -> None:
    """Write a PNG. Needs matplotlib (the extra ``bench``)."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot is asked for

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    shown = [case for case in cases if any(row.case == case.name and _bar(case, row) is not None for row in rows)]
    if not shown:
        return
    height = -(-len(shown) // COLUMNS)
    figure, axes = pyplot.subplots(height, COLUMNS, figsize=(5.4 * COLUMNS, 2.5 * height), squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, case in zip(axes.flat, shown, strict=False):
        _draw(axis, case, [row for row in rows if row.case == case.name])
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _bar(case: Case, row: Figures) -> float | None:
    """Seconds where the round trip decides, else CPU."""
    if row.handler == NULL.name:
        return None
    return row.wall if case.round_trip else row.added


def _draw(axis: Any, case: Case, rows: Sequence[Figures]) -> None:
    bars = sorted(
        ((row.handler, value) for row in rows if (value := _bar(case, row)) is not None), key=lambda bar: -bar[1]
    )
    colours = ["#c0392b" if name == OURS.name else "#7f8c8d" for name, _ in bars]
    drawn = axis.barh([name for name, _ in bars], [value for _, value in bars], color=colours)
    axis.bar_label(drawn, fmt="%.2f" if case.round_trip else "%.0f", padding=2, fontsize=8)
    axis.margins(x=0.15)
    unit = "s" if case.round_trip else "CPU µs per new connection" if case.beyond else "CPU µs added per request"
    axis.set_title(f"{case.name}: {unit}", fontsize=9)
    axis.set_xlabel(describe(case), fontsize=6)
    axis.tick_params(labelsize=8)
