"""Hold the files of `out/` against what the example promises: `python -m bookshop.check`, the last step of `make example`.

Prints nothing and exits with 0 when all of it holds; otherwise one line for each promise that does not, and 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bookshop.places import OUT
from bookshop.result import CrawlResult
from bookshop.site.serve import SiteMode

OURS = "scrapy-poolplus"
H2_CONNECTIONS = 2


def broken_promises(out: Path) -> Iterator[str]:
    for mode in SiteMode:
        path = out / f"books-{mode.value}.json"
        if not path.exists():
            yield f"{path.name}: scrapy crawl books -a site={mode.value} has not finished"
            continue
        for broken in broken_crawl_promises(CrawlResult.read(path), mode):
            yield f"{path.name}: {broken}"
    path = out / "compare.jsonl"
    if not path.exists():
        yield f"{path.name}: scrapy crawl compare has not finished"
        return
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ours = next(row for row in rows if row["contender"]["name"] == OURS)
    for run in ("plain", "closing"):
        right = ours[run]["result"]["pages_right"] if ours[run]["result"] is not None else 0
        if right != ours["pages"]:
            yield f"{path.name}: {OURS} got {right} of {ours['pages']} pages in the {run} run, see {OURS}'s logs beside it"


def broken_crawl_promises(result: CrawlResult, mode: SiteMode) -> Iterator[str]:
    site = result.site
    if site is None:
        yield "the shop was somebody else's, so there is no log to hold it against"
        return
    if result.finished != "finished":
        yield f"ended as {result.finished!r}"
    if result.pages_right != result.pages_expected or result.pages_wrong:
        yield f"{result.pages_right} of {result.pages_expected} pages right, {result.pages_wrong} wrong"
    if result.errors:
        yield f"{result.errors} errors"
    if site.staff_pages:
        yield f"{site.staff_pages} pages asked for that robots.txt forbids"
    protocol = "h2" if mode is SiteMode.H2 else "HTTP/1.1"
    if set(site.connections) != {protocol}:
        yield f"spoke {', '.join(site.connections) or 'nothing'} where {protocol} is to be had"
    most = H2_CONNECTIONS if mode is SiteMode.H2 else result.concurrency
    if site.opened > most:
        yield f"{site.opened} connections, at most {most} are needed"


def main() -> int:
    broken = list(broken_promises(OUT))
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
