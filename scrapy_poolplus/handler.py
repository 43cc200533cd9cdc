"""PoolPlusDownloadHandler: a Scrapy Request down to the pool, a Scrapy Response up from it.

Scrapy's objects stop here. The http and the https instance, which Scrapy makes both, share the crawler's one pool.
"""

from __future__ import annotations

import logging
import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

from scrapy import signals
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    NotConfigured,
    ResponseDataLossError,
    UnsupportedURLSchemeError,
)
from scrapy.utils.defer import maybe_deferred_to_future
from scrapy.utils.deprecate import warn_on_deprecated_spider_attribute
from scrapy.utils.httpobj import urlparse_cached

from scrapy_poolplus import settings as poolplus_settings
from scrapy_poolplus.core.errors import (
    BodyLengthError,
    CancelledError,
    ConfigError,
    ConnectRefusedError,
    PhaseTimeoutError,
    PoolClosedError,
    PoolPlusError,
    ResolveError,
)
from scrapy_poolplus.core.exits import takes_user
from scrapy_poolplus.core.origin import HTTP_PROXIES, HttpProtocol, Origin, PoolKey, Proxy, Route, canonical_host
from scrapy_poolplus.core.sessions import ANY
from scrapy_poolplus.labels import CLAIM, read_claim
from scrapy_poolplus.net.wire import WireRequest
from scrapy_poolplus.response import ResponseSink
from scrapy_poolplus.shared import close_pool, shared_config, shared_door, shared_dresser, shared_pool
from scrapy_poolplus.shortcuts import header_lists

if TYPE_CHECKING:
    from collections.abc import Container
    from urllib.parse import ParseResult

    from scrapy import Request
    from scrapy.core.engine import ExecutionEngine
    from scrapy.crawler import Crawler
    from scrapy.http import Response
    from typing_extensions import Self

    from scrapy_poolplus.core.policy import Policy
    from scrapy_poolplus.exchange import Ticket

logger = logging.getLogger(__name__)
bad_length_logger = logging.getLogger("scrapy.core._http2.stream")
"""Scrapy's own name for it: projects filter and match that warning by it."""

PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
PLAINTEXT = (HttpProtocol.HTTP1,)
MOST_REMEMBERED = 10_000
"""Hosts whose key is kept ready; a broad crawl begins anew after so many."""
CONTENT_METHODS = frozenset({"POST", "PUT", "PATCH"})
"""Content-Length: 0 is sent for these without a body (RFC 9110 8.6)."""
UNSENT = frozenset({b"host", b"content-length", b"transfer-encoding", b"proxy-authorization"})
"""Request headers that the handler or the engine makes itself, or that are not for the server."""

_PATH_OR_QUERY = re.compile("[/?]")

EXCEPTIONS: dict[type[PoolPlusError], type[Exception]] = {
    ResolveError: CannotResolveHostError,
    ConnectRefusedError: DownloadConnectionRefusedError,
    PhaseTimeoutError: DownloadTimeoutError,
    CancelledError: DownloadCancelledError,
    PoolClosedError: DownloadCancelledError,
    BodyLengthError: ResponseDataLossError,
}
"""The rest is DownloadFailedError."""


def to_scrapy(error: PoolPlusError, request: Request, url: str) -> Exception:
    """The exception that Scrapy's middlewares and errbacks know, with our text."""
    cls = EXCEPTIONS.get(type(error), DownloadFailedError)
    if isinstance(error, PhaseTimeoutError) and error.setting == "download_timeout":
        return cls(f"Getting {url} took longer than {error.seconds} seconds ({error}).")
    return cls(str(error))


class _Place(NamedTuple):
    """What of a request decides where it goes; as it stands in the URL."""

    scheme: str
    netloc: str
    bind: tuple[str, int] | None
    proxy: Proxy | None


class _Destination(NamedTuple):
    """What is the same for all requests to a place."""

    key: PoolKey
    policy: Policy
    scheme: bytes
    authority: bytes


