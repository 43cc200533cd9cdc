"""Who is compared: download handlers that a Scrapy user can pick, a null handler, which is what the engine
costs, and a bare one, which is what any handler in Python costs at least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bench.cases import Door

_HTTP1 = frozenset((Door.CLEARTEXT, Door.TLS, Door.TLS_ONCE))
_H2 = frozenset((Door.H2,))
_STOCK = "scrapy.core.downloader.handlers"
_INCUBATOR = "scrapy_download_handlers_incubator.handlers"


@dataclass(frozen=True, slots=True)
class Contender:
    """A handler. `speaks`: the doors it is sent to. `needs`: packages without which it is left out; their versions are
    told. `h2_settings` are set where it is to speak h2."""

    name: str
    path: str
    speaks: frozenset[Door]
    needs: tuple[str, ...]
    h2_settings: Mapping[str, Any] = field(default_factory=dict)

    def versions(self) -> dict[str, str] | None:
        """None where one is not installed."""
        try:
            return {package: version(package) for package in self.needs}
        except PackageNotFoundError:
            return None


NULL = Contender("null", "bench.null_handler.NullDownloadHandler", _HTTP1 | _H2, ("Scrapy",))
OURS = Contender("poolplus", "scrapy_poolplus.PoolPlusDownloadHandler", _HTTP1 | _H2, ("scrapy-poolplus", "h2"))
HTTP11 = Contender("HTTP11", f"{_STOCK}.http11.HTTP11DownloadHandler", _HTTP1, ("Scrapy", "Twisted"))
H2 = Contender("H2", f"{_STOCK}.http2.H2DownloadHandler", _H2, ("Scrapy", "Twisted", "h2"))
BARE = Contender("bare", "bench.bare_handler.BareDownloadHandler", frozenset((Door.CLEARTEXT,)), ("Scrapy",))
CONTENDERS = (
    NULL,
    BARE,
    OURS,
    HTTP11,
    H2,
    Contender("aiohttp", f"{_STOCK}._aiohttp.AiohttpDownloadHandler", _HTTP1, ("Scrapy", "aiohttp")),
    Contender(
        "httpx2",
        f"{_STOCK}._httpx.HttpxDownloadHandler",
        _HTTP1 | _H2,
        ("Scrapy", "httpx2"),
        {"HTTPX_HTTP2_ENABLED": True},
    ),
    Contender(
        "curl_cffi",
        f"{_INCUBATOR}.curl_cffi.CurlCffiDownloadHandler",
        _HTTP1 | _H2,
        ("scrapy-download-handlers-incubator", "curl_cffi"),
        {"CURL_CFFI_HTTP_VERSION": "v2tls"},
    ),
    Contender(
        "niquests",
        f"{_INCUBATOR}.niquests.NiquestsDownloadHandler",
        _HTTP1 | _H2,
        ("scrapy-download-handlers-incubator", "niquests"),
        {"NIQUESTS_HTTP2_ENABLED": True},
    ),
    Contender(
        "pyreqwest",
        f"{_INCUBATOR}.pyreqwest.PyreqwestDownloadHandler",
        _HTTP1 | _H2,
        ("scrapy-download-handlers-incubator", "pyreqwest"),
        {"PYREQWEST_HTTP2_ENABLED": True},
    ),
    Contender(
        "wreq",
        f"{_INCUBATOR}.wreq.WreqDownloadHandler",
        _HTTP1 | _H2,
        ("scrapy-download-handlers-incubator", "wreq"),
        {"WREQ_HTTP2_ENABLED": True},
    ),
)
