"""Signals of the pool, to be connected as Scrapy's own: ``crawler.signals.connect(receiver, signals.connection_closed)``.

Each is sent with ``event``, a frozen value of ``core.events``, and ``spider``, only while somebody listens, and right after
the change that it tells of. Receivers see what happened; what they do changes no decision of the pool.
"""

from __future__ import annotations

connection_opened = object()
"""A connection is ready; sent before its first request. `event`: ConnectionOpened."""
connection_draining = object()
"""A connection takes nothing new and finishes what it has. `event`: ConnectionDraining, with its ``reason``."""
connection_closed = object()
"""A connection has left the pool. `event`: ConnectionClosed, with its ``reason``, requests, bytes and seconds."""
request_replayed = object()
"""A request is sent again on another connection, below Scrapy's retry middleware. `event`: Replayed."""
session_opened = object()
"""A session began; sent before its first request. `event`: SessionOpened."""
session_retired = object()
"""A session takes no further request of its own accord. `event`: SessionRetired, with its ``reason`` and requests."""
