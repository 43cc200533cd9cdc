"""From a response on the wire to a Scrapy Response: sizes, signals, StopDownload, data loss.

One ResponseSink per request. It keeps each body byte once: one chunk as it came, more of them in one buffer.
"""

from __future__ import annotations

import logging
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scrapy import signals
from scrapy.exceptions import DownloadCancelledError, ResponseDataLossError, StopDownload
from scrapy.responsetypes import responsetypes
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scrapy_poolplus.net.wire import BodyEnd
from scrapy_poolplus.shortcuts import scrapy_headers, scrapy_response, somebody_listens
from scrapy_poolplus.tracing import Exchanged, Trace, is_heard, remember, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy import Request
    from scrapy.crawler import Crawler
    from scrapy.http import Headers, Response

    from scrapy_poolplus.core.errors import BodyLengthError, PoolPlusError
    from scrapy_poolplus.core.policy import Policy
    from scrapy_poolplus.door import Visit
    from scrapy_poolplus.dressing import Dresser
    from scrapy_poolplus.exchange import Ticket
    from scrapy_poolplus.net.connection import Connection
    from scrapy_poolplus.net.proxy import TunnelAnswer
    from scrapy_poolplus.net.wire import ResponseHead, WireRequest

logger = logging.getLogger(__name__)

PROXY_HEADERS = "_poolplus_proxy_headers"
"""Request meta: headers of the answer with which an HTTP proxy opened the tunnel, as ``{"X-Exit": ["192.0.2.1"]}``."""
LATENCY_FLOOR = 1e-6
"""Seconds: ``download_latency`` is always above 0, also where the clock did not move."""


