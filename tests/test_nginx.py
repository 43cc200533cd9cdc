"""Crawls of a real nginx: its log says what was really sent, and over which connections."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.exceptions import DownloadConnectionRefusedError, DownloadTimeoutError
from twisted.python.failure import Failure

from tests.conftest import RunCrawl, StartNginx
from tests.servers.nginx import Door, Logged, Nginx, requests_by_connection

SIZES = (0, 1, 100, 16 << 10, 1 << 20, 20 << 20)
every_door = pytest.mark.parametrize("door", Door, ids=lambda door: door.value)


def digests(bodies: dict[str, bytes]) -> dict[str, str]:
    """Short enough to be read in a failure."""
    return {path: hashlib.sha256(body).hexdigest() for path, body in bodies.items()}


def seen(server: Nginx) -> list[Logged]:
    """Its complete log."""
    server.stop()
    return server.log()


@every_door
@ensureDeferred
async def test_every_byte_arrives(run_crawl: RunCrawl, nginx: StartNginx, site: Path, door: Door) -> None:
    server = nginx()
    crawled = await run_crawl([server.url(door, f"/{size}") for size in SIZES])
    assert not crawled.failures
    assert digests(crawled.bodies()) == digests({str(size): (site / str(size)).read_bytes() for size in SIZES})
    log = seen(server)
    assert sorted((entry.target, entry.status, entry.length) for entry in log) == sorted(
        (f"/{size}", 200, size) for size in SIZES
    )
    assert {entry.protocol for entry in log} == {door.protocol}


@every_door
@ensureDeferred
async def test_bodies_of_many_responses_at_once_are_not_mixed(
    run_crawl: RunCrawl, nginx: StartNginx, site: Path, door: Door
) -> None:
    server = nginx()
    sizes = [size for size in (1, 100, 16 << 10, 1 << 20) for _ in range(10)]
    urls = [server.url(door, f"/{size}?{n}") for n, size in enumerate(sizes)]
    crawled = await run_crawl(urls, CONCURRENT_REQUESTS_PER_DOMAIN=16)
    assert not crawled.failures
    expected = {f"{size}?{n}": (site / str(size)).read_bytes() for n, size in enumerate(sizes)}
    assert digests(crawled.bodies()) == digests(expected)


@ensureDeferred
async def test_an_h2_crawl_uses_one_connection(run_crawl: RunCrawl, nginx: StartNginx) -> None:
    server = nginx()
    crawled = await run_crawl([server.url(Door.H2, f"/100?{n}") for n in range(300)])
    assert not crawled.failures
    assert {response.protocol for response in crawled.responses} == {"h2"}
    log = seen(server)
    assert len(log) == 300
    assert len(requests_by_connection(log)) == 1
    assert crawled.stats["poolplus/connections/opened"] == 1
    assert crawled.stats["poolplus/requests/h2"] == 300


@pytest.mark.parametrize("door", [Door.CLEARTEXT, Door.TLS], ids=lambda door: door.value)
@ensureDeferred
async def test_an_http1_crawl_uses_no_more_connections_than_it_has_requests_at_once(
    run_crawl: RunCrawl, nginx: StartNginx, door: Door
) -> None:
    server = nginx()
    # Not CONCURRENT_REQUESTS_PER_DOMAIN: with the asyncio reactor Scrapy's downloader now and then starts more requests
    # than that at once (seen in 2.19, whatever the handler).
    crawled = await run_crawl([server.url(door, f"/100?{n}") for n in range(300)], CONCURRENT_REQUESTS=4)
    assert not crawled.failures
    assert {response.protocol for response in crawled.responses} == {"HTTP/1.1"}
    log = seen(server)
    assert len(log) == 300
    assert len(requests_by_connection(log)) <= 4
    assert crawled.stats["poolplus/connections/opened"] <= 4
    assert crawled.stats["poolplus/requests/http/1.1"] == 300


@every_door
@ensureDeferred
async def test_a_cap_on_connections_holds_whatever_the_slot_allows(
    run_crawl: RunCrawl, nginx: StartNginx, door: Door
) -> None:
    server = nginx()
    urls = [server.url(door, f"/100?{n}") for n in range(100)]
    crawled = await run_crawl(urls, CONCURRENT_REQUESTS_PER_DOMAIN=16, POOLPLUS_POLICY={"max_connections": 2})
    assert not crawled.failures
    log = seen(server)
    assert len(log) == 100
    assert len(requests_by_connection(log)) <= 2


@ensureDeferred
async def test_a_server_that_could_speak_h2_is_spoken_to_in_http1_where_the_policy_says_so(
    run_crawl: RunCrawl, nginx: StartNginx
) -> None:
    server = nginx()
    policy = {"127.0.0.1": {"protocols": ["http/1.1"]}}
    crawled = await run_crawl([server.url(Door.H2, "/100")], POOLPLUS_DOMAINS=policy)
    assert not crawled.failures
    assert [entry.protocol for entry in seen(server)] == ["HTTP/1.1"]


@ensureDeferred
async def test_more_requests_than_streams_open_more_connections(run_crawl: RunCrawl, nginx: StartNginx) -> None:
    server = nginx(max_streams=4)
    crawled = await run_crawl(
        [server.url(Door.H2, f"/slow/16384?{n}") for n in range(100)],
        CONCURRENT_REQUESTS=100,
        CONCURRENT_REQUESTS_PER_DOMAIN=100,
    )
    assert not crawled.failures
    assert len(crawled.responses) == 100
    assert {len(response.body) for response in crawled.responses} == {16 << 10}
    log = seen(server)
    assert sorted(entry.status for entry in log) == [200] * 100
    # Each takes a second and a connection carries 4, so one connection would be busy for 25 seconds.
    assert len(requests_by_connection(log)) > 1


@ensureDeferred
async def test_waiting_for_a_free_stream_is_all_that_happens_where_no_second_connection_is_allowed(
    run_crawl: RunCrawl, nginx: StartNginx
) -> None:
    server = nginx(max_streams=4)
    crawled = await run_crawl(
        [server.url(Door.H2, f"/100?{n}") for n in range(100)],
        CONCURRENT_REQUESTS=100,
        CONCURRENT_REQUESTS_PER_DOMAIN=100,
        POOLPLUS_POLICY={"max_connections": 1},
    )
    assert not crawled.failures
    log = seen(server)
    assert len(log) == 100
    assert len(requests_by_connection(log)) == 1


@every_door
@ensureDeferred
async def test_nothing_is_lost_when_the_server_ends_connections(
    run_crawl: RunCrawl, nginx: StartNginx, door: Door
) -> None:
    server = nginx(keepalive_requests=10)
    crawled = await run_crawl([server.url(door, f"/100?{n}") for n in range(100)])
    assert not crawled.failures
    assert len(crawled.bodies()) == 100
    log = seen(server)
    assert {entry.target for entry in log if entry.status == 200} == {f"/100?{n}" for n in range(100)}
    assert len(requests_by_connection(log)) >= 10


@every_door
@ensureDeferred
async def test_a_budget_of_requests_is_never_overrun(run_crawl: RunCrawl, nginx: StartNginx, door: Door) -> None:
    server = nginx()
    crawled = await run_crawl(
        [server.url(door, f"/100?{n}") for n in range(200)],
        CONCURRENT_REQUESTS_PER_DOMAIN=16,
        POOLPLUS_POLICY={"max_requests_per_connection": 20, "jitter": 0},
    )
    assert not crawled.failures
    counts = requests_by_connection(seen(server))
    assert sum(counts.values()) == 200
    assert max(counts.values()) == 20


@every_door
@ensureDeferred
async def test_uploads_arrive_whole(run_crawl: RunCrawl, nginx: StartNginx, site: Path, door: Door) -> None:
    server = nginx()
    bodies = {size: (site / str(size)).read_bytes() for size in SIZES}
    crawled = await run_crawl(
        [Request(server.url(door, f"/uploads/{size}"), method="PUT", body=body) for size, body in bodies.items()]
    )
    assert not crawled.failures
    assert {response.status for response in crawled.responses} == {201}
    stored = {str(size): (server.folder / "uploads" / str(size)).read_bytes() for size in SIZES}
    assert digests(stored) == digests({str(size): body for size, body in bodies.items()})


@every_door
@ensureDeferred
async def test_compressed_bodies_of_unknown_length_are_read_to_their_end(
    run_crawl: RunCrawl, nginx: StartNginx, site: Path, door: Door
) -> None:
    server = nginx()
    crawled = await run_crawl([Request(server.url(door, "/gzip/1048576"), headers={"Accept-Encoding": "gzip"})])
    assert not crawled.failures
    (response,) = crawled.responses
    assert "Content-Length" not in response.headers
    assert crawled.stats["httpcompression/response_count"] == 1
    assert digests(crawled.bodies()) == digests({"gzip/1048576": (site / "1048576").read_bytes()})


@every_door
@ensureDeferred
async def test_answers_without_a_body_leave_the_connection_in_order(
    run_crawl: RunCrawl, nginx: StartNginx, door: Door
) -> None:
    server = nginx()
    date = (await run_crawl([server.url(door, "/100")])).responses[0].headers["Last-Modified"]
    page, unchanged = server.url(door, "/100"), {"If-Modified-Since": date}
    crawled = await run_crawl(
        [
            Request(page, method="HEAD"),
            Request(page, headers=unchanged, meta={"handle_httpstatus_list": [304]}),
            server.url(door, "/ready"),
            Request(server.url(door, "/missing"), meta={"handle_httpstatus_list": [404]}),
            Request(page, headers={"Range": "bytes=10-19"}),
            Request(page, method="HEAD"),
        ],
        CONCURRENT_REQUESTS=1,
    )
    assert not crawled.failures
    assert [(r.status, len(r.body)) for r in crawled.responses if r.status != 404] == [
        (200, 0),
        (304, 0),
        (204, 0),
        (206, 10),
        (200, 0),
    ]
    assert crawled.responses[0].headers["Content-Length"] == b"100"
    # nginx does not log /ready. One connection of the first crawl, one of the second.
    assert sorted(requests_by_connection(seen(server)).values()) == [1, 5]


@every_door
@ensureDeferred
async def test_redirects_are_followed_on_the_same_connection(
    run_crawl: RunCrawl, nginx: StartNginx, site: Path, door: Door
) -> None:
    server = nginx()
    crawled = await run_crawl([server.url(door, "/moved")])
    assert not crawled.failures
    assert crawled.bodies() == {"100": (site / "100").read_bytes()}
    log = seen(server)
    assert [(entry.target, entry.status, entry.nth) for entry in log] == [("/moved", 302, 1), ("/100", 200, 2)]
    assert len(requests_by_connection(log)) == 1


@pytest.mark.parametrize("door", [Door.TLS, Door.H2], ids=lambda door: door.value)
@ensureDeferred
async def test_no_tls_session_is_resumed(run_crawl: RunCrawl, nginx: StartNginx, door: Door) -> None:
    server = nginx(keepalive_requests=1)
    crawled = await run_crawl([server.url(door, f"/1?{n}") for n in range(8)], CONCURRENT_REQUESTS=1)
    assert not crawled.failures
    log = seen(server)
    assert len(requests_by_connection(log)) == 8
    # "." is nginx's word for a handshake of its own, "r" for a resumed one.
    assert {entry.tls_session for entry in log} == {"."}


@ensureDeferred
async def test_the_server_is_told_the_name_of_the_url(run_crawl: RunCrawl, nginx: StartNginx) -> None:
    server = nginx()
    crawled = await run_crawl(
        [server.url(Door.H2, "/1?by-name", host="localhost"), server.url(Door.H2, "/1?by-address")]
    )
    assert not crawled.failures
    # An IP address is never sent as a server name (RFC 6066 section 3).
    assert {entry.target: entry.sni for entry in seen(server)} == {"/1?by-name": "localhost", "/1?by-address": ""}


@every_door
@ensureDeferred
async def test_a_server_that_is_not_up_refuses_and_the_next_request_is_served_once_it_is(
    run_crawl: RunCrawl, nginx: StartNginx, site: Path, door: Door
) -> None:
    server = nginx(started=False)
    refused: list[BaseException] = []

    def start_and_ask_again(failure: Failure) -> Request:
        assert failure.value is not None
        refused.append(failure.value)
        server.start()
        return Request(server.url(door, "/100?again"))

    # A refusal that were found out by a time-out would be a DownloadTimeoutError.
    crawled = await run_crawl([Request(server.url(door, "/100"), errback=start_and_ask_again)])
    assert [type(error) for error in refused] == [DownloadConnectionRefusedError]
    assert crawled.bodies() == {"100?again": (site / "100").read_bytes()}


@every_door
@ensureDeferred
async def test_everyone_who_waits_for_a_refused_connection_is_told(
    run_crawl: RunCrawl, nginx: StartNginx, door: Door
) -> None:
    server = nginx(started=False)
    crawled = await run_crawl([server.url(door, f"/100?{n}") for n in range(50)], CONCURRENT_REQUESTS_PER_DOMAIN=50)
    assert [type(failure) for failure in crawled.failures] == [DownloadConnectionRefusedError] * 50


@every_door
@ensureDeferred
async def test_a_crawl_leaves_no_socket_and_no_timer_behind(run_crawl: RunCrawl, nginx: StartNginx, door: Door) -> None:
    from twisted.internet import reactor

    server = nginx()
    before = set(reactor.getReaders()), set(reactor.getDelayedCalls())
    # Idle connections, which would be kept for 90 s, and a response that is given up in the middle.
    slow = Request(server.url(door, "/slow/1048576"), meta={"download_timeout": 0.5})
    crawled = await run_crawl([slow, *(server.url(door, f"/100?{n}") for n in range(20))])
    assert len(crawled.responses) == 20
    assert [type(failure) for failure in crawled.failures] == [DownloadTimeoutError]
    assert (set(reactor.getReaders()), set(reactor.getDelayedCalls())) == before
