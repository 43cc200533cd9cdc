"""Addon: ``ADDONS = {"scrapy_poolplus.Addon": 500}`` enables everything.

An add-on's priority is below the project's, so setting the whole of DOWNLOAD_HANDLERS would be silently lost wherever
the project, a spider or the command line sets it. Only the entries for http and https are filled in, inside the dict
that won.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from scrapy.settings import BaseSettings

from scrapy_poolplus.extension import PoolPlusExtension
from scrapy_poolplus.rotation import ConnectionRotationMiddleware, SessionFollowMiddleware
from scrapy_poolplus.settings import is_enabled

if TYPE_CHECKING:
    from scrapy.settings import Settings

logger = logging.getLogger(__name__)

HANDLER = "scrapy_poolplus.PoolPlusDownloadHandler"
HANDLER_NAMES = (HANDLER, "scrapy_poolplus.handler.PoolPlusDownloadHandler")


class Addon:
    """Scrapy's add-on interface."""

    def update_settings(self, settings: Settings) -> None:
        """Fill in the download handlers of http and https, and add the extension and the middlewares of rotation, which
        is off until the project turns it on, and the providers for scrapy-poet where that is installed."""
        if not is_enabled(settings):
            return
        handlers = _handlers(settings)
        for scheme in ("http", "https"):
            if scheme not in handlers:
                handlers.set(scheme, HANDLER, "addon")
            elif not _fine(handlers[scheme]):
                logger.warning(
                    "scrapy-poolplus does not download %s: DOWNLOAD_HANDLERS names %s for it. Remove that entry, or "
                    "set it to %r.",
                    scheme,
                    handlers[scheme],
                    HANDLER,
                )
        settings.setdefault_in_component_priority_dict("EXTENSIONS", PoolPlusExtension, 0)
        settings.setdefault_in_component_priority_dict("DOWNLOADER_MIDDLEWARES", ConnectionRotationMiddleware, 690)
        settings.setdefault_in_component_priority_dict("SPIDER_MIDDLEWARES", SessionFollowMiddleware, 50)
        settings.set("POOLPLUS_ROTATION", "off", "addon")
        if find_spec("scrapy_poet") is not None:
            from scrapy_poolplus import poet  # noqa: PLC0415 - scrapy-poet is an extra

            for provider, order in poet.PROVIDERS.items():
                settings.setdefault_in_component_priority_dict("SCRAPY_POET_PROVIDERS", provider, order)


def _handlers(settings: Settings) -> BaseSettings:
    """DOWNLOAD_HANDLERS as it is stored, to be edited in place; entries keep their own priorities."""
    handlers = settings["DOWNLOAD_HANDLERS"]
    if not isinstance(handlers, BaseSettings):
        # Settings that were not made from Scrapy's defaults hold a plain dict, JSON, or nothing.
        priority = settings.getpriority("DOWNLOAD_HANDLERS")
        priority = 0 if priority is None else priority
        handlers = BaseSettings(settings.getdict("DOWNLOAD_HANDLERS"), priority)
        settings.set("DOWNLOAD_HANDLERS", handlers, priority)
    return handlers


def _fine(handler: object) -> bool:
    """Whether the entry is ours or a class of the user's derived from it, or None, which switches a scheme off.

    Import paths are compared, not loaded: a module loaded before the reactor is installed may install another one.
    """
    if handler is None or isinstance(handler, str):
        return handler is None or handler in HANDLER_NAMES
    return isinstance(handler, type) and any(f"{c.__module__}.{c.__name__}" in HANDLER_NAMES for c in handler.__mro__)
