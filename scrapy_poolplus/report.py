"""A HAR file as one self-contained page: connections over time, what they cost, and what a server could tie together.

Reads what POOLPLUS_HAR writes, also while the crawl runs or after it was killed, and other HAR files as far as they tell
of connections. The page needs no network: a policy in it forbids any.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]

MOST_REQUESTS = 20_000
"""Requests that the page draws; its tables are about all."""
BINS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 200), (201, 500), (501, 1000), (1001, None))
"""Requests per connection, for the histogram."""


@dataclass(frozen=True, slots=True)
class Crawl:
    """What a HAR file tells. `whole`: it was written to its end."""

    entries: list[Json]
    connections: dict[int, Json] = field(default_factory=dict)
    sessions: dict[str, Json] = field(default_factory=dict)
    whole: bool = True


def read_har(path: Path) -> Crawl:
    """Read a file. Raises OSError, and ValueError where it is no HAR."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        log = json.loads(text)["log"]
        entries = log["entries"]
    except (ValueError, KeyError, TypeError):
        entries = list(_salvaged(text))
        if not entries and '"entries"' not in text:
            raise ValueError(f"{path} is no HAR file") from None
        return Crawl(entries, whole=False)
    return Crawl(
        entries,
        {found["id"]: found for found in log.get("_connections", ())},
        {found["id"]: found for found in log.get("_sessions", ())},
        whole="_connections" in log,
    )


def _salvaged(text: str) -> Iterator[Json]:
    """The entries of a file whose end is missing: one a line, as POOLPLUS_HAR writes them."""
    for line in text.splitlines():
        if line.startswith("{") and '"startedDateTime"' in line:
            try:
                yield json.loads(line.rstrip(","))
            except ValueError:
                continue


def report_page(crawl: Crawl, title: str) -> str:
    """The page."""
    page = files("scrapy_poolplus").joinpath("report_page.html").read_text(encoding="utf-8")
    data = json.dumps(_drawn(crawl), separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "TITLE": escape(title),
        "NOTES": "".join(f"<p class=note>{escape(note)}</p>" for note in _notes(crawl)),
        "TILES": "".join(
            f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in _tiles(crawl)
        ),
        "HISTOGRAM": _bars(_histogram(crawl)),
        "REASONS": _bars(_reasons(crawl)),
        "HANDSHAKES": _table(HANDSHAKE_COLUMNS, _handshakes(crawl)),
        "LINKABILITY": _table(LINK_COLUMNS, _linkability(crawl)),
        "SESSIONS": _table(SESSION_COLUMNS, _session_rows(crawl)),
        "BUDGETS": _table(BUDGET_COLUMNS, _budgets(crawl)),
        "SLOWEST": _table(SLOW_COLUMNS, _slowest(crawl)),
        "FAILED": _table(FAILED_COLUMNS, _failed(crawl)),
        "DATA": data,
    }
    # In one pass: what comes from the crawl is not looked at again.
    return re.sub(r"@([A-Z]+)@", lambda match: parts[match[1]], page)


# ---- what is drawn


def _drawn(crawl: Crawl) -> Json:
    """The data of the waterfall; times are milliseconds since the first request was asked for."""
    entries = sorted(crawl.entries, key=_began)
    zero = _began(entries[0]) if entries else 0.0
    requests = [_drawn_request(entry, zero) for entry in entries[:MOST_REQUESTS]]
    connections = {}
    for number, found in crawl.connections.items():
        if "closed" in found:
            closed = _stamp(found["closed"]) - zero
            opened = _stamp(found["opened"]) - zero if "opened" in found else None
            connections[number] = {
                "opened": opened,
                "closed": closed,
                "reason": found.get("reason") or f"not made: {found.get('failed')}",
                "dial": max(0.0, found.get("dial", 0.0)),
                "host": found.get("host", "?"),
                "allowed": found.get("allowed"),
            }
    return {"requests": requests, "connections": connections}


def _drawn_request(entry: Json, zero: float) -> Json:
    timings = entry["timings"]
    tls = max(0.0, timings.get("ssl", -1))
    return {
        "at": round(_began(entry) - zero, 3),
        "t": [
            max(0.0, timings.get("blocked", -1)),
            max(0.0, timings.get("dns", -1)),
            round(max(0.0, timings.get("connect", -1) - tls), 3),
            tls,
            timings["send"],
            timings["wait"],
            timings["receive"],
        ],
        "c": _connection(entry),
        "h": _host(entry),
        "s": entry.get("_session"),
        "p": entry.get("_protocol") or entry["response"]["httpVersion"],
        "m": entry["request"]["method"],
        "u": entry["request"]["url"],
        "st": entry["response"]["status"],
        "n": entry.get("_request_number"),
        "e": entry.get("_error"),
        "b": entry.get("_bytes_received", entry["response"]["bodySize"]),
    }


