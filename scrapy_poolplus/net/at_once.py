"""A TCP transport that sends what is written when it is written.

Twisted keeps it until the reactor's next turn, for which it asks the kernel to say that the socket can be written, and no
more once it could: two system calls and a turn for each request, whose few bytes the socket nearly always takes at once.
Engines write once a turn already, so there is nothing to gather. What the socket does not take, and every error, is left to
Twisted's own way, which is also taken while that has anything to send, is paced by a producer, or has been told to close.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection
from zope.interface import directlyProvides, providedBy

_LOOKED_AT = ("connected", "disconnecting", "dataBuffer", "_tempDataBuffer", "producer", "writeSomeData")
"""Of Twisted's transports, tried with 24.11 and 26.4."""


def at_once(transport: Any) -> Any:
    """`transport`, or one that sends at once where that is a TCP connection of Twisted's with the parts we know."""
    if isinstance(transport, Connection) and all(hasattr(transport, name) for name in _LOOKED_AT):
        return AtOnce(transport)
    return transport


class AtOnce:
    """A transport in front of a TCP connection. All but ``write`` is the connection's own."""

    def __init__(self, below: Connection) -> None:
        self._below = below
        directlyProvides(self, providedBy(below))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def write(self, data: bytes) -> None:
        """Send, in the order of the calls."""
        below: Any = self._below
        if (
            below.connected
            and not below.disconnecting
            and not below.dataBuffer
            and not below._tempDataBuffer  # noqa: SLF001
            and below.producer is None
        ):
            sent = below.writeSomeData(data)
            # An error is met again by the reactor, which tells of it in a turn of its own and not from within this call.
            if isinstance(sent, int):
                if sent == len(data):
                    return
                data = data[sent:]
        below.write(data)
