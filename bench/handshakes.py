"""What a new TLS connection costs a client, layer by layer: ``python -m bench.handshakes``.

Each way opens and closes connections to nginx one after the other, without verification, and is timed in processor time:
printed is the least of several rounds, the ways in turn. What a way costs above the one before it is the price of its layer.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import process_time
from typing import Any

from OpenSSL import SSL
from scrapy.utils.reactor import install_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from bench.cases import Door
from bench.round_trip import trusting
from bench.servers import servers
from scrapy_poolplus.core.origin import HttpProtocol, Origin, Route
from scrapy_poolplus.net.dialer import Dialer
from scrapy_poolplus.net.tls import TLSProfile
from scrapy_poolplus.net.wire import EngineConfig

HOST = "127.0.0.1"
PIECE = 32 * 1024
LIMIT = 10.0
"""Seconds for one connection."""

Way = Callable[[int], Awaitable[None]]
"""Opens one connection to a port of HOST and closes it."""


def with_ssl(context: ssl.SSLContext) -> Way:
    """The standard library on a blocking socket: hardly more than OpenSSL itself."""

    async def connect(port: int) -> None:
        with socket.create_connection((HOST, port), LIMIT) as plain, context.wrap_socket(plain) as secure:
            secure.version()

    return connect


def with_asyncio(context: ssl.SSLContext) -> Way:
    """Streams of asyncio."""

    async def connect(port: int) -> None:
        _, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port, ssl=context), LIMIT)
        writer.transport.abort()

    return connect


def with_pyopenssl(context: SSL.Context) -> Way:
    """What Twisted uses: pyOpenSSL in memory, here on a blocking socket."""

    async def connect(port: int) -> None:
        with socket.create_connection((HOST, port), LIMIT) as plain:
            connection = SSL.Connection(context, None)
            connection.set_connect_state()
            while True:
                try:
                    connection.do_handshake()
                except SSL.WantReadError:
                    _flush(connection, plain)
                    connection.bio_write(plain.recv(PIECE))
                else:
                    _flush(connection, plain)
                    return

    return connect


def _flush(connection: SSL.Connection, plain: socket.socket) -> None:
    try:
        plain.sendall(connection.bio_read(PIECE))
    except SSL.WantReadError:
        """Nothing is to be sent."""


def with_twisted(context: SSL.Context) -> Way:
    """Twisted's transports: a client with TLS from the first byte, told when the handshake has ended."""
    from twisted.internet import reactor

    @implementer(IOpenSSLClientConnectionCreator)
    class Creator:
        def clientConnectionForTLS(self, _protocol: Any) -> SSL.Connection:  # noqa: N802
            return SSL.Connection(context, None)

    @implementer(IHandshakeListener)
    class Told(Protocol):
        def __init__(self) -> None:
            self.done: Deferred[None] = Deferred()

        def handshakeCompleted(self) -> None:
            transport: Any = self.transport
            transport.abortConnection()
            self.done.callback(None)

    async def connect(port: int) -> None:
        protocol = Told()
        factory: Any = ClientFactory.forProtocol(lambda: protocol)
        factory.noisy = False
        tcp: Any = reactor
        tcp.connectTCP(HOST, port, TLSMemoryBIOFactory(Creator(), True, factory), timeout=LIMIT)
        await protocol.done.asFuture(asyncio.get_running_loop())

    return connect


def with_ours() -> Way:
    """A dial as the pool makes it: resolver, race of addresses, TLS, name of the certificate, what was agreed."""
    from twisted.internet import reactor

    tcp: Any = reactor
    dialer, config = Dialer(tcp, TLSProfile()), EngineConfig()

    async def connect(port: int) -> None:
        route = Route(Origin("https", HOST, port))
        dial = dialer.dial(route, tuple(HttpProtocol), config, timeout=LIMIT, setting="connect_timeout")
        connection = await dial.result.asFuture(asyncio.get_running_loop())
        connection.abort()

    return connect


async def measured(way: Way, port: int, connections: int) -> float:
    """Microseconds per connection."""
    start = process_time()
    for _ in range(connections):
        await way(port)
        # What closing leaves to the next turns of the loop is part of it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return (process_time() - start) / connections * 1e6


async def compared(port: int, rounds: int, connections: int) -> dict[str, float]:
    """The least of each."""
    standard, openssl = trusting(), SSL.Context(SSL.TLS_METHOD)
    ways = {
        "ssl, blocking socket": with_ssl(standard),
        "asyncio and ssl": with_asyncio(standard),
        "pyOpenSSL, blocking socket": with_pyopenssl(openssl),
        "Twisted and pyOpenSSL": with_twisted(openssl),
        "poolplus, a dial": with_ours(),
    }
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            least[name] = min(least[name], await measured(way, port, connections))
    return least


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.handshakes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--connections", type=int, default=60, help="of each way in a round (default: %(default)s)")
    given = parser.parse_args()
    install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
    from twisted.internet import reactor

    loop = reactor._asyncioEventloop  # noqa: SLF001
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, servers(Path(folder), round_trip=0.05) as running:
        task = loop.create_task(compared(running.port(Door.TLS, slow=False), given.rounds, given.connections))
        task.add_done_callback(lambda _: reactor.stop())
        reactor.run()
        print(f"A new TLS connection: µs of CPU, least of {given.rounds} rounds of {given.connections}")
        for name, cost in task.result().items():
            print(f"{name:30}{cost:8.0f}")


if __name__ == "__main__":
    main()
