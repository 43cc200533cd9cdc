"""What the scheduler wants done. The pool does it, in order, and reports what came of it as facts.

Connections and tickets are named by numbers: a connection's is given by the scheduler when it asks for the dial, a
ticket's by the pool, rising with arrival.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from scrapy_poolplus.core.errors import PoolPlusError
from scrapy_poolplus.core.events import CloseReason, SessionCrossed, SessionOpened, SessionRetired
from scrapy_poolplus.core.origin import PoolKey


@dataclass(frozen=True, slots=True)
class Dial:
    """Make a connection for `key`; report ``connected`` or ``dial_failed``. `session`: the id of whose it will be, or
    None. `turn`: the place of that session, or of the connection without one, among those of the origin, from which its
    local address follows; 0 where the policy names no addresses."""

    connection: int
    key: PoolKey
    session: str | None = None
    turn: int = 0


class Dispatch(NamedTuple):
    """Send the request on the connection; report ``finished``. `reused`: the connection had been given a request
    before; `waited`: seconds since the request was submitted; `session`: the id of its session, or None; `kept`: that is
    kept whole.

    A tuple and no dataclass, as every request needs one: it is made in a fifth of the time."""

    ticket: int
    connection: int
    reused: bool
    waited: float
    session: str | None = None
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Drain:
    """The connection takes nothing new from now on. Nothing needs doing: told for the observers."""

    connection: int
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Tell:
    """Something happened to a session. Nothing needs doing: told for the observers."""

    event: SessionOpened | SessionCrossed | SessionRetired


@dataclass(frozen=True, slots=True)
class Kept:
    """The session is kept whole from here on, because of the request. `cause`: ``"flow"`` or ``"pin"``."""

    session: str
    cause: str
    ticket: int


@dataclass(frozen=True, slots=True)
class EndSession:
    """The session is forgotten: let go of its cookies."""

    session: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection, or give up its dial. It has left the scheduler already: report nothing about it."""

    connection: int
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer the request with `error`. It has left the scheduler already, wherever it was."""

    ticket: int
    error: PoolPlusError


Action = Dial | Dispatch | Drain | Tell | Kept | EndSession | Close | Fail
