"""Name resolution in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface import implementer

from .running import the_reactor


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """There is nothing to cancel."""


@implementer(IHostnameResolver)
class EveryHostIsHere:
    """Resolves every name to 127.0.0.1 and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> _Resolution:
        self.asked.append(hostName)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        resolutionReceiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IHostnameResolver)
class NoHostIsFound(EveryHostIsHere):
    """Resolves no name."""

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> _Resolution:
        self.asked.append(hostName)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IHostnameResolver)
class NoAnswerComes(EveryHostIsHere):
    """Begins to resolve a name, and never ends."""

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any
    ) -> _Resolution:
        self.asked.append(hostName)
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        return resolution


def resolved_to_loopback() -> AbstractContextManager[list[str]]:
    """Every host is here for a while; gives the list of names asked for."""
    return _installed(EveryHostIsHere())


def no_host_is_found() -> AbstractContextManager[list[str]]:
    """No host has an address for a while; gives the list of names asked for."""
    return _installed(NoHostIsFound())


def no_name_is_resolved_in_time() -> AbstractContextManager[list[str]]:
    """The resolver does not answer for a while; gives the list of names asked for."""
    return _installed(NoAnswerComes())


@contextmanager
def _installed(resolver: EveryHostIsHere) -> Iterator[list[str]]:
    reactor = the_reactor()
    before = reactor.nameResolver
    reactor.installNameResolver(resolver)
    try:
        yield resolver.asked
    finally:
        reactor.installNameResolver(before)
