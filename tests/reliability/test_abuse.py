"""Peers that send without end or far too much, in a crawl of other hosts: an error of Scrapy's at once, little memory, no
other host harmed."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy.exceptions import DownloadFailedError, ResponseDataLossError
from typing_extensions import Self

from tests.conftest import RunCrawl
from tests.reliability.conftest import Hostile

# Floods and far too large things, with what the error says of them.
ATTACKS = {
    "http/floods_headers": "header",
    "https/floods_headers": "header",
    "http/floods_a_header_line": "header",
    "http/sends_a_header_of_1_mb": "header",
    "http/floods_interim_responses": "interim",
    "https/floods_interim_responses": "interim",
    "http/says_two_lengths": "Content-Length is given twice",
    "http/says_status_99999": "99999",
    "http/speaks_http_09": "does not begin with an HTTP/1 status line",
    "h2/speaks_http1": "HTTP/1",
    "h2/floods_continuation": "header block",
    "h2/floods_empty_continuation": "header block",
    "h2/floods_pings": "PING",
    "h2/floods_settings": "SETTINGS",
    "h2/toggles_its_settings": "SETTINGS",
    "h2/floods_resets": "reset stream 1",
    "h2/floods_empty_data": "DATA",
    "h2/floods_interim_heads": "interim",
    "h2/sends_an_hpack_bomb": "header list",
    "h2/resizes_its_table_for_ever": "table size",
    "h2/sends_a_frame_of_16_mb": "frame",
}
# Those that come when the response has begun: what there is of it can be had by DOWNLOAD_FAIL_ON_DATALOSS = False.
LATE_ATTACKS = {
    "http/floods_a_chunk_extension": "chunk-size line",
    "http/floods_trailers": "trailer section",
    "http/overflows_a_chunk_size": "not a chunk size",
}
MEMORY = 20 << 20
BLOCKED = 0.1
"""Seconds of the processor."""


def memory(key: str) -> int:
    """Bytes; VmRSS is what is used now, VmHWM the most since it was reset."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails when the process grows by more than MEMORY inside, even for a moment."""
    if sys.platform != "linux":
        yield
        return
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    yield
    assert memory("VmHWM") - before < MEMORY


class Turns:
    """How long the reactor was held up, in processor time: other processes do not count."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._last = thread_time()
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._call = self._reactor.callLater(0, self._turn)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._call.cancel()

    def _turn(self) -> None:
        now = thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._call = self._reactor.callLater(0, self._turn)


@pytest.mark.parametrize("attack", [*ATTACKS, *LATE_ATTACKS])
@ensureDeferred
async def test_an_attack_costs_one_request(run_crawl: RunCrawl, hostile: Hostile, attack: str) -> None:
    from twisted.internet import reactor

    good = [hostile.url(f"{scheme}/good", str(n)) for scheme in ("http", "https") for n in range(25)]
    await run_crawl(good[:1])  # What a first crawl loads is none of the attack's memory.
    with little_memory(), Turns(reactor) as turns:
        crawled = await run_crawl([hostile.url(attack), *good], DOWNLOAD_TIMEOUT=30)
    # Not a time-out: it was seen for what it is.
    kind = ResponseDataLossError if attack in LATE_ATTACKS else DownloadFailedError
    assert [type(error) for error in crawled.failures] == [kind]
    assert re.search((ATTACKS | LATE_ATTACKS)[attack], str(crawled.failures[0]))
    assert [response.body for response in crawled.responses] == [b"good"] * len(good)
    assert turns.longest < BLOCKED


@pytest.mark.parametrize("peer", ["http/sends_20000_short_headers", "h2/floods_a_closed_stream"])
@ensureDeferred
async def test_a_response_with_far_too_much_around_it_is_read_and_harms_nobody(
    run_crawl: RunCrawl, hostile: Hostile, peer: str
) -> None:
    from twisted.internet import reactor

    good = [hostile.url(f"{scheme}/good", str(n)) for scheme in ("http", "https") for n in range(25)]
    await run_crawl(good[:1])
    with little_memory(), Turns(reactor) as turns:
        crawled = await run_crawl([hostile.url(peer), *good], DOWNLOAD_TIMEOUT=30)
    assert not crawled.failures
    assert [response.body for response in crawled.responses] == [b"good"] * (1 + len(good))
    assert turns.longest < BLOCKED


@ensureDeferred
async def test_a_connection_with_bytes_that_nobody_asked_for_is_used_once(
    run_crawl: RunCrawl, hostile: Hostile
) -> None:
    urls = [hostile.url("http/floods_what_nobody_asked_for", str(n)) for n in range(5)]
    with little_memory():
        crawled = await run_crawl(urls, CONCURRENT_REQUESTS=1)
    # The first of them cannot be told from an answer, when it comes after the request was sent.
    assert len(crawled.responses) + len(crawled.failures) == 5
    assert crawled.stats["poolplus/connections/opened"] == 5
    assert "poolplus/connections/reused" not in crawled.stats
