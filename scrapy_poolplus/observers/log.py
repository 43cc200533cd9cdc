"""The life of each connection in the log, at DEBUG: one line per transition, with the connection's number.

Single requests are left out: Scrapy writes a line for each already.
"""

from __future__ import annotations

import logging

from scrapy_poolplus.core.events import (
    ConnectionClosed,
    ConnectionDraining,
    ConnectionOpened,
    DialFailed,
    DialStarted,
    PoolEvent,
    Replayed,
    SessionCrossed,
    SessionKept,
    SessionOpened,
    SessionRetired,
)

logger = logging.getLogger(__name__)


class LogObserver:
    """Writes pool events to the log."""

    kinds: frozenset[type] = frozenset(
        {
            DialStarted,
            DialFailed,
            ConnectionOpened,
            ConnectionDraining,
            ConnectionClosed,
            Replayed,
            SessionOpened,
            SessionKept,
            SessionCrossed,
            SessionRetired,
        }
    )
    """The events that are logged."""

    def __call__(self, event: PoolEvent) -> None:
        """Write the event, if somebody reads it."""
        if not logger.isEnabledFor(logging.DEBUG):
            return
        match event:
            case DialStarted():
                logger.debug("Connection %d: dialling %s", event.connection, event.key)
            case DialFailed():
                logger.debug(
                    "Connection %d: dialling %s ended after %.3f s: %s",
                    event.connection,
                    event.key,
                    event.dial_seconds,
                    event.error,
                )
            case ConnectionOpened():
                logger.debug(
                    "Connection %d: open to %s, %s, after %.3f s",
                    event.connection,
                    event.key,
                    event.protocol.value,
                    event.dial_seconds,
                )
            case ConnectionDraining():
                logger.debug("Connection %d: drains, %s", event.connection, event.reason.value)
            case ConnectionClosed():
                logger.debug(
                    "Connection %d: closed, %s; %d requests, %d bytes sent, %d received in %.3f s",
                    event.connection,
                    event.reason.value,
                    event.requests,
                    event.sent,
                    event.received,
                    event.seconds,
                )
            case Replayed():
                logger.debug(
                    "Connection %d: request %d goes to another one: %s", event.connection, event.ticket, event.reason
                )
            case SessionOpened():
                logger.debug("Session %s: open, for %s", event.session, event.key)
            case SessionKept():
                logger.debug("Session %s: kept whole, %s: %s", event.session, event.cause, event.begun_by)
            case SessionCrossed():
                logger.debug("Session %s: a request goes on in another one: %s", event.session, event.cause)
            case SessionRetired():
                logger.debug("Session %s: retired, %s; %d requests", event.session, event.reason.value, event.requests)
            case _:
                pass
