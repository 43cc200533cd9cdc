"""Scripted servers on the reactor of the test, for HTTP/1.1 (with and without TLS) and for HTTP/2.

A `Peer` calls its script with an `Exchange` for each whole request. The same script serves every transport; what only
one of them has (raw bytes, frames) is on its own class. A peer keeps what it saw: connections, requests as they came
over the wire, resets. It is the oracle of these tests: what the server saw is what was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from OpenSSL import SSL
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .certificates import ServerCertificate, issued
from .running import Happening, Transport, the_reactor

Header = tuple[bytes, bytes]
LOCAL_NAMES = ("localhost", "127.0.0.1", "127.0.0.2", "::1")


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as it came. `headers` are in order, with the case they had; over h2 without the pseudo-headers, which are
    in `pseudo`. `head` holds the bytes of an HTTP/1.1 head."""

    method: bytes
    target: bytes
    headers: tuple[Header, ...]
    body: bytes
    pseudo: tuple[Header, ...] = ()
    head: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def names(self) -> set[bytes]:
        """The names of all headers, in lower case, without the pseudo-headers of h2."""
        return {name.lower() for name, _ in self.headers}

    @property
    def authorities(self) -> list[bytes]:
        """Every place where the request names its host: Host, and over h2 ``:authority``."""
        return [value for name, value in self.pseudo if name == b":authority"] + self.values(b"host")

    def as_json(self) -> bytes:
        """For a response body; bytes are read as Latin-1."""
        return json.dumps(
            {
                "method": self.method.decode("latin-1"),
                "target": self.target.decode("latin-1"),
                "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
                "body": self.body.decode("latin-1"),
            }
        ).encode()


class Exchange:
    """A request and the answer that the script gives. Methods may be called in the script or later."""

    connection: Http1Connection | Http2Connection

    def __init__(self, request: SeenRequest) -> None:
        self.request = request
        self.ended_by_client: Happening[int] = Happening()
        """Happens when the client resets the stream (with the code), or closes the HTTP/1.1 connection (with -1)."""

    def respond(
        self, status: int = 200, headers: Iterable[Header] = (), body: bytes = b"", *, announce: bool = True
    ) -> None:
        """A whole response; with `announce` its length is announced."""
        self.head(status, headers, length=len(body) if announce else None)
        if body:
            self.data(body)
        self.end()

    def head(self, status: int = 200, headers: Iterable[Header] = (), *, length: int | None = None) -> None:
        """The response head. Without a length HTTP/1.1 goes on chunked."""
        raise NotImplementedError

    def data(self, chunk: bytes) -> None:
        """Some of the body."""
        raise NotImplementedError

    def end(self) -> None:
        """The end of the body."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection in order."""
        self.connection.close()

    def abort(self) -> None:
        """Reset the connection."""
        self.connection.abort()


class Http1Exchange(Exchange):
    """An exchange of HTTP/1.1."""

    def __init__(self, request: SeenRequest, connection: Http1Connection) -> None:
        super().__init__(request)
        self.connection = connection
        self._chunked = False

    def head(self, status: int = 200, headers: Iterable[Header] = (), *, length: int | None = None) -> None:
        lines = [b"HTTP/1.1 %d Reason" % status, *(name + b": " + value for name, value in headers)]
        self._chunked = length is None
        lines.append(b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length)
        self.raw(b"\r\n".join(lines) + b"\r\n\r\n")

    def data(self, chunk: bytes) -> None:
        self.raw(b"%x\r\n%s\r\n" % (len(chunk), chunk) if self._chunked else chunk)

    def end(self) -> None:
        if self._chunked:
            self.raw(b"0\r\n\r\n")

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.connection.write(data)


