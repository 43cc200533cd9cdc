"""Three ways out for the spider `exits`: who takes which, and what the logs of the shop and of the proxies tell of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler

from bookshop.places import OUT
from bookshop.site.log import entries
from bookshop.site.profiles import Profile, profiles
from bookshop.site.serve import SiteMode

# Linux and Windows have all of 127.0.0.0/8; macOS wants `sudo ifconfig lo0 alias 127.0.0.2` for each.
EXITS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
ACCOUNT = "bookworm"
PROXY_USER = ACCOUNT + "-session-{session}"


class ExitMiddleware:
    """Sends each request through the next of the spider's `proxies`, robots.txt too. Goes before HttpProxyMiddleware (750).

    Request by request: a session is never of two proxies, as it is a connection through one of them. A request that has
    to go on in the session of a page takes its exit along: `meta={"proxy": response.meta["proxy"]}`.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> ExitMiddleware:
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        # A retry and a redirect keep theirs.
        if "proxy" not in request.meta:
            request.meta["proxy"] = next(self._crawler.spider.proxies)


@dataclass(frozen=True, slots=True)
class Carried:
    """A profile of the shop's log, the addresses that its connections came from, and their users by the proxies' logs."""

    profile: Profile
    exits: frozenset[str]
    users: frozenset[str]


@dataclass(frozen=True, slots=True)
class ExitUse:
    """What came out of one exit; of several, joined by commas, where something went wrong."""

    exit: str
    sessions: int
    connections: int
    requests: int
    longest_profile: int
    carried: tuple[tuple[str, int], ...]
    """The sessions, by the users of its proxy, and the requests of each by the shop's log."""


def proxy_log(mode: SiteMode, exit_address: str, out: Path = OUT) -> Path:
    """Where the proxy of an exit writes its log."""
    return out / f"exits-{mode.value}-{exit_address}.jsonl"


def read_users(logs: Iterable[Path]) -> dict[str, str]:
    """The proxies' logs: by the address and port that the shop sees, whose tunnel it is."""
    lines = (line for log in logs for line in log.read_text(encoding="utf-8").splitlines())
    return {entry["client"]: entry["user"] for entry in map(json.loads, lines)}


def carried(site_log: Path, users: Mapping[str, str]) -> list[Carried]:
    """Each profile with its exits, the longest first."""
    with site_log.open(encoding="utf-8") as lines:
        log: list[dict[str, Any]] = list(entries(lines))
    clients = {entry["connection"]: entry["client"] for entry in log if entry["event"] == "accepted"}
    found = []
    for profile in profiles(log):
        came = [clients[connection] for connection in profile.connections]
        exits = frozenset(client.rpartition(":")[0] for client in came)
        found.append(Carried(profile, exits, frozenset(users.get(client, "nobody") for client in came)))
    return found


def exits_used(found: Sequence[Carried]) -> list[ExitUse]:
    """One for each exit that the shop saw."""
    by_exit: dict[str, list[Carried]] = {}
    for one in found:
        by_exit.setdefault(", ".join(sorted(one.exits)), []).append(one)
    return [
        ExitUse(
            exit=name,
            sessions=len(frozenset[str]().union(*(one.users for one in ones))),
            connections=sum(len(one.profile.connections) for one in ones),
            requests=sum(one.profile.requests for one in ones),
            longest_profile=max(one.profile.requests for one in ones),
            carried=tuple(sorted((", ".join(sorted(one.users)), one.profile.requests) for one in ones)),
        )
        for name, ones in sorted(by_exit.items())
    ]
