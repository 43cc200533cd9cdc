"""Rotation as a real nginx sees it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import RunCrawl, StartNginx
from tests.servers.nginx import Door, requests_by_connection

MIDDLEWARES: dict[str, Any] = {
    "DOWNLOADER_MIDDLEWARES": {"scrapy_poolplus.ConnectionRotationMiddleware": 690},
    "SPIDER_MIDDLEWARES": {"scrapy_poolplus.SessionFollowMiddleware": 50},
}


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize("door", Door)
async def test_no_connection_carries_more_than_a_session_may(
    nginx: StartNginx, run_crawl: RunCrawl, door: Door, concurrency: int
) -> None:
    server = nginx()
    crawled = await run_crawl(
        [server.url(door, f"/100?{number}") for number in range(400)],
        POOLPLUS_ROTATION=20,
        CONCURRENT_REQUESTS=concurrency,
        CONCURRENT_REQUESTS_PER_DOMAIN=concurrency,
        **MIDDLEWARES,
    )
    assert not crawled.failures
    server.stop()
    carried = requests_by_connection(server.log())
    print(sorted(carried.values()), {k: v for k, v in crawled.stats.items() if "poolplus" in k})
    assert sum(carried.values()) == 400
    assert 10 <= max(carried.values()) <= 20
