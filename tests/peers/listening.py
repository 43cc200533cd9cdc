"""Servers in this process, on 127.0.0.1 and a port of the system's choice, for the dialer to connect to."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import LogEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from typing_extensions import Self
from zope.interface import implementer


class Accepted(Protocol):
    """The server's end of a connection: keeps what came and how it ended."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.received = b""
        self.end: Failure | None = None

    def connectionMade(self) -> None:
        self.server._accepted(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.server._changed()
        if self.server.on_data is not None:
            self.server.on_data(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end = reason
        if self.server.on_end is not None:
            self.server.on_end(self)
        self.server._changed()


@implementer(IOpenSSLServerConnectionCreator)
@dataclass
class ServerTLS:
    """TLS of a server: what it speaks, and what clients asked for.

    `alpn`: what it picks from, in its order; None for a server that knows no ALPN.
    """

    certificate: trustme.LeafCert
    folder: Path
    alpn: Sequence[bytes] | None = None
    configure: Callable[[SSL.Context], object] = lambda context: None
    server_names: list[bytes | None] = field(default_factory=list)
    offered: list[list[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        chain, key = self.folder / f"chain{id(self)}.pem", self.folder / f"key{id(self)}.pem"
        chain.write_bytes(b"".join(blob.bytes() for blob in self.certificate.cert_chain_pems))
        key.write_bytes(self.certificate.private_key_pem.bytes())
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate_chain_file(str(chain))
        self._context.use_privatekey_file(str(key))
        self._context.set_tlsext_servername_callback(lambda tls: self.server_names.append(tls.get_servername()))
        if self.alpn is not None:
            self._context.set_alpn_select_callback(self._pick)
        self.configure(self._context)

    def _pick(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        self.offered.append(offered)
        picked = [protocol for protocol in self.alpn or () if protocol in offered]
        return picked[0] if picked else SSL.NO_OVERLAPPING_PROTOCOLS

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class Server(Factory):
    """Accepts and waits. `connections` holds every one that came; `until` waits for what the test expects."""

    noisy = False

    def __init__(self) -> None:
        self.connections: list[Accepted] = []
        self.on_accept: Callable[[Accepted], object] | None = None
        self.on_data: Callable[[Accepted], object] | None = None
        self.on_end: Callable[[Accepted], object] | None = None
        self.port = 0
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def buildProtocol(self, addr: object) -> IProtocol:
        return Accepted(self)

    def _accepted(self, connection: Accepted) -> None:
        self.connections.append(connection)
        if self.on_accept is not None:
            self.on_accept(connection)
        self._changed()

    def _changed(self) -> None:
        for condition, waiter in self._waiting[:]:
            if condition():
                self._waiting.remove((condition, waiter))
                waiter.callback(None)

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when `condition` holds, which is looked at when a connection comes, says something or goes."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append((condition, waiter))
        self._changed()
        return waiter

    def spoken_to(self) -> Deferred[None]:
        """Fires when a client has sent something."""
        return self.until(lambda: any(connection.received for connection in self.connections))

    def all_gone(self) -> Deferred[None]:
        """Fires when every connection has ended."""
        return self.until(lambda: all(connection.end is not None for connection in self.connections))


class Listening:
    """Starts servers and ends them, with every connection they have."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ports: list[Any] = []
        self._servers: list[Server] = []

    def start(self, tls: ServerTLS | None = None, interface: str = "127.0.0.1") -> Server:
        """A server that listens on `interface`."""
        server = Server()
        factory: Any = server if tls is None else TLSMemoryBIOFactory(tls, False, server)
        port = self._reactor.listenTCP(0, factory, interface=interface)
        server.port = port.getHost().port
        self._servers.append(server)
        self._ports.append(port)
        return server

    async def stop(self) -> None:
        """Nothing is left."""
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        for server in self._servers:
            for connection in server.connections:
                if connection.end is None:
                    connection.transport.abortConnection()
            await server.all_gone()


class Unhandled:
    """What Twisted logs as an error while it is on."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __enter__(self) -> Self:
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(self, *exc_info: object) -> None:
        gc.collect(1)  # A Deferred says that its error was unhandled when it is collected; these are young.
        globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.events.append(event)
