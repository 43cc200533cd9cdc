"""What the terminal shows: a summary of one crawl, and the table of handlers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bookshop.compare import CLOSE_AFTER, CONCURRENCY, ROUND_TRIP, Comparison
from bookshop.exits import ExitUse
from bookshop.result import CrawlResult
from bookshop.rotating import PROMISE
from bookshop.site.catalogue import Kind
from bookshop.site.log import SiteSummary
from bookshop.site.profiles import Profile

PLURALS = {
    Kind.BOOK: "books",
    Kind.LISTING: "listing pages",
    Kind.COVER: "covers",
    Kind.WITHDRAWN: "pages that answer 404",
    Kind.ROBOTS: "robots.txt",
}


def console() -> Console:
    """Standard output; without a terminal wide enough for the table, whatever a CI log claims to be."""
    out = Console()
    return out if out.is_terminal else Console(width=118)


def summary_table(result: CrawlResult, site: SiteSummary, kinds: Counter[Kind], title: str) -> Table:
    """One crawl: what came, and what it cost the shop."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("pages right", f"{result.pages_right:,} of the shop's {result.pages_expected:,}" + _wrong(result))
    table.add_row("", ", ".join(f"{kinds[kind]:,} {name}" for kind, name in PLURALS.items() if kinds[kind]))
    table.add_row("items", f"{result.items:,}")
    table.add_row("errors", f"{result.errors:,}")
    connections = [f"{count} {protocol}" for protocol, count in site.connections.items()]
    unused = [f"{site.unused} unused"] if site.unused else []
    table.add_row("connections", ", ".join(connections + unused))
    table.add_row("requests per connection", f"{site.mean_requests:,.1f} on average, {site.most_requests:,} at most")
    table.add_row("reuse", f"{site.reuse:.1%} of {site.requests:,} requests needed no new connection")
    table.add_row("TLS handshakes", f"{site.handshakes}" + (f", {site.resumed} resumed" if site.resumed else ""))
    table.add_row("time", f"{site.seconds:.1f} s, {site.requests / max(site.seconds, 0.001):,.0f} requests a second")
    return table


def flows_table(profiles: Sequence[Profile]) -> Table:
    """What a crawl with flows left in the shop's log; the profiles come with the longest first."""
    table = Table(title="What the shop could tie together", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    automatic = [profile.requests for profile in profiles if profile.automatic]
    flows = [profile for profile in profiles if not profile.automatic]
    visits = f"{sum(automatic):,} requests, at most {max(automatic, default=0)} tied together (promised {PROMISE})"
    table.add_row("visitors", f"{len(profiles):,}")
    table.add_row("of the catalogue alone", f"{len(automatic):,}: {visits}")
    longest = f", the longest of {flows[0].requests:,} requests" if flows else ""
    table.add_row("with flows", f"{len(flows):,}{longest}")
    pages = sum((profile.flow for profile in flows), Counter[str]())
    table.add_row("", ", ".join(f"{count:,} {path}" for path, count in sorted(pages.items())))
    table.add_row("refused, as a flow was cut", f"{sum(profile.refused for profile in flows):,}")
    return table


def exits_table(uses: Sequence[ExitUse]) -> Table:
    """Which exit carried what."""
    table = Table(
        title="What the shop saw of each exit",
        caption=f"Sessions by the proxies' logs, the rest by the shop's.\nLongest profile: at most {PROMISE} promised.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("exit")
    for heading in ("sessions", "connections", "requests", "longest profile"):
        table.add_column(heading, justify="right")
    table.add_column("which, and their requests")
    for use in uses:
        figures = (use.sessions, use.connections, use.requests, use.longest_profile)
        which = "\n".join(f"{user}: {requests:,}" for user, requests in use.carried)
        table.add_row(use.exit, *(f"{figure:,}" for figure in figures), which)
    return table


def _wrong(result: CrawlResult) -> str:
    return f", {result.pages_wrong:,} wrong" if result.pages_wrong else ""


def comparison_table(rows: Sequence[Comparison]) -> Table:
    """One row for each handler. Pages are held against the catalogue by status and hash; the rest is the shop's log."""
    table = Table(
        title=f"The same crawl of {rows[0].pages:,} pages, {ROUND_TRIP * 1000:.0f} ms away, {CONCURRENCY} requests at once",
        caption=(
            "Connections, handshakes, seconds and what the shop could tie together (by connection or cookie) are from the "
            "shop's own log.\nNo request is retried."
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("handler")
    table.add_column("protocol")
    for heading in ("pages\nright", "connec-\ntions", "hand-\nshakes", "seconds", "most requests\ntied together"):
        table.add_column(heading, justify="right")
    table.add_column(f"pages lost when the shop\ncloses each connection\nafter {CLOSE_AFTER} requests", justify="right")
    for row in rows:
        site = row.plain.site
        table.add_row(
            row.contender.name,
            ", ".join(site.connections),
            f"{row.plain.pages_right():,}",
            f"{site.opened:,}",
            f"{site.handshakes:,}",
            f"{site.seconds:.1f}" if row.plain.result is not None else "failed",
            f"{site.longest_profile:,}",
            f"{row.pages_lost():,}" if row.closing.result is not None else "failed",
        )
    return table
