"""Shows that the work goes on: a bar in a terminal, one plain line a second in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EVERY = 1.0

Show = Callable[[int], None]


@contextmanager
def progress(label: str, total: int) -> Iterator[Show]:
    """Gives a function to tell how many pages of `total` are done, as often as one likes, from one thread at a time."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, label, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, completed=done)


def _lines(console: Console, label: str, total: int) -> Show:
    last = started = time.monotonic()

    def show(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_EVERY:
            last = now
            line = f"{label}: {done:,} of {total:,} pages, {now - started:.0f} s"
            console.print(line, highlight=False, soft_wrap=True)

    return show
