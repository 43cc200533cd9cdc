"""Size limits (contract, section 4): of the body's bytes as received, by meta first, then by setting."""

from __future__ import annotations

import gzip
import logging
import re
import tracemalloc
import warnings
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.exceptions import DownloadCancelledError, ScrapyDeprecationWarning

from .crawls import crawl
from .handlers import Downloads, handler_path, make_crawler
from .marks import over_h2
from .peers import works
from .running import Transport

MIB = 2**20
MAXSIZE_SOURCES = ["meta", "setting"]
ONE_READ = 2**18
"""Bytes that may come with one read of the transport, at most."""


def warned(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Messages of level WARNING or above that hold `text`."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and text in record.getMessage()
    ]


def limited(downloads: Any, transport: Transport, source: str, name: str, limit: int) -> tuple[Any, dict[str, int]]:
    """A handler and the meta that limit by `source`; by meta against a setting that would not."""
    if source == "meta":
        return downloads(transport, **{name.upper(): 1}), {name: limit}
    return downloads(transport, **{name.upper(): limit}), {}


# 4.1


@pytest.mark.parametrize("source", MAXSIZE_SOURCES)
async def test_an_announced_length_over_maxsize_cancels_before_the_body(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    peer = serve(transport, lambda exchange: exchange.head(200, length=5))
    download, meta = limited(downloads, transport, source, "download_maxsize", 4)
    with pytest.raises(DownloadCancelledError) as caught:
        await download(peer.url("/"), meta=meta)
    expected = (
        f"Expected to receive 5 bytes which is larger than download max size (4) in request <GET {peer.url('/')}>."
    )
    assert expected in str(caught.value)
    assert len(warned(caplog, expected)) == 1
    await peer.exchanges[0].ended_by_client.wait()


async def test_a_body_as_long_as_maxsize_is_allowed(transport: Transport, downloads: Any, serve: Any) -> None:
    download = downloads(transport, DOWNLOAD_MAXSIZE=5)
    for announce in (True, False):
        peer = serve(transport, lambda exchange, announce=announce: exchange.respond(body=b"x" * 5, announce=announce))
        assert (await download(peer.url("/"))).body == b"x" * 5


async def test_maxsize_0_is_no_limit(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, works)
    assert (await downloads(transport, DOWNLOAD_MAXSIZE=0)(peer.url("/"))).body == b"Works"
    assert (
        await downloads(transport, DOWNLOAD_MAXSIZE=1)(peer.url("/"), meta={"download_maxsize": 0})
    ).body == b"Works"


async def test_a_head_response_has_no_size(transport: Transport, downloads: Any, site: Any) -> None:
    response = await downloads(transport)(
        site.url(transport, "/large?size=1000"), method="HEAD", meta={"download_warnsize": 1}
    )
    assert (response.status, response.body) == (200, b"")


# 4.2


@pytest.mark.parametrize("source", MAXSIZE_SOURCES)
async def test_an_unannounced_body_is_aborted_when_it_is_over_maxsize(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200)
        exchange.data(b"x" * 1_000)
        exchange.data(b"x" * 1_000)

    peer = serve(transport, answer)
    download, meta = limited(downloads, transport, source, "download_maxsize", 1_500)
    with pytest.raises(DownloadCancelledError):
        await download(peer.url("/"), meta=meta)
    expected = f"Received 2000 bytes which is larger than download max size (1500) in request <GET {peer.url('/')}>."
    assert len(warned(caplog, expected)) == 1
    await peer.exchanges[0].ended_by_client.wait()


async def test_sizes_are_of_bytes_as_received_not_of_decompressed_ones(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    body = gzip.compress(b"x" * 100_000)

    def answer(exchange: Any) -> None:
        exchange.respond(headers=[(b"Content-Encoding", b"gzip")], body=body)

    response = await downloads(transport, DOWNLOAD_MAXSIZE=len(body))(serve(transport, answer).url("/"))
    assert response.body == body


@over_h2
async def test_over_h2_only_the_stream_over_maxsize_ends(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, lambda exchange: exchange.respond(body=b"x" * 5))
    for limit in (4, 5, 4, 5):
        if limit == 4:
            with pytest.raises(DownloadCancelledError):
                await download(peer.url("/"), meta={"download_maxsize": limit})
        else:
            assert (await download(peer.url("/"), meta={"download_maxsize": limit})).body == b"x" * 5
    assert len(peer.connections) == 1


# 4.3


@pytest.mark.parametrize("source", MAXSIZE_SOURCES)
async def test_an_announced_length_over_warnsize_warns_once_and_comes(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=5)
        for _ in range(5):
            exchange.data(b"x")
        exchange.end()

    peer = serve(transport, answer)
    download, meta = limited(downloads, transport, source, "download_warnsize", 4)
    response = await download(peer.url("/"), meta=meta)
    assert response.body == b"xxxxx"
    assert warned(caplog, "download warn size") == [
        f"Expected to receive 5 bytes which is larger than download warn size (4) in request <GET {peer.url('/')}>."
    ]


@pytest.mark.parametrize("source", MAXSIZE_SOURCES)
async def test_an_unannounced_body_over_warnsize_warns_once_and_comes(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture, source: str
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200)
        exchange.data(b"x" * 35)
        exchange.data(b"x" * 35)
        exchange.end()

    peer = serve(transport, answer)
    download, meta = limited(downloads, transport, source, "download_warnsize", 10)
    response = await download(peer.url("/"), meta=meta)
    assert response.body == b"x" * 70
    (message,) = warned(caplog, "download warn size")
    assert re.match(r"Received (35|70) bytes which is larger than download warn size \(10\)", message)


async def test_a_body_as_long_as_warnsize_does_not_warn(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = serve(transport, works)
    await downloads(transport, DOWNLOAD_WARNSIZE=5)(peer.url("/"))
    await downloads(transport, DOWNLOAD_WARNSIZE=0)(peer.url("/"))
    assert warned(caplog, "warn size") == []


async def test_each_response_over_warnsize_warns(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = serve(transport, works)
    download = downloads(transport, DOWNLOAD_WARNSIZE=4)
    for _ in range(3):
        await download(peer.url("/"))
    assert len(warned(caplog, "Expected to receive 5 bytes")) == 3


# 4.4


@over_h2
async def test_a_reset_in_the_same_read_does_not_hide_the_cancellation(
    transport: Transport, download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        h2 = exchange.connection.h2
        h2.send_headers(exchange.stream, [(b":status", b"200")])
        h2.send_data(exchange.stream, b"x" * 100)
        h2.reset_stream(exchange.stream)
        exchange.connection.flush()

    with pytest.raises(DownloadCancelledError):
        await download(serve(transport, answer).url("/"), meta={"download_maxsize": 50})


# 4.5


@pytest.mark.parametrize("source", MAXSIZE_SOURCES)
async def test_a_crawl_gives_the_cancellation_to_the_errback_and_does_not_retry(
    kind: str, transport: Transport, site: Any, source: str
) -> None:
    meta = {"download_maxsize": 1_000} if source == "meta" else {}
    settings = {"RETRY_ENABLED": True} | ({"DOWNLOAD_MAXSIZE": 1_000} if source == "setting" else {})
    ended = await crawl(
        kind, transport, [Request(site.url(transport, "/large?size=1024"), meta=meta)], settings=settings
    )
    assert [type(error) for error in ended.errors] == [DownloadCancelledError]
    assert "retry/count" not in ended.stats


# the deprecated spider attributes (12)


class LimitedSpider(Spider):
    """With the deprecated attributes."""

    name = "limited"
    download_maxsize = 4
    download_warnsize = 3


async def test_the_deprecated_spider_attributes_are_read(
    kind: str, transport: Transport, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = serve(transport, lambda exchange: exchange.respond(body=b"x" * int(exchange.request.target[1:])))
    download = Downloads(handler_path(kind, transport), crawler=make_crawler(spider=LimitedSpider))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScrapyDeprecationWarning)
            await download(peer.url("/4"))
            assert len(warned(caplog, "download warn size (3)")) == 1
            with pytest.raises(DownloadCancelledError):
                await download(peer.url("/5"))
    finally:
        await download.close()


async def test_the_deprecated_spider_attributes_are_warned_of(kind: str, transport: Transport, serve: Any) -> None:
    download = Downloads(handler_path(kind, transport), crawler=make_crawler(spider=LimitedSpider))
    try:
        with pytest.warns(ScrapyDeprecationWarning) as caught:
            await download(serve(transport, lambda exchange: exchange.respond(body=b"x")).url("/"))
    finally:
        await download.close()
    texts = " ".join(str(warning.message) for warning in caught)
    assert "download_maxsize" in texts
    assert "download_warnsize" in texts


# memory


async def test_a_huge_announced_body_over_maxsize_is_not_downloaded(
    transport: Transport, downloads: Any, site: Any
) -> None:
    # So large because a server on Twisted 24.11 writes 200 MB into its own buffers until it notices the end.
    announced = 2**34
    before = site.seen(transport)
    with pytest.raises(DownloadCancelledError, match=f"Expected to receive {announced} bytes"):
        await downloads(transport, DOWNLOAD_MAXSIZE=MIB)(site.url(transport, f"/endless?size={announced}"))
    # What the server has written by now sits in socket buffers and windows.
    assert site.seen(transport)["endless_bytes"] - before["endless_bytes"] < announced / 8


async def test_an_endless_body_never_holds_more_than_maxsize_and_one_read(
    transport: Transport, downloads: Any, site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    maxsize = 4 * MIB
    download = downloads(transport, DOWNLOAD_MAXSIZE=maxsize, DOWNLOAD_WARNSIZE=0)
    await download(site.url(transport, "/text"))
    tracemalloc.start()
    try:
        with pytest.raises(DownloadCancelledError):
            await download(site.url(transport, f"/endless?size={2**30}&announce=0"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    received = int(re.findall(r"Received (\d+) bytes", caplog.text)[0])
    assert maxsize < received <= maxsize + ONE_READ
    assert peak < received + ONE_READ + 2 * MIB


@pytest.mark.parametrize("announce", ["1", "0"], ids=["announced", "unannounced"])
async def test_a_body_is_not_copied_more_than_once(
    transport: Transport, downloads: Any, site: Any, announce: str
) -> None:
    size = 16 * MIB
    download = downloads(transport, DOWNLOAD_WARNSIZE=0)
    await download(site.url(transport, "/text"))
    tracemalloc.start()
    try:
        response = await download(site.url(transport, f"/endless?size={size}&announce={announce}"))
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(response.body) == size
    assert now < size + 2 * MIB, "the body is held once"
    # A buffer that grows is an eighth larger than what is in it; a copy would be a whole size more.
    assert peak < 1.25 * size + 2 * MIB, "nor was it ever there twice"
