"""A server that asks to be left alone, by Retry-After."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.servers.hypercorn import Hypercorn
from tests.servers.nginx import Door
from tests.servers.real import Pages


@dataclass(frozen=True, slots=True)
class Came:
    """A request in the server's own log; `came` and `answered` are seconds of its monotonic clock."""

    path: str
    method: str
    status: int
    came: float
    answered: float


class PausingServer(Hypercorn):
    """Serves ``pausing_site`` through one door."""

    def __init__(self, folder: Path, authority: trustme.CA, door: Door) -> None:
        super().__init__(folder, Pages(folder, 0), authority, door)
        self.requests_path = folder / "requests"

    def command(self) -> list[str]:
        return [*super().command()[:-1], "tests.servers.pausing_site:app"]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "LOG": str(self.requests_path)}

    def at(self, path: str) -> str:
        """The URL of a path, with its query."""
        return f"{self.door.scheme}://{self.host}:{self.port}{path}"

    def came(self, below: str) -> list[Came]:
        """The requests for paths that begin with `below`, in the order in which they were answered. What a client has
        an answer to is in it."""
        entries = [Came(**json.loads(line)) for line in self.requests_path.read_text().splitlines()]
        return [entry for entry in entries if entry.path.startswith(below)]
