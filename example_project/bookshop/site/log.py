"""What the shop saw, one JSON object a line: the figures of every summary come from here, not from the client.

`accepted`: a connection, numbered from 1. `handshake`: a finished TLS handshake. `request`: one answered request, with
the number of its connection and of its visitor. `t` is in seconds on the clock of the shop's process.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bookshop.site.profiles import profiles

PROTOCOLS = {"1.0": "HTTP/1.0", "1.1": "HTTP/1.1", "2": "h2"}


class SiteLog:
    """Writes the log; every line is on disk before the call returns, so that others can follow it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._connections: dict[tuple[str, int], int] = {}
        self._accepted = 0

    def close(self) -> None:
        self._file.close()

    def accepted(self, client: tuple[str, int]) -> None:
        """A connection from this address: while it is open no other one has the address, later ones overwrite it."""
        self._accepted += 1
        self._connections[client] = self._accepted
        self._write(event="accepted", connection=self._accepted, client=f"{client[0]}:{client[1]}")

    def handshake(self, tls: ssl.SSLObject) -> None:
        alpn = tls.selected_alpn_protocol()
        self._write(event="handshake", version=tls.version(), alpn=alpn, resumed=bool(tls.session_reused))

    def request(
        self,
        client: tuple[str, int],
        http_version: str,
        method: str,
        path: str,
        *,
        status: int,
        size: int,
        visitor: int,
    ) -> None:
        """One answer, handed over whole; `visitor` is 0 where the client has shown and got no cookie."""
        self._write(
            event="request",
            connection=self._connections[client],
            protocol=PROTOCOLS[http_version],
            method=method,
            path=path,
            status=status,
            bytes=size,
            visitor=visitor,
        )

    def _write(self, **fields: object) -> None:
        if not self._file.closed:
            self._file.write(json.dumps({"t": round(time.monotonic(), 6), **fields}) + "\n")


@dataclass(frozen=True, slots=True)
class SiteSummary:
    """What one run looked like from the shop; `seconds` run from the first connection to the last answer."""

    connections: dict[str, int] = field(default_factory=dict)
    unused: int = 0
    handshakes: int = 0
    resumed: int = 0
    requests: int = 0
    most_requests: int = 0
    visitors: int = 0
    longest_profile: int = 0
    staff_pages: int = 0
    seconds: float = 0.0

    @property
    def opened(self) -> int:
        """All connections, those that carried no request included."""
        return sum(self.connections.values()) + self.unused

    @property
    def mean_requests(self) -> float:
        return self.requests / self.opened if self.opened else 0.0

    @property
    def reuse(self) -> float:
        """The share of requests that needed no new connection, 0 to 1."""
        return max(0.0, 1 - self.opened / self.requests) if self.requests else 0.0


def is_page(line: str) -> bool:
    """Whether a line of the log tells of a page, and not of a redirect to one: for who follows a log that is being written."""
    return '"event": "request"' in line and '"status": 3' not in line


def entries(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What a log says. A half-written last line, left by a shop that was killed, is passed over."""
    return (json.loads(line) for line in lines if line.endswith("\n"))


def summarise(lines: Iterable[str]) -> SiteSummary:
    """Sum up a log."""
    log = list(entries(lines))
    protocols: dict[int, str] = {}
    carried: dict[int, int] = {}
    visitors: set[int] = set()
    handshakes = resumed = staff_pages = 0
    first = last = None
    for entry in log:
        match entry["event"]:
            case "accepted":
                carried[entry["connection"]] = 0
                first = entry["t"] if first is None else first
            case "handshake":
                handshakes += 1
                resumed += entry["resumed"]
            case "request":
                last = entry["t"]
                carried[entry["connection"]] += 1
                protocols[entry["connection"]] = entry["protocol"]
                visitors.add(entry["visitor"])
                staff_pages += entry["path"].startswith("/staff/")
    names = list(protocols.values())
    return SiteSummary(
        connections={name: names.count(name) for name in dict.fromkeys(names)},
        unused=len(carried) - len(protocols),
        handshakes=handshakes,
        resumed=resumed,
        requests=sum(carried.values()),
        most_requests=max(carried.values(), default=0),
        visitors=len(visitors - {0}),
        longest_profile=max((profile.requests for profile in profiles(log)), default=0),
        staff_pages=staff_pages,
        seconds=last - first if first is not None and last is not None else 0.0,
    )
