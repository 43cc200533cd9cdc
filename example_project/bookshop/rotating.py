"""The settings that turn rotation on, for the spiders `account` and `exits` and for a row of `compare`."""

from __future__ import annotations

from typing import Any

ROTATION = "balanced"
PROMISE = 50
"""Requests that a site can tie together under ROTATION, flows and the IP address aside."""

# Of the two middlewares the add-on takes care too, wherever it is enabled.
ROTATING: dict[str, Any] = {
    "POOLPLUS_ROTATION": ROTATION,
    "DOWNLOADER_MIDDLEWARES": {"scrapy_poolplus.ConnectionRotationMiddleware": 690},
    "SPIDER_MIDDLEWARES": {"scrapy_poolplus.SessionFollowMiddleware": 50},
}
