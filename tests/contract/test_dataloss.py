"""Data loss (contract, section 5): bodies that are shorter than they should be."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from scrapy import signals
from scrapy.exceptions import DownloadFailedError, ResponseDataLossError

from .marks import beyond_stock, over_h2, over_http1
from .running import Transport, gather

H2_ENDS = "raises DownloadFailedError and closes the connection"


def short_of_length(exchange: Any) -> None:
    """A script: 7 bytes of 1,024 announced, then the orderly end: of the connection, over h2 of the stream."""
    exchange.head(200, length=1_024)
    exchange.data(b"partial")
    if hasattr(exchange, "stream"):
        exchange.end()
    else:
        exchange.close()


def without_end(exchange: Any) -> None:
    """A script: no length, and the connection closes before the end of the body."""
    exchange.head(200)
    exchange.data(b"partial")
    exchange.close()


def closed_in_the_middle(exchange: Any) -> None:
    """A script: 7 bytes of 1,024 announced, then the connection is closed in order."""
    exchange.head(200, length=1_024)
    exchange.data(b"partial")
    exchange.close()


LOSSES = pytest.mark.parametrize("loss", [short_of_length, without_end, closed_in_the_middle])


# 5.1


@beyond_stock(H2_ENDS, on=["h2"])
@LOSSES
async def test_a_short_body_is_a_data_loss_error(transport: Transport, download: Any, serve: Any, loss: Any) -> None:
    with pytest.raises(ResponseDataLossError):
        await download(serve(transport, loss).url("/"))


@beyond_stock(H2_ENDS, on=["h2"])
async def test_data_loss_is_warned_of_once_by_a_handler(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = serve(transport, short_of_length)
    for _ in range(2):
        download = downloads(transport)
        for _ in range(2):
            with pytest.raises(ResponseDataLossError):
                await download(peer.url("/"))
    records = [record for record in caplog.records if "Got data loss" in record.getMessage()]
    assert [record.getMessage() for record in records] == 2 * [
        (
            f"Got data loss in {peer.url('/')}. If you want to process broken responses set the setting "
            "DOWNLOAD_FAIL_ON_DATALOSS = False -- This message won't be shown in further requests"
        )
    ]
    assert {record.levelno for record in records} == {logging.WARNING}


# 5.2


@beyond_stock(H2_ENDS, on=["h2"])
@LOSSES
@pytest.mark.parametrize("source", ["meta", "setting"])
async def test_allowed_data_loss_gives_what_came_and_a_flag(
    transport: Transport, downloads: Any, serve: Any, loss: Any, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"DOWNLOAD_FAIL_ON_DATALOSS": False} if source == "setting" else {}
    meta = {"download_fail_on_dataloss": False} if source == "meta" else {}
    response = await downloads(transport, **settings)(serve(transport, loss).url("/"), meta=meta)
    assert (response.status, response.body, response.flags) == (200, b"partial", ["dataloss"])
    assert "Got data loss" not in caplog.text


@beyond_stock(H2_ENDS, on=["h2"])
async def test_the_meta_beats_the_setting(transport: Transport, downloads: Any, serve: Any) -> None:
    download = downloads(transport, DOWNLOAD_FAIL_ON_DATALOSS=False)
    with pytest.raises(ResponseDataLossError):
        await download(serve(transport, short_of_length).url("/"), meta={"download_fail_on_dataloss": True})


# 5.3


@beyond_stock(H2_ENDS, on=["h2"])
async def test_a_connection_closed_in_a_body_is_data_loss(transport: Transport, download: Any, serve: Any) -> None:
    with pytest.raises(ResponseDataLossError):
        await download(serve(transport, closed_in_the_middle).url("/"))


async def test_a_connection_reset_instead_of_a_response_is_a_failure(
    transport: Transport, download: Any, serve: Any
) -> None:
    with pytest.raises(DownloadFailedError):
        await download(serve(transport, lambda exchange: exchange.abort()).url("/"))


@beyond_stock("raises ResponseDataLossError", on=["http", "https1"])
async def test_a_connection_reset_in_a_body_is_a_failure(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=1_024)
        exchange.data(b"partial")

    peer = serve(transport, answer)

    def reset(**_: Any) -> None:
        peer.exchanges[0].abort()

    download.on(signals.bytes_received, reset)
    with pytest.raises(DownloadFailedError):
        await download(peer.url("/"))


@over_http1
@pytest.mark.parametrize(("abort", "error"), [(0, ResponseDataLossError), (1, DownloadFailedError)])
async def test_drops_of_a_real_server(
    transport: Transport, download: Any, site: Any, abort: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await download(site.url(transport, f"/drop?abort={abort}"))


# 5.4


@beyond_stock(H2_ENDS, on=["h2"])
@over_h2
async def test_over_h2_data_loss_costs_only_its_stream(transport: Transport, download: Any, serve: Any) -> None:
    waiting: list[Any] = []

    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/good":
            waiting.append(exchange)
            return
        short_of_length(exchange)
        for other in waiting:
            other.respond(body=b"good")

    peer = serve(transport, answer)

    async def lossy() -> Any:
        await peer.arrived(1)
        return await download(peer.url("/lossy"), meta={"download_fail_on_dataloss": False})

    good, lossy_response = await gather(download(peer.url("/good")), lossy())
    assert good.body == b"good"
    assert lossy_response.flags == ["dataloss"]
    assert len(peer.connections) == 1


@over_h2
async def test_over_h2_a_body_longer_than_announced_is_an_error_of_its_stream(
    transport: Transport, download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=3)
        exchange.data(b"longer")
        exchange.end()

    with pytest.raises((ResponseDataLossError, DownloadFailedError)):
        await download(serve(transport, answer).url("/"))
