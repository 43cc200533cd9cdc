"""TLS for clients: one OpenSSL context per profile, shared by all its connections.

Building a context costs more than a handshake, and loading the trust store much more. What belongs to one host
(server name, ALPN, the check of the certificate) is set on its connection, so nothing of one host touches another.
ClientTLSOptions is not used: before Twisted 26.4 it writes the host into the context. A shared context resumes no
TLS session, because nobody calls ``set_session``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any, Protocol, cast

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IReactorTime,
    ISystemHandle,
    ITransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import Certificate
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from scrapy_poolplus.core.errors import Phase, TLSError
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.net.at_once import at_once, how_tcp_ended
from scrapy_poolplus.net.names import CertificateNames
from scrapy_poolplus.net.resolve import ip_version

if TYPE_CHECKING:
    from OpenSSL.crypto import X509
    from twisted.python.failure import Failure

logger = logging.getLogger(__name__)

OP_LEGACY_SERVER_CONNECT = 0x4
"""Lets OpenSSL 3 talk to servers without secure renegotiation (RFC 5746); pyOpenSSL has no name for it."""


class TLSVersion(Enum):
    """A version of TLS, by the name that settings use."""

    TLS_1_0 = "TLSv1.0"
    TLS_1_1 = "TLSv1.1"
    TLS_1_2 = "TLSv1.2"
    TLS_1_3 = "TLSv1.3"


_NUMBERS = {
    TLSVersion.TLS_1_0: SSL.TLS1_VERSION,
    TLSVersion.TLS_1_1: SSL.TLS1_1_VERSION,
    TLSVersion.TLS_1_2: SSL.TLS1_2_VERSION,
    TLSVersion.TLS_1_3: SSL.TLS1_3_VERSION,
}
_OLD = frozenset({TLSVersion.TLS_1_0, TLSVersion.TLS_1_1})


def tls_version(value: object, setting: str) -> TLSVersion | None:
    """The version named `value`, None for None. ValueError names `setting` and the value."""
    if value is None:
        return None
    try:
        return TLSVersion(value)
    except ValueError as error:
        raise ValueError(f"Unknown {setting} value: {value}") from error


class PolicyForHTTPS(Protocol):
    """A user's own ``twisted.web.iweb.IPolicyForHTTPS``."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:  # noqa: N802
        """An ``IOpenSSLClientConnectionCreator``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSProfile:
    """How TLS is spoken.

    `verify`: the certificate's chain and name must be right, else neither the chain matters nor the name. `ciphers`:
    an OpenSSL cipher string. A limit that is None is OpenSSL's own. `options`: flags for ``SSL_CTX_set_options``.
    `policy`, where given, is asked for each connection and decides all the rest.
    """

    verify: bool = False
    ciphers: str | None = None
    min_version: TLSVersion | None = None
    max_version: TLSVersion | None = None
    options: int = OP_LEGACY_SERVER_CONNECT
    policy: PolicyForHTTPS | None = None


class ClientTLS:
    """The shared context of a profile. Making it raises ValueError for a cipher string that matches nothing and for
    versions that exclude each other."""

    def __init__(self, profile: TLSProfile) -> None:
        self.profile = profile
        self.names = CertificateNames()
        self._context = _make_context(profile)

    def handshake(self, host: str, port: int, protocols: Sequence[HttpProtocol]) -> Handshake:
        """For one connection to `host` (in ASCII) that offers `protocols` by ALPN, in their order; none where it is
        empty. Raises TLSError when the user's own policy does."""
        policy = self.profile.policy
        creator = None
        if policy is not None:
            try:
                creator = policy.creatorForNetloc(host.encode("ascii"), port)
            except Exception as error:
                raise TLSError(
                    f"{type(policy).__name__} has no TLS options for {host}: {error}", phase=Phase.TLS
                ) from error
        return Handshake(host, [protocol.value.encode() for protocol in protocols], self, creator)

    def connection(self, host: str, handshake: Handshake) -> SSL.Connection:
        """A new one, with what belongs to `host`."""
        connection = SSL.Connection(self._context, None)
        if ip_version(host) is None:
            # Never an address (RFC 6066 3), and a name without its last dot.
            connection.set_tlsext_host_name(host.removesuffix(".").encode("ascii"))
        if self.profile.verify:
            connection.set_verify(SSL.VERIFY_PEER, handshake.chain_checked)
        return connection


