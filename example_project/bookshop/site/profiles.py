"""What the shop can tie together: requests over one connection, and requests that show one visitor's cookie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bookshop.site.members import is_members_path

# Those of a form that was accepted; every other redirect of the members' area sends a stranger back to the start.
ACCEPTED = {("POST", "/login"), ("GET", "/search/find")}


@dataclass(slots=True)
class Profile:
    """All requests that are tied together, directly or through others, the client's address aside."""

    requests: int = 0
    # Pages of the members' area by path, those that the shop gave.
    flow: Counter[str] = field(default_factory=Counter)
    # Requests to the members' area that the shop refused: a flow that was cut shows here.
    refused: int = 0
    # By their numbers in the log.
    connections: set[int] = field(default_factory=set)

    @property
    def catalogue(self) -> int:
        """Requests outside the members' area."""
        return self.requests - self.flow.total() - self.refused

    @property
    def automatic(self) -> bool:
        return self.catalogue == self.requests

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count one more request of the log."""
        self.requests += 1
        self.connections.add(entry["connection"])
        path, status = entry["path"], entry["status"]
        if is_members_path(path):
            if status == 200 or (status == 303 and (entry["method"], path) in ACCEPTED):
                self.flow[path] += 1
            else:
                self.refused += 1


def profiles(entries: Iterable[Mapping[str, Any]]) -> list[Profile]:
    """The profiles of a log's entries (site.log.entries), the longest first."""
    requests = [entry for entry in entries if entry["event"] == "request"]
    # Union-find: each connection and each visitor points to another one of its profile, or to itself.
    above: dict[tuple[str, int], tuple[str, int]] = {}

    def root(token: tuple[str, int]) -> tuple[str, int]:
        while (higher := above.setdefault(token, token)) != token:
            token = higher
        return token

    for entry in requests:
        connection = root(("connection", entry["connection"]))
        # Visitor 0 has neither shown nor got a cookie.
        if entry["visitor"]:
            above[root(("visitor", entry["visitor"]))] = connection
    found: dict[tuple[str, int], Profile] = {}
    for entry in requests:
        found.setdefault(root(("connection", entry["connection"])), Profile()).add(entry)
    return sorted(found.values(), key=lambda profile: profile.requests, reverse=True)
