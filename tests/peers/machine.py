"""A reactor whose names, and if wanted its time, are the test's own; its sockets are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.internet.task import Clock
from zope.interface import implementer


@implementer(IHostnameResolver)
class Names:
    """Resolver: name to addresses. A name that it does not hold has none; `asked` keeps every question."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    def resolveHostName(self, receiver: IResolutionReceiver, host: str, port: int = 0, *args: object) -> None:
        self.asked.append(host)
        receiver.resolutionBegan(None)
        for address in self.names.get(host, ()):
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, port))
        receiver.resolutionComplete()


class Machine:
    """`reactor` with `resolver` as its name resolver and, where given, `clock` as its time."""

    def __init__(self, reactor: Any, resolver: Any = None, clock: Clock | None = None) -> None:
        self._reactor = reactor
        self.nameResolver = reactor.nameResolver if resolver is None else resolver
        time = reactor if clock is None else clock
        self.callLater = time.callLater
        self.seconds = time.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
