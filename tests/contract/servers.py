"""The local site as tests see it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from .running import Transport


class Site:
    """The ports of the running site. Resources are listed in ``mockserver.py``."""

    def __init__(self, announced: dict[str, Any]) -> None:
        self._ports: dict[str, int] = announced["ports"]
        self.authority: str = announced["authority"]
        """PEM of the authority that issued the site's certificate."""
        self.process: int = announced["process"]

    def port(self, transport: Transport) -> int:
        """Its port for a transport."""
        return self._ports[transport.name]

    def url(self, transport: Transport, path: str = "/", host: str = "127.0.0.1") -> str:
        """A URL of it."""
        return f"{transport.scheme}://{host}:{self.port(transport)}{path}"

    def seen(self, transport: Transport) -> dict[str, Any]:
        """What the site has counted on that port since its start; asked over a port of its own."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports['counts']}/", timeout=20) as answer:
            counts: dict[str, Any] = json.load(answer)
        return counts[transport.name]
