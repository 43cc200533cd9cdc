"""Pool events as Scrapy signals, for those that somebody listens to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydispatch.dispatcher import getAllReceivers  # type: ignore[import-untyped]

from scrapy_poolplus import signals
from scrapy_poolplus.core.events import (
    ConnectionClosed,
    ConnectionDraining,
    ConnectionOpened,
    PoolEvent,
    Replayed,
    SessionOpened,
    SessionRetired,
)

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

SIGNALS: dict[type[PoolEvent], object] = {
    ConnectionOpened: signals.connection_opened,
    ConnectionDraining: signals.connection_draining,
    ConnectionClosed: signals.connection_closed,
    Replayed: signals.request_replayed,
    SessionOpened: signals.session_opened,
    SessionRetired: signals.session_retired,
}


class SignalsObserver:
    """Sends the signals of a crawler."""

    kinds: frozenset[type] = frozenset(SIGNALS)
    """The events that are signals: none else is made for them."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    def __call__(self, event: PoolEvent) -> None:
        """Send the event's signal. A connection that never opened has no `closed` either, only a failed dial."""
        signal = SIGNALS.get(type(event))
        if signal is None or (isinstance(event, ConnectionClosed) and event.protocol is None):
            return
        manager = self._crawler.signals
        if next(iter(getAllReceivers(manager.sender, signal)), None) is not None:
            manager.send_catch_log(signal=signal, event=event, spider=self._crawler.spider)