class ResponseSink:
    """Gathers one response (pool.Sink).

    `result` fires with a Response, or fails with what the errback gets. `translate` turns an error of the pool into
    one of Scrapy's. `maxsize` and `warnsize` in bytes of the body as received, 0 for no limit.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_crawler",
        "_dresser",
        "_first",
        "_head",
        "_headers",
        "_policy",
        "_received",
        "_sent_at",
        "_session",
        "_stopped",
        "_translate",
        "_verbose_tls",
        "_warned",
        "fail_on_dataloss",
        "maxsize",
        "on_dataloss",
        "request",
        "result",
        "ticket",
        "url",
        "visit",
        "warnsize",
    )

    def __init__(
        self,
        crawler: Crawler,
        request: Request,
        url: str,
        *,
        maxsize: int,
        warnsize: int,
        fail_on_dataloss: bool,
        verbose_tls: bool,
        on_dataloss: Callable[[], None],
        translate: Callable[[PoolPlusError, Request, str], Exception],
        dresser: Dresser | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.request = request
        self.url = url
        self.maxsize = maxsize
        self.warnsize = warnsize
        self.fail_on_dataloss = fail_on_dataloss
        self.on_dataloss = on_dataloss
        self.ticket: Ticket | None = None
        self.visit: Visit | None = None
        """Where hosts may have themselves paused: it hears of a response head first, and is cancelled for the ticket."""
        self.result: Deferred[Response] = Deferred(lambda _: self._cancel())
        self._crawler = crawler
        self._translate = translate
        self._verbose_tls = verbose_tls
        self._connection: Connection | None = None
        self._sent_at: float | None = None
        self._dresser = dresser
        self._policy = policy
        self._session: str | None = None
        self._begin()

    def _begin(self) -> None:
        # Retries and redirects bring the meta of the request before them.
        self.request.meta.pop(PROXY_HEADERS, None)
        self._head: ResponseHead | None = None
        self._headers: Headers | None = None
        self._first = b""
        self._body: BytesIO | None = None
        self._received = 0
        self._warned = False
        self._stopped = False

    # ---- pool.Sink

    def dispatched(self, connection: Connection) -> None:
        """See pool.Sink."""
        self._connection = connection
        self._begin()
        self._show_tunnel(connection.tunnel)
        if self._verbose_tls and connection.tls_version is not None:
            self._log_tls(connection)

    def dress(self, wire: WireRequest, session: str, *, kept: bool) -> WireRequest:
        """See pool.Sink."""
        if self._dresser is None or self._policy is None:
            return wire
        self._session = session
        return self._dresser.dress(self.request, wire, session, self._policy, kept=kept)

    def _show_tunnel(self, tunnel: TunnelAnswer | None) -> None:
        if tunnel is not None and tunnel.headers:
            shown: dict[str, list[str]] = {}
            for name, value in tunnel.headers:
                shown.setdefault(name.decode("latin-1").title(), []).append(value.decode("latin-1"))
            self.request.meta[PROXY_HEADERS] = shown

    def sent(self, now: float) -> None:
        """See pool.Sink."""
        self._sent_at = now

    def head(self, head: ResponseHead, now: float) -> None:
        """See pool.Sink. Latency is from the request written to here: what the server took, not the pool."""
        if self.visit is not None:
            self.visit.head(head)
        sent_at = now if self._sent_at is None else self._sent_at
        self.request.meta["download_latency"] = max(LATENCY_FLOOR, now - sent_at)
        self._head = head
        self._headers = scrapy_headers(head.headers)
        if self._session is not None and self._dresser is not None:
            self._dresser.heard(self.request, self._session, head.status, self._headers)
        # The signal first, as Scrapy's own handler: its receivers see heads of bodies that are too large as well.
        self._send(signals.headers_received, headers=self._headers, body_length=head.length)
        if self._stopped or head.length is None:
            return
        if self.maxsize and head.length > self.maxsize:
            self._too_large(head.length, expected=True)
        elif self.warnsize and head.length > self.warnsize:
            self._warn(head.length, expected=True)

    def data(self, chunk: bytes) -> None:
        """See pool.Sink."""
        if self._stopped:
            return
        if not self._received:
            self._first = chunk
        else:
            if self._body is None:
                self._body = BytesIO()
                self._body.write(self._first)
                self._first = b""
            self._body.write(chunk)
        self._received += len(chunk)
        self._send(signals.bytes_received, data=chunk)
        if self._stopped:
            return
        if self.maxsize and self._received > self.maxsize:
            self._too_large(self._received, expected=False)
        elif self.warnsize and self._received > self.warnsize and not self._warned:
            self._warn(self._received, expected=False)

    def end(self, end: BodyEnd, error: BodyLengthError | None) -> None:
        """See pool.Sink."""
        if self._stopped:
            return
        if end is BodyEnd.TRUNCATED:
            if self.fail_on_dataloss:
                self.on_dataloss()
                self._errback(ResponseDataLossError(str(error)), error)
                return
            self._callback(["dataloss"])
        else:
            self._callback(["partial"] if end is BodyEnd.CLOSE_DELIMITED else None)

    def failed(self, error: PoolPlusError) -> None:
        """See pool.Sink."""
        if not self._stopped:
            self._errback(self._translate(error, self.request, self.url), error)

    # ---- ending

    def _cancel(self) -> None:
        """Nobody waits for `result` any more."""
        self._stop()
        self._note(DownloadCancelledError())

    def _stop(self) -> None:
        self._stopped = True
        if self.visit is not None:
            self.visit.cancel()
        elif self.ticket is not None:
            self.ticket.cancel()

    def _note(self, error: Exception | None = None) -> None:
        """How the request went, for those who ask and those who write it down."""
        if self.ticket is None:
            return
        trace = Trace(self.ticket)
        remember(self.request, trace)
        if is_heard(self._crawler):
            tell(
                self._crawler,
                self._exchanged(trace, self.ticket.sent(), None if error is None else type(error).__name__),
            )

    def _exchanged(self, trace: Trace, wire: WireRequest, error: str | None) -> Exchanged:
        head = self._head
        return Exchanged(
            trace=trace,
            method=self.request.method,
            url=self.url,
            sent=((b"Host", wire.authority), *wire.headers),
            upload=wire.body,
            version="" if head is None else head.version,
            status=0 if head is None else head.status,
            received=() if head is None else head.headers,
            size=self._received,
            body=self._whole,
            error=error,
        )

    def _whole(self) -> bytes:
        """The body so far."""
        return self._first if self._body is None else self._body.getvalue()

    def _callback(self, flags: list[str] | None) -> None:
        self._stopped = True
        self._note()
        # A fault while the response is built (a user's response class, say) is the errback's.
        try:
            response = self._response(flags)
        except Exception as error:  # noqa: BLE001 (a user's response class may raise anything)
            self.result.errback(error)
        else:
            self.result.callback(response)

    def _errback(self, error: Exception, cause: Exception | None = None) -> None:
        self._stopped = True
        self._note(error)
        self._first, self._body = b"", None
        error.__cause__ = cause
        self.result.errback(error)

    def _response(self, flags: list[str] | None) -> Response:
        assert self._head is not None
        assert self._headers is not None
        assert self._connection is not None
        body = self._whole()
        self._first, self._body = b"", None
        cls = responsetypes.from_args(headers=self._headers, url=self.url, body=body)
        return scrapy_response(
            cls,
            self._headers,
            url=self.url,
            status=self._head.status,
            body=body,
            flags=flags,
            certificate=self._connection.certificate,
            ip_address=self._connection.peer,
            protocol=self._head.version,
        )

    # ---- sizes and signals

    def _too_large(self, size: int, *, expected: bool) -> None:
        message = self._size_message(size, "max", self.maxsize, expected=expected)
        logger.warning(message)
        self._stop()
        self._errback(DownloadCancelledError(message))

    def _warn(self, size: int, *, expected: bool) -> None:
        self._warned = True
        logger.warning(self._size_message(size, "warn", self.warnsize, expected=expected))

    def _size_message(self, size: int, kind: str, limit: int, *, expected: bool) -> str:
        """Scrapy's own words, which projects match in their logs."""
        verb = "Expected to receive" if expected else "Received"
        return f"{verb} {size} bytes which is larger than download {kind} size ({limit}) in request {self.request}."

    def _send(self, signal: object, **arguments: object) -> None:
        """Send a signal if anybody listens (a dispatch to nobody costs 4.7 µs a chunk), and stop if a receiver says so."""
        manager = self._crawler.signals
        if not somebody_listens(manager.sender, signal):
            return
        results = manager.send_catch_log(signal=signal, request=self.request, spider=self._crawler.spider, **arguments)
        for receiver, result in results:
            if isinstance(result, Failure) and isinstance(result.value, StopDownload):
                logger.debug("Download stopped for %s from signal handler %s", self.request, receiver.__qualname__)
                self._stop_download(result.value)
                return

    def _stop_download(self, stop: StopDownload) -> None:
        self._stop()
        if not stop.fail:
            self._callback(["download_stopped"])
            return
        stop.response = self._response(["download_stopped"])
        self._errback(stop)

    def _log_tls(self, connection: Connection) -> None:
        logger.debug(
            "SSL connection to %s using protocol %s, cipher %s",
            urlsplit(self.url).hostname,
            connection.tls_version,
            connection.tls_cipher,
        )
        if connection.certificate is not None:
            certificate = connection.certificate.original.to_cryptography()
            logger.debug(
                'SSL connection certificate: issuer "%s", subject "%s"',
                certificate.issuer.rfc4514_string(),
                certificate.subject.rfc4514_string(),
            )