# ---- what is counted


def _tiles(crawl: Crawl) -> list[tuple[str, str]]:
    entries = crawl.entries
    used = {_connection(entry) for entry in entries} - {None}
    sent = sum(1 for entry in entries if _connection(entry) is not None)
    failed = sum(1 for entry in entries if "_error" in entry)
    protocols = Counter(entry.get("_protocol", "?") for entry in entries if _connection(entry) is not None)
    received = sum(entry.get("_bytes_received", 0) for entry in entries)
    seconds = (max(map(_ended, entries)) - min(map(_began, entries))) / 1000 if entries else 0.0
    tiles = [
        ("requests", f"{len(entries):,}"),
        ("seconds", f"{seconds:,.1f}"),
        ("hosts", f"{len({_host(entry) for entry in entries}):,}"),
        ("connections used", f"{len(used):,}"),
        ("requests a connection", f"{sent / len(used):.1f}" if used else "-"),
        ("protocols", ", ".join(f"{name} {share / sent:.0%}" for name, share in protocols.most_common()) or "-"),
        ("received", _bytes(received)),
        ("failed", f"{failed:,}"),
    ]
    sessions = {entry["_session"] for entry in entries if "_session" in entry}
    return [*tiles, ("sessions", f"{len(sessions):,}")] if sessions else tiles


def _notes(crawl: Crawl) -> list[str]:
    notes = []
    if not crawl.whole:
        notes.append(
            "The file ends before the crawl did (it runs still, or it was killed), or was not written by POOLPLUS_HAR: "
            "when and why connections were closed is not known."
        )
    if len(crawl.entries) > MOST_REQUESTS:
        notes.append(f"The waterfall shows the first {MOST_REQUESTS:,} requests; the tables are about all of them.")
    return notes


def _histogram(crawl: Crawl) -> list[tuple[str, int]]:
    carried = Counter(number for entry in crawl.entries if (number := _connection(entry)) is not None)
    bars = []
    for low, high in BINS:
        name = f"{low}" if low == high else f"{low} to {high}" if high else f"over {low - 1}"
        bars.append((name, sum(1 for count in carried.values() if count >= low and (high is None or count <= high))))
    while bars and not bars[-1][1]:
        bars.pop()
    return bars


def _reasons(crawl: Crawl) -> list[tuple[str, int]]:
    reasons = Counter(
        found["reason"] if "reason" in found else f"not made: {found.get('failed')}"
        for found in crawl.connections.values()
    )
    return reasons.most_common()


HANDSHAKE_COLUMNS = ("host", "connections", "DNS ms", "TCP ms", "TLS ms", "median to set up, ms", "ms a request")


def _handshakes(crawl: Crawl) -> Iterator[tuple[object, ...]]:
    """What connections cost: only what requests waited for."""
    for host, entries in _by_host(crawl):
        firsts = [entry["timings"] for entry in entries if entry.get("_request_number") == 1]
        parts = [(max(0.0, t.get("dns", 0)), max(0.0, t.get("connect", 0)), max(0.0, t.get("ssl", 0))) for t in firsts]
        dns, connect, tls = (sum(part[at] for part in parts) for at in range(3))
        middle = median(part[0] + part[1] for part in parts) if parts else 0.0
        yield host, len(firsts), dns, connect - tls, tls, middle, (dns + connect) / len(entries)


LINK_COLUMNS = (
    "host",
    "requests",
    "by connection: profiles",
    "largest",
    "median",
    "by session: profiles",
    "largest",
    "median",
    "largest share of all",
)


def _linkability(crawl: Crawl) -> Iterator[tuple[object, ...]]:
    """The requests that one server can tie together because they came over one connection, or in one session (whose
    connections share cookies and a proxy login)."""
    for host, entries in _by_host(crawl):
        sent = [entry for entry in entries if _connection(entry) is not None]
        if not sent:
            continue
        by_connection = Counter(_connection(entry) for entry in sent)
        row: list[object] = [host, len(sent), len(by_connection), max(by_connection.values())]
        row.append(median(by_connection.values()))
        by_session = Counter(entry["_session"] for entry in sent if "_session" in entry)
        if by_session:
            largest = max(by_session.values())
            yield (*row, len(by_session), largest, median(by_session.values()), f"{largest / len(sent):.1%}")
        else:
            yield (*row, "off", "-", "-", f"{max(by_connection.values()) / len(sent):.1%}")


