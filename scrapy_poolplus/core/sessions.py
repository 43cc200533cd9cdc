"""Sessions: what a server may tie together, and which one a request belongs to.

A session is all that one server may tie to one visitor: connections, a cookie jar, a proxy login. A *rotating* one has
a budget, and one connection per origin at a time; when the server closes that early, the next connection of the origin
goes on with what is left. A *kept* one (a flow, or a label) has as many connections as it needs, and no budget. Two
sessions never share a connection (I21).

Nothing here knows of connections but their numbers; the scheduler asks at dispatch, and dials.

- Requests are charged when they are dispatched, over all connections that the session ever had, and never given back.
- The first reason to retire wins. A retired session takes nothing new of its own accord; it stays, with its jar, while
  somebody holds it (a page whose requests are still to be answered), so that a flow can begin in it.
- What nothing holds, carries or is to go on in is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from scrapy_poolplus.core.budget import UNLIMITED, Budget, spent
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import PoolKey
from scrapy_poolplus.core.policy import Policy

ORPHANS_LOOKED_AT = 8
"""A new connection looks at so many sessions whose connection was closed early, before it begins one of its own."""


class Tie(Enum):
    """How a request is bound to a session."""

    NONE = "none"
    """To none: whichever is open."""
    OWN = "own"
    """To the session that its chain is in, while that has budget; else it crosses into another one."""
    FLOW = "flow"
    """To its session whatever the budget says, if that has a cookie for ``host`` or is kept already; else as OWN."""
    KEPT = "kept"
    """To its session whatever the budget says; without one, to the kept session called ``name``."""
    PIN = "pin"
    """To the kept session called ``name``."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request asks for. `session`: the id it follows. `host`: whose cookies make a flow hold. `far`: only into a
    session that is kept, as it goes to another site, or follows what may turn out to be no flow. `cause`: what it is
    counted as where it crosses ("redirect", "retry"), None where that is no crossing. `rotate`: its session is retired
    with it. `bare`: it goes without cookies and keeps none, so a new session's next request goes alone as well."""

    tie: Tie = Tie.NONE
    session: str | None = None
    name: str = ""
    host: str = ""
    far: bool = False
    cause: str | None = None
    rotate: bool = False
    bare: bool = False


ANY = Claim()


class Session:
    """One session. `gone` is True once it was forgotten."""

    __slots__ = (
        "answered",
        "apart",
        "bound",
        "budget",
        "connections",
        "domains",
        "gone",
        "holds",
        "home",
        "id",
        "in_flight",
        "kept",
        "name",
        "opened_at",
        "policy",
        "reason",
        "requests",
        "turn",
        "used_at",
    )

    def __init__(self, number: str, policy: Policy, name: str | None, now: float) -> None:
        self.id = number
        self.policy = policy
        self.name = name
        """Label or group of one that was kept from its beginning."""
        self.kept = name is not None
        self.budget: Budget | None = None if name is None else UNLIMITED
        """Drawn when its first connection is ready; None until then."""
        self.opened_at: float | None = None
        self.requests = 0
        self.answered = False
        """A response head came in it: it has its cookies."""
        self.connections: set[int] = set()
        """Those that carry it now, over all origins."""
        self.in_flight = 0
        self.bound = 0
        """Requests that wait for it and for no other one."""
        self.holds = 0
        """Pages and requests that may still have something follow in it."""
        self.domains: frozenset[str] = frozenset()
        """Of the cookies in its jar."""
        self.reason: CloseReason | None = None
        """Why it is retired."""
        self.home: PoolKey | None = None
        """The key whose next connection goes on with it, while it has none there."""
        self.apart: set[PoolKey] = set()
        """Keys that are its own."""
        self.turn: int | None = None
        """Its place among the sessions of the origin that it was first dialled for; its local address follows from it."""
        self.used_at = now
        self.gone = False

    @property
    def retired(self) -> bool:
        """It takes nothing new but what begins or goes on with a flow."""
        return self.reason is not None

    @property
    def awaited(self) -> bool:
        """Its first answer is on its way: what else is bound to it waits for that."""
        return self.in_flight > 0 and not self.answered and not self.kept

    def left(self) -> int | None:
        """Requests that it may still carry, None for no limit."""
        if self.kept or self.budget is None or self.budget.requests is None:
            return None
        return max(0, self.budget.requests - self.requests)

    def spent(self, now: float) -> CloseReason | None:
        """Why it may take no further request of its own accord, or None."""
        if self.reason is not None:
            return self.reason
        if self.kept or self.budget is None or self.opened_at is None:
            return None
        return spent(self.budget, requests=self.requests, age=now - self.opened_at, size=0)

    def has_cookie(self, host: str) -> bool:
        """Its jar has a cookie that goes to `host` (RFC 6265 5.1.3); ``.local`` is what http.cookiejar appends to a
        host without a dot."""
        for domain in self.domains:
            bare = domain.removeprefix(".")
            if bare in {host, f"{host}.local"} or (domain[0] == "." and host.endswith(domain)):
                return True
        return False

    def idle(self) -> bool:
        """Nothing carries it, waits for it or holds it."""
        return not (self.connections or self.in_flight or self.bound or self.holds)


