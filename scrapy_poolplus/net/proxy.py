"""Tunnels through proxies: HTTP CONNECT (RFC 9110 9.3.6), and SOCKS5 (RFC 1928) with name and password (RFC 1929).

A talk is what is said with the proxy until the tunnel is open, without I/O; Tunnel says it on a transport and then
hands the transport to what speaks inside. Credentials go to the proxy only, and never into a text: an answer that
repeats them is shown without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IProtocol, ITCPTransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from scrapy_poolplus.core.errors import ConnectRefusedError, Phase, PoolPlusError, TLSError, TunnelError
from scrapy_poolplus.core.origin import Proxy, basic_login
from scrapy_poolplus.net.hiding import without_credentials
from scrapy_poolplus.net.resolve import ip_version
from scrapy_poolplus.net.tls import Handshake, how_it_ended, openssl_text
from scrapy_poolplus.net.wire import Headers

if TYPE_CHECKING:
    from socksio.socks5 import SOCKS5Connection

MAX_ANSWER = 65_536
"""Bytes of an answer to CONNECT up to its empty line."""
MAX_SHOWN = 200
"""Bytes of an answer that is not understood, in the error's text."""

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d +(\d{3})(?: +(.*))?")


@dataclass(frozen=True, slots=True)
class TunnelAnswer:
    """What an HTTP proxy said when it opened the tunnel: providers report the exit address there. Empty for SOCKS."""

    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Talk(Protocol):
    """What is said until the tunnel is open. Raises TunnelError or ConnectRefusedError for a refusal."""

    answer: TunnelAnswer | None
    """Not None as soon as the tunnel is open."""

    def first(self) -> bytes:
        """What is sent first."""

    def heard(self, data: bytes) -> bytes:
        """What is sent on hearing `data`, perhaps nothing."""

    def left_over(self) -> bytes:
        """Bytes that came after the proxy's last word."""

    def unfinished(self) -> str:
        """What the proxy said so far, for the error when it says no more; empty for nothing."""


def talk_with(proxy: Proxy, host: str, port: int, place: str) -> Talk:
    """The talk that opens a tunnel through `proxy` to `host` (in ASCII). `place` begins every error's text."""
    if proxy.scheme in ("http", "https"):
        return ConnectTalk(host, port, proxy.authorization, place)
    if proxy.scheme in ("socks5", "socks5h"):
        return SocksTalk(host, port, proxy.authorization, place)
    raise TunnelError(f"{place} failed: {proxy.scheme} is not http, https, socks5 or socks5h", phase=Phase.TUNNEL)


class ConnectTalk:
    """CONNECT: any 2xx opens the tunnel. The answer is complete at its empty line, whatever lengths it announces, and
    nothing may follow it before TLS began, because a TLS server never speaks first."""

    def __init__(self, host: str, port: int, authorization: bytes | None, place: str) -> None:
        self.answer: TunnelAnswer | None = None
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._authorization = authorization
        self._place = place
        self._buffer = b""
        self._searched = 0

    def first(self) -> bytes:
        """The request; it has the target, and the credentials where there are some."""
        head = f"CONNECT {self._target} HTTP/1.1\r\nHost: {self._target}\r\n".encode("ascii")
        if self._authorization is not None:
            if re.search(rb"[\r\n\0]", self._authorization):
                raise self._failed("the credentials hold a line break")
            head += b"Proxy-Authorization: " + self._authorization + b"\r\n"
        return head + b"\r\n"

    def heard(self, data: bytes) -> bytes:
        """Nothing more is sent."""
        self._buffer += data
        while self.answer is None:
            if not self._buffer.startswith(b"HTTP/"[: len(self._buffer)]):
                raise self._failed(f"the proxy answered {self.unfinished()}")
            end = _END_OF_HEAD.search(self._buffer, self._searched)
            if end is None:
                # It may be cut in the middle of the end.
                self._searched = max(0, len(self._buffer) - 3)
                if len(self._buffer) > MAX_ANSWER:
                    raise self._failed(f"the head of the proxy's answer is longer than {MAX_ANSWER} bytes")
                break
            head, self._buffer, self._searched = self._buffer[: end.start()], self._buffer[end.end() :], 0
            self._read(head)
        if self.answer is not None and self._buffer:
            raise self._failed(f"after its answer, and before TLS began, the proxy sent {self.unfinished()}")
        return b""

    def left_over(self) -> bytes:
        """Nothing: it is an error."""
        return b""

    def unfinished(self) -> str:
        """The bytes, cut, and without credentials that a proxy may repeat."""
        return self._shown(self._buffer) if self._buffer else ""

    def _read(self, head: bytes) -> None:
        lines = head.splitlines()
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            raise self._failed(f"the proxy answered {self._shown(head)}")
        status = int(match[1])
        if status // 100 == 1:
            return
        if status // 100 != 2:
            reason = _cut(without_credentials(match[2] or b"", self._authorization))
            raise self._failed(f"the proxy answered {status} {reason}".rstrip())
        self.answer = TunnelAnswer(status, tuple(_headers(lines[1:])))

    def _shown(self, data: bytes) -> str:
        return repr(_cut(without_credentials(data, self._authorization)))

    def _failed(self, text: str) -> TunnelError:
        return TunnelError(f"{self._place} failed: {text}", phase=Phase.TUNNEL)


