"""HTTP/2 (contract, section 9)."""

from __future__ import annotations

from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import PushPromiseFrame
from scrapy import exceptions
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
)

from .marks import beyond_stock, poolplus_only
from .peers import Http2Connection, SilentConnection, works
from .resolving import no_host_is_found, resolved_to_loopback
from .running import H2, HTTP, HTTPS1, Transport, gather, outcomes, until
from .test_errors import closed_port

ONE_CONNECTION = {"POOLPLUS_POLICY": {"max_connections": 1}}


@pytest.fixture
def transport() -> Transport:
    """https with h2."""
    return H2


def raw_frame(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    """A frame as it goes over the wire (RFC 9113 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


# 9.1


async def test_requests_one_after_the_other_use_one_connection(download: Any, serve: Any) -> None:
    peer = serve(H2, works)
    assert (await download(peer.url("/"))).body == b"Works"
    assert (await download(peer.url("/"), method="POST", body=b"x" * 100)).body == b"Works"
    assert [request.body for request in peer.requests] == [b"", b"x" * 100]
    assert len(peer.connections) == 1


async def test_requests_at_once_share_a_connection(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        if len(peer.requests) == 10:
            for one in reversed(peer.exchanges):
                one.respond(body=one.request.target)

    peer = serve(H2, answer)
    responses = await gather(*(download(peer.url(f"/{number}")) for number in range(10)))
    assert [response.body for response in responses] == [f"/{number}".encode() for number in range(10)]
    assert len(peer.connections) == 1


@pytest.mark.parametrize("limit", [1, 4])
async def test_not_more_streams_than_the_server_allows(downloads: Any, serve: Any, limit: int) -> None:
    peer = serve(H2, works, settings={SettingCodes.MAX_CONCURRENT_STREAMS: limit})
    download = downloads(H2, **ONE_CONNECTION)
    # The server's word comes with the first response at the latest; before it 100 streams may be assumed.
    await download(peer.url("/"))
    responses = await gather(*(download(peer.url("/")) for _ in range(20)))
    assert [response.status for response in responses] == [200] * 20
    assert [connection.most_streams for connection in peer.connections] == [limit]


async def test_not_more_than_100_streams_at_once(downloads: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        if len(peer.requests) < 100:
            return
        for one in peer.exchanges[:100] if len(peer.requests) == 100 else [exchange]:
            one.respond(body=one.request.target)

    peer = serve(H2, answer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1_000})
    download = downloads(H2, **ONE_CONNECTION)
    responses = await gather(*(download(peer.url(f"/{number}")) for number in range(150)))
    assert [response.body for response in responses] == [f"/{number}".encode() for number in range(150)]
    assert [connection.most_streams for connection in peer.connections] == [100]


async def test_waiting_requests_are_sent_first_in_first_out(downloads: Any, serve: Any) -> None:
    peer = serve(H2, works, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    download = downloads(H2, **ONE_CONNECTION)
    await download(peer.url("/first"))
    await gather(*(download(peer.url(f"/{number}")) for number in range(30)))
    assert [request.target for request in peer.requests[1:]] == [f"/{number}".encode() for number in range(30)]


async def test_500_requests_at_once_all_succeed(download: Any, site: Any) -> None:
    responses = await gather(*(download(site.url(H2, f"/text?{number}")) for number in range(500)))
    assert [response.body for response in responses] == [b"Works"] * 500
    assert [response.url for response in responses] == [site.url(H2, f"/text?{number}") for number in range(500)]


@beyond_stock("opens no second connection")
async def test_the_stream_limit_of_a_server_opens_further_connections(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        # The first tells of the limit. Then everybody waits for the last one: only a further connection has room for it.
        if len(peer.requests) in {1, 21}:
            for one in peer.exchanges[len(peer.requests) // 21 :]:
                one.respond()

    peer = serve(H2, answer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 4})
    await download(peer.url("/"))
    responses = await gather(*(download(peer.url("/"), meta={"download_timeout": 5}) for _ in range(20)))
    assert [response.status for response in responses] == [200] * 20
    assert len(peer.connections) >= 5


# 9.2


async def test_large_bodies_both_ways_ten_at_once(download: Any, site: Any) -> None:
    bodies = [bytes([number]) * 2**20 for number in range(10)]
    responses = await gather(
        *(download(site.url(H2, "/payload"), method="POST", body=body) for body in bodies),
    )
    assert [response.body for response in responses] == bodies


async def test_a_body_waits_for_a_small_window_of_the_server(download: Any, serve: Any) -> None:
    peer = serve(H2, works, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1_000})
    body = bytes(range(256)) * 100
    await download(peer.url("/"))
    await download(peer.url("/"), method="POST", body=body)
    assert peer.requests[-1].body == body


@pytest.mark.parametrize("size", [None, 16_384, 32_768])
async def test_the_frame_size_setting_is_announced(downloads: Any, serve: Any, size: int | None) -> None:
    peer = serve(H2, works)
    await downloads(H2, **({"HTTP2_MAX_FRAME_SIZE": size} if size else {}))(peer.url("/"))
    assert peer.connections[0].h2.remote_settings.max_frame_size == (size or 16_384)


async def test_frames_up_to_the_announced_size_are_read(downloads: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.respond(body=b"x" * 50_000)

    peer = serve(H2, answer)
    response = await downloads(H2, HTTP2_MAX_FRAME_SIZE=32_768)(peer.url("/"))
    assert response.body == b"x" * 50_000
    assert peer.connections[0].h2.max_outbound_frame_size == 32_768


# 9.3


def promise(exchange: Any) -> bytes:
    """PUSH_PROMISE of stream 2 on the exchange's stream, whatever the client's SETTINGS say."""
    connection = exchange.connection
    frame = PushPromiseFrame(exchange.stream)
    frame.promised_stream_id = 2
    frame.data = connection.h2.encoder.encode(
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"127.0.0.1"), (b":path", b"/pushed")]
    )
    frame.flags.add("END_HEADERS")
    data: bytes = frame.serialize()
    return data


class AcknowledgesLate(Http2Connection):
    """Holds what it has to say, the acknowledgement of SETTINGS included, until it is let go."""

    def connectionMade(self) -> None:
        self.holding = False
        super().connectionMade()
        self.holding = True

    def flush(self) -> None:
        if not self.holding:
            super().flush()

    def go_on(self, first: bytes) -> None:
        """Send `first`, then all that was held."""
        self.holding = False
        self.write(first)
        super().flush()


@beyond_stock("does not send before SETTINGS are acknowledged")
async def test_a_push_before_our_settings_are_acknowledged_is_refused_and_the_response_comes(
    download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        if len(peer.requests) == 1:
            exchange.connection.go_on(promise(exchange))
        exchange.respond(body=b"asked for")

    peer = serve(H2, answer, protocol=AcknowledgesLate)
    assert (await download(peer.url("/"), meta={"download_timeout": 3})).body == b"asked for"
    (connection,) = peer.connections
    await until(lambda: raw_frame(3, 2, bytes(4))[:9] in connection.received, "RST_STREAM of the pushed stream")
    assert (await download(peer.url("/"))).body == b"asked for"
    assert len(peer.connections) == 1


async def test_a_push_that_was_forbidden_ends_every_request(download: Any, serve: Any) -> None:
    # RFC 9113 8.4: a connection error. The request gets its response, by a replay, or an error of Scrapy.
    def answer(exchange: Any) -> None:
        if len(peer.requests) == 1:
            exchange.connection.write(promise(exchange))
        exchange.respond(body=b"asked for")

    peer = serve(H2, answer)
    (outcome,) = await outcomes(download(peer.url("/")))
    assert isinstance(outcome, DownloadFailedError) or getattr(outcome, "body", None) == b"asked for"


# 9.4


async def test_frames_of_an_unknown_type_are_ignored(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.connection.write(raw_frame(0xFA, 0, b"for the connection", flags=0xFF))
        exchange.connection.write(raw_frame(0xFB, exchange.stream, b"for the stream"))
        exchange.connection.write(raw_frame(0xFC, 0, b""))
        works(exchange)

    peer = serve(H2, answer)
    for _ in range(2):
        assert (await download(peer.url("/"))).body == b"Works"
    assert len(peer.connections) == 1


async def test_data_over_the_frame_size_fails_the_connection(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200)
        exchange.connection.write(raw_frame(0, exchange.stream, b"x" * 16_385))

    peer = serve(H2, answer)
    with pytest.raises(DownloadFailedError):
        await download(peer.url("/"))
    await peer.connections[0].lost.wait()


# 9.5


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.PROTOCOL_ERROR])
async def test_a_reset_instead_of_an_answer(download: Any, serve: Any, code: ErrorCodes) -> None:
    peer = serve(H2, lambda exchange: exchange.reset(code))
    with pytest.raises(DownloadFailedError):
        await download(peer.url("/"))


async def test_a_reset_in_the_answer(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.head(200)
        exchange.data(b"some")
        exchange.reset()

    with pytest.raises(DownloadFailedError):
        await download(serve(H2, answer).url("/"))


async def test_a_reset_costs_only_its_stream(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/reset":
            exchange.reset()
            peer.exchanges[0].respond(body=b"fine")

    peer = serve(H2, answer)

    async def reset() -> None:
        await peer.arrived(1)
        with pytest.raises(DownloadFailedError):
            await download(peer.url("/reset"))

    response, _ = await gather(download(peer.url("/fine")), reset())
    assert response.body == b"fine"
    assert len(peer.connections) == 1


@pytest.mark.parametrize("closing", [True, False], ids=["closed", "left open"])
@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.PROTOCOL_ERROR])
async def test_goaway_instead_of_an_answer(download: Any, serve: Any, code: ErrorCodes, closing: bool) -> None:
    def answer(exchange: Any) -> None:
        exchange.connection.h2.close_connection(code)
        exchange.connection.flush()
        if closing:
            exchange.close()

    with pytest.raises(DownloadFailedError):
        await download(serve(H2, answer).url("/"), meta={"download_timeout": 5})


async def test_an_orderly_goaway_and_a_close_instead_of_an_answer(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.connection.h2.close_connection(ErrorCodes.NO_ERROR)
        exchange.connection.flush()
        exchange.close()

    with pytest.raises(DownloadFailedError):
        await download(serve(H2, answer).url("/"), meta={"download_timeout": 5})


# 9.6


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"HTTP/2.0 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n", id="2.0"),
        pytest.param(b"HTTP/2.0 405 Method Not Allowed", id="no line end"),
        pytest.param(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n", id="1.1", marks=beyond_stock("knows one text")),
    ],
)
async def test_text_instead_of_frames_fails_at_once(download: Any, serve: Any, text: bytes) -> None:
    peer = serve(H2, protocol=SilentConnection, script=lambda connection: connection.write(text))
    with pytest.raises(DownloadFailedError, match="405 Method Not Allowed"):
        await download(peer.url("/"), meta={"download_timeout": 5})
    await peer.connections[0].lost.wait()


async def test_text_instead_of_frames_once_the_request_has_come(download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.connection.write(b"HTTP/2.0 405 Method Not Allowed\r\n\r\n")

    with pytest.raises(DownloadFailedError):
        await download(serve(H2, answer).url("/"))


# 9.7


@beyond_stock("they are only found by the time-out")
async def test_a_refused_connection_and_an_unknown_host_fail_every_request_at_once(download: Any) -> None:
    meta = {"download_timeout": 5}
    with no_host_is_found():
        refused = [download(f"https://127.0.0.1:{closed_port()}/", meta=meta) for _ in range(3)]
        unknown = [download("https://no.such.host/", meta=meta) for _ in range(3)]
        ended = await outcomes(*refused, *unknown)
    assert [type(one) for one in ended] == [DownloadConnectionRefusedError] * 3 + [CannotResolveHostError] * 3


# 9.8


@poolplus_only("the idle time-out is a setting of ours")
@pytest.mark.parametrize("protocol", [HTTP, HTTPS1, H2], ids=lambda one: one.name)
async def test_an_idle_connection_is_closed(downloads: Any, serve: Any, protocol: Transport) -> None:
    peer = serve(protocol, works)
    download = downloads(protocol, POOLPLUS_POLICY={"idle_timeout": 0.2})
    await download(peer.url("/"))
    await peer.connections[0].lost.wait()
    assert (await download(peer.url("/"))).body == b"Works"
    assert len(peer.connections) == 2


class Deaf(Http2Connection):
    """Reads nothing more, answers no PING, once it is told so."""

    deaf = False

    def dataReceived(self, data: bytes) -> None:
        if not self.deaf:
            super().dataReceived(data)


@poolplus_only("pings are ours")
async def test_the_streams_of_a_silent_connection_fail(downloads: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.connection.deaf = True

    peer = serve(H2, answer, protocol=Deaf)
    download = downloads(H2, POOLPLUS_POLICY={"ping_interval": 0.2, "ping_timeout": 0.2, "max_replays": 0})
    ended = await outcomes(*(download(peer.url("/"), meta={"download_timeout": 5}) for _ in range(2)))
    assert "took longer than 5 seconds" not in str(ended)
    assert {type(one) for one in ended} <= {DownloadTimeoutError, DownloadFailedError}
    await peer.connections[0].lost.wait()


async def test_streams_that_were_never_sent_end_with_their_connection(downloads: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        if len(peer.requests) == 1:
            works(exchange)

    peer = serve(H2, answer, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    download = downloads(H2, **ONE_CONNECTION)
    await download(peer.url("/"))

    async def end_it() -> None:
        await peer.arrived(2)
        await peer.stop_listening()
        for connection in peer.connections:
            connection.abort()

    *ended, _ = await outcomes(*(download(peer.url("/"), meta={"download_timeout": 3}) for _ in range(4)), end_it())
    assert len(peer.requests) == 2
    for error in ended:
        assert isinstance(error, Exception)
        assert type(error).__module__ == exceptions.__name__
        assert not isinstance(error, DownloadTimeoutError)


# 9.9


async def test_a_connection_is_for_one_host_and_port(download: Any, serve: Any) -> None:
    peers = [serve(H2, works), serve(H2, works)]
    with resolved_to_loopback():
        for _ in range(2):
            for host in ("one.example", "two.example"):
                for peer in peers:
                    assert (await download(peer.url("/", host=host))).body == b"Works"
    for peer in peers:
        assert len(peer.connections) == 2
        assert sorted(peer.names) == [b"one.example", b"two.example"]
        seen = [request.authorities[0].split(b":")[0] for request in peer.requests]
        assert seen == [b"one.example", b"two.example"] * 2


async def test_a_connection_is_for_one_scheme(download: Any, serve: Any) -> None:
    if download.handler.__class__.__name__ == "H2DownloadHandler":
        pytest.skip("knows no http")
    secure, clear = serve(H2, works), serve(HTTP, works)
    for _ in range(2):
        assert (await download(secure.url("/"))).protocol == "h2"
        assert (await download(clear.url("/"))).protocol == "HTTP/1.1"
    assert (len(secure.connections), len(clear.connections)) == (1, 1)


# 9.10


async def test_a_response_without_a_length_is_fine(download: Any, serve: Any) -> None:
    peer = serve(H2, lambda exchange: exchange.respond(body=b"no length", announce=False))
    response = await download(peer.url("/"))
    assert response.body == b"no length"
    assert b"Content-Length" not in response.headers


async def test_query_strings_arrive_unchanged(download: Any, serve: Any) -> None:
    peer = serve(H2, works)
    await download(peer.url("/path?a=1&b=%20%2B&c"))
    assert peer.requests[-1].target == b"/path?a=1&b=%20%2B&c"


@beyond_stock("speaks h2 all the same, to the time-out")
@pytest.mark.parametrize("alpn", [(b"http/1.1",), ()], ids=["other", "none"])
async def test_an_h2_only_client_fails_where_the_server_has_no_h2(
    downloads: Any, serve: Any, alpn: tuple[bytes, ...]
) -> None:
    from .test_tls import mine

    peer = serve(HTTPS1, works, context=mine().context(alpn=alpn))
    download = downloads(H2, POOLPLUS_POLICY={"protocols": ["h2"]})
    with pytest.raises(DownloadFailedError):
        await download(peer.url("/"), meta={"download_timeout": 5})


# 9.11


@beyond_stock("answers with a response 499 of its own making")
async def test_connect_as_a_method_fails_and_costs_nobody_else(download: Any, serve: Any) -> None:
    peer = serve(H2, works)
    assert (await download(peer.url("/"))).body == b"Works"
    (outcome,) = await outcomes(download(peer.url("/"), method="CONNECT", meta={"download_timeout": 3}))
    assert isinstance(outcome, Exception)
    assert (await download(peer.url("/"))).body == b"Works"
