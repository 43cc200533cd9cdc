"""How these tests run things: coroutines under any reactor, bounded waits, crawls and child processes.

Nothing here sleeps. A wait ends with what it waits for, or with a failure after `PATIENCE`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from scrapy.utils.reactor import is_asyncio_reactor_installed
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread

PROJECT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds after which a wait has failed, a whole test or child process after thrice as many. Far above what anything
here takes: only a hang gets there."""

T = TypeVar("T")


def the_reactor() -> Any:
    """The installed reactor. Not imported with this module: importing it would install one before pytest-twisted does."""
    from twisted.internet import reactor

    return reactor


@dataclass(frozen=True, slots=True)
class Transport:
    """One of the three ways to a server: `scheme` of the URL, `protocol` as ``Response.protocol`` names it."""

    name: str
    scheme: str
    protocol: str

    @property
    def secure(self) -> bool:
        """True where TLS is spoken."""
        return self.scheme == "https"

    @property
    def is_h2(self) -> bool:
        """True where HTTP/2 is spoken."""
        return self.name == "h2"

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """What a server of this transport takes by ALPN."""
        return (b"h2",) if self.is_h2 else (b"http/1.1",)


HTTP = Transport("http", "http", "HTTP/1.1")
HTTPS1 = Transport("https1", "https", "HTTP/1.1")
H2 = Transport("h2", "https", "h2")
TRANSPORTS = (HTTP, HTTPS1, H2)


class Happening(Generic[T]):
    """Something that happens once and can be waited for by any number, before and after."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []
        self._value: list[T] = []

    @property
    def happened(self) -> bool:
        """True once :meth:`happen` was called."""
        return bool(self._value)

    def happen(self, value: T) -> None:
        """It happens; later calls change nothing."""
        if self._value:
            return
        self._value.append(value)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    async def wait(self) -> T:
        """The value it happened with. Fails after `PATIENCE`."""
        if not self._value:
            deferred: Deferred[None] = Deferred()
            deferred.addTimeout(PATIENCE, the_reactor())
            self._waiting.append(deferred)
            await maybe_deferred_to_future(deferred)
        return self._value[0]


async def gather(*awaitables: Awaitable[T]) -> list[T]:
    """The results of all, run at once; the first error is raised after all have ended."""
    return [_value(outcome) for outcome in await outcomes(*awaitables)]


async def outcomes(*awaitables: Awaitable[T]) -> list[T | BaseException]:
    """The result or the exception of each, run at once."""
    started = [deferred_from_coro(one) for one in awaitables]
    ended = await maybe_deferred_to_future(DeferredList(started, consumeErrors=True))
    return [value if good else value.value for good, value in ended]


def _value(outcome: T | BaseException) -> T:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def reactor_turns(number: int = 1) -> None:
    """Let the reactor go round, for effects that are due in its next turns."""
    for _ in range(number):
        deferred: Deferred[None] = Deferred()
        the_reactor().callLater(0, deferred.callback, None)
        await maybe_deferred_to_future(deferred)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for `condition`, looking once a reactor turn. Fails after `PATIENCE` with `what`."""
    begun = the_reactor().seconds()
    while not condition():
        if the_reactor().seconds() - begun > PATIENCE:
            raise AssertionError(f"waited {PATIENCE} s in vain: {what}")
        deferred: Deferred[None] = Deferred()
        the_reactor().callLater(0.005, deferred.callback, None)
        await maybe_deferred_to_future(deferred)


def bounded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Deferred[None]]:
    """Make an async test one that pytest-twisted runs, and that a hang fails."""

    def run(**arguments: Any) -> Deferred[None]:
        deferred = deferred_from_coro(test(**arguments))
        deferred.addTimeout(3 * PATIENCE, the_reactor())
        return deferred

    return run


def reactor_settings() -> dict[str, Any]:
    """What a crawler needs to accept the reactor that the tests run on."""
    return {} if is_asyncio_reactor_installed() else {"TWISTED_REACTOR": None}


@dataclass(frozen=True, slots=True)
class Ended:
    """A child process that has ended."""

    code: int
    out: str
    err: str

    def clean(self) -> Ended:
        """Fails unless it ended well and nothing of what must never be left was printed."""
        assert self.code == 0, self
        for sign in (
            "Traceback",
            "Warning",
            "Unhandled",
            "Exception ignored",
            "never awaited",
            "CRITICAL",
            "Task was destroyed",
        ):
            assert sign not in self.err, self.err
        return self


@dataclass(slots=True)
class Child:
    """A Python program in a process of its own."""

    arguments: list[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    async def ended(self) -> Ended:
        """Run it in a thread, so that servers on the reactor answer meanwhile. A hang fails."""
        return await maybe_deferred_to_future(deferToThread(self.run))

    def run(self) -> Ended:
        """Run it to its end. A child that hangs is killed and fails."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COV_", "SCRAPY_"))},
            "PYTHONPATH": str(PROJECT),
            **self.environment,
        }
        done = subprocess.run(
            [sys.executable, *self.arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


def pairs(headers: Iterable[tuple[bytes, list[bytes]]]) -> list[tuple[bytes, bytes]]:
    """Scrapy's headers as a flat list."""
    return [(name, value) for name, values in headers for value in values]