class SocksTalk:
    """SOCKS5. Names are always resolved by the proxy, for socks5 as for socks5h: looked up here, they would tell the
    local network where the crawl goes, and may not exist here."""

    def __init__(self, host: str, port: int, authorization: bytes | None, place: str) -> None:
        self.answer: TunnelAnswer | None = None
        self._host = host
        self._port = port
        self._place = place
        self._authorization = authorization
        self._login = self._name_and_password(authorization)
        self._buffer = b""
        self._step = self._method
        self._socks = self._connection()

    def first(self) -> bytes:
        """The methods that we know."""
        from socksio import socks5  # noqa: PLC0415

        methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
        if self._login is not None:
            methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
        self._socks.send(socks5.SOCKS5AuthMethodsRequest(methods))
        return self._socks.data_to_send()

    def heard(self, data: bytes) -> bytes:
        """The next step, when the proxy's word is whole."""
        self._buffer += data
        while self.answer is None and self._step():
            pass
        return self._socks.data_to_send()

    def left_over(self) -> bytes:
        """What already belongs to the tunnel."""
        return self._buffer

    def unfinished(self) -> str:
        """The bytes."""
        return repr(_cut(without_credentials(self._buffer, self._authorization))) if self._buffer else ""

    # Each step takes one reply from the buffer. False: it is not whole yet.

    def _method(self) -> bool:
        if self._buffer[:1] not in (b"", b"\x05"):
            raise self._failed(f"the proxy answered {self.unfinished()}, which is not SOCKS5")
        if len(self._buffer) < 2:
            return False
        if self._buffer[1] == 0xFF:
            raise self._refused("it accepts none of our ways to log in" if self._login else "it wants a login")
        if self._buffer[1] == 2 and self._login is not None:
            self._take(2)
            self._log_in(*self._login)
        elif self._buffer[1] == 0:
            self._take(2)
            self._command()
        else:
            raise self._failed(f"the proxy chose login method {self._buffer[1]}, which was not offered")
        return True

    def _verdict(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[1] != 0:
            raise self._refused("wrong user name or password")
        self._take(2)
        self._command()
        return True

    def _reply(self) -> bool:
        if self._buffer[:1] not in (b"", b"\x05"):
            raise self._failed(f"the proxy answered {self.unfinished()}, which is not SOCKS5")
        if len(self._buffer) >= 2 and self._buffer[1] != 0:
            # A refusal is complete with its code: some proxies send no address with it.
            code = self._buffer[1]
            refused = f"the proxy answered {code}: {_REPLIES.get(code, 'unknown')}"
            raise self._refused(refused) if code == 5 else self._failed(refused)
        if len(self._buffer) < 5:
            return False
        kind = self._buffer[3]
        length = {1: 10, 3: 7 + self._buffer[4], 4: 22}.get(kind)
        if length is None:
            raise self._failed(f"the proxy answered with an address of unknown type {kind}")
        if len(self._buffer) < length:
            return False
        # The address it bound is of no use, and many send a wrong one.
        self._buffer = self._buffer[length:]
        self.answer = TunnelAnswer()
        return True

    def _take(self, length: int) -> None:
        from socksio.exceptions import ProtocolError  # noqa: PLC0415

        reply, self._buffer = self._buffer[:length], self._buffer[length:]
        try:
            self._socks.receive_data(reply)
        except ProtocolError as error:
            raise self._failed(f"the proxy answered {reply!r}: {error}") from error

    def _log_in(self, name: bytes, password: bytes) -> None:
        from socksio import socks5  # noqa: PLC0415

        self._socks.send(socks5.SOCKS5UsernamePasswordRequest(name, password))
        self._step = self._verdict

    def _command(self) -> None:
        from socksio import socks5  # noqa: PLC0415

        version = ip_version(self._host)
        if version is None:
            kind, address = socks5.SOCKS5AType.DOMAIN_NAME, self._host.encode("ascii")
        else:
            kind = socks5.SOCKS5AType.IPV4_ADDRESS if version == 4 else socks5.SOCKS5AType.IPV6_ADDRESS
            address = ip_address(self._host).packed
        self._socks.send(socks5.SOCKS5CommandRequest(socks5.SOCKS5Command.CONNECT, kind, address, self._port))
        self._step = self._reply

    def _connection(self) -> SOCKS5Connection:
        try:
            from socksio.socks5 import SOCKS5Connection  # noqa: PLC0415
        except ImportError as error:
            text = "SOCKS proxies need the package socksio: pip install socksio"
            raise self._failed(text) from error
        return SOCKS5Connection()

    def _name_and_password(self, authorization: bytes | None) -> tuple[bytes, bytes] | None:
        """From the value of Proxy-Authorization, which is how Scrapy hands down a proxy's credentials."""
        if authorization is None:
            return None
        decoded = basic_login(authorization)
        if decoded is None:
            raise self._failed("SOCKS5 takes a user name and a password (Basic), no other credentials")
        name, _, password = decoded.partition(b":")
        if max(len(name), len(password)) > 255:
            raise self._failed("the user name or the password is longer than 255 bytes (RFC 1929)")
        return name, password

    def _failed(self, text: str) -> TunnelError:
        return TunnelError(f"{self._place} failed: {text}", phase=Phase.TUNNEL)

    def _refused(self, text: str) -> ConnectRefusedError:
        return ConnectRefusedError(f"{self._place} was refused: {text}", phase=Phase.TUNNEL)


@implementer(IHandshakeListener)
class Tunnel(TwistedProtocol):
    """Opens the tunnel and then only hands bytes through: `inner` writes to the transport itself.

    `tls`: the handshake with the proxy, where TLS is spoken to it. `opened` is called before `inner` is connected,
    `failed` when the tunnel will not be open; one of the two, once, unless it is aborted.
    """

    transport: ITCPTransport

    def __init__(
        self,
        talk: Talk,
        inner: IProtocol,
        place: str,
        *,
        tls: Handshake | None,
        opened: Callable[[TunnelAnswer], object],
        failed: Callable[[PoolPlusError], object],
    ) -> None:
        self._talk = talk
        self._inner = inner
        self._place = place
        self._tls = tls
        self._opened = opened
        self._failed = failed
        self._open = False
        self._over = False

    def abort(self) -> None:
        """End it while it is not open; nobody hears of it."""
        if not self._open and not self._over:
            self._over = True
            if self.transport is not None:
                self.transport.abortConnection()

    def connectionMade(self) -> None:
        """TCP is connected."""
        self.transport.setTcpNoDelay(True)
        if self._tls is None:
            self._say_first()

    def handshakeCompleted(self) -> None:
        """TLS with the proxy is ready."""
        if self._tls is None or self._over or self.transport.disconnecting:
            return
        self._tls.check_name(self.transport.getHandle())
        if self._tls.problem is not None:
            self._give_up(
                TLSError(f"{self._place} failed: TLS with the proxy: {self._tls.problem}", phase=Phase.TUNNEL)
            )
        else:
            self._say_first()

    def dataReceived(self, data: bytes) -> None:
        """From the proxy, or through it."""
        if self._open:
            self._inner.dataReceived(data)
        elif not self._over:
            self._hear(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        ended = how_it_ended(self.transport, reason)
        if self._open:
            self._inner.connectionLost(ended if isinstance(ended.value, ConnectionDone) else reason)
        elif not self._over:
            self._over = True
            self._failed(self._lost(reason, ended))

    def _say_first(self) -> None:
        try:
            self.transport.write(self._talk.first())
        except PoolPlusError as error:
            self._give_up(error)

    def _hear(self, data: bytes) -> None:
        try:
            answer = self._talk.heard(data)
        except PoolPlusError as error:
            self._give_up(error)
            return
        if answer:
            self.transport.write(answer)
        if self._talk.answer is not None:
            self._open = True
            self._opened(self._talk.answer)
            self._inner.makeConnection(self.transport)
            if rest := self._talk.left_over():
                self._inner.dataReceived(rest)

    def _give_up(self, error: PoolPlusError) -> None:
        self._over = True
        self.transport.abortConnection()
        self._failed(error)

    def _lost(self, reason: Failure, ended: Failure) -> PoolPlusError:
        failed: PoolPlusError
        error = reason.value
        problem = self._tls.problem if self._tls is not None else None
        if problem is None and isinstance(error, SSL.Error):
            problem = openssl_text(error)
        if problem is not None:
            failed = TLSError(f"{self._place} failed: TLS with the proxy: {problem}", phase=Phase.TUNNEL)
        else:
            how = "closed" if isinstance(ended.value, ConnectionDone) else "reset"
            said = self._talk.unfinished()
            after = f" after {said}" if said else " without an answer"
            failed = TunnelError(f"{self._place} failed: the proxy {how} the connection{after}", phase=Phase.TUNNEL)
        failed.__cause__ = error
        return failed


_REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}
"""RFC 1928 6."""


def _headers(lines: list[bytes]) -> Headers:
    """Those with a colon; a line that begins with white space belongs to the one before (RFC 9112 5.2)."""
    headers: Headers = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and headers:
            name, value = headers[-1]
            headers[-1] = (name, value + b" " + line.strip())
            continue
        name, colon, value = line.partition(b":")
        if colon:
            headers.append((name.strip(), value.strip()))
    return headers


def _cut(data: bytes) -> str:
    return data[:MAX_SHOWN].decode("latin-1")
