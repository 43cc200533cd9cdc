"""A Scrapy download handler with a tunable connection pool, HTTP/2 and HTTP/1.1.

What this package offers by name is imported when it is first asked for, so that enabling the add-on loads no more
than the add-on before Scrapy has installed its reactor.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy_poolplus.addon import Addon
    from scrapy_poolplus.extension import PoolPlusExtension, snapshot
    from scrapy_poolplus.handler import PoolPlusDownloadHandler
    from scrapy_poolplus.rotation import ConnectionRotationMiddleware, SessionFollowMiddleware, same_session
    from scrapy_poolplus.tracing import ConnectionInfo, connection_info

    __version__: str

__all__ = [
    "Addon",
    "ConnectionInfo",
    "ConnectionRotationMiddleware",
    "PoolPlusDownloadHandler",
    "PoolPlusExtension",
    "SessionFollowMiddleware",
    "__version__",
    "connection_info",
    "retire",
    "same_session",
    "snapshot",
]

_ROOMS = {
    "Addon": "addon",
    "connection_info": "tracing",
    "ConnectionInfo": "tracing",
    "ConnectionRotationMiddleware": "rotation",
    "PoolPlusDownloadHandler": "handler",
    "PoolPlusExtension": "extension",
    "retire": "shared",
    "same_session": "rotation",
    "SessionFollowMiddleware": "rotation",
    "snapshot": "extension",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("scrapy-poolplus")
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
