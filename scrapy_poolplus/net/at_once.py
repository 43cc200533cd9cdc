"""A TCP transport that sends what is written when it is written.

Twisted keeps it until the reactor's next turn, for which it asks the kernel to say that the socket can be written, and no
more once it could: two system calls and a turn for each request, whose few bytes the socket nearly always takes at once.
Engines gather what they have to say in a turn, so there is little to join. What the socket does not take, and every error, is
left to Twisted's own way, which is also taken while that has anything to send, is paced by a producer, or has been told to close.
"""

from __future__ import annotations

from errno import ENOBUFS, EPIPE
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISystemHandle, ITCPTransport
from twisted.internet.tcp import Client
from twisted.python.failure import Failure
from zope.interface import implementer

_LOOKED_AT = ("TLS", "_aborting", "connected", "disconnecting", "dataBuffer", "_tempDataBuffer", "producer")
"""Of Twisted's transports, tried with 24.11 and 26.10."""
_NO_END = frozenset({ENOBUFS, EPIPE})
"""Errors of sending that leave it to the socket to say how it ended: it has not, or the peer had closed in order before."""


def at_once(transport: Any) -> Any:
    """`transport`, or one that sends at once where that is a TCP connection of Twisted's with the parts we know."""
    if isinstance(transport, Client) and all(hasattr(transport, name) for name in _LOOKED_AT) and not transport.TLS:
        return AtOnce(transport)
    return transport


def how_tcp_ended(transport: object, reason: Failure) -> Failure:
    """`reason`, or that the connection broke where sending at once met that: a socket tells its error once, and to who comes
    later it reads as if the peer had closed it in order."""
    if isinstance(transport, AtOnce) and transport.broke and isinstance(reason.value, ConnectionDone):
        return Failure(ConnectionLost())  # type: ignore[no-untyped-call]
    return reason


@implementer(ITCPTransport, ISystemHandle)
class AtOnce:
    """A transport in front of a TCP connection. All but ``write`` is the connection's own.

    It says of itself what is asked of it here, not all that the connection provides: Twisted's TLS copies that one by one for
    each connection.
    """

    def __init__(self, below: Client) -> None:
        self.broke = False
        self._below = below
        self._send = below.getHandle().send

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def write(self, data: bytes) -> None:
        """Send, in the order of the calls; nothing more after an abort. An error is told by the reactor in a turn of its own,
        not within this call."""
        below: Any = self._below
        if below._aborting:  # noqa: SLF001
            return
        if (
            below.connected
            and not below.disconnecting
            and not below.dataBuffer
            and not below._tempDataBuffer  # noqa: SLF001
            and below.producer is None
        ):
            try:
                sent = self._send(data)
            except BlockingIOError:
                """The socket is full."""
            except OSError as error:
                self.broke = self.broke or error.errno not in _NO_END
            else:
                if sent == len(data):
                    return
                data = data[sent:]
        below.write(data)
