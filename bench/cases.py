"""What is crawled: one case is one crawl, the same for every handler."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

KIB = 1024


class Door(Enum):
    """A port of the server."""

    CLEARTEXT = "cleartext"
    TLS = "TLS, HTTP/1.1"
    H2 = "TLS, h2"
    TLS_ONCE = "TLS, HTTP/1.1, one request a connection"

    @property
    def scheme(self) -> str:
        return "http" if self is Door.CLEARTEXT else "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`pages` requests for `size` bytes each, spread over `hosts` addresses, `concurrency` at once.

    `upload`: bytes that each request posts. `later`: from where the server takes its time. `round_trip`: seconds that the
    relay adds to each. `verify`: certificates are checked. `cold`: the warm-up goes to another address, so the connections
    are opened in the time that is measured. `beyond`: the case whose cost per request is taken off, so that what is left is
    that of one new connection. `rest`: seconds to do nothing at the end, with the connections open.
    """

    name: str
    door: Door
    size: int
    pages: int
    concurrency: int = 8
    hosts: int = 1
    upload: int = 0
    later: bool = False
    round_trip: float = 0.0
    verify: bool = False
    cold: bool = False
    beyond: str | None = None
    rest: float = 0.0

    @property
    def path(self) -> str:
        where = "/post" if self.upload else "/later" if self.later else ""
        return f"{where}/{self.size}"

    def scaled(self, factor: float) -> Case:
        """The same with fewer pages: for a look whether everything works."""
        pages = max(round(self.pages * factor), 2)
        return replace(self, pages=pages, hosts=min(self.hosts, pages))


_SMALL, _PAGE, LARGE = KIB, 60 * KIB, 20 * KIB * KIB
_DOORS = {"clear": Door.CLEARTEXT, "tls": Door.TLS, "h2": Door.H2}

CASES = (
    *(Case(name=f"1k-{name}", door=door, size=_SMALL, pages=1500) for name, door in _DOORS.items()),
    *(Case(name=f"60k-{name}", door=door, size=_PAGE, pages=600) for name, door in _DOORS.items()),
    *(Case(name=f"20m-{name}", door=door, size=LARGE, pages=8, concurrency=4) for name, door in _DOORS.items()),
    *(Case(name=f"post-{name}", door=door, size=_SMALL, pages=400, upload=64 * KIB) for name, door in _DOORS.items()),
    *(
        Case(name=f"hosts-{name}", door=door, size=_SMALL, pages=1000, hosts=200, concurrency=32, cold=True)
        for name, door in _DOORS.items()
    ),
    *(Case(name=f"c256-{name}", door=door, size=_SMALL, pages=1500, concurrency=256) for name, door in _DOORS.items()),
    Case(name="connect", door=Door.TLS_ONCE, size=_SMALL, pages=200, beyond="1k-tls"),
    Case(name="connect-verify", door=Door.TLS_ONCE, size=_SMALL, pages=200, verify=True, beyond="1k-tls"),
    *(
        Case(
            name=f"rtt-c{concurrency}-{name}",
            door=_DOORS[name],
            size=_SMALL,
            pages=400,
            concurrency=concurrency,
            round_trip=0.05,
            cold=True,
        )
        for concurrency in (8, 64)
        for name in ("tls", "h2")
    ),
    *(
        Case(name=f"rtt-20m-{name}", door=_DOORS[name], size=LARGE, pages=4, concurrency=2, round_trip=0.05, cold=True)
        for name in ("tls", "h2")
    ),
    Case(name="idle-tls", door=Door.TLS, size=_SMALL, pages=1000, hosts=1000, concurrency=32, cold=True, rest=3.0),
    Case(name="idle-h2", door=Door.H2, size=_SMALL, pages=1000, hosts=1000, concurrency=32, cold=True, rest=3.0),
)
