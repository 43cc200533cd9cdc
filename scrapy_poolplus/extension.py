"""PoolPlusExtension: wrong settings stop the crawl before its first request, and the running pool can be looked at.

The handler downloads without it. But an exception in a handler's constructor only makes every request fail, and the
crawl still ends as finished; the same exception in an extension ends ``scrapy crawl`` with exit code 1.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scrapy import signals
from scrapy.exceptions import NotConfigured
from scrapy.utils.asyncio import AsyncioLoopingCall, create_looping_call

from scrapy_poolplus.core.errors import ConfigError
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.settings import is_enabled
from scrapy_poolplus.status import pool_line, pool_text

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from twisted.internet.task import LoopingCall
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class PoolPlusExtension:
    """Makes the crawler's pool, or refuses to. `pool` is the one that the download handlers use."""

    def __init__(self, crawler: Crawler) -> None:
        # Only now: the reactor is installed when a crawler makes its extensions, not when this module is loaded.
        from scrapy_poolplus.shared import shared_pool  # noqa: PLC0415

        self.pool = shared_pool(crawler)
        self._crawler = crawler
        self._interval = crawler.settings.getfloat("LOGSTATS_INTERVAL")
        self._line: AsyncioLoopingCall | LoopingCall | None = None
        crawler.signals.connect(self._opened, signals.spider_opened)
        crawler.signals.connect(self._closed, signals.spider_closed)
        if crawler.settings.getbool("TELNETCONSOLE_ENABLED"):
            from scrapy.extensions.telnet import update_telnet_vars  # noqa: PLC0415 - it loads an ssh library

            crawler.signals.connect(self._add_to_telnet, update_telnet_vars)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        """Scrapy's way to make it. Raises ConfigError when the settings are wrong, after listing every problem."""
        settings = crawler.settings
        if not is_enabled(settings):
            raise NotConfigured
        if not settings.getbool("TWISTED_REACTOR_ENABLED", True):
            raise NotConfigured("scrapy-poolplus needs a Twisted reactor: set TWISTED_REACTOR_ENABLED to True")
        try:
            return cls(crawler)
        except ConfigError as error:
            # The list goes to the log once. In the exception Scrapy and Twisted would print it up to three times,
            # between the lines of tracebacks.
            logger.critical("%s", error, extra={"crawler": crawler})
            raise ConfigError("the settings of scrapy-poolplus are wrong, see above", error.problems) from None

    def snapshot(self) -> str:
        """The pool as text: totals, who waits, each connection with its state, streams and what is left of its budget."""
        from scrapy_poolplus.shared import shared_pool  # noqa: PLC0415

        return pool_text(shared_pool(self._crawler))

    def _add_to_telnet(self, telnet_vars: dict[str, object]) -> None:
        """``poolplus()`` in the telnet console."""
        telnet_vars["poolplus"] = lambda: print(self.snapshot())  # noqa: T201 - the console's own output

    def _opened(self) -> None:
        if self._interval:
            self._line = create_looping_call(self._log)
            self._line.start(self._interval, now=False)

    def _closed(self) -> None:
        if self._line is not None and self._line.running:
            self._line.stop()

    def _log(self) -> None:
        """Beside the line of Scrapy's LogStats, at its interval."""
        assert self._crawler.stats is not None
        stats = self._crawler.stats
        sent = sum(stats.get_value(f"poolplus/requests/{protocol.value}", 0) for protocol in HttpProtocol)
        reused = stats.get_value("poolplus/connections/reused", 0)
        share = f"; {reused / sent:.0%} of {sent} requests reused a connection" if sent else ""
        logger.info("Pool: %s%s", pool_line(self.pool), share, extra={"crawler": self._crawler})


def snapshot(crawler: Crawler) -> str:
    """The crawler's running pool as text, for Scrapy's remote control and wherever a crawler is at hand.

    Raises LookupError where the crawler does not use scrapy-poolplus's extension.
    """
    extension = crawler.get_extension(PoolPlusExtension)
    if extension is None:
        raise LookupError("PoolPlusExtension is not enabled in this crawl: enable the add-on, or list it in EXTENSIONS")
    return extension.snapshot()
