"""What the scheduler wants done. The pool does it, in order, and reports what came of it as facts.

Connections and tickets are named by numbers: a connection's is given by the scheduler when it asks for the dial, a
ticket's by the pool, rising with arrival.
"""

from __future__ import annotations

from dataclasses import dataclass

from scrapy_poolplus.core.errors import PoolPlusError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import PoolKey


@dataclass(frozen=True, slots=True)
class Dial:
    """Make a connection for `key`; report ``connected`` or ``dial_failed``."""

    connection: int
    key: PoolKey


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the request on the connection; report ``finished``. `reused`: the connection had been given a request
    before; `waited`: seconds since the request was submitted."""

    ticket: int
    connection: int
    reused: bool
    waited: float


@dataclass(frozen=True, slots=True)
class Drain:
    """The connection takes nothing new from now on. Nothing needs doing: told for the observers."""

    connection: int
    reason: CloseReason


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


Action = Dial | Dispatch | Drain | Close | Fail
