"""The local address of connections (contract, section 11)."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy.exceptions import DownloadConnectionRefusedError, DownloadFailedError

from .crawls import crawl
from .marks import beyond_stock
from .peers import works
from .running import Transport, gather
from .test_errors import closed_port

SHAPES = pytest.mark.parametrize("address", ["127.0.0.2", ("127.0.0.2", 0)], ids=["string", "pair"])


def clients(peer: Any) -> list[str]:
    """The address that each connection came from."""
    return [connection.client_host for connection in peer.connections]


# 11.1


@SHAPES
async def test_the_setting_is_the_address_that_the_server_sees(
    transport: Transport, downloads: Any, serve: Any, address: Any
) -> None:
    peer = serve(transport, works)
    await downloads(transport, DOWNLOAD_BIND_ADDRESS=address)(peer.url("/"))
    assert clients(peer) == ["127.0.0.2"]


async def test_a_port_is_bound_or_its_absence_is_warned_of(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    port = closed_port()
    peer = serve(transport, works)
    await downloads(transport, DOWNLOAD_BIND_ADDRESS=("127.0.0.2", port))(peer.url("/"))
    assert clients(peer) == ["127.0.0.2"]
    if peer.connections[0].client_port != port:
        assert f"DOWNLOAD_BIND_ADDRESS specifies a port ({port})" in caplog.text
        assert "Ignoring the port" in caplog.text


@SHAPES
async def test_the_setting_holds_in_a_crawl(kind: str, transport: Transport, serve: Any, address: Any) -> None:
    peer = serve(transport, works)
    ended = await crawl(kind, transport, [peer.url("/")], settings={"DOWNLOAD_BIND_ADDRESS": address})
    assert [response.body for response in ended.responses] == [b"Works"]
    assert clients(peer) == ["127.0.0.2"]


# 11.2


@SHAPES
async def test_the_meta_overrides_the_setting(transport: Transport, downloads: Any, serve: Any, address: Any) -> None:
    peer = serve(transport, works)
    download = downloads(transport, DOWNLOAD_BIND_ADDRESS="127.0.0.3")
    await download(peer.url("/"), meta={"bindaddress": address})
    await download(peer.url("/"))
    assert clients(peer) == ["127.0.0.2", "127.0.0.3"]


async def test_an_empty_meta_leaves_it_to_the_setting(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, works)
    download = downloads(transport, DOWNLOAD_BIND_ADDRESS="127.0.0.3")
    await download(peer.url("/"), meta={"bindaddress": None})
    assert clients(peer) == ["127.0.0.3"]


# 11.3


async def test_a_pooled_connection_keeps_to_its_address(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, lambda exchange: exchange.respond(body=exchange.connection.client_host.encode()))
    for _ in range(3):
        for address in ("127.0.0.2", None, "127.0.0.3"):
            meta = {"bindaddress": address} if address else {}
            assert (await download(peer.url("/"), meta=meta)).text == (address or "127.0.0.1")
    assert sorted(clients(peer)) == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]


async def test_both_shapes_of_an_address_share_a_connection(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, works)
    for address in ("127.0.0.2", ("127.0.0.2", 0)):
        await download(peer.url("/"), meta={"bindaddress": address})
    assert clients(peer) == ["127.0.0.2"]


async def test_requests_at_once_from_several_addresses(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, lambda exchange: exchange.respond(body=exchange.connection.client_host.encode()))
    addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4"] * 4
    responses = await gather(*(download(peer.url("/"), meta={"bindaddress": address}) for address in addresses))
    assert [response.text for response in responses] == addresses


# Twisted leaves the socket that it could not bind to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@beyond_stock("raises an exception of Twisted; over h2 it is only found by the time-out")
async def test_an_address_that_is_not_of_this_machine_is_an_error(
    transport: Transport, download: Any, serve: Any
) -> None:
    with pytest.raises((DownloadFailedError, DownloadConnectionRefusedError)):
        await download(serve(transport, works).url("/"), meta={"bindaddress": "192.0.2.1", "download_timeout": 5})
