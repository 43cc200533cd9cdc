"""Who failed, and in which phase.

Every error that leaves the pool is one of these classes. The text names the phase, the place and, for a time-out,
the number and the setting that it came from. ``handler.py`` maps them to Scrapy's exceptions in one place.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where in its way a request or a dial was when it ended."""

    WAIT = "waiting for a connection"
    RESOLVE = "name resolution"
    CONNECT = "connecting"
    TUNNEL = "proxy tunnel"
    TLS = "TLS handshake"
    SEND = "sending the request"
    FIRST_BYTE = "waiting for the response"
    BODY = "reading the body"


class PoolPlusError(Exception):
    """Base of all errors of the pool; `phase` says how far the request or the dial had come."""

    def __init__(self, message: str, *, phase: Phase) -> None:
        super().__init__(message)
        self.phase = phase


class ResolveError(PoolPlusError):
    """The host name has no address, or none that can be used with the bind address."""


class ConnectRefusedError(PoolPlusError):
    """The peer (or the proxy) refused the TCP connection."""


class ConnectError(PoolPlusError):
    """The TCP connection could not be made for another reason than a refusal or a time-out."""


class TLSError(PoolPlusError):
    """The TLS handshake failed, the certificate was not accepted, or no protocol was agreed on."""


class TunnelError(PoolPlusError):
    """The proxy did not open the tunnel."""


class PhaseTimeoutError(PoolPlusError):
    """A phase, or the whole request, took longer than it may.

    `seconds` is the limit, `setting` the key it comes from (``"connect_timeout"``, ``"download_timeout"``, ...).
    """

    def __init__(self, message: str, *, phase: Phase, seconds: float, setting: str) -> None:
        super().__init__(message, phase=phase)
        self.seconds = seconds
        self.setting = setting


class ConnectionLostError(PoolPlusError):
    """The connection ended before the response was complete. `clean` is True for an orderly close (FIN, close_notify)."""

    def __init__(self, message: str, *, phase: Phase, clean: bool = False) -> None:
        super().__init__(message, phase=phase)
        self.clean = clean


class RemoteProtocolError(PoolPlusError):
    """The peer broke the protocol: this names what it sent and the rule."""


class LocalProtocolError(PoolPlusError):
    """The request cannot be sent as HTTP (CR, LF or NUL in a header, a space in the method). Nothing of it was sent,
    and it would fail on any connection: never replayed."""


class StreamResetError(PoolPlusError):
    """The peer reset the stream with RST_STREAM, or refused it with GOAWAY; `code` is the HTTP/2 error code."""

    def __init__(self, message: str, *, phase: Phase, code: int) -> None:
        super().__init__(message, phase=phase)
        self.code = code


class BodyLengthError(PoolPlusError):
    """The body is shorter or longer than announced (RFC 9112 6.3, RFC 9113 8.1.1), or its chunked coding has no end."""


class CancelledError(PoolPlusError):
    """The one who asked does not want the response any more."""


class PoolClosedError(PoolPlusError):
    """The pool was closed while the request waited or was in flight."""


class ConfigError(ValueError):
    """The user's configuration is wrong; the text lists every problem, `problems` has them one by one."""

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems
