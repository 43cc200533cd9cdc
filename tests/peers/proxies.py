"""Small proxies in this process: what they answer is the test's, what they were told is kept. Every target is a port
of this machine, whatever its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.peers.listening import Accepted, Server

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
UNAUTHORIZED = b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="tests"\r\nContent-Length: 0\r\n\r\n'


def credentials(head: bytes) -> list[bytes]:
    """Values of Proxy-Authorization in a request's head."""
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return [value.strip() for name, _, value in lines if name.lower() == b"proxy-authorization"]


class Upstream(Protocol):
    """The proxy's connection to the target."""

    def __init__(self, client: Accepted, hang_up: Callable[[Accepted], object]) -> None:
        self.client = client
        self.hang_up = hang_up

    def dataReceived(self, data: bytes) -> None:
        self.client.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.client.end is None:
            self.hang_up(self.client)


class Relaying:
    """What both kinds share: a client's bytes, and the relay once the tunnel is open."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._read: dict[Accepted, int] = {}
        self._upstream: dict[Accepted, Upstream] = {}
        self.hang_up: Callable[[Accepted], object] = lambda client: client.transport.loseConnection()
        """What is done to the client when the target has gone."""
        server.on_data = self._data
        server.on_end = self._end

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def clients(self) -> list[Accepted]:
        return self._server.connections

    def unread(self, client: Accepted) -> bytes:
        return client.received[self._read.get(client, 0) :]

    def take(self, client: Accepted, length: int) -> bytes:
        taken = self.unread(client)[:length]
        self._read[client] = self._read.get(client, 0) + length
        return taken

    def talk(self, client: Accepted) -> None:
        raise NotImplementedError

    def relay(self, client: Accepted, port: int, connected: Callable[[], object]) -> None:
        """Connect to the target, call `connected`, pass everything on."""
        from twisted.internet import reactor

        def go_on(upstream: Upstream) -> None:
            self._upstream[client] = upstream
            connected()
            self._data(client)

        target = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        connectProtocol(target, Upstream(client, self.hang_up)).addCallback(go_on)

    def _data(self, client: Accepted) -> None:
        upstream = self._upstream.get(client)
        if upstream is None:
            self.talk(client)
        elif unread := self.take(client, len(self.unread(client))):
            upstream.transport.write(unread)

    def _end(self, client: Accepted) -> None:
        upstream = self._upstream.get(client)
        if upstream is not None:
            upstream.transport.loseConnection()


class HttpProxy(Relaying):
    """Speaks CONNECT, and passes on requests in absolute-form. `answer` is sent for each CONNECT; only a 2xx opens a
    tunnel. Without the `authorization` that it wants, everything is answered with 407. `heads` are the requests' heads,
    `by_client` the same for each connection."""

    def __init__(self, server: Server, answer: bytes = ESTABLISHED, *, authorization: bytes | None = None) -> None:
        super().__init__(server)
        self.answer = answer
        self.authorization = authorization
        self.heads: list[bytes] = []
        self.by_client: dict[Accepted, list[bytes]] = {}
        self.say: Callable[[Accepted, bytes], object] = lambda client, answer: client.transport.write(answer)
        self._origins: dict[Accepted, Deferred[Upstream]] = {}

    def talk(self, client: Accepted) -> None:
        end = self.unread(client).find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.take(client, end + 4)
        self.heads.append(head)
        self.by_client.setdefault(client, []).append(head)
        allowed = self.authorization is None or self.authorization in credentials(head)
        answer = self.answer if allowed else UNAUTHORIZED
        if not head.startswith(b"CONNECT "):
            if allowed:
                self._forward(client, head)
            else:
                client.transport.write(answer)
        elif answer[9:10] == b"2":
            target = head.split()[1]
            self.relay(client, int(target.rpartition(b":")[2]), lambda: self.say(client, answer))
        else:
            self.say(client, answer)

    def _forward(self, client: Accepted, head: bytes) -> None:
        """In origin-form, and without what is for the proxy. Requests have no body here."""
        from twisted.internet import reactor

        method, target, _ = head.split(b" ", 2)
        authority, _, path = target.removeprefix(b"http://").partition(b"/")
        fields = [line for line in head.split(b"\r\n")[1:] if not line.lower().startswith(b"proxy-")]
        request = b"\r\n".join([b"%s /%s HTTP/1.1" % (method, path), *fields])
        origin = self._origins.get(client)
        if origin is None:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", int(authority.rpartition(b":")[2]))
            origin = self._origins[client] = connectProtocol(endpoint, Upstream(client, self.hang_up))

        def pass_on(upstream: Upstream) -> Upstream:
            upstream.transport.write(request)
            return upstream

        origin.addCallback(pass_on)

    def _end(self, client: Accepted) -> None:
        super()._end(client)
        if client in self._origins:
            self._origins[client].addCallback(lambda upstream: upstream.transport.loseConnection())


class SocksProxy(Relaying):
    """Speaks SOCKS5. With a `login`, it wants that user and password. `reply` is the code it answers with."""

    def __init__(self, server: Server, login: tuple[bytes, bytes] | None = None, reply: int = 0) -> None:
        super().__init__(server)
        self.login = login
        self.reply = reply
        self.bound = b"\x01\0\0\0\0\0\0"
        self.methods: list[bytes] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.targets: list[tuple[int, bytes, int]] = []
        self.allowed: Callable[[tuple[bytes, bytes]], bool] = lambda login: login == self.login
        self._step: dict[Accepted, Callable[[Accepted], Any]] = {}

    def talk(self, client: Accepted) -> None:
        step = self._step.get(client, self._greeting)
        if self.unread(client):
            step(client)

    def _greeting(self, client: Accepted) -> None:
        _, count = self.take(client, 2)
        self.methods.append(self.take(client, count))
        wanted = 0 if self.login is None else 2
        if wanted not in self.methods[-1]:
            client.transport.write(b"\x05\xff")
            return
        self._step[client] = self._request if self.login is None else self._check
        client.transport.write(bytes([5, wanted]))

    def _check(self, client: Accepted) -> None:
        _, length = self.take(client, 2)
        name = self.take(client, length)
        password = self.take(client, self.take(client, 1)[0])
        self.logins.append((name, password))
        self._step[client] = self._request
        client.transport.write(b"\x01\x00" if self.allowed((name, password)) else b"\x01\x01")

    def _request(self, client: Accepted) -> None:
        kind = self.take(client, 4)[3]
        length = {1: 4, 4: 16}.get(kind) or self.take(client, 1)[0]
        address, port = self.take(client, length), int.from_bytes(self.take(client, 2), "big")
        self.targets.append((kind, address, port))
        answer = bytes([5, self.reply, 0]) + self.bound
        if self.reply:
            client.transport.write(answer)
        else:
            self.relay(client, port, lambda: client.transport.write(answer))
