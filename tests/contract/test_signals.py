"""The signals of a download and StopDownload (contract, section 7)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from h2.errors import ErrorCodes
from scrapy import Request, signals
from scrapy.exceptions import DownloadCancelledError, StopDownload

from .crawls import FetchSpider, crawl
from .marks import beyond_stock, over_h2
from .running import Transport, gather


class Received:
    """Listens to both signals."""

    def __init__(self, download: Any = None, *, empty: bool = False) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.empty = empty
        if download is not None:
            download.on(signals.headers_received, self.headers_received)
            download.on(signals.bytes_received, self.bytes_received)

    def headers_received(self, headers: Any, body_length: Any, request: Any, spider: Any) -> None:
        """The signal."""
        self.calls.append(("headers", (headers.copy(), body_length, request, spider)))

    def bytes_received(self, data: bytes, request: Any, spider: Any) -> None:
        """The signal. Over h2 the stock handler sends it for empty DATA frames too; no one can tell from the body."""
        if data or self.empty:
            self.calls.append(("bytes", (data, request, spider)))

    @property
    def pieces(self) -> list[bytes]:
        """What bytes_received brought."""
        return [values[0] for name, values in self.calls if name == "bytes"]

    @property
    def names(self) -> list[str]:
        """Which signals, in order."""
        return [name for name, _ in self.calls]


# 7.1


async def test_headers_received_comes_once_before_the_body(transport: Transport, download: Any, site: Any) -> None:
    received = Received(download)
    request = Request(site.url(transport, "/text"))
    response = await download(request)
    assert received.names == ["headers", "bytes"]
    headers, length, of_request, spider = received.calls[0][1]
    assert headers == response.headers
    assert (length, of_request, spider) == (5, request, download.crawler.spider)


async def test_headers_received_comes_without_a_body_too(transport: Transport, download: Any, site: Any) -> None:
    received = Received(download)
    await download(site.url(transport, "/status?n=404"))
    await download(site.url(transport, "/text"), method="HEAD")
    assert received.names == ["headers", "headers"]


async def test_headers_received_comes_where_the_length_is_over_maxsize_too(
    transport: Transport, download: Any, site: Any
) -> None:
    received = Received(download)
    with pytest.raises(DownloadCancelledError):
        await download(site.url(transport, "/large?size=1000"), meta={"download_maxsize": 999})
    assert received.names == ["headers"]
    assert received.calls[0][1][1] == 1_000


async def test_a_stop_at_the_headers_comes_before_the_size_limits(
    transport: Transport, download: Any, site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    download.on(signals.headers_received, (stopper := Stopper(fail=False)).at_headers)
    meta = {"download_maxsize": 999, "download_warnsize": 1}
    response = await download(site.url(transport, "/large?size=1000"), meta=meta)
    assert (response.flags, stopper.pieces) == (["download_stopped"], [])
    assert "larger than" not in caplog.text


async def test_an_unannounced_length_is_unknown(transport: Transport, download: Any, site: Any) -> None:
    from twisted.web.iweb import UNKNOWN_LENGTH

    received = Received(download)
    await download(site.url(transport, "/chunked"))
    assert received.calls[0][1][1] in (None, UNKNOWN_LENGTH)


# 7.2


async def test_the_pieces_of_bytes_received_are_the_body(transport: Transport, download: Any, site: Any) -> None:
    received = Received(download)
    response = await download(site.url(transport, "/large?size=1500000"))
    assert b"".join(received.pieces) == response.body
    assert len(received.pieces) > 1
    assert received.names[0] == "headers"
    assert received.names.count("headers") == 1


@beyond_stock("sends it for empty DATA frames", on=["h2"])
async def test_no_piece_is_empty(transport: Transport, download: Any, site: Any) -> None:
    received = Received(download, empty=True)
    for path in ("/text", "/chunked", "/status?n=200", "/large?size=100000"):
        await download(site.url(transport, path))
    assert all(received.pieces)


async def test_bytes_received_names_its_request(transport: Transport, download: Any, serve: Any) -> None:
    received = Received(download)
    peer = serve(transport, lambda exchange: exchange.respond(body=exchange.request.target))
    requests = [Request(peer.url(f"/{number}")) for number in range(6)]
    await gather(*(download(request) for request in requests))
    by_request = {values[1].url: values[0] for name, values in received.calls if name == "bytes"}
    assert by_request == {peer.url(f"/{number}"): f"/{number}".encode() for number in range(6)}
    assert {values[2] for name, values in received.calls if name == "bytes"} == {download.crawler.spider}


async def test_every_response_of_a_crawl_with_a_body_has_bytes(kind: str, transport: Transport, site: Any) -> None:
    received = Received()
    paths = ["/text", "/redirect", "/missing", "/status?n=200", "/chunked"]
    await crawl(
        kind,
        transport,
        [site.url(transport, path) for path in paths],
        settings={"HTTPERROR_ALLOW_ALL": True},
        receivers=[
            (signals.headers_received, received.headers_received),
            (signals.bytes_received, received.bytes_received),
        ],
    )
    with_bytes = {values[1].url for name, values in received.calls if name == "bytes"}
    with_heads = {values[2].url for name, values in received.calls if name == "headers"}
    assert with_bytes == {site.url(transport, path) for path in ("/text", "/redirect", "/missing", "/chunked")}
    assert with_heads == {site.url(transport, path) for path in paths}


# 7.3


class Stopper:
    """Raises StopDownload at the first call of either signal."""

    def __init__(self, *, fail: bool) -> None:
        self.fail = fail
        self.headers: Any = None
        self.pieces: list[bytes] = []

    def at_headers(self, headers: Any, **_: Any) -> None:
        """A receiver of headers_received."""
        self.headers = headers.copy()
        raise StopDownload(fail=self.fail)

    def at_bytes(self, data: bytes, **_: Any) -> None:
        """A receiver of bytes_received."""
        self.pieces.append(data)
        raise StopDownload(fail=self.fail)

    def no_bytes(self, data: bytes, **_: Any) -> None:
        """A receiver of bytes_received that must not be called."""
        self.pieces.append(data)


def stop_log(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """What was logged of stopped downloads."""
    return [
        (record.levelno, record.getMessage()) for record in caplog.records if "Download stopped" in record.getMessage()
    ]


async def stopped_response(download: Any, request: Request, *, fail: bool) -> Any:
    """The response of a stopped download, however it is delivered."""
    if not fail:
        return await download(request)
    with pytest.raises(StopDownload) as caught:
        await download(request)
    assert caught.value.fail
    return caught.value.response


@pytest.mark.parametrize("fail", [False, True])
async def test_a_stop_at_the_headers_gives_the_head_and_no_body(
    transport: Transport, download: Any, site: Any, caplog: pytest.LogCaptureFixture, fail: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    stopper = Stopper(fail=fail)
    download.on(signals.headers_received, stopper.at_headers)
    download.on(signals.bytes_received, stopper.no_bytes)
    request = Request(site.url(transport, "/large?size=262144"))
    response = await stopped_response(download, request, fail=fail)
    assert (response.status, response.body, response.flags) == (200, b"", ["download_stopped"])
    assert response.headers == stopper.headers
    assert stopper.pieces == []
    assert stop_log(caplog) == [
        (logging.DEBUG, f"Download stopped for {request} from signal handler Stopper.at_headers")
    ]


@pytest.mark.parametrize("fail", [False, True])
async def test_a_stop_at_the_bytes_gives_the_bytes_of_that_call(
    transport: Transport, download: Any, site: Any, caplog: pytest.LogCaptureFixture, fail: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    stopper = Stopper(fail=fail)
    download.on(signals.bytes_received, stopper.at_bytes)
    request = Request(site.url(transport, "/large?size=262144"))
    response = await stopped_response(download, request, fail=fail)
    assert len(stopper.pieces) == 1
    assert response.body == stopper.pieces[0]
    assert 0 < len(response.body) < 262_144
    assert (response.status, response.flags) == (200, ["download_stopped"])
    assert response.headers[b"Content-Length"] == b"262144"
    assert stop_log(caplog) == [(logging.DEBUG, f"Download stopped for {request} from signal handler Stopper.at_bytes")]


@pytest.mark.parametrize("fail", [False, True])
async def test_a_stop_of_a_body_that_is_already_there_whole(
    transport: Transport, download: Any, site: Any, fail: bool
) -> None:
    stopper = Stopper(fail=fail)
    download.on(signals.bytes_received, stopper.at_bytes)
    response = await stopped_response(download, Request(site.url(transport, "/text")), fail=fail)
    assert (response.body, response.flags) == (b"Works", ["download_stopped"])


class StoppingSpider(FetchSpider):
    """Stops each of its downloads at the headers."""

    fail = True

    @classmethod
    def from_crawler(cls, crawler: Any, *arguments: Any, **keywords: Any) -> Any:
        spider = super().from_crawler(crawler, *arguments, **keywords)
        crawler.signals.connect(spider.headers_received, signals.headers_received)
        return spider

    def headers_received(self, **_: Any) -> None:
        """The signal."""
        raise StopDownload(fail=self.fail)


class GentlyStoppingSpider(StoppingSpider):
    """Its stops are no failures."""

    fail = False


async def test_in_a_crawl_a_failing_stop_goes_to_the_errback(kind: str, transport: Transport, site: Any) -> None:
    ended = await crawl(kind, transport, [site.url(transport, "/text")], spider=StoppingSpider)
    assert ended.responses == []
    (failure,) = ended.failures
    assert isinstance(failure.value, StopDownload)
    assert failure.value.response is not None
    assert failure.value.response.status == 200


async def test_in_a_crawl_another_stop_goes_to_the_callback(kind: str, transport: Transport, site: Any) -> None:
    ended = await crawl(kind, transport, [site.url(transport, "/text")], spider=GentlyStoppingSpider)
    assert [(response.status, response.body) for response in ended.responses] == [(200, b"")]
    assert ended.failures == []


# 7.4


@pytest.mark.parametrize("at", ["headers", "bytes"])
async def test_a_stop_ends_the_transfer(transport: Transport, download: Any, serve: Any, at: str) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=262_144)
        exchange.data(b"some")

    stopper = Stopper(fail=False)
    download.on(
        *(
            (signals.headers_received, stopper.at_headers)
            if at == "headers"
            else (signals.bytes_received, stopper.at_bytes)
        )
    )
    peer = serve(transport, answer)
    response = await download(peer.url("/"))
    assert response.body == (b"" if at == "headers" else b"some")
    await peer.exchanges[0].ended_by_client.wait()


@over_h2
@pytest.mark.parametrize("at", ["headers", "bytes"])
async def test_over_h2_a_stop_ends_only_its_stream(transport: Transport, download: Any, serve: Any, at: str) -> None:
    kept: list[Any] = []

    def answer(exchange: Any) -> None:
        exchange.head(200, length=262_144)
        if exchange.request.target == b"/kept":
            kept.append(exchange)
        else:
            exchange.data(b"some")

    peer = serve(transport, answer)

    def stop(request: Any, **_: Any) -> None:
        if request.url.endswith("/stopped"):
            raise StopDownload(fail=False)

    download.on(signals.headers_received if at == "headers" else signals.bytes_received, stop)

    async def stopped() -> Any:
        await peer.arrived(1)
        response = await download(peer.url("/stopped"))
        await peer.exchanges[1].ended_by_client.wait()
        kept[0].data(b"x" * 262_144)
        kept[0].end()
        return response

    whole, cut = await gather(download(peer.url("/kept")), stopped())
    assert len(whole.body) == 262_144
    assert cut.flags == ["download_stopped"]
    assert [stream for stream, _ in peer.resets] == [peer.exchanges[1].stream]
    assert len(peer.connections) == 1
    assert peer.errors == []


@over_h2
@beyond_stock("resets with REFUSED_STREAM, which is a server's word", on=["h2"])
@pytest.mark.parametrize("at", ["headers", "bytes"])
async def test_over_h2_a_stopped_stream_is_reset_with_cancel(
    transport: Transport, download: Any, serve: Any, at: str
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=262_144)
        exchange.data(b"some")

    stopper = Stopper(fail=False)
    download.on(
        *(
            (signals.headers_received, stopper.at_headers)
            if at == "headers"
            else (signals.bytes_received, stopper.at_bytes)
        )
    )
    peer = serve(transport, answer)
    await download(peer.url("/"))
    assert await peer.exchanges[0].ended_by_client.wait() == ErrorCodes.CANCEL
