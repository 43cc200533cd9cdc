"""What rotation promises, by a real nginx's own log: requests of all kinds, some of which fail, are redirected or retried."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import nginx_log
from tests.conftest import RunCrawl, StartNginx
from tests.crawling import Crawled
from tests.rotation.flows import MIDDLEWARES
from tests.servers.nginx import Door

MOST = 10
LINES = """\
ssl_protocols TLSv1.2 TLSv1.3;
set $visit "";
if ($http_cookie !~ visitor=) { set $visit "visitor=$request_id; Path=/"; }
add_header Set-Cookie $visit always;
location = /broken { return 500; }
location = /busy { return 429; }
location = /cut { return 444; }
"""
PATHS = ("100", "100", "moved", "missing", "broken", "busy", "cut")
every_crawl = pytest.mark.parametrize(
    ("door", "concurrency"),
    [(door, concurrency) for door in Door for concurrency in (1, 8, 64)],
    ids=lambda value: value.value if isinstance(value, Door) else str(value),
)


@dataclass
class Proof:
    """A crawl with rotation as both sides saw it."""

    lines: list[nginx_log.Line]
    crawled: Crawled


_known: dict[tuple[Door, int], Proof] = {}
"""A crawl serves several tests."""


async def crawl(nginx: StartNginx, run_crawl: RunCrawl, door: Door, concurrency: int, **settings: Any) -> Proof:
    server = nginx(lines=LINES)
    urls = [server.url(door, f"/{path}?{number}") for number in range(25) for path in PATHS]
    crawled = await run_crawl(
        urls,
        RETRY_ENABLED=True,
        RETRY_TIMES=1,
        HTTPERROR_ALLOW_ALL=True,
        CONCURRENT_REQUESTS=concurrency,
        CONCURRENT_REQUESTS_PER_DOMAIN=concurrency,
        **settings,
    )
    server.stop()
    return Proof(server.lines(), crawled)


@pytest.fixture
def rotated(nginx: StartNginx, run_crawl: RunCrawl) -> Any:
    async def rotate(door: Door, concurrency: int) -> Proof:
        if (door, concurrency) not in _known:
            _known[door, concurrency] = await crawl(
                nginx, run_crawl, door, concurrency, POOLPLUS_ROTATION=MOST, **MIDDLEWARES
            )
        return _known[door, concurrency]

    return rotate


@every_crawl
async def test_i1_no_connection_carries_more_than_its_maximum(rotated: Any, door: Door, concurrency: int) -> None:
    proof = await rotated(door, concurrency)
    assert 1 < max(Counter(line.connection for line in proof.lines).values()) <= MOST


@every_crawl
async def test_i2_no_session_carries_more_than_its_maximum(rotated: Any, door: Door, concurrency: int) -> None:
    proof = await rotated(door, concurrency)
    assert nginx_log.report(proof.lines).levels["session"].max <= MOST
    assert proof.crawled.stats["poolplus/linkability/session/max"] <= MOST


@every_crawl
async def test_i4_a_cookie_is_sent_in_the_session_that_got_it_and_in_no_other(
    rotated: Any, door: Door, concurrency: int
) -> None:
    proof = await rotated(door, concurrency)
    assert any(line.cookies for line in proof.lines)
    for unit in nginx_log.units(proof.lines, "session"):
        sent = {cookie for line in unit for cookie in line.cookies}
        got = {cookie for line in unit for cookie in line.got}
        assert sent <= got
        assert len(got) <= 1


@every_crawl
async def test_i5_a_connection_belongs_to_one_session(rotated: Any, door: Door, concurrency: int) -> None:
    proof = await rotated(door, concurrency)
    visitors: dict[int, set[str]] = {}
    for line in proof.lines:
        visitors.setdefault(line.connection, set()).update(line.cookies | line.got)
    assert len(visitors) > 1
    assert {len(cookies) for cookies in visitors.values()} <= {0, 1}


@every_crawl
async def test_i7_no_more_connections_are_open_than_requests_and_one(
    rotated: Any, door: Door, concurrency: int
) -> None:
    proof = await rotated(door, concurrency)
    assert 1 <= proof.crawled.stats["poolplus/connections/open_max"] <= concurrency + 1


@every_crawl
async def test_i8_each_request_is_sent_once_but_for_what_is_counted_as_sent_again(
    rotated: Any, door: Door, concurrency: int
) -> None:
    proof = await rotated(door, concurrency)
    stats = proof.crawled.stats
    again = sum(stats.get(f"poolplus/replays/{how}", 0) for how in ("sent", "refused"))
    asked = stats["downloader/request_count"]
    assert asked <= len(proof.lines) <= asked + again


async def test_robots_txt_is_not_the_first_answer_of_a_session(nginx: StartNginx, run_crawl: RunCrawl) -> None:
    proof = await crawl(nginx, run_crawl, Door.H2, 8, POOLPLUS_ROTATION=100, ROBOTSTXT_OBEY=True, **MIDDLEWARES)
    assert [line.target for line in proof.lines[:1]] == ["/robots.txt"]
    # It goes without cookies and keeps none; the page after it goes alone, so all others have the cookie that it got.
    pages = [line for line in proof.lines if line.target != "/robots.txt"]
    for unit in nginx_log.units(pages, "session"):
        assert len({cookie for line in unit for cookie in line.got}) == 1


@every_crawl
async def test_i9_rotation_on_and_off_fetch_the_same(
    nginx: StartNginx, run_crawl: RunCrawl, rotated: Any, door: Door, concurrency: int
) -> None:
    def fetched(proof: Proof) -> tuple[Counter[Any], Counter[str]]:
        pages = Counter(
            (response.url.partition("/")[2].split("/", 2)[2], response.status) for response in proof.crawled.responses
        )
        return pages, Counter(type(error).__name__ for error in proof.crawled.failures)

    off = await crawl(nginx, run_crawl, door, concurrency)
    assert fetched(await rotated(door, concurrency)) == fetched(off)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("door", [Door.TLS, Door.H2], ids=lambda door: door.value)
async def test_i3_no_handshake_is_resumed(nginx: StartNginx, run_crawl: RunCrawl, door: Door, version: str) -> None:
    proof = await crawl(
        nginx,
        run_crawl,
        door,
        8,
        POOLPLUS_ROTATION=MOST,
        DOWNLOAD_TLS_MIN_VERSION=version,
        DOWNLOAD_TLS_MAX_VERSION=version,
        **MIDDLEWARES,
    )
    found = nginx_log.report(proof.lines)
    assert found.connections > 10
    assert found.resumed == 0
    assert found.levels["tls"] == found.levels["connection"]


async def test_three_runs_over_one_http_cache_share_no_cookie(
    nginx: StartNginx, run_crawl: RunCrawl, tmp_path: Path
) -> None:
    server = nginx(lines=LINES + "add_header Cache-Control max-age=0 always;")
    for _ in range(3):
        await run_crawl(
            [server.url(Door.H2, f"/100?{number}") for number in range(30)],
            POOLPLUS_ROTATION=MOST,
            HTTPCACHE_ENABLED=True,
            HTTPCACHE_DIR=str(tmp_path / "cache"),
            HTTPCACHE_POLICY="scrapy.extensions.httpcache.RFC2616Policy",
            **MIDDLEWARES,
        )
    server.stop()
    lines = server.lines()
    # Each asks for all anew: what another run learned (ETag, Last-Modified) is not sent.
    assert [line.status for line in lines] == [200] * 90
    cookies = [
        {cookie for line in lines[first : first + 30] for cookie in line.cookies | line.got} for first in (0, 30, 60)
    ]
    assert all(cookies)
    assert not (cookies[0] & cookies[1])
    assert not (cookies[0] & cookies[2])
    assert not (cookies[1] & cookies[2])
