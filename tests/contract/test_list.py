"""The meta keys and settings of the contract, in one list (section 12): each is read, and a test of this folder says
how. What is special to none of the other sections is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .peers import works
from .running import Transport, gather

META_READ = [
    "download_timeout",
    "download_maxsize",
    "download_warnsize",
    "download_fail_on_dataloss",
    "bindaddress",
    "verbatim_url",
]
META_WRITTEN = ["download_latency"]
SETTINGS = [
    "DOWNLOAD_MAXSIZE",
    "DOWNLOAD_WARNSIZE",
    "DOWNLOAD_FAIL_ON_DATALOSS",
    "DOWNLOAD_BIND_ADDRESS",
    "DOWNLOAD_VERIFY_CERTIFICATES",
    "DOWNLOAD_TLS_MIN_VERSION",
    "DOWNLOAD_TLS_MAX_VERSION",
    "DOWNLOADER_CLIENT_TLS_CIPHERS",
    "DOWNLOADER_CLIENT_TLS_VERBOSE_LOGGING",
    "DOWNLOADER_CLIENT_TLS_METHOD",
    "DOWNLOADER_CLIENTCONTEXTFACTORY",
    "CONCURRENT_REQUESTS_PER_DOMAIN",
    "CONCURRENT_REQUESTS",
    "HTTP2_MAX_FRAME_SIZE",
    "TWISTED_REACTOR_ENABLED",
    "DNSCACHE_ENABLED",
    "DNSCACHE_SIZE",
    "DNS_TIMEOUT",
    "TWISTED_DNS_RESOLVER",
]
SPIDER_ATTRIBUTES = ["download_maxsize", "download_warnsize"]


@pytest.mark.parametrize("name", META_READ + META_WRITTEN + SETTINGS)
def test_each_name_of_the_list_is_in_a_test(name: str) -> None:
    here = Path(__file__)
    others = [path for path in here.parent.glob("test_*.py") if path != here]
    assert [path.name for path in others if f'"{name}"' in path.read_text() or f"{name}=" in path.read_text()]


async def test_connections_are_kept_for_as_many_requests_as_a_domain_may_have(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    at_once = 12

    def answer(exchange: Any) -> None:
        # A wave is answered once it is there whole, so that each wave needs as many connections.
        if len(peer.requests) % at_once == 0:
            for one in peer.exchanges[-at_once:]:
                one.respond()

    peer = serve(transport, answer)
    download = downloads(transport, CONCURRENT_REQUESTS_PER_DOMAIN=at_once)
    for _ in range(3):
        await gather(*(download(peer.url("/")) for _ in range(at_once)))
    assert len(peer.connections) == (1 if transport.is_h2 else at_once)


async def test_meta_for_others_is_left_alone(transport: Transport, download: Any, serve: Any) -> None:
    meta = {"download_slot": "mine", "dont_retry": True, "cookiejar": 1, "depth": 3, "unknown": object()}
    response = await download(serve(transport, works).url("/"), meta=dict(meta))
    assert response.body == b"Works"
