"""What a server could link, by its own log: ``python -m bench.nginx_log access.log``.

The log is nginx's, one JSON object a line, written with the `log_format` that ``--format`` prints. Requests that share a
token are one unit, and so are chains of them (union-find). Levels are nested, and named as the statistics of the
client are: ``connection``; ``tls`` (all resumed connections are one unit: only the server knows the chain); ``session``
(cookies that were set or sent).

Flows and pinned sessions are reported apart, as the client does it: units with a request whose method is not safe and
that had or got a cookie, and with ``--apart PATTERN`` those with a request that it finds (``METHOD /target``).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from scrapy_poolplus.core.linkage import Linkability, UnionFind
from scrapy_poolplus.core.replay import SAFE

FIELDS = {
    "connection": "$connection",
    "method": "$request_method",
    "target": "$request_uri",
    "status": "$status",
    "tls_session": "$ssl_session_reused",
    "cookies": "$http_cookie",
    "set_cookie": "$sent_http_set_cookie",
    "referer": "$http_referer",
    "authorization": "$http_authorization",
    "address": "$remote_addr",
    "request_id": "$request_id",
}
"""What is read of a line, and nginx's variable for it."""
LEVELS = ("connection", "tls", "session")


@dataclass(frozen=True, slots=True)
class Line:
    """A request in the log."""

    connection: int
    method: str
    target: str
    status: int
    resumed: bool
    cookies: frozenset[str]
    got: frozenset[str]
    """Cookies that it was answered with."""
    referer: str
    authorization: str
    address: str

    @classmethod
    def read(cls, text: str) -> Line:
        """From a line of the log. Raises ValueError for what is none."""
        entry = json.loads(text)
        missing = FIELDS.keys() - entry.keys()
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing: write the log with the format of --format")
        return cls(
            int(entry["connection"]),
            entry["method"],
            entry["target"],
            int(entry["status"]),
            entry["tls_session"] == "r",
            _cookies(entry["cookies"]),
            # With several Set-Cookie nginx joins them with ", ".
            frozenset().union(*map(_first_cookie, re.split(r",\s*(?=[^;,\s]+=)", entry["set_cookie"]))),
            entry["referer"],
            entry["authorization"],
            entry["address"],
        )

    @property
    def begins_flow(self) -> bool:
        """What the client takes for the begin of a flow, as far as a server sees it."""
        return (self.method not in SAFE and bool(self.cookies | self.got)) or bool(self.authorization)


Unit = list[Line]


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a log. `kept`: sizes of the units that are reported apart, the longest first."""

    levels: dict[str, Linkability]
    kept: list[int]
    connections: int
    requests: int
    resumed: int
    strange_referers: int
    """Requests whose Referer is a page that their unit did not fetch."""
    addresses: int

    @property
    def handshakes_per_1000(self) -> float:
        return 1000 * self.connections / self.requests if self.requests else 0.0


def read(path: Path) -> list[Line]:
    """The lines of a log. Raises ValueError that names the line which is none."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            lines.append(Line.read(text))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return lines


def units(lines: Iterable[Line], level: str, *, ignored: Collection[str] = ()) -> list[Unit]:
    """The linkable units of a level. `ignored`: names of cookies that say nothing of who sends them (consent, language)."""
    sets: UnionFind[tuple[str, object]] = UnionFind()
    lines = list(lines)
    for line in lines:
        own = ("connection", line.connection)
        sets.find(own)
        if level != "connection" and line.resumed:
            sets.join(own, ("resumed", None))
        if level == "session":
            for cookie in line.cookies | line.got:
                if cookie.partition("=")[0] not in ignored:
                    sets.join(own, ("cookie", cookie))
    found: defaultdict[tuple[str, object], Unit] = defaultdict(list)
    for line in lines:
        found[sets.find(("connection", line.connection))].append(line)
    return list(found.values())