class _SlotsOfOrigin:
    """The downloader's slots that were seen to point to one origin, and their concurrency summed.

    A slot for each request (meta ``download_slot``) is a name that is never seen again, and Scrapy drops slots that are
    idle for a minute: whenever the names have doubled, those of slots that are gone are forgotten, so the work and the
    memory follow the slots that there are."""

    __slots__ = ("_concurrency", "_look_at", "_sum")

    def __init__(self) -> None:
        self._concurrency: dict[str, int] = {}
        self._sum = 0
        self._look_at = 8

    def with_slot(self, name: str, concurrency: int, there: Container[str]) -> int:
        """The sum with this slot in it; `there`: the names of all slots of the downloader."""
        known = self._concurrency
        self._sum += concurrency - known.get(name, 0)
        known[name] = concurrency
        if len(known) > self._look_at:
            self._concurrency = {name: allowed for name, allowed in known.items() if name in there}
            self._sum = sum(self._concurrency.values())
            self._look_at = max(8, 2 * len(self._concurrency))
        return self._sum


_refused: WeakSet[Crawler] = WeakSet()
"""Crawlers whose wrong settings were told already, by the handler of the other scheme."""


class PoolPlusDownloadHandler:
    """Downloads http and https through the crawler's connection pool. See the documentation for its settings."""

    lazy = False

    def __init__(self, crawler: Crawler) -> None:
        settings = crawler.settings
        if not settings.getbool("TWISTED_REACTOR_ENABLED", True):
            raise NotConfigured(
                f"{type(self).__name__} needs a Twisted reactor: set TWISTED_REACTOR_ENABLED to True, or use another "
                f"download handler."
            )
        self._crawler = crawler
        self._bad_settings: ConfigError | None = None
        self._maxsize = settings.getint("DOWNLOAD_MAXSIZE")
        self._warnsize = settings.getint("DOWNLOAD_WARNSIZE")
        self._fail_on_dataloss = settings.getbool("DOWNLOAD_FAIL_ON_DATALOSS")
        self._timeout = settings.getfloat("DOWNLOAD_TIMEOUT") or 180.0
        self._verbose_tls = settings.getbool("DOWNLOADER_CLIENT_TLS_VERBOSE_LOGGING")
        self._dataloss_warned = False
        self._bind: tuple[str, int] | None = None
        self._destinations: dict[_Place, _Destination] = {}
        self._slots: dict[Origin, _SlotsOfOrigin] = {}
        self._overrides: dict[tuple[str, str], Policy] = {}
        try:
            shared_pool(crawler)
            self._bind = shared_config(crawler).bind
        except ConfigError as error:
            self._refuse(error)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy's way to make it."""
        return cls(crawler)

    async def download_request(self, request: Request) -> Response:
        """Scrapy's download handler interface."""
        if self._bad_settings is not None:
            raise IgnoreRequest("the settings of scrapy-poolplus are wrong")
        wire, key, policy, own = self._wire(request)
        sink = self._sink(request, policy)
        seconds = request.meta.get("download_timeout") or self._timeout
        pool = shared_pool(self._crawler)
        slots = self._slots_of(key.origin, request)
        label = request.meta.get(CLAIM)
        claim = ANY if label is None else read_claim(label)

        def enter() -> Ticket:
            sink.ticket = pool.request(wire, key, policy, sink, seconds=seconds, own=own, slots=slots, claim=claim)
            return sink.ticket

        if not policy.longest_pause:
            enter()
            return await maybe_deferred_to_future(sink.result)
        door = shared_door(self._crawler)
        door.watch(self._engine())
        sink.visit = visit = door.visit(key.origin.host, policy, enter, sink.failed)
        try:
            visit.arrive()
            return await maybe_deferred_to_future(sink.result)
        finally:
            visit.over()
            sink.visit = None

    async def close(self) -> None:
        """Closes the crawler's pool; the other instance may do so as well."""
        await close_pool(self._crawler)

    # ---- down

    def _wire(self, request: Request) -> tuple[WireRequest, PoolKey, Policy, Policy | None]:
        url = urlparse_cached(request)
        bind = _bind_address(request.meta.get("bindaddress"))
        proxy = self._proxy(request)
        place = _Place(url.scheme, url.netloc, bind, proxy)
        key, policy, scheme, authority = self._destinations.get(place) or self._destination(place, url)
        headers: list[tuple[bytes, bytes]] = []
        announce = False
        for name, values in header_lists(request.headers):
            lowered = name.lower()
            if lowered not in UNSENT:
                for value in values:
                    headers.append((name, value))  # noqa: PERF401 (a generator for each name costs more than this)
            elif lowered == b"host" and values:
                authority = values[-1] or authority
            elif lowered == b"content-length" and values:
                announce = True
                self._check_length(request, values)
        target = _target(request.method, request.url)
        via = None
        if proxy is not None and not key.origin.secure and proxy.scheme in HTTP_PROXIES:
            # Absolute-form (RFC 9112 3.2.2); the credentials are the connection's.
            target = b"http://" + _authority(key.origin) + (b"" if target == b"*" else target)
            via = proxy
        wire = WireRequest(
            method=request.method.encode("latin-1"),
            scheme=scheme,
            authority=authority,
            target=target,
            headers=tuple(headers),
            body=request.body,
            announce_length=announce or bool(request.body) or request.method in CONTENT_METHODS,
            via=via,
        )
        overrides = request.meta.get("poolplus_policy")
        if not overrides:
            return wire, key, policy, None
        own = self._overridden(policy, overrides)
        if key.origin.secure and own.protocols != key.protocols:
            key = PoolKey(key.route, key.label, own.protocols)
        return wire, key, policy, own

    def _slots_of(self, origin: Origin, request: Request) -> int | None:
        """How many requests Scrapy's slots allow at the origin at once, over all slots that point there; None outside a
        crawl."""
        name = request.meta.get("download_slot")
        downloader = getattr(self._engine(), "downloader", None)
        if name is None or downloader is None:
            return None
        slot = downloader.slots.get(name)
        if slot is None or slot.concurrency <= 0:
            return None
        if len(self._slots) > MOST_REMEMBERED:
            self._slots.clear()
        allowed = self._slots.get(origin)
        if allowed is None:
            allowed = self._slots[origin] = _SlotsOfOrigin()
        return allowed.with_slot(name, slot.concurrency, downloader.slots)

    def _engine(self) -> ExecutionEngine | None:
        try:
            return self._crawler.engine
        except RuntimeError:
            # Scrapy 2.19 refuses to name it before the crawl.
            return None

    def _proxy(self, request: Request) -> Proxy | None:
        """From meta ``proxy``, and the Proxy-Authorization header that HttpProxyMiddleware made of its credentials."""
        url = request.meta.get("proxy")
        if not url:
            return None
        authorization = request.headers.get(b"Proxy-Authorization")
        return read_proxy(url, authorization)

    def _overridden(self, policy: Policy, overrides: object) -> Policy:
        """The policy of a request with meta ``poolplus_policy``, read once for equal ones."""
        cached = self._overrides.get((policy.name, repr(overrides)))
        if cached is None:
            if len(self._overrides) > MOST_REMEMBERED:
                self._overrides.clear()
            cached = poolplus_settings.request_policy(policy, overrides)
            self._overrides[policy.name, repr(overrides)] = cached
        return cached

    def _destination(self, place: _Place, url: ParseResult) -> _Destination:
        try:
            origin = Origin.of(url.scheme, url.hostname or "", url.port)
        except UnicodeError as error:
            # Only with meta verbatim_url; else Scrapy's Request has refused it.
            raise CannotResolveHostError(f"{url.hostname!r} is not a host name: it has no form in ASCII") from error
        except ValueError as error:
            raise UnsupportedURLSchemeError(str(error)) from error
        policy = shared_config(self._crawler).table.for_host(origin.host)
        protocols = policy.protocols if origin.secure else PLAINTEXT
        # The request's own beats the domain's, which are chosen for each connection, and these beat the setting.
        bind = place.bind or (None if policy.bind_addresses else self._bind)
        if policy.proxy_user is not None and place.proxy is not None and not takes_user(place.proxy):
            raise ValueError(
                f'proxy_user of "{policy.name}" takes a proxy with a user name and a password (Basic), or without; '
                f"Proxy-Authorization of the request through {place.proxy} is of another scheme"
            )
        key = PoolKey(Route(origin, place.proxy, bind), None, protocols)
        found = _Destination(key, policy, url.scheme.encode(), _authority(origin))
        if place.proxy is None:
            # Nothing is kept of a proxy once its connections are gone: a crawl may use thousands.
            if len(self._destinations) > MOST_REMEMBERED:
                self._destinations.clear()
            self._destinations[place] = found
        return found

    @staticmethod
    def _check_length(request: Request, values: list[bytes]) -> None:
        right = b"%d" % len(request.body)
        for value in values:
            if value != right:
                bad_length_logger.warning(
                    "Ignoring bad Content-Length header %r of request %r, sending %r instead",
                    value.decode("latin-1"),
                    request,
                    right.decode(),
                )

    # ---- up

    def _sink(self, request: Request, policy: Policy) -> ResponseSink:
        meta = request.meta
        spider = self._crawler.spider
        for attribute in ("download_maxsize", "download_warnsize"):
            if hasattr(spider, attribute):
                warn_on_deprecated_spider_attribute(attribute, attribute.upper())
        return ResponseSink(
            self._crawler,
            request,
            request.url.partition("#")[0],
            maxsize=meta.get("download_maxsize", getattr(spider, "download_maxsize", self._maxsize)),
            warnsize=meta.get("download_warnsize", getattr(spider, "download_warnsize", self._warnsize)),
            fail_on_dataloss=meta.get("download_fail_on_dataloss", self._fail_on_dataloss),
            verbose_tls=self._verbose_tls,
            on_dataloss=lambda: self._warn_dataloss(request),
            translate=to_scrapy,
            dresser=shared_dresser(self._crawler),
            policy=policy,
        )

    def _warn_dataloss(self, request: Request) -> None:
        if not self._dataloss_warned:
            self._dataloss_warned = True
            logger.warning(
                "Got data loss in %s. If you want to process broken responses set the setting "
                "DOWNLOAD_FAIL_ON_DATALOSS = False -- This message won't be shown in further requests",
                request.url,
            )

    # ---- bad settings

    def _refuse(self, error: ConfigError) -> None:
        """Without the extension, an exception here would only make every request fail: say it once, close the spider."""
        self._bad_settings = error
        if self._crawler not in _refused:
            _refused.add(self._crawler)
            logger.critical(
                "%s\nThe spider is closed. To have the command itself fail, with an exit code, enable the extension: "
                'EXTENSIONS = {"scrapy_poolplus.PoolPlusExtension": 0}',
                error,
            )
            self._crawler.signals.connect(self._close_spider, signals.spider_opened)

    async def _close_spider(self) -> None:
        engine = self._crawler.engine
        if engine is not None:
            await engine.close_spider_async(reason="poolplus_settings")


