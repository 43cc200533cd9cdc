"""Who observes a crawler's pool: made once, also where a closed pool is replaced by another one."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

from scrapy import signals

from scrapy_poolplus.core.errors import ConfigError
from scrapy_poolplus.observers.har import HarObserver, har_path
from scrapy_poolplus.observers.linkability import LinkabilityObserver
from scrapy_poolplus.observers.log import LogObserver
from scrapy_poolplus.observers.signals import SignalsObserver
from scrapy_poolplus.observers.stats import StatsObserver
from scrapy_poolplus.tracing import listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrapy.crawler import Crawler

    from scrapy_poolplus.core.events import Observer
    from scrapy_poolplus.settings import PoolConfig

logger = logging.getLogger(__name__)

Wired: TypeAlias = "tuple[Observer, frozenset[type] | None]"
"""An observer, and the kinds of events that it hears: None for all."""

_made: WeakKeyDictionary[Crawler, list[Wired]] = WeakKeyDictionary()


def observers_of(crawler: Crawler, config: PoolConfig, clock: Callable[[], float]) -> list[Wired]:
    """The observers that the settings ask for, each with what it hears. `clock`: the pool's seconds. Raises ConfigError
    where POOLPLUS_HAR cannot be written."""
    if crawler not in _made:
        assert crawler.stats is not None
        log, figures, told = LogObserver(), StatsObserver(crawler.stats), SignalsObserver(crawler)
        made = _made[crawler] = [(figures, figures.kinds), (log, log.kinds), (told, told.kinds)]
        if config.har is not None:
            har = _har(crawler, config, config.har, clock)
            made.append((har, har.kinds))
        if config.rotates:
            linkability = _linkability(crawler, config)
            made.append((linkability, linkability.kinds))
    return _made[crawler]


def _linkability(crawler: Crawler, config: PoolConfig) -> LinkabilityObserver:
    """Its figures are in before Scrapy prints its statistics."""
    assert crawler.stats is not None
    has_cookies = crawler.settings.getbool("COOKIES_ENABLED")

    def shared_jar(host: str) -> bool:
        return has_cookies and config.table.for_host(host).cookies == "shared"

    linkability = LinkabilityObserver(crawler.stats, shared_jar=shared_jar)
    crawler.signals.connect(linkability.close, signals.spider_closed, weak=False)
    return linkability


def _har(crawler: Crawler, config: PoolConfig, template: str, clock: Callable[[], float]) -> HarObserver:
    try:
        path = har_path(template, getattr(crawler.spider, "name", "shell"), crawler.spider)
        har = HarObserver(
            path, version=version("scrapy-poolplus"), clock=clock, masked=config.har_mask, bodies=config.har_bodies
        )
    except (OSError, ValueError) as error:
        problem = f'POOLPLUS_HAR is "{template}", which cannot be written: {error}'
        raise ConfigError(f"scrapy-poolplus found 1 problem in the settings:\n  1. {problem}", (problem,)) from error
    listen(crawler, har.exchanged)
    # The pool has closed its connections by then, and told of it.
    crawler.signals.connect(har.close, signals.engine_stopped, weak=False)
    logger.info("The crawl is written to %s", path)
    return har
