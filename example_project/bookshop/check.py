"""Hold the files of `out/` against what the example promises: `python -m bookshop.check`, the last step of `make example`.

Prints nothing and exits with 0 when all of it holds; otherwise one line for each promise that does not, and 1.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bookshop.compare import OURS, OURS_ROTATING
from bookshop.exits import EXITS, Carried, carried, proxy_log, read_users
from bookshop.places import OUT
from bookshop.result import CrawlResult
from bookshop.rotating import PROMISE
from bookshop.site.log import entries
from bookshop.site.members import ORDERS, STOCK_PAGES
from bookshop.site.profiles import Profile, profiles
from bookshop.site.serve import SiteMode

H2_CONNECTIONS = 2


def broken_promises(out: Path) -> Iterator[str]:
    for mode in SiteMode:
        path = out / f"books-{mode.value}.json"
        if not path.exists():
            yield f"{path.name}: scrapy crawl books -a site={mode.value} has not finished"
            continue
        for broken in broken_crawl_promises(CrawlResult.read(path), mode):
            yield f"{path.name}: {broken}"
    yield from _broken_account(out)
    yield from _broken_exits(out)
    path = out / "compare.jsonl"
    if not path.exists():
        yield f"{path.name}: scrapy crawl compare has not finished"
        return
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        name = row["contender"]["name"]
        for run in ("plain", "closing") if name in {OURS, OURS_ROTATING} else ():
            right = row[run]["result"]["pages_right"] if row[run]["result"] is not None else 0
            if right != row["pages"]:
                yield f"{path.name}: {name} got {right} of {row['pages']} pages in the {run} run, see its logs beside it"
            tied = row[run]["site"]["longest_profile"]
            if name == OURS_ROTATING and tied > PROMISE:
                yield f"{path.name}: {tied} requests of {name} were tied together in the {run} run, promised {PROMISE}"


def _broken_exits(out: Path) -> Iterator[str]:
    path = out / "exits-h2.json"
    if not path.exists():
        yield f"{path.name}: scrapy crawl exits has not finished"
        return
    users = read_users(proxy_log(SiteMode.H2, address, out) for address in EXITS)
    found = carried(out / "exits-h2-site.jsonl", users)
    for broken in (*broken_page_promises(CrawlResult.read(path), SiteMode.H2), *broken_exit_promises(found)):
        yield f"{path.name}: {broken}"


def broken_exit_promises(found: Sequence[Carried]) -> Iterator[str]:
    seen = frozenset[str]().union(*(one.exits for one in found))
    for address in sorted(seen - set(EXITS)):
        yield f"the shop saw {address}, which is the exit of no proxy"
    for address in sorted(set(EXITS) - seen):
        yield f"the shop saw nothing of the exit {address}"
    if moved := sum(len(one.exits) > 1 for one in found):
        yield f"{moved} sessions changed their exit"
    # A session's cookie or connection under two users, or one user for what the shop cannot tie together.
    told = Counter(user for one in found for user in one.users)
    if mixed := sum(len(one.users) > 1 for one in found) + sum(times > 1 for times in told.values()):
        yield f"the proxies were told {mixed} sessions otherwise than the shop saw them"
    most = max((one.profile.requests for one in found), default=0)
    if most > PROMISE:
        yield f"{most} requests were tied together, promised {PROMISE}"


def _broken_account(out: Path) -> Iterator[str]:
    path = out / "account-h2.json"
    if not path.exists():
        yield f"{path.name}: scrapy crawl account has not finished"
        return
    with (out / "account-h2-site.jsonl").open(encoding="utf-8") as lines:
        found = profiles(entries(lines))
    for broken in (*broken_page_promises(CrawlResult.read(path), SiteMode.H2), *broken_flow_promises(found)):
        yield f"{path.name}: {broken}"


def broken_flow_promises(found: Sequence[Profile]) -> Iterator[str]:
    # A flow's session may carry on with the catalogue, but not beyond what any session may carry of it.
    most = max((profile.catalogue for profile in found), default=0)
    if most > PROMISE:
        yield f"{most} requests of the catalogue were tied together, promised {PROMISE}"
    if refused := sum(profile.refused for profile in found):
        yield f"{refused} requests of flows were refused"
    pages = sum((profile.flow for profile in found), Counter[str]())
    for path, expected in (("/account/order", ORDERS), ("/stock", STOCK_PAGES)):
        if pages[path] != expected:
            yield f"{pages[path]} of {expected} pages of {path}"


def broken_crawl_promises(result: CrawlResult, mode: SiteMode) -> Iterator[str]:
    yield from broken_page_promises(result, mode)
    most = H2_CONNECTIONS if mode is SiteMode.H2 else result.concurrency
    if result.site is not None and result.site.opened > most:
        yield f"{result.site.opened} connections, at most {most} are needed"


def broken_page_promises(result: CrawlResult, mode: SiteMode) -> Iterator[str]:
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


def main() -> int:
    broken = list(broken_promises(OUT))
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
