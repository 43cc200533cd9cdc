"""PoolPlusExtension: wrong settings stop the crawl before its first request.

The handler downloads without it. But an exception in a handler's constructor only makes every request fail, and the
crawl still ends as finished; the same exception in an extension ends ``scrapy crawl`` with exit code 1.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from scrapy.exceptions import NotConfigured

from scrapy_poolplus.core.errors import ConfigError
from scrapy_poolplus.settings import is_enabled

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from typing_extensions import Self

logger = logging.getLogger(__name__)


class PoolPlusExtension:
    """Makes the crawler's pool, or refuses to. `pool` is the one that the download handlers use."""

    def __init__(self, crawler: Crawler) -> None:
        # Only now: the reactor is installed when a crawler makes its extensions, not when this module is loaded.
        from scrapy_poolplus.shared import shared_pool  # noqa: PLC0415

        self.pool = shared_pool(crawler)

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
