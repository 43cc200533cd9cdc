"""Peers that say nothing, stop in the middle, or give a byte a second: each request ends in its time, and its error says
in which phase, where, and after how long."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.exceptions import DownloadFailedError, DownloadTimeoutError
from twisted.python.failure import Failure

from tests.conftest import RunCrawl
from tests.reliability.conftest import Hostile

LIMIT = 0.5
PLACE = r"127\.0\.0\.1:\d+"
TLS, FIRST, BODY = "TLS handshake with", "waiting for the response of", "reading the body of"

Peer = tuple[str, str]
"""A name, and the scheme in which it is asked."""


async def errors(run_crawl: RunCrawl, hostile: Hostile, peers: Iterable[Peer], **settings: Any) -> dict[Peer, Any]:
    """What came of asking each, all at once."""
    came: dict[Peer, Any] = {}

    def ask(peer: Peer) -> Request:
        def failed(failure: Failure) -> None:
            came[peer] = failure.value

        return Request(hostile.url(peer[0], scheme=peer[1]), errback=failed)

    crawled = await run_crawl([ask(peer) for peer in peers], **settings)
    assert not crawled.responses
    return came


def differences(came: dict[Peer, Any], wanted: dict[Peer, str], kind: type[Exception]) -> dict[Peer, Any]:
    """Errors that are not of this kind, or whose text does not match."""
    assert set(came) == set(wanted)
    return {
        peer: error
        for peer, error in came.items()
        if type(error) is not kind or not re.search(wanted[peer], str(error))
    }


@ensureDeferred
async def test_a_phase_that_takes_too_long_is_named(run_crawl: RunCrawl, hostile: Hostile) -> None:
    def timed(phase: str, setting: str) -> str:
        return rf'^{phase} \S*{PLACE}\S* took longer than {LIMIT} s \({setting} of "[^"]+"\)$'

    wanted = {
        ("tcp/silent", "https"): timed(TLS, "connect_timeout"),
        ("tcp/silent", "http"): timed(FIRST, "first_byte_timeout"),
        ("http/half_a_head", "http"): timed(FIRST, "first_byte_timeout"),
        ("https/half_a_head", "https"): timed(FIRST, "first_byte_timeout"),
        ("http/half_a_body", "http"): timed(BODY, "read_timeout"),
        ("https/half_a_body", "https"): timed(BODY, "read_timeout"),
        ("h2/silent_after_the_handshake", "https"): timed(FIRST, "first_byte_timeout"),
        ("h2/silent_after_the_preface", "https"): timed(FIRST, "first_byte_timeout"),
        ("h2/stops_in_a_body", "https"): timed(BODY, "read_timeout"),
    }
    policy = {"connect_timeout": LIMIT, "first_byte_timeout": LIMIT, "read_timeout": LIMIT}
    came = await errors(run_crawl, hostile, wanted, POOLPLUS_POLICY=policy)
    assert not differences(came, wanted, DownloadTimeoutError)


@ensureDeferred
async def test_a_request_ends_in_its_time_whatever_trickles_in(run_crawl: RunCrawl, hostile: Hostile) -> None:
    def overall(phase: str) -> str:
        return rf"^Getting \S+ took longer than {LIMIT} seconds \({phase} \S*{PLACE}\S*\)\.$"

    wanted = {
        ("tcp/silent", "https"): overall(TLS),
        ("tcp/silent", "http"): overall(FIRST),
        ("http/head_byte_by_byte", "http"): overall(FIRST),
        ("https/half_a_body", "https"): overall(BODY),
        ("http/body_byte_by_byte", "http"): overall(BODY),
        ("https/body_byte_by_byte", "https"): overall(BODY),
        ("h2/silent_after_the_handshake", "https"): overall(FIRST),
        ("h2/stops_in_a_body", "https"): overall(BODY),
        ("h2/gives_a_body_byte_by_byte", "https"): overall(BODY),
    }
    came = await errors(run_crawl, hostile, wanted, DOWNLOAD_TIMEOUT=LIMIT)
    assert not differences(came, wanted, DownloadTimeoutError)


@ensureDeferred
async def test_a_peer_that_ends_or_speaks_otherwise_is_named(run_crawl: RunCrawl, hostile: Hostile) -> None:
    # A reset may come while the client still connects.
    wanted = {
        (
            "tcp/resets",
            "http",
        ): rf"^(connecting to {PLACE} failed|the connection to {PLACE} was lost in a non-clean way)",
        ("tcp/resets", "https"): rf"^(connecting to|TLS handshake with) {PLACE} failed: .*(reset the|Connection reset)",
        ("tcp/no_tls", "https"): rf"^TLS handshake with {PLACE} failed: .*wrong version number",
        ("tcp/no_tls", "http"): r"SSH-2\.0-peer",
    }
    came = await errors(run_crawl, hostile, wanted)
    assert not differences(came, wanted, DownloadFailedError)


@ensureDeferred
async def test_a_silent_connection_is_given_up_after_a_ping_and_the_next_request_has_a_new_one(
    run_crawl: RunCrawl, hostile: Hostile
) -> None:
    url = hostile.url("h2/silent_at_first")
    given_up: list[Any] = []

    def again(failure: Failure) -> Request:
        given_up.append(failure.value)
        return Request(url)

    policy = {"ping_interval": LIMIT, "ping_timeout": LIMIT}
    crawled = await run_crawl([Request(url, errback=again)], POOLPLUS_POLICY=policy)
    assert [response.body for response in crawled.responses] == [b"good"]
    assert [type(error) for error in given_up] == [DownloadFailedError]
    assert re.search(rf"did not answer a PING within {LIMIT} s \(ping_timeout\)", str(given_up[0]))
    assert crawled.stats["poolplus/connections/opened"] == 2
