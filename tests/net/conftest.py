"""What tests of real sockets share: servers that are ended, and a reactor that is left as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
import trustme

from tests.peers.listening import Listening, Unhandled


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Nobody's, unless a test says so."""
    return trustme.CA()


@pytest_twisted.async_yield_fixture
async def listening() -> AsyncIterator[Listening]:
    """Servers of the test. When it has ended, the reactor has no timer and no client socket of it, and Twisted has
    logged no error."""
    from twisted.internet import reactor

    timers = set(reactor.getDelayedCalls())
    with Unhandled() as unhandled:
        started = Listening(reactor)
        yield started
        await started.stop()
        await _turns(reactor)
    assert unhandled.events == []
    assert set(reactor.getDelayedCalls()) - timers == set()
    assert [reader for reader in reactor.getReaders() + reactor.getWriters() if "Client" in type(reader).__name__] == []


async def _turns(reactor: Any) -> None:
    """Let go through what was only put off to a next turn."""
    from twisted.internet.task import deferLater

    for _ in range(3):
        await deferLater(reactor, 0)