@implementer(IOpenSSLClientConnectionCreator)
class Handshake:
    """One TLS handshake: makes its OpenSSL connection and judges the certificate.

    `problem` says why the certificate was not accepted.
    """

    def __init__(self, host: str, alpn: list[bytes], tls: ClientTLS, creator: Any) -> None:
        self.problem: str | None = None
        self._host = host
        self._alpn = alpn
        self._tls = tls
        self._creator = creator
        self._connection: SSL.Connection | None = None

    def wrap(self, inner: IProtocol, reactor: IReactorTime) -> TLSTransport:
        """A protocol for the transport below that speaks TLS and is the transport of `inner`. Raises TLSError when a
        user's own policy does."""
        transport = _TLSFactory(self, True, _Given(inner), reactor).buildProtocol(None)
        assert isinstance(transport, TLSTransport)
        try:
            self._connection = self._make(transport)
        except Exception as error:
            raise TLSError(f"no TLS connection could be set up for {self._host}: {error}", phase=Phase.TLS) from error
        return transport

    def _make(self, transport: TLSTransport) -> SSL.Connection:
        if self._creator is None:
            connection = self._tls.connection(self._host, self)
        else:
            connection = self._creator.clientConnectionForTLS(transport)
        if self._alpn:
            connection.set_alpn_protos(self._alpn)
        return connection

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802
        """Asked by Twisted when the transport is connected."""
        connection, self._connection = self._connection, None
        assert connection is not None
        return connection

    def chain_checked(self, connection: SSL.Connection, certificate: X509, number: int, depth: int, ok: int) -> bool:
        """OpenSSL's verdict on one certificate of the chain, of which its error shows nothing."""
        if not ok:
            self.problem = (
                f"certificate verify failed: {_CHAIN_ERRORS.get(number, f'X.509 error {number}')} (depth {depth})"
            )
        return bool(ok)

    def check_name(self, connection: SSL.Connection) -> None:
        """Hold the peer's certificate against the host. With verification, a mismatch becomes the `problem`."""
        if self._creator is not None:
            return
        objection = self._tls.names.objection(connection, self._host)
        if objection is None:
            return
        if self._tls.profile.verify:
            self.problem = f'certificate is not valid for "{self._host}": {objection}'
        else:
            logger.warning('Remote certificate is not valid for hostname "%s"; %s', self._host, objection)


class TLSTransport(TLSMemoryBIOProtocol):
    """TLS without Twisted's write buffering, which costs a timed call per write: engines write once per turn.

    `ended_by`: how the transport below ended; Twisted reports only what TLS made of it, where a FIN without
    close_notify, which many servers send, looks like a reset.
    """

    ended_by: Failure | None = None

    def makeConnection(self, transport: ITransport) -> None:  # noqa: N802
        """The transport below is connected."""
        super().makeConnection(at_once(transport))  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:  # noqa: N802
        """Say nothing more: Twisted's would write what is left of the handshake and a close_notify before it aborts."""
        transport: Any = self.transport
        transport.abortConnection()
        super().abortConnection()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport below is gone."""
        self.ended_by = how_tcp_ended(self.transport, reason)
        super().connectionLost(self.ended_by)  # type: ignore[no-untyped-call]


def how_it_ended(transport: object, reason: Failure) -> Failure:
    """How the transport below TLS ended, or `reason` where there is no TLS."""
    return (transport.ended_by if isinstance(transport, TLSTransport) else None) or reason


def socket_below(transport: object) -> socket | None:
    """The TCP socket under all TLS, or None where there is none, as in tests."""
    while isinstance(transport, TLSTransport):
        transport = transport.transport
    if not ISystemHandle.providedBy(transport):
        return None
    handle = cast("ISystemHandle", transport).getHandle()
    return handle if isinstance(handle, socket) else None


class _TLSFactory(TLSMemoryBIOFactory):
    protocol = TLSTransport


class _Given(Factory):
    """Builds the protocol it was given."""

    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> IProtocol:  # noqa: N802
        return self._protocol


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a handshake led to. `alpn` is None where the server picked nothing. `resumed`: it took up an earlier TLS
    session, which ties the two connections together."""

    version: str
    cipher: str | None
    certificate: Certificate | None
    alpn: bytes | None
    resumed: bool = False

    @classmethod
    def of(cls, connection: SSL.Connection) -> Agreed:
        """Read it off a connection whose handshake has ended."""
        certificate = connection.get_peer_certificate()
        return cls(
            connection.get_protocol_version_name(),
            connection.get_cipher_name(),
            Certificate(certificate) if certificate is not None else None,  # type: ignore[no-untyped-call]
            connection.get_alpn_proto_negotiated() or None,
            was_resumed(connection),
        )


