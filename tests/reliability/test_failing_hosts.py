"""Hosts that fail again and again: each request is told the dial's own error, and nothing is left of it."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy.exceptions import DownloadConnectionRefusedError, DownloadFailedError
from scrapy.http import Request

from tests.conftest import RunCrawl
from tests.reliability.conftest import Hostile

REQUESTS = 1_000
CONCURRENCY = 16

if sys.platform != "linux":
    pytest.skip("descriptors are counted in /proc", allow_module_level=True)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Counted:
    """Requests of one URL; `most` is the highest number of descriptors seen when one of them had failed."""

    def __init__(self, url: str) -> None:
        self.most = 0
        self.failures: list[Any] = []
        self.requests = [Request(f"{url}{n}", errback=self._failed) for n in range(REQUESTS)]

    def _failed(self, failure: Any) -> None:
        self.failures.append(failure.value)
        self.most = max(self.most, descriptors())


@pytest.fixture
def refusing() -> Any:
    """A port that refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def fail(run_crawl: RunCrawl, url: str) -> Counted:
    await run_crawl([f"{url}before"])
    before = descriptors()
    counted = Counted(url)
    await run_crawl(counted.requests, CONCURRENT_REQUESTS=CONCURRENCY, CONCURRENT_REQUESTS_PER_DOMAIN=CONCURRENCY)
    assert len(counted.failures) == REQUESTS
    assert descriptors() <= before
    # A socket each for those at once, and one that says goodbye; the crawl itself has a few.
    assert counted.most <= before + 2 * CONCURRENCY + 8
    return counted


@pytest.mark.parametrize("scheme", ["http", "https"])
@ensureDeferred
async def test_a_host_that_refuses(run_crawl: RunCrawl, refusing: str, scheme: str) -> None:
    counted = await fail(run_crawl, f"{scheme}://{refusing}/")
    assert {type(error) for error in counted.failures} == {DownloadConnectionRefusedError}
    assert {str(error) for error in counted.failures} == {
        f"connecting to {refusing} failed: 127.0.0.1: Connection refused"
    }


@pytest.mark.parametrize("name", ["tcp/resets", "tcp/no_tls"])
@ensureDeferred
async def test_a_host_that_fails_in_the_handshake(run_crawl: RunCrawl, hostile: Hostile, name: str) -> None:
    counted = await fail(run_crawl, hostile.url(name, scheme="https"))
    assert {type(error) for error in counted.failures} == {DownloadFailedError}
    wrong = {str(e) for e in counted.failures if not re.match("(connecting to|TLS handshake with) 127", str(e))}
    assert not wrong
