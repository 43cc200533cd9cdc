"""The figures of the client are those that the server's own log gives."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from scrapy import Request
from scrapy.http import Response

from bench import nginx_log
from tests.conftest import RunCrawl, StartNginx
from tests.rotation.flows import MIDDLEWARES
from tests.servers.nginx import Door

VISITORS = """\
set $visit "";
if ($http_cookie !~ visitor=) { set $visit "visitor=$request_id; Path=/"; }
add_header Set-Cookie $visit always;
location = /form { return 200; }
location = /broken { return 500; }
location = /busy { return 429; }
"""


def login(response: Response, **_: Any) -> Any:
    yield Request(response.url, method="POST", callback=members, dont_filter=True)


def members(response: Response, **_: Any) -> Any:
    for number in range(30):
        yield response.follow(f"/100?member={number}")


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("door", Door, ids=lambda door: door.value)
async def test_client_and_server_compute_the_same_figures(
    nginx: StartNginx, run_crawl: RunCrawl, door: Door, concurrency: int
) -> None:
    # Over HTTP/1.1 the server also closes connections before their session is spent.
    server = nginx(lines=VISITORS, keepalive_requests=100_000 if door is Door.H2 else 7)
    urls = [server.url(door, f"/{path}?{number}") for number in range(40) for path in ("100", "moved", "missing")]
    urls += [server.url(door, f"/{path}?{number}") for number in range(5) for path in ("broken", "busy")]
    crawled = await run_crawl(
        [Request(server.url(door, "/form"), callback=login), *urls],
        POOLPLUS_ROTATION=10,
        RETRY_ENABLED=True,
        HTTPERROR_ALLOW_ALL=True,
        CONCURRENT_REQUESTS=concurrency,
        CONCURRENT_REQUESTS_PER_DOMAIN=concurrency,
        **MIDDLEWARES,
    )
    assert not crawled.failures
    server.stop()
    lines = server.lines()
    found = nginx_log.report(lines)
    stats = crawled.stats
    for level, figures in found.levels.items():
        told = {name: stats[f"poolplus/linkability/{level}/{name}"] for name in asdict(figures) if name != "requests"}
        assert told == {name: value for name, value in asdict(figures).items() if name != "requests"}, level
    assert [stats["poolplus/linkability/flows"], stats["poolplus/linkability/flows_max"]] == [1, found.kept[0]]
    assert found.kept[0] >= 32
    assert 5 < found.levels["session"].max <= 10
    unused = stats["poolplus/rotation/preconnect_unused"]
    assert stats["poolplus/rotation/handshakes_per_1000"] == 1000 * (found.connections + unused) / len(lines)