def was_resumed(connection: SSL.Connection) -> bool:
    """Whether the handshake took up an earlier TLS session (SSL_session_reused).

    pyOpenSSL has no public word for it: the one place that looks inside it, tried with 24.3 and 26.4.
    """
    return bool(SSL._lib.SSL_session_reused(connection._ssl))  # type: ignore[attr-defined]  # noqa: SLF001


def openssl_text(error: SSL.Error) -> str:
    """OpenSSL's reason, such as ``tlsv1 alert protocol version``."""
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1])
    queue = error.args[0] if error.args else ()
    reasons = [entry[-1] for entry in queue if entry[-1]] if isinstance(queue, (list, tuple)) else [str(queue)]
    return "; ".join(reasons) or type(error).__name__


def _make_context(profile: TLSProfile) -> SSL.Context:
    low, high = profile.min_version, profile.max_version
    if low is not None and high is not None and _NUMBERS[low] > _NUMBERS[high]:
        raise ValueError(f"the minimum TLS version {low.value} is above the maximum {high.value}")
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(profile.options | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if low is not None:
        context.set_min_proto_version(_NUMBERS[low])
    if high is not None:
        context.set_max_proto_version(_NUMBERS[high])
    if profile.verify:
        context.set_default_verify_paths()
    _log_keys(context)
    ciphers = profile.ciphers
    if ciphers is None and _OLD & {low, high}:
        # OpenSSL 3 speaks TLS before 1.2 only at security level 0; asking for it would else do nothing.
        ciphers = "DEFAULT:@SECLEVEL=0"
    if ciphers is not None:
        # Last: pyOpenSSL before 25.2 makes a connection here, after which a context should not change.
        try:
            context.set_cipher_list(ciphers.encode("ascii"))
        except (SSL.Error, UnicodeError) as error:
            raise ValueError(f"no cipher of OpenSSL matches {ciphers!r}") from error
    return context


def _log_keys(context: SSL.Context) -> None:
    """Obey SSLKEYLOGFILE, as browsers and Python's own ssl module do."""
    name = None if sys.flags.ignore_environment else os.environ.get("SSLKEYLOGFILE")
    if not name:
        return
    path = Path(name)
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        logger.warning("Cannot write TLS session keys to %s: %s", name, error)
        return

    def write(connection: SSL.Connection, line: bytes) -> None:
        try:
            with path.open("ab") as file:
                file.write(line + b"\n")
        except OSError as error:
            logger.debug("Cannot write TLS session keys to %s: %s", name, error)

    context.set_keylog_callback(write)


_CHAIN_ERRORS = {
    2: "unable to get issuer certificate",
    7: "certificate signature failure",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    23: "certificate revoked",
    25: "path length constraint exceeded",
    26: "unsuitable certificate purpose",
    27: "certificate not trusted",
    28: "certificate rejected",
    34: "unhandled critical extension",
    47: "permitted subtree violation",
    66: "EE certificate key too weak",
    67: "CA certificate key too weak",
    68: "CA signature digest algorithm too weak",
    79: "invalid CA certificate",
}
"""X509_V_ERR_... (x509_vfy.h) and OpenSSL's text for it, to which pyOpenSSL gives no access."""
