"""Time-outs and other errors (contract, section 6): Scrapy's own exceptions, nothing of a library."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from scrapy import Request, exceptions, signals
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
)
from scrapy.utils.defer import deferred_from_coro

from .crawls import crawl
from .marks import beyond_stock, over_cleartext, over_h2, over_http1, over_tls, poolplus_only
from .peers import SilentConnection, silent, works
from .resolving import no_host_is_found, no_name_is_resolved_in_time
from .running import HTTP, HTTPS1, Transport, gather, outcomes, the_reactor

SHORT = 0.3
"""Seconds; for what is about a time-out."""
PHASE = 0.6
"""Seconds; where the time must run out in a certain phase, and the phases before it must fit in."""
H2_HANGS = "over h2 it is only found by the time-out"


def closed_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# 6: the table. Refused, not resolved


@beyond_stock(H2_HANGS, on=["h2"])
async def test_a_refused_connection(transport: Transport, download: Any) -> None:
    with pytest.raises(DownloadConnectionRefusedError) as caught:
        await download(f"{transport.scheme}://127.0.0.1:{closed_port()}/", meta={"download_timeout": 2})
    assert str(caught.value)
    assert caught.value.__cause__ is not None


@beyond_stock(H2_HANGS, on=["h2"])
async def test_a_refused_host_is_answered_again_and_again_and_works_once_it_is_up(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    await peer.stop_listening()
    refused = await outcomes(*(download(peer.url("/"), meta={"download_timeout": 2}) for _ in range(3)))
    assert [type(one) for one in refused] == 3 * [DownloadConnectionRefusedError]
    peer.listen_again()
    assert (await download(peer.url("/"))).body == b"Works"


@beyond_stock(H2_HANGS, on=["h2"])
@pytest.mark.parametrize("host", ["dns.resolution.invalid.", "dns.resolution.invalid"])
async def test_a_host_that_does_not_resolve(transport: Transport, download: Any, host: str) -> None:
    with no_host_is_found() as asked, pytest.raises(CannotResolveHostError) as caught:
        await download(f"{transport.scheme}://{host}/", meta={"download_timeout": 2})
    assert asked
    assert "dns.resolution.invalid" in str(caught.value)
    assert caught.value.__cause__ is not None


@beyond_stock(H2_HANGS, on=["h2"])
async def test_a_host_that_the_system_does_not_resolve(transport: Transport, download: Any) -> None:
    with pytest.raises(CannotResolveHostError):
        await download(f"{transport.scheme}://dns.resolution.invalid./", meta={"download_timeout": 9})


# 6.1


async def test_no_answer_in_time(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, silent)
    with pytest.raises(DownloadTimeoutError) as caught:
        await download(peer.url("/"), meta={"download_timeout": SHORT})
    assert f"Getting {peer.url('/')} took longer than {SHORT} seconds" in str(caught.value)


async def test_a_body_that_does_not_go_on_in_time(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=1_024)
        exchange.data(b"some body")

    peer = serve(transport, answer)
    with pytest.raises(DownloadTimeoutError) as caught:
        await download(peer.url("/"), meta={"download_timeout": SHORT})
    assert f"Getting {peer.url('/')} took longer than {SHORT} seconds" in str(caught.value)


@beyond_stock("tells the server nothing", on=["h2"])
@pytest.mark.parametrize("head", [False, True], ids=["silence", "head"])
async def test_a_timeout_ends_the_transfer(transport: Transport, download: Any, serve: Any, head: bool) -> None:
    peer = serve(transport, lambda exchange: exchange.head(200, length=1_024) if head else None)
    with pytest.raises(DownloadTimeoutError):
        await download(peer.url("/"), meta={"download_timeout": SHORT})
    await peer.exchanges[0].ended_by_client.wait()


async def test_the_timeout_is_for_the_whole_download_however_lively_it_is(
    transport: Transport, download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200)
        drip(exchange)

    def drip(exchange: Any) -> None:
        if not exchange.ended_by_client.happened:
            exchange.data(b"x")
            the_reactor().callLater(SHORT / 10, drip, exchange)

    peer = serve(transport, answer)
    with pytest.raises(DownloadTimeoutError):
        await download(peer.url("/"), meta={"download_timeout": SHORT})


async def test_silence_after_the_connection_is_accepted(transport: Transport, download: Any, serve: Any) -> None:
    # For https: silence in the TLS handshake.
    peer = serve(transport, protocol=SilentConnection, hold_tls=True)
    with pytest.raises(DownloadTimeoutError, match="took longer than"):
        await download(peer.url("/"), meta={"download_timeout": SHORT})


@beyond_stock("goes on with the connection", on=["h2"])
async def test_a_timeout_in_the_silent_handshake_ends_the_connection(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, protocol=SilentConnection, hold_tls=True)
    with pytest.raises(DownloadTimeoutError):
        await download(peer.url("/"), meta={"download_timeout": SHORT})
    await peer.connections[0].lost.wait()


@beyond_stock("the reset is not written", on=["h2"])
@over_h2
async def test_over_h2_a_timeout_ends_only_its_stream(transport: Transport, download: Any, serve: Any) -> None:
    kept: list[Any] = []

    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/kept":
            kept.append(exchange)

    peer = serve(transport, answer)

    async def timed_out() -> None:
        await peer.arrived(1)
        with pytest.raises(DownloadTimeoutError):
            await download(peer.url("/late"), meta={"download_timeout": SHORT})
        await peer.exchanges[1].ended_by_client.wait()
        kept[0].respond(body=b"kept")

    response, _ = await gather(download(peer.url("/kept")), timed_out())
    assert response.body == b"kept"
    assert len(peer.connections) == 1
    assert [stream for stream, _ in peer.resets] == [peer.exchanges[1].stream]


async def test_the_setting_reaches_the_handler_through_a_crawl(kind: str, transport: Transport, serve: Any) -> None:
    peer = serve(transport, silent)
    ended = await crawl(kind, transport, [peer.url("/")], settings={"DOWNLOAD_TIMEOUT": SHORT})
    assert [type(error) for error in ended.errors] == [DownloadTimeoutError]
    assert str(SHORT) in str(ended.errors[0])


@poolplus_only("the stock handlers fall back to 10 seconds of their own")
async def test_without_the_meta_the_setting_holds(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, silent)
    with pytest.raises(DownloadTimeoutError, match=f"took longer than {SHORT} seconds"):
        await downloads(transport, DOWNLOAD_TIMEOUT=SHORT)(peer.url("/"))


# the phase in which the time ran out, and time-outs of phases: beyond Scrapy


@beyond_stock("does not name the phase, nor the host that is not found in time")
async def test_a_timeout_names_the_phase_of_the_silent_resolver(transport: Transport, download: Any) -> None:
    with no_name_is_resolved_in_time() as asked, pytest.raises(DownloadTimeoutError) as caught:
        await download(f"{transport.scheme}://slow.example/", meta={"download_timeout": SHORT})
    assert asked == ["slow.example"]
    assert "name resolution" in str(caught.value)
    assert f"Getting {transport.scheme}://slow.example/ took longer than {SHORT} seconds" in str(caught.value)


@beyond_stock("does not name the phase")
async def test_a_timeout_names_the_phase_of_the_silent_handshake(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, protocol=SilentConnection, hold_tls=True)
    with pytest.raises(DownloadTimeoutError) as caught:
        await download(peer.url("/"), meta={"download_timeout": PHASE})
    assert ("TLS handshake" if transport.secure else "waiting for the response") in str(caught.value)


@beyond_stock("does not name the phase")
async def test_a_timeout_names_the_phase_of_the_missing_answer(transport: Transport, download: Any, serve: Any) -> None:
    with pytest.raises(DownloadTimeoutError, match="waiting for the response"):
        await download(serve(transport, silent).url("/"), meta={"download_timeout": PHASE})


@beyond_stock("does not name the phase")
async def test_a_timeout_names_the_phase_of_the_missing_body(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, lambda exchange: exchange.head(200, length=10))
    with pytest.raises(DownloadTimeoutError, match="reading the body"):
        await download(peer.url("/"), meta={"download_timeout": PHASE})


@poolplus_only("limits the pool")
async def test_the_timeout_covers_waiting_in_the_pool(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, silent)
    download = downloads(transport, POOLPLUS_POLICY={"max_connections": 1, "max_streams": 1})
    first = download(peer.url("/first"), meta={"download_timeout": 3 * PHASE})

    async def second() -> None:
        await peer.arrived(1)
        with pytest.raises(DownloadTimeoutError, match="waiting for a connection"):
            await download(peer.url("/second"), meta={"download_timeout": PHASE})
        peer.exchanges[0].respond()

    response, _ = await gather(first, second())
    assert response.status == 200
    assert len(peer.requests) == 1


@poolplus_only("a policy of ours")
async def test_the_connect_timeout(transport: Transport, downloads: Any, serve: Any) -> None:
    if not transport.secure:
        pytest.skip("a connection on the loopback is made at once; TLS can be held")
    peer = serve(transport, protocol=SilentConnection, hold_tls=True)
    download = downloads(transport, POOLPLUS_POLICY={"connect_timeout": PHASE})
    with pytest.raises(DownloadTimeoutError) as caught:
        await download(peer.url("/"))
    for word in ("TLS handshake", "connect_timeout", str(PHASE), "127.0.0.1"):
        assert word in str(caught.value)
    await peer.connections[0].lost.wait()


@poolplus_only("a policy of ours")
async def test_the_first_byte_timeout(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, silent)
    with pytest.raises(DownloadTimeoutError) as caught:
        await downloads(transport, POOLPLUS_POLICY={"first_byte_timeout": PHASE})(peer.url("/"))
    for word in ("waiting for the response", "first_byte_timeout", str(PHASE)):
        assert word in str(caught.value)
    await peer.exchanges[0].ended_by_client.wait()


@poolplus_only("a policy of ours")
async def test_the_read_timeout(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, lambda exchange: exchange.head(200, length=10))
    with pytest.raises(DownloadTimeoutError) as caught:
        await downloads(transport, POOLPLUS_POLICY={"read_timeout": PHASE})(peer.url("/"))
    for word in ("reading the body", "read_timeout", str(PHASE)):
        assert word in str(caught.value)
    await peer.exchanges[0].ended_by_client.wait()


@poolplus_only("a policy of ours")
async def test_a_body_that_goes_on_does_not_meet_the_read_timeout(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200, length=8)
        drip(exchange, 8)

    def drip(exchange: Any, left: int) -> None:
        exchange.data(b"x")
        if left > 1:
            the_reactor().callLater(PHASE / 6, drip, exchange, left - 1)
        else:
            exchange.end()

    download = downloads(transport, POOLPLUS_POLICY={"read_timeout": PHASE, "first_byte_timeout": PHASE})
    assert (await download(serve(transport, answer).url("/"))).body == b"x" * 8


# 6: the table. Failures


async def test_a_connection_closed_instead_of_an_answer(transport: Transport, download: Any, serve: Any) -> None:
    with pytest.raises(DownloadFailedError) as caught:
        await download(serve(transport, lambda exchange: exchange.close()).url("/"))
    assert str(caught.value)
    assert caught.value.__cause__ is not None


@over_http1
async def test_a_connection_closed_in_the_head(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Le")
        exchange.close()

    with pytest.raises(DownloadFailedError):
        await download(serve(transport, answer).url("/"))


@over_http1
@pytest.mark.parametrize("nonsense", [b"this is no HTTP\r\n\r\n", b"\x16\x03\x01\x00\x05\xff\r\n\r\n", b"\r\n\r\n\r\n"])
async def test_something_else_than_http(transport: Transport, download: Any, serve: Any, nonsense: bytes) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(nonsense)
        exchange.close()

    with pytest.raises(DownloadFailedError):
        await download(serve(transport, answer).url("/"))


@over_tls
async def test_https_asked_of_a_server_that_speaks_only_cleartext(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(
        HTTP, protocol=SilentConnection, script=lambda connection: connection.write(b"HTTP/1.1 400 No\r\n\r\n")
    )
    with pytest.raises(DownloadFailedError):
        await download(f"https://127.0.0.1:{peer.port}/", meta={"download_timeout": 5})


@over_cleartext
async def test_http_asked_of_a_server_that_speaks_only_tls(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(HTTPS1, works)
    with pytest.raises(DownloadFailedError):
        await download(f"http://127.0.0.1:{peer.port}/", meta={"download_timeout": 5})


@beyond_stock("tells the server nothing and answers with a 499 of its own making", on=["h2"])
async def test_a_cancelled_download_ends_its_transfer(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, silent)
    deferred = deferred_from_coro(download(peer.url("/")))
    (exchange,) = await peer.arrived()
    deferred.cancel()
    (outcome,) = await outcomes(deferred)
    assert isinstance(outcome, BaseException)
    await exchange.ended_by_client.wait()


# 6.4


async def test_no_library_exception_gets_out(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        how = exchange.request.target.decode().strip("/")
        if how in {"close", "abort"}:
            getattr(exchange, how)()
        elif how == "short":
            exchange.head(200, length=10)
            exchange.data(b"x")
            exchange.close()

    peer = serve(transport, answer)
    ended = await outcomes(
        download(peer.url("/close")),
        download(peer.url("/abort")),
        download(peer.url("/short")),
        download(peer.url("/silent"), meta={"download_timeout": SHORT}),
        download(peer.url("/maxsize"), meta={"download_maxsize": 1, "download_timeout": SHORT}),
    )
    for error in ended:
        assert isinstance(error, Exception)
        assert type(error).__module__ == exceptions.__name__


# 6.2


@pytest.fixture
def retrying() -> dict[str, Any]:
    """Settings of a crawl that retries, as Scrapy does by default."""
    return {"RETRY_ENABLED": True, "DOWNLOAD_TIMEOUT": 2}


def assert_retried_twice(ended: Any, error: type[Exception]) -> None:
    """The crawl gave up after the third try, and said so once."""
    assert [type(one) for one in ended.errors] == [error]
    assert ended.stats["retry/count"] == 2
    assert ended.stats["retry/max_reached"] == 1
    assert ended.stats[f"retry/reason_count/scrapy.exceptions.{error.__name__}"] == 2
    assert ended.stats["downloader/exception_count"] == 3


@beyond_stock(H2_HANGS, on=["h2"])
async def test_a_crawl_retries_a_refused_connection_twice(kind: str, transport: Transport, retrying: Any) -> None:
    ended = await crawl(kind, transport, [f"{transport.scheme}://127.0.0.1:{closed_port()}/"], settings=retrying)
    assert_retried_twice(ended, DownloadConnectionRefusedError)


@beyond_stock(H2_HANGS, on=["h2"])
async def test_a_crawl_retries_a_dns_error_twice(kind: str, transport: Transport, retrying: Any) -> None:
    with no_host_is_found():
        ended = await crawl(kind, transport, [f"{transport.scheme}://no.such.host/"], settings=retrying)
    assert_retried_twice(ended, CannotResolveHostError)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_crawl_retries_a_lost_connection_twice(
    kind: str, transport: Transport, serve: Any, retrying: Any, how: str
) -> None:
    peer = serve(transport, lambda exchange: getattr(exchange, how)())
    ended = await crawl(kind, transport, [peer.url("/")], settings=retrying)
    assert_retried_twice(ended, DownloadFailedError)
    assert len(peer.requests) == 3


async def test_a_crawl_retries_a_timeout_twice(kind: str, transport: Transport, serve: Any, retrying: Any) -> None:
    peer = serve(transport, silent)
    ended = await crawl(kind, transport, [peer.url("/")], settings={**retrying, "DOWNLOAD_TIMEOUT": 0.3})
    assert_retried_twice(ended, DownloadTimeoutError)


# 6.3


async def test_errors_reach_the_errback_as_the_value_of_the_failure(
    kind: str, transport: Transport, serve: Any
) -> None:
    peer = serve(transport, lambda exchange: exchange.close())
    ended = await crawl(kind, transport, [Request(peer.url("/"))])
    (failure,) = ended.failures
    assert isinstance(failure.value, DownloadFailedError)
    assert failure.request.url == peer.url("/")  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", ["success", "timeout", "disconnect", "no connection"])
async def test_each_request_leaves_the_downloader_once(kind: str, transport: Transport, serve: Any, case: str) -> None:
    script = {"success": works, "timeout": silent, "disconnect": lambda exchange: exchange.abort()}.get(case, works)
    peer = serve(transport, script)
    url = f"{transport.scheme}://127.0.0.1:{closed_port()}/" if case == "no connection" else peer.url("/")
    left: list[str] = []

    def leaves(request: Request, **_: Any) -> None:
        left.append(request.url)

    ended = await crawl(
        kind,
        transport,
        [url],
        settings={"DOWNLOAD_TIMEOUT": SHORT},
        receivers=[(signals.request_left_downloader, leaves)],
    )
    assert left == [url]
    assert len(ended.responses) + len(ended.errors) == 1