def report(
    lines: Sequence[Line], *, apart: Callable[[Line], bool] = lambda _line: False, ignored: Collection[str] = ()
) -> Report:
    """The figures. `apart` says of a request that its unit is one that was to stay whole."""
    sessions = units(lines, "session", ignored=ignored)
    kept = [unit for unit in sessions if any(line.begins_flow or apart(line) for line in unit)]
    left_out = {line.connection for unit in kept for line in unit}
    rotating = [line for line in lines if line.connection not in left_out]
    return Report(
        {level: Linkability.of(map(len, units(rotating, level, ignored=ignored))) for level in LEVELS},
        sorted(map(len, kept), reverse=True),
        len({line.connection for line in lines}),
        len(lines),
        len({line.connection for line in lines if line.resumed}),
        sum(_strange_referers(unit) for unit in sessions),
        len({line.address for line in lines}),
    )


def cookies_in_two(lines: Sequence[Line], session_of: Callable[[Line], object]) -> list[str]:
    """Cookies that were sent in more than one session, or in another one than they were set in."""
    seen: defaultdict[str, set[object]] = defaultdict(set)
    for line in lines:
        for cookie in line.cookies | line.got:
            seen[cookie].add(session_of(line))
    return [cookie for cookie, sessions in seen.items() if len(sessions) > 1]


def _strange_referers(unit: Unit) -> int:
    fetched = {line.target for line in unit}
    return sum(bool(line.referer) and _target(line.referer) not in fetched for line in unit)


def _target(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]


def _cookies(header: str) -> frozenset[str]:
    return frozenset(part.strip() for part in header.split(";") if "=" in part)


def _first_cookie(header: str) -> frozenset[str]:
    """Of a Set-Cookie; one that deletes its cookie is none."""
    pair = header.partition(";")[0].strip()
    try:
        morsels = list(SimpleCookie(header).values())
    except CookieError:
        morsels = []
    gone = any(morsel["max-age"] in ("0", "-1") for morsel in morsels)
    return frozenset({pair}) if "=" in pair and not gone else frozenset()


def log_format(name: str = "linkability") -> str:
    """The `log_format` of nginx that is read here."""
    body = ", ".join(f'"{field}": "{variable}"' for field, variable in FIELDS.items())
    return f"log_format {name} escape=json '{{{body}}}';"


def show(found: Report) -> str:
    """As text."""
    names = ("units", "mean", "p95", "max", "experienced", "link_probability", "effective_profiles")
    rows = [f"{'':12}" + "".join(f"{name:>20}" for name in names)]
    for level, figures in found.levels.items():
        rows.append(f"{level:12}" + "".join(f"{getattr(figures, name):>20.6g}" for name in names))
    kept = f"{len(found.kept)} kept whole, the longest {found.kept[0]}" if found.kept else "none kept whole"
    rows.append(
        f"{found.requests} requests over {found.connections} connections ({found.handshakes_per_1000:.0f} for 1,000 "
        f"requests), {found.resumed} of them resumed, from {found.addresses} IP addresses; {kept}; "
        f"{found.strange_referers} Referer headers name a page of another unit"
    )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nginx_log", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("log", type=Path, nargs="*")
    parser.add_argument("--apart", metavar="PATTERN", help="units with such a request are reported apart")
    parser.add_argument("--ignore-cookie", metavar="NAME", action="append", default=[], help="it identifies nobody")
    parser.add_argument("--format", action="store_true", help="print the log_format and end")
    arguments = parser.parse_args()
    if arguments.format:
        print(log_format())
        return
    if not arguments.log:
        parser.error("name a log, or --format")
    try:
        pattern = re.compile(arguments.apart or r"(?!)")
        lines = [line for path in arguments.log for line in read(path)]
    except (OSError, ValueError, re.error) as error:
        sys.exit(str(error))
    found = report(
        lines,
        apart=lambda line: pattern.search(f"{line.method} {line.target}") is not None,
        ignored=arguments.ignore_cookie,
    )
    print(show(found))


if __name__ == "__main__":
    main()