def _bind_address(value: object) -> tuple[str, int] | None:
    """``DOWNLOAD_BIND_ADDRESS`` or meta ``bindaddress``: a host, or a pair of host and port."""
    if not value:
        return None
    if isinstance(value, str):
        return value, 0
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"a bind address is a host, or a pair of host and port; {value!r} is neither")
    return str(value[0]), int(value[1])


def read_proxy(url: str, authorization: bytes | None) -> Proxy:
    """The proxy at `url`: ``host:port`` means http; without port the scheme's own (80, 443, 1080). Credentials in the
    URL are used where there is no `authorization`.

    Raises NotImplementedError for another scheme than http, https, socks5, socks5h, ValueError for a malformed URL;
    neither repeats credentials.
    """
    scheme, colon, rest = url.rpartition("@")[2], "", ""
    if "://" in url:
        scheme, colon, rest = url.partition("://")
    shown = scheme + colon + rest.rpartition("@")[2]
    try:
        parts = urlsplit(url if colon else f"http://{url}")
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        # Python's own error repeats the URL.
        raise ValueError(f"the proxy URL {shown!r} cannot be read: host or port are not valid") from None
    if "@" in url and "@" not in parts.netloc:
        raise ValueError(
            f"the proxy URL {shown!r} has credentials with a /, ? or # in them: escape it, as %2F, %3F or %23"
        )
    if scheme not in PROXY_PORTS:
        raise NotImplementedError(
            f"proxy scheme {scheme!r} of {shown!r} is not supported: use one of {', '.join(PROXY_PORTS)}"
        )
    if not host:
        raise ValueError(f"the proxy URL {shown!r} has no host")
    if authorization is None and parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = b"Basic " + b64encode(login.encode("utf-8"))
    return Proxy(scheme, canonical_host(host), port or PROXY_PORTS[scheme], authorization)


def _authority(origin: Origin) -> bytes:
    """Host, with the port where it is not the scheme's own (RFC 9110 4.2)."""
    if origin.port == (443 if origin.secure else 80):
        host = origin.netloc.rpartition(":")[0]
        return host.encode("latin-1")
    return origin.netloc.encode("latin-1")


def _target(method: str, url: str) -> bytes:
    """Path and query as they stand in the URL, without fragment (RFC 9112 3.2.1); ``*`` for OPTIONS of the whole
    server (RFC 9112 3.2.4)."""
    rest = url.partition("#")[0].partition("://")[2]
    begins = _PATH_OR_QUERY.search(rest)
    target = "" if begins is None else rest[begins.start() :]
    if target in ("", "?"):
        return b"*" if method == "OPTIONS" else b"/"
    return (target if target[0] == "/" else "/" + target).encode("utf-8")