class SessionBook:
    """All sessions of a crawl. `prefix` is another one in each run: ids that outlived a run must not name the
    sessions of the next."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.sessions: dict[str, Session] = {}
        self._numbers = 0
        self._named: dict[str, Session] = {}
        self._orphans: dict[PoolKey, dict[str, Session]] = {}

    def find(self, number: str | None) -> Session | None:
        """The session with this id, if it is not forgotten."""
        return None if number is None else self.sessions.get(number)

    def open(self, policy: Policy, now: float) -> Session:
        """A new one that rotates."""
        return self._add(policy, None, now)

    def named(self, name: str, policy: Policy, now: float) -> tuple[Session, bool]:
        """The kept session of this name, and whether it is a new one."""
        session = self._named.get(name)
        if session is not None and not session.retired:
            return session, False
        session = self._named[name] = self._add(policy, name, now)
        return session, True

    def called(self, name: str) -> Session | None:
        """The one with this id, or pinned to this label."""
        return self.sessions.get(name) or self._named.get(f"pin {name}")

    def next_for(self, key: PoolKey, policy: Policy, now: float) -> Session:
        """The one for a new connection of `key`: the oldest whose connection was closed early, else a new one."""
        for session in list(islice(self._orphans.get(key, {}).values(), ORPHANS_LOOKED_AT)):
            if session.awaited:
                # At another host; this connection would have to wait for it.
                continue
            self.claim_orphan(session)
            if session.spent(now) is None and not session.kept:
                return session
        return self.open(policy, now)

    def orphan(self, session: Session, key: PoolKey) -> None:
        """Its connection of `key` is gone early; the next one of that key goes on with it."""
        if session.requests:
            session.home = key
            self._orphans.setdefault(key, {})[session.id] = session

    def orphans(self, host: str | None) -> list[Session]:
        """Those that the next connection of a host, or of any, would go on with."""
        return [
            session
            for key, orphans in self._orphans.items()
            if host is None or key.origin.host == host
            for session in orphans.values()
        ]

    def claim_orphan(self, session: Session) -> None:
        """It is no orphan any more, if it was one: no new connection takes it up of its own accord."""
        if session.home is not None:
            orphans = self._orphans[session.home]
            del orphans[session.id]
            if not orphans:
                del self._orphans[session.home]
            session.home = None

    def remember(self, session: Session, domains: Iterable[str]) -> None:
        """These are the domains of the cookies in its jar now."""
        session.domains = frozenset(domains)

    def forget(self, session: Session) -> bool:
        """Forget the session if nothing is left of it; True if so."""
        if session.gone or not session.idle():
            return False
        if not session.retired and session.requests:
            return False
        session.gone = True
        self.claim_orphan(session)
        del self.sessions[session.id]
        if session.name is not None and self._named.get(session.name) is session:
            del self._named[session.name]
        return True

    def clear(self) -> None:
        """Forget all."""
        for session in self.sessions.values():
            session.gone = True
        self.sessions.clear()
        self._named.clear()
        self._orphans.clear()

    def _add(self, policy: Policy, name: str | None, now: float) -> Session:
        self._numbers += 1
        number = f"{self.prefix}-{self._numbers}"
        session = self.sessions[number] = Session(number, policy, name, now)
        return session
