"""Proxies of every kind, for the contract tests: what they were told, and how they are asked for."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from scrapy import Request
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred

from tests.peers.listening import Accepted, Listening, Server, ServerTLS
from tests.peers.proxies import ESTABLISHED, HttpProxy, SocksProxy, credentials

from .certificates import authority
from .running import the_reactor


class Kind(Enum):
    """How a proxy is spoken to; the value is the scheme of its URL."""

    HTTP = "http"
    HTTPS = "https"
    SOCKS5 = "socks5"
    SOCKS5H = "socks5h"

    @property
    def socks(self) -> bool:
        return self in (Kind.SOCKS5, Kind.SOCKS5H)


@dataclass(frozen=True, slots=True)
class Login:
    """Of a proxy's user."""

    user: str = "user"
    password: str = "pa:ss"

    @property
    def encoded(self) -> bytes:
        return b64encode(f"{self.user}:{self.password}".encode())

    @property
    def authorization(self) -> bytes:
        """The value of Proxy-Authorization."""
        return b"Basic " + self.encoded


class Via:
    """A proxy that runs."""

    def __init__(
        self, kind: Kind, proxy: HttpProxy | SocksProxy, login: Login | None, listening: Listening, server: Server
    ) -> None:
        self._listening = listening
        self._server = server
        self.kind = kind
        self.proxy = proxy
        self.login = login

    @property
    def address(self) -> str:
        """What meta ``proxy`` holds once HttpProxyMiddleware has taken the credentials out."""
        return f"{self.kind.value}://127.0.0.1:{self.proxy.port}"

    def url(self, login: Login | None = None) -> str:
        """What a spider writes."""
        login = login or self.login
        if login is None:
            return self.address
        return self.address.replace("://", f"://{login.user}:{login.password.replace(':', '%3A')}@")

    def request(self, url: str, login: Login | None = None, **arguments: Any) -> Request:
        """A request as the handler gets it from the middlewares."""
        login = login or self.login
        request = Request(url, **arguments)
        request.meta["proxy"] = self.address
        if login is not None:
            request.headers["Proxy-Authorization"] = login.authorization
        return request

    @property
    def connections(self) -> list[Accepted]:
        return self.proxy.clients

    def open_connections(self) -> list[Accepted]:
        """Those that have not ended."""
        return [connection for connection in self.connections if connection.end is None]

    def logins(self) -> list[bytes]:
        """``user:password`` of each time that it was told, in Base64."""
        if isinstance(self.proxy, SocksProxy):
            return [b64encode(b":".join(login)) for login in self.proxy.logins]
        return _told(self.proxy.heads)

    def logins_on(self, connection: Accepted) -> set[bytes]:
        """Those of one connection."""
        if isinstance(self.proxy, SocksProxy):
            # It is told once, in the greeting.
            return {self.logins()[self.connections.index(connection)]}
        return set(_told(self.proxy.by_client[connection]))

    def accept_anyone(self) -> None:
        """It wants a login, and takes any."""
        if isinstance(self.proxy, SocksProxy):
            self.proxy.allowed = lambda _: True
        else:
            self.proxy.authorization = None

    def on_data(self, act: Callable[[Accepted], object]) -> None:
        """Do this instead of what a proxy does, whenever a client has sent something."""
        self._server.on_data = act

    async def stop_listening(self) -> None:
        """Refuse connections from now on."""
        await maybe_deferred_to_future(Deferred.fromCoroutine(self._listening.stop()))

    def tunnels(self) -> list[str]:
        """The target of each tunnel, as it was asked for."""
        if isinstance(self.proxy, SocksProxy):
            return [f"{host.decode()}:{port}" for kind, host, port in self.proxy.targets if kind == 3]
        return [head.split()[1].decode() for head in self.proxy.heads if head.startswith(b"CONNECT ")]


StartProxy = Callable[..., Via]


@pytest.fixture
def proxies(tmp_path: Path) -> Iterator[StartProxy]:
    """`proxies(kind, login=None, answer=...)` starts a proxy on 127.0.0.1; it has gone when the test ends."""
    started: list[Listening] = []

    def start(
        kind: Kind, login: Login | None = None, *, answer: bytes = ESTABLISHED, interface: str = "127.0.0.1"
    ) -> Via:
        listening = Listening(the_reactor())
        started.append(listening)
        tls = ServerTLS(authority().issue_cert("127.0.0.1"), tmp_path) if kind is Kind.HTTPS else None
        server = listening.start(tls, interface)
        proxy: HttpProxy | SocksProxy
        if kind.socks:
            pytest.importorskip("socksio", reason="the extra socks is not installed")
            proxy = SocksProxy(server, None if login is None else (login.user.encode(), login.password.encode()))
        else:
            proxy = HttpProxy(server, answer, authorization=None if login is None else login.authorization)
        return Via(kind, proxy, login, listening, server)

    yield start
    for listening in started:
        pytest_twisted.blockon(Deferred.fromCoroutine(listening.stop()))


def _told(heads: list[bytes]) -> list[bytes]:
    return [value.removeprefix(b"Basic ") for head in heads for value in credentials(head)]