class Http2Exchange(Exchange):
    """An exchange of HTTP/2: a stream."""

    connection: Http2Connection

    def __init__(self, request: SeenRequest, connection: Http2Connection, stream: int) -> None:
        super().__init__(request)
        self.connection = connection
        self.stream = stream
        self._unsent = b""
        self._ending = False

    def head(self, status: int = 200, headers: Iterable[Header] = (), *, length: int | None = None) -> None:
        fields = [(b":status", b"%d" % status), *((name.lower(), value) for name, value in headers)]
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        self.connection.h2.send_headers(self.stream, fields)
        self.connection.flush()

    def data(self, chunk: bytes) -> None:
        self._unsent += chunk
        self.pump()

    def end(self) -> None:
        self._ending = True
        self.pump()

    def pump(self) -> None:
        """Send what the windows allow."""
        h2 = self.connection.h2
        while self._unsent:
            size = min(h2.local_flow_control_window(self.stream), h2.max_outbound_frame_size, len(self._unsent))
            if size <= 0:
                break
            chunk, self._unsent = self._unsent[:size], self._unsent[size:]
            h2.send_data(self.stream, chunk)
        if self._ending and not self._unsent:
            self._ending = False
            h2.end_stream(self.stream)
        self.connection.flush()

    def reset(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """RST_STREAM."""
        self.connection.h2.reset_stream(self.stream, code)
        self.connection.flush()


Script = Callable[[Any], None]
"""Called with each `Http1Exchange` or `Http2Exchange` once its request has come whole."""


class _Connection(Protocol):
    """What connections of both protocols have."""

    transport: Any

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.lost: Happening[Failure] = Happening()
        self.received = b""
        """All bytes that came, above TLS."""
        self.client_host = ""
        self.client_port = 0

    def connectionMade(self) -> None:
        address = self.transport.getPeer()
        self.client_host, self.client_port = address.host, address.port
        self.peer.connections.append(self)
        self.peer.connected.happen(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.happen(reason)

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        self.transport.write(data)

    def close(self) -> None:
        """In order (FIN, with TLS close_notify first)."""
        self.transport.loseConnection()

    def abort(self) -> None:
        """At once (RST)."""
        self.transport.abortConnection()


class SilentConnection(_Connection):
    """Says nothing. Its script is called with the connection when it is made."""

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.peer.script is not None:
            self.peer.script(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Http1Connection(_Connection):
    """Reads requests, as strictly as these tests need."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self._buffer = b""
        self._current: Exchange | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            first, *lines = head.split(b"\r\n")
            if first.count(b" ") != 2:
                self.peer.errors.append(ValueError(f"no HTTP/1.1 request line: {first!r}"))
                return
            method, target, _version = first.split(b" ")
            headers = []
            for line in lines:
                name, _, value = line.partition(b":")
                headers.append((name, value.strip(b" ")))
            lengths = [value for name, value in headers if name.lower() == b"content-length"]
            length = int(lengths[0]) if lengths else 0
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            request = SeenRequest(method, target, tuple(headers), rest[:length], head=head)
            self._current = Http1Exchange(request, self)
            self.peer.came(self._current)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._current is not None:
            self._current.ended_by_client.happen(-1)
        super().connectionLost(reason)


class Http2Connection(_Connection):
    """The server's side by the h2 library, not validating what it is told to send."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer)
        self.exchanges: dict[int, Http2Exchange] = {}
        self._heads: dict[int, list[Header]] = {}
        self._bodies: dict[int, bytes] = {}
        self.settings_acknowledged: Happening[None] = Happening()
        self.most_streams = 0
        """The highest number of streams that were open at once."""
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )

    def connectionMade(self) -> None:
        super().connectionMade()
        self.h2.initiate_connection()
        if self.peer.settings:
            # In a second frame of the same write: h2 holds the client to them only once it has acknowledged them.
            self.h2.update_settings(self.peer.settings)
        self.flush()

    def flush(self) -> None:
        """Hand what h2 has to say to the transport."""
        self.write(self.h2.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        try:
            events = self.h2.receive_data(data)
        except H2Error as error:
            self.peer.errors.append(error)
            self.flush()
            self.close()
            return
        for event in events:
            self._handle(event)
        if not self.lost.happened:
            self.flush()

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            assert event.stream_id is not None
            self._heads[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers or ()]
            self._bodies[event.stream_id] = b""
            self.most_streams = max(self.most_streams, self.h2.open_inbound_streams)
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None
            assert event.flow_controlled_length is not None
            self._bodies[event.stream_id] += event.data or b""
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            assert event.stream_id is not None
            self._whole(event.stream_id)
        elif isinstance(event, StreamReset):
            assert event.stream_id is not None
            self.peer.resets.append((event.stream_id, int(event.error_code or 0)))
            if (exchange := self.exchanges.pop(event.stream_id, None)) is not None:
                exchange.ended_by_client.happen(int(event.error_code or 0))
        elif isinstance(event, WindowUpdated):
            for exchange in list(self.exchanges.values()):
                if event.stream_id in {0, exchange.stream} and exchange._unsent:
                    exchange.pump()
        elif isinstance(event, SettingsAcknowledged):
            self.settings_acknowledged.happen(None)

    def _whole(self, stream: int) -> None:
        fields = self._heads.pop(stream)
        pseudo = tuple(field for field in fields if field[0].startswith(b":"))
        named = dict(pseudo)
        request = SeenRequest(
            named.get(b":method", b""),
            named.get(b":path", b""),
            tuple(field for field in fields if not field[0].startswith(b":")),
            self._bodies.pop(stream),
            pseudo,
        )
        self.exchanges[stream] = exchange = Http2Exchange(request, self, stream)
        self.peer.came(exchange)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        for exchange in self.exchanges.values():
            exchange.ended_by_client.happen(-1)
        super().connectionLost(reason)


class Peer(Factory):
    """A server on a free port of 127.0.0.1, driven by its script."""

    noisy = False

    def __init__(
        self,
        transport: Transport,
        script: Script | None = None,
        *,
        certificate: ServerCertificate | None = None,
        context: SSL.Context | None = None,
        protocol: type[_Connection] | None = None,
        settings: dict[SettingCodes, int] | None = None,
        interface: str = "127.0.0.1",
        hold_tls: bool = False,
    ) -> None:
        self.transport = transport
        self.script = script
        self.settings = settings or {}
        self.connections: list[Any] = []
        self.requests: list[SeenRequest] = []
        self.exchanges: list[Any] = []
        self.resets: list[tuple[int, int]] = []
        """(stream, error code) of every RST_STREAM that came."""
        self.errors: list[Exception] = []
        """What the client did against RFC 9113, as h2 sees it."""
        self.names: list[bytes | None] = []
        """The server name (SNI) of each TLS handshake."""
        self.connected: Happening[None] = Happening()
        self.accepted = 0
        self._arrivals: list[tuple[int, Happening[None]]] = []
        self._protocol = protocol or (Http2Connection if transport.is_h2 else Http1Connection)
        self._interface = interface
        self._context: SSL.Context | None = None
        if transport.secure and not hold_tls:
            self._context = context or (certificate or issued(*LOCAL_NAMES)).context(alpn=transport.alpn)
            self._context.set_tlsext_servername_callback(
                lambda connection: self.names.append(connection.get_servername())
            )
        self.port = 0
        self._port: Any = None
        self.listen_again()

    def buildProtocol(self, addr: Any) -> Protocol:
        self.accepted += 1
        return self._protocol(self)

    def came(self, exchange: Exchange) -> None:
        """A request has come whole."""
        self.requests.append(exchange.request)
        self.exchanges.append(exchange)
        for number, happening in self._arrivals:
            if len(self.requests) >= number:
                happening.happen(None)
        if self.script is not None:
            self.script(exchange)

    async def arrived(self, number: int = 1) -> Sequence[Any]:
        """Wait until that many requests have come; their exchanges."""
        if len(self.requests) < number:
            happening: Happening[None] = Happening()
            self._arrivals.append((number, happening))
            await happening.wait()
        return self.exchanges

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """A URL of this peer."""
        return f"{self.transport.scheme}://{host}:{self.port}{path}"

    def listen_again(self) -> None:
        """Listen, on the port it had."""
        if self._context is None:
            self._port = the_reactor().listenTCP(self.port, self, interface=self._interface)
        else:
            given = _Given(self._context)
            self._port = the_reactor().listenSSL(self.port, self, given, interface=self._interface)
        self.port = self._port.getHost().port

    async def stop_listening(self) -> None:
        """Refuse new connections; those that are there stay."""
        await maybe_deferred_to_future(maybeDeferred(self._port.stopListening))

    async def end(self) -> None:
        """Stop listening, drop every connection, wait until all are gone."""
        await self.stop_listening()
        for connection in self.connections:
            if not connection.lost.happened:
                connection.abort()
        for connection in self.connections:
            await connection.lost.wait()


def slow_to_start(transport: Transport, seconds: float, held: list[float]) -> type[Any]:
    """A protocol that holds every TLS handshake for `seconds`; how long it really was goes into `held`."""
    base: Any = Http2Connection if transport.is_h2 else Http1Connection

    class SlowToStart(base):  # type: ignore[misc]
        def connectionMade(self) -> None:
            begun = the_reactor().seconds()
            self.transport.pauseProducing()

            def go_on() -> None:
                held.append(the_reactor().seconds() - begun)
                self.transport.resumeProducing()

            the_reactor().callLater(seconds, go_on)
            super().connectionMade()

    return SlowToStart


@implementer(IOpenSSLServerConnectionCreator)
class _Given:
    """Every connection by one given context."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def echo(exchange: Any) -> None:
    """A script: the request comes back as JSON."""
    exchange.respond(headers=[(b"Content-Type", b"application/json")], body=exchange.request.as_json())


def works(exchange: Any) -> None:
    """A script: ``Works``."""
    exchange.respond(headers=[(b"Content-Type", b"text/html")], body=b"Works")


def silent(_: Any) -> None:
    """A script: no answer."""