SESSION_COLUMNS = ("session", "host", "requests", "promised at most", "connections", "ended")


def _session_rows(crawl: Crawl) -> Iterator[tuple[object, ...]]:
    carried: dict[str, list[Json]] = {}
    for entry in crawl.entries:
        if "_session" in entry:
            carried.setdefault(entry["_session"], []).append(entry)
    for name, entries in sorted(carried.items(), key=lambda item: -len(item[1])):
        found = crawl.sessions.get(name, {})
        promised = found.get("promised")
        yield (
            name,
            found.get("host") or _host(entries[0]),
            len(entries),
            "kept whole" if found and promised is None else promised or "?",
            len({_connection(entry) for entry in entries}),
            found.get("reason", "open to the end"),
        )


BUDGET_COLUMNS = ("host", "connections with a budget of requests", "budgets, least to most", "used on average")


def _budgets(crawl: Crawl) -> Iterator[tuple[object, ...]]:
    by_host: dict[str, list[Json]] = {}
    for found in crawl.connections.values():
        if found.get("allowed") is not None:
            by_host.setdefault(found.get("host", "?"), []).append(found)
    for host, connections in by_host.items():
        allowed = [found["allowed"] for found in connections]
        used = sum(found["requests"] / found["allowed"] for found in connections) / len(connections)
        yield host, len(connections), f"{min(allowed)} to {max(allowed)}", f"{used:.0%}"


SLOW_COLUMNS = ("ms", "of these waited", "to first byte", "receiving", "status", "connection", "request")


def _slowest(crawl: Crawl) -> Iterator[tuple[object, ...]]:
    for entry in sorted(crawl.entries, key=lambda entry: -float(entry["time"]))[:20]:
        timings = entry["timings"]
        yield (
            entry["time"],
            max(0.0, timings.get("blocked", 0)),
            timings["wait"],
            timings["receive"],
            entry["response"]["status"] or entry.get("_error", "-"),
            entry.get("connection", "-"),
            f"{entry['request']['method']} {entry['request']['url']}",
        )


FAILED_COLUMNS = ("error", "host", "requests")


def _failed(crawl: Crawl) -> Iterator[tuple[object, ...]]:
    errors = Counter((entry["_error"], _host(entry)) for entry in crawl.entries if "_error" in entry)
    for (error, host), count in errors.most_common(50):
        yield error, host, count


# ---- pieces


def _by_host(crawl: Crawl) -> list[tuple[str, list[Json]]]:
    """The hundred with most requests."""
    hosts: dict[str, list[Json]] = {}
    for entry in crawl.entries:
        hosts.setdefault(_host(entry), []).append(entry)
    return sorted(hosts.items(), key=lambda item: -len(item[1]))[:100]


def _host(entry: Json) -> str:
    return urlsplit(entry["request"]["url"]).netloc.rpartition("@")[2] or "?"


def _connection(entry: Json) -> int | None:
    number = entry.get("connection")
    return int(number) if isinstance(number, str) and number.isdecimal() else None


def _stamp(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def _began(entry: Json) -> float:
    return _stamp(entry["startedDateTime"])


def _ended(entry: Json) -> float:
    return _began(entry) + float(entry["time"])


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _bars(bars: list[tuple[str, int]]) -> str:
    if not bars:
        return "<p class=none>nothing known</p>"
    most = max(count for _, count in bars) or 1
    rows = (
        f"<tr><th scope=row>{escape(name)}<td class=number>{count:,}"
        f"<td class=bar><i style='width:{100 * count / most:.1f}%'></i>"
        for name, count in bars
    )
    return f"<table class=bars>{''.join(rows)}</table>"


def _table(columns: Iterable[str], rows: Iterable[tuple[object, ...]]) -> str:
    listed = list(rows)
    if not listed:
        return "<p class=none>none</p>"
    body = "".join(f"<tr>{''.join(map(_cell, row))}" for row in listed)
    head = "".join(
        f"<th scope=col{' class=number' if isinstance(value, int | float) else ''}>{escape(column)}"
        for column, value in zip(columns, listed[0], strict=True)
    )
    return f"<div class=scroll><table><thead><tr>{head}<tbody>{body}</table></div>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"<td class=number>{value:,.1f}"
    if isinstance(value, int):
        return f"<td class=number>{value:,}"
    return f"<td>{escape(str(value))}"
