"""What the handlers, the extension and the middlewares of one crawler share: its settings and its pool.

Made by whoever comes first, found through the crawler. A closed pool is replaced by a new one.
"""

from __future__ import annotations

import logging
import random
import time
from secrets import token_hex
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from scrapy import signals
from scrapy.resolver import dnscache
from scrapy.settings import default_settings
from scrapy.utils.defer import maybe_deferred_to_future

from scrapy_poolplus import settings as poolplus_settings
from scrapy_poolplus.door import Door
from scrapy_poolplus.dressing import Dresser
from scrapy_poolplus.jars import SessionJars
from scrapy_poolplus.net.dialer import Dialer
from scrapy_poolplus.net.tls import PolicyForHTTPS, TLSProfile, tls_version
from scrapy_poolplus.pool import ConnectionPool
from scrapy_poolplus.wiring import observers_of

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from scrapy_poolplus.settings import PoolConfig

logger = logging.getLogger(__name__)


class _Shared:
    """Of one crawler."""

    def __init__(self, crawler: Crawler, config: PoolConfig) -> None:
        self.config = config
        self.tls = _tls_profile(crawler)
        self.door = _door()
        self.jars = SessionJars.of(crawler)
        self.pool = self._make(crawler)
        self.dresser = Dresser(self.pool, self.jars)

    def renew(self, crawler: Crawler) -> None:
        """Another pool in the place of one that was closed; sessions begin anew."""
        self.jars = SessionJars.of(crawler)
        self.pool = self._make(crawler)
        self.dresser = Dresser(self.pool, self.jars)

    async def close(self) -> None:
        """Close the pool. On ``spider_closed``, so that its figures are in before Scrapy prints its statistics."""
        await maybe_deferred_to_future(self.pool.close())

    def _make(self, crawler: Crawler) -> ConnectionPool:
        from twisted.internet import reactor

        config = self.config
        pool = ConnectionPool(
            clock=reactor,
            dialer=Dialer(reactor, self.tls, forget_name=_forget_name),
            uniform=random.Random(config.seed).random,  # noqa: S311 - jitter, no secret
            max_connections=config.max_connections,
            dial_timeout=crawler.settings.getfloat("DOWNLOAD_TIMEOUT") or 180.0,
            max_frame_size=config.max_frame_size,
            observers=observers_of(crawler, config, reactor.seconds),
            run=token_hex(4),
            session_ended=self._session_ended,
        )
        self.door.stand_before(pool)
        return pool

    def _session_ended(self, session: str) -> None:
        self.dresser.ended(session)


_shared: WeakKeyDictionary[Crawler, _Shared] = WeakKeyDictionary()


def _of(crawler: Crawler) -> _Shared:
    shared = _shared.get(crawler)
    if shared is None:
        config = poolplus_settings.read(crawler.settings)
        for warning in config.warnings:
            logger.warning(warning)
        shared = _shared[crawler] = _Shared(crawler, config)
        crawler.signals.connect(shared.close, signals.spider_closed)
    elif shared.pool.closed:
        shared.renew(crawler)
    return shared


def shared_pool(crawler: Crawler) -> ConnectionPool:
    """The pool of a crawler: made by whoever comes first, replaced by a new one when it was closed.

    Raises core.errors.ConfigError with every problem of the settings, and ValueError for TLS settings that cannot work.
    """
    return _of(crawler).pool


def retire(crawler: Crawler, *, host: str | None = None, session: str | None = None) -> int:
    """Retire the open connections of a crawler to a host, or all, with their sessions; or one session by its label or id.

    They finish what they have and take nothing new; the next request begins another connection and, with rotation,
    another session. Returns how many connections took their leave. A host or session that is not known is none. Raises
    LookupError where the crawler has not downloaded with scrapy-poolplus yet.
    """
    shared = _shared.get(crawler)
    if shared is None:
        raise LookupError(
            "this crawler has no pool: its DOWNLOAD_HANDLERS do not name scrapy-poolplus, or it has not begun"
        )
    return shared.pool.retire(host=host, session=session)


def shared_config(crawler: Crawler) -> PoolConfig:
    """What the crawler's settings say. Raises as `shared_pool`."""
    return _of(crawler).config


def shared_dresser(crawler: Crawler) -> Dresser:
    """Who dresses the requests of the crawler's sessions. Raises as `shared_pool`."""
    return _of(crawler).dresser


def shared_door(crawler: Crawler) -> Door:
    """The door before the crawler's pool. Raises as `shared_pool`."""
    return _of(crawler).door


async def close_pool(crawler: Crawler) -> None:
    """Close the crawler's pool, if there is one; may be called again."""
    shared = _shared.get(crawler)
    if shared is not None:
        await shared.close()


def _door() -> Door:
    from twisted.internet import reactor

    return Door(reactor, time.time)


def _forget_name(name: str) -> None:
    """Drop `name` from the cache of Scrapy's resolvers, which never expires (scrapy#905). Tried with 2.15 to 2.19."""
    dnscache.pop(name, None)


def _tls_profile(crawler: Crawler) -> TLSProfile:
    """Scrapy's TLS settings as a profile. A user's own DOWNLOADER_CLIENTCONTEXTFACTORY, or the deprecated
    DOWNLOADER_CLIENT_TLS_METHOD, is asked for each connection and decides all."""
    settings = crawler.settings
    low = tls_version(settings["DOWNLOAD_TLS_MIN_VERSION"], "DOWNLOAD_TLS_MIN_VERSION")
    high = tls_version(settings["DOWNLOAD_TLS_MAX_VERSION"], "DOWNLOAD_TLS_MAX_VERSION")
    return TLSProfile(
        verify=settings.getbool("DOWNLOAD_VERIFY_CERTIFICATES"),
        ciphers=settings["DOWNLOADER_CLIENT_TLS_CIPHERS"] or None,
        min_version=low,
        max_version=high,
        policy=_context_factory(crawler),
    )


def _context_factory(crawler: Crawler) -> PolicyForHTTPS | None:
    """What the two deprecated settings say, or None where neither is used.

    The one place that uses a private function of Scrapy; tried with 2.15 to 2.19.
    """
    settings = crawler.settings
    factory = settings["DOWNLOADER_CLIENTCONTEXTFACTORY"]
    default = getattr(default_settings, "DOWNLOADER_CLIENTCONTEXTFACTORY", None)
    if factory in (None, default) and settings["DOWNLOADER_CLIENT_TLS_METHOD"] in (None, "TLS"):
        return None
    from scrapy.core.downloader.contextfactory import _load_context_factory_from_settings  # noqa: PLC0415

    policy: PolicyForHTTPS = _load_context_factory_from_settings(crawler)
    return policy
