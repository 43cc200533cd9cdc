"""The contract as a list: every numbered line has tests, over every transport that it is about, under a heading with
its number; every meta key and setting of section 12 is in a test. What is special to no other section is here."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from .peers import works
from .running import H2, HTTP, HTTPS1, TRANSPORTS, Transport, gather

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


@pytest.mark.parametrize("name", META_READ + META_WRITTEN + SETTINGS + SPIDER_ATTRIBUTES)
def test_each_name_of_the_list_is_in_a_test(name: str) -> None:
    here = Path(__file__)
    others = [path for path in here.parent.glob("test_*.py") if path != here]
    used = re.compile(rf'"{name}"|\b{name}\s*=')
    assert [path.name for path in others if used.search(path.read_text())]


EVERYWHERE = frozenset({HTTP, HTTPS1, H2})
OVER_HTTP1 = frozenset({HTTP, HTTPS1})
OVER_TLS = frozenset({HTTPS1, H2})
OVER_H2 = frozenset({H2})
BY_ALPN: frozenset[Transport] = frozenset()
"""The server of each test says what is spoken."""
LINES = {
    1: dict.fromkeys(range(1, 11), EVERYWHERE),
    2: dict.fromkeys(range(1, 12), EVERYWHERE),
    3: dict.fromkeys(range(1, 10), EVERYWHERE) | dict.fromkeys((10, 11), OVER_HTTP1),
    4: dict.fromkeys((1, 2, 3, 5), EVERYWHERE) | {4: OVER_H2},
    5: dict.fromkeys((1, 2, 3), EVERYWHERE) | {4: OVER_H2},
    6: dict.fromkeys(range(1, 5), EVERYWHERE),
    7: dict.fromkeys(range(1, 5), EVERYWHERE),
    8: dict.fromkeys(range(1, 9), OVER_TLS) | {9: BY_ALPN},
    9: dict.fromkeys(range(1, 12), OVER_H2),
    10: dict.fromkeys(range(1, 11), EVERYWHERE) | {5: OVER_TLS},
    11: dict.fromkeys(range(1, 4), EVERYWHERE),
    13: dict.fromkeys(range(1, 5), EVERYWHERE),
}
"""Section and line of the contract, and the transports that it is about. Section 12 is the list above."""
HEADING = re.compile(r"# (\d+\.\d+(?:, \d+\.\d+)*)(?:$|: |, and )")
"""The comment over the tests of a line: "# 8.1, 8.2", "# 10.1: what it says"."""


def tests_of_lines() -> dict[str, set[Transport]]:
    """For each line of the contract the transports that its tests, those under its heading, run over."""
    found: dict[str, set[Transport]] = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        module = import_module(f"{__package__}.{path.stem}")
        lines: list[str] = []
        for text in path.read_text().splitlines():
            if heading := HEADING.match(text):
                lines = heading[1].split(", ")
            elif test := re.match(r"(?:async )?def (test_\w+)", text):
                for line in lines:
                    found.setdefault(line, set()).update(transports_of(getattr(module, test[1]), module))
    return found


def transports_of(test: Any, module: Any) -> set[Transport]:
    """What a test runs over: by its own mark, by the fixture of its module, or by the fixture of all."""
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize" and mark.args[0] == "transport":
            return set(mark.args[1])
    if module.__name__.endswith("test_http2"):
        return {H2}
    if "transport" not in inspect.signature(test).parameters:
        return set()
    return set(OVER_TLS) if module.__name__.endswith("test_tls") else set(TRANSPORTS)


def test_each_line_of_the_contract_has_tests_for_each_transport_it_is_about() -> None:
    found = tests_of_lines()
    wanted = {f"{section}.{line}": set(over) for section, lines in LINES.items() for line, over in lines.items()}
    assert found.keys() == wanted.keys()
    missing = {
        line: [one.name for one in TRANSPORTS if one in over - found.get(line, set())] for line, over in wanted.items()
    }
    assert {line: names for line, names in missing.items() if names} == {}


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
