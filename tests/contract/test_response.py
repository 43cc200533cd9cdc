"""The response as returned (contract, section 3)."""

from __future__ import annotations

import json
import warnings
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from scrapy import Request, signals
from scrapy.exceptions import StopDownload
from scrapy.http import HtmlResponse, Response, TextResponse
from twisted.internet.ssl import Certificate

from .certificates import self_signed
from .marks import beyond_stock, over_http1, over_tls, poolplus_only
from .peers import slow_to_start, works
from .running import Transport, gather, pairs, the_reactor

# 3.1


async def test_every_status_comes_back(transport: Transport, download: Any, site: Any) -> None:
    statuses = [status.value for status in HTTPStatus if status == 200 or status >= 400]
    for status in statuses:
        response = await download(site.url(transport, f"/status?n={status}"))
        assert response.status == status


@pytest.mark.parametrize("status", [204, 205, 304])
async def test_a_status_without_a_body_ends_at_the_head(
    transport: Transport, download: Any, serve: Any, status: int
) -> None:
    def answer(exchange: Any) -> None:
        if hasattr(exchange, "raw"):
            exchange.raw(
                b"HTTP/1.1 %d Reason\r\nX-Seen: 1\r\n%s\r\n" % (status, b"Content-Length: 0\r\n" * (status == 205))
            )
        else:
            exchange.head(status, [(b"X-Seen", b"1")])
            exchange.end()

    peer = serve(transport, answer)
    response = await download(peer.url("/"))
    assert (response.status, response.body, response.headers[b"X-Seen"]) == (status, b"", b"1")
    assert (await download(peer.url("/"))).status == status


async def test_the_url_is_that_of_the_request(transport: Transport, download: Any, site: Any) -> None:
    for path in ("/text", "/text?a=b&c=%20", "/text?data[0]=a"):
        request = Request(site.url(transport, path), meta={"verbatim_url": "[" in path})
        response = await download(request)
        assert response.url == request.url


async def test_a_fragment_may_stay_in_the_url_but_nothing_else_changes(
    transport: Transport, download: Any, site: Any
) -> None:
    response = await download(site.url(transport, "/text?a=b#c"))
    assert response.url.partition("#")[0] == site.url(transport, "/text?a=b")


# 3.2


async def test_response_headers_come_unchanged(transport: Transport, download: Any, site: Any) -> None:
    sent = {"X-Plain": "VaLue", "X-Colon": "a: b", "X-Spaces": "two  spaces", "X-Twice": ["b", "A", "b"]}
    response = await download(site.url(transport, "/headers"), method="POST", body=json.dumps(sent))
    for name, value in sent.items():
        values = value if isinstance(value, list) else [value]
        assert response.headers.getlist(name) == [one.encode() for one in values]


async def test_repeated_headers_come_as_separate_values(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/set-cookie"))
    assert response.headers.getlist(b"Set-Cookie") == [b"a=b", b"c=d"]


@beyond_stock("decodes as UTF-8", on=["h2"])
async def test_latin_1_bytes_in_response_headers_pass(transport: Transport, download: Any, serve: Any) -> None:
    value = "caf\xe9 \xa3 \xff".encode("latin-1")

    def answer(exchange: Any) -> None:
        exchange.respond(headers=[(b"X-Latin", value)], body=b"x")

    response = await download(serve(transport, answer).url("/"), meta={"download_timeout": 2})
    assert response.headers[b"X-Latin"] == value


async def test_no_response_header_is_added(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/text"))
    assert set(response.headers) == {b"Content-Length", b"Content-Type", b"Date", b"Server"}
    assert response.headers[b"Content-Length"] == b"5"


async def test_a_length_that_the_server_did_not_send_is_not_added(
    transport: Transport, download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        exchange.respond(headers=[(b"X-A", b"1")], body=b"some body", announce=False)

    response = await download(serve(transport, answer).url("/"))
    assert response.body == b"some body"
    assert b"Content-Length" not in response.headers


@pytest.mark.parametrize("length", [0, 5])
async def test_the_length_that_the_server_sent_is_there_once(
    transport: Transport, download: Any, serve: Any, length: int
) -> None:
    def answer(exchange: Any) -> None:
        exchange.respond(body=b"x" * length)

    response = await download(serve(transport, answer).url("/"))
    assert response.headers.getlist(b"Content-Length") == [b"%d" % length]


# 3.3


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (b"text/html", b"<html></html>", HtmlResponse),
        (b"text/html", b"", HtmlResponse),
        (b"", b"<!DOCTYPE html>\n<title>.</title>", HtmlResponse),
        (b"", b"foo", TextResponse),
        (b"text/plain", b"foo", TextResponse),
        (b"application/json", b"{}", None),
        (b"application/octet-stream", b"\x00\x01", Response),
        (b"image/png", b"\x89PNG", None),
    ],
)
async def test_the_class_follows_type_and_body(
    transport: Transport, download: Any, serve: Any, content_type: bytes, body: bytes, expected: type[Response] | None
) -> None:
    from scrapy.responsetypes import responsetypes

    def answer(exchange: Any) -> None:
        exchange.respond(headers=[(b"Content-Type", content_type)], body=body)

    response = await download(serve(transport, answer).url("/"))
    if expected is None:
        expected = responsetypes.from_args(headers=response.headers, url=response.url, body=body)
    assert type(response) is expected
    assert response.body == body


# 3.4


async def test_the_protocol_is_named(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/text"))
    assert response.protocol == transport.protocol


@over_http1
async def test_the_protocol_is_the_one_of_the_status_line(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, lambda exchange: exchange.raw(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    response = await download(peer.url("/"))
    assert (response.protocol, response.body) == ("HTTP/1.0", b"ok")


# 3.5


@pytest.mark.parametrize("path", ["/text", "/status?n=200", "/chunked"])
async def test_the_address_of_the_peer_is_there(transport: Transport, download: Any, site: Any, path: str) -> None:
    response = await download(site.url(transport, path))
    assert response.ip_address == IPv4Address("127.0.0.1")
    assert isinstance(response.ip_address, IPv4Address)


async def test_the_address_of_an_ipv6_peer_is_there(transport: Transport, download: Any, serve: Any) -> None:
    try:
        peer = serve(transport, works, interface="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    response = await download(peer.url("/", host="[::1]"))
    assert response.ip_address == IPv6Address("::1")
    assert peer.requests[-1].authorities == [b"[::1]:%d" % peer.port]


async def test_the_address_is_there_for_every_response_of_a_connection(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, lambda exchange: exchange.respond(body=b"x" * (exchange.request.target == b"/body")))
    for path in ("/body", "/empty", "/body", "/empty"):
        assert (await download(peer.url(path))).ip_address == IPv4Address("127.0.0.1")
    assert len(peer.connections) == 1


# 3.6


def common_names(certificate: Any) -> tuple[str, str]:
    """Subject and issuer of a response's certificate."""
    assert isinstance(certificate, Certificate)
    with warnings.catch_warnings():
        # Twisted's Certificate reads names by what pyOpenSSL calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        return tuple(  # type: ignore[return-value]
            dict(name)["commonName"].decode() for name in (certificate.getSubject(), certificate.getIssuer())
        )


@pytest.mark.parametrize("body", [b"x", b""], ids=["body", "empty"])
async def test_the_certificate_is_there_over_tls_only(
    transport: Transport, download: Any, serve: Any, body: bytes
) -> None:
    certificate = self_signed("localhost", dns=("localhost",), ip=("127.0.0.1",))
    peer = serve(transport, lambda exchange: exchange.respond(body=body), certificate=certificate)
    response = await download(peer.url("/"))
    if transport.secure:
        assert common_names(response.certificate) == ("localhost", "localhost")
    else:
        assert response.certificate is None


@over_tls
async def test_the_certificate_is_there_for_every_response_of_a_connection(
    transport: Transport, download: Any, serve: Any
) -> None:
    certificate = self_signed("localhost", dns=("localhost",), ip=("127.0.0.1",))
    peer = serve(
        transport,
        lambda exchange: exchange.respond(body=b"x" * (exchange.request.target == b"/body")),
        certificate=certificate,
    )
    for path in ("/empty", "/body", "/empty", "/body"):
        assert common_names((await download(peer.url(path))).certificate) == ("localhost", "localhost")
    responses = await gather(*(download(peer.url("/body")) for _ in range(4)))
    assert {common_names(response.certificate) for response in responses} == {("localhost", "localhost")}
    if transport.is_h2:
        assert len(peer.connections) == 1


# 3.7


async def test_an_ordinary_response_has_no_flags(transport: Transport, download: Any, site: Any) -> None:
    for path in ("/text", "/chunked", "/status?n=404"):
        assert (await download(site.url(transport, path))).flags == []


@over_http1
async def test_a_body_that_only_the_close_ends_is_partial(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        exchange.close()

    response = await download(serve(transport, answer).url("/"))
    assert (response.status, response.body, response.flags) == (200, b"all of it", ["partial"])


async def test_a_stopped_download_is_flagged(transport: Transport, download: Any, site: Any) -> None:
    def stop(**_: Any) -> None:
        raise StopDownload(fail=False)

    download.on(signals.headers_received, stop)
    response = await download(site.url(transport, "/text"))
    assert response.flags == ["download_stopped"]


# 3.8


async def test_the_latency_is_written_to_the_meta(transport: Transport, download: Any, site: Any) -> None:
    request = Request(site.url(transport, "/text"))
    await download(request)
    assert request.meta["download_latency"] > 0
    assert isinstance(request.meta["download_latency"], float)


async def test_nothing_else_is_written_to_the_meta(transport: Transport, download: Any, site: Any) -> None:
    request = Request(site.url(transport, "/text"), meta={"mine": 1, "download_timeout": 9.0})
    await download(request)
    assert request.meta.keys() - {"download_latency"} == {"mine", "download_timeout"}


async def test_what_the_server_takes_counts_as_latency(transport: Transport, download: Any, serve: Any) -> None:
    held: list[float] = []

    def answer(exchange: Any) -> None:
        begun = the_reactor().seconds()

        def respond() -> None:
            held.append(the_reactor().seconds() - begun)
            works(exchange)

        the_reactor().callLater(0.2, respond)

    request = Request(serve(transport, answer).url("/"))
    await download(request)
    assert request.meta["download_latency"] > held[0] * 0.95


@beyond_stock("counts connecting too")
@over_tls
async def test_connecting_does_not_count_as_latency(transport: Transport, download: Any, serve: Any) -> None:
    # AutoThrottle must see the server, not the handshake; that is reported apart.
    held: list[float] = []
    peer = serve(transport, works, protocol=slow_to_start(transport, 0.4, held))
    request = Request(peer.url("/"))
    await download(request)
    assert len(held) == 1
    assert 0 < request.meta["download_latency"] < held[0]
    assert download.crawler.stats.get_value("poolplus/dial/seconds_total") > held[0] * 0.95


@poolplus_only("limits the pool")
async def test_waiting_in_the_pool_does_not_count_as_latency(transport: Transport, downloads: Any, serve: Any) -> None:
    hold = 0.4

    def answer(exchange: Any) -> None:
        if exchange.request.target == b"/first":
            the_reactor().callLater(hold, works, exchange)
        else:
            works(exchange)

    peer = serve(transport, answer)
    download = downloads(transport, POOLPLUS_POLICY={"max_connections": 1, "max_streams": 1})
    first, second = Request(peer.url("/first")), Request(peer.url("/second"))
    await gather(download(first), download(second))
    assert [request.target for request in peer.requests] == [b"/first", b"/second"]
    assert 0 < second.meta["download_latency"] < hold * 0.95 < first.meta["download_latency"]
    assert download.crawler.stats.get_value("poolplus/wait/seconds_total") > hold * 0.95


@beyond_stock("measures to the end of the body", on=["h2"])
async def test_the_body_does_not_count_as_latency(transport: Transport, download: Any, serve: Any) -> None:
    # The head comes at once and the body once the client has seen the head, a while later.
    hold = 0.4

    def answer(exchange: Any) -> None:
        exchange.head(200, length=4)
        the_reactor().callLater(hold, exchange.data, b"late")
        the_reactor().callLater(hold, exchange.end)

    request = Request(serve(transport, answer).url("/"))
    begun = the_reactor().seconds()
    response = await download(request)
    took = the_reactor().seconds() - begun
    assert response.body == b"late"
    assert 0 < request.meta["download_latency"] < took - hold / 2


# 3.9


async def test_pieces_without_a_length_are_joined(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/chunked"))
    assert response.body == b"chunked content"


@over_http1
async def test_chunks_with_extensions_and_trailers_are_joined(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.raw(b"4;name=value\r\nfour\r\n0B\r\nten ")
        exchange.raw(b"letters\r\n0\r\nX-Trailer: 1\r\n\r\n")

    peer = serve(transport, answer)
    for _ in range(2):
        assert (await download(peer.url("/"))).body == b"fourten letters"


@pytest.mark.parametrize("announce", ["1", "0"], ids=["announced", "unannounced"])
@pytest.mark.parametrize("size", [2**20, 3 * 2**20 + 1], ids=["1MiB", "3MiB"])
async def test_large_bodies_come_whole(
    transport: Transport, download: Any, site: Any, size: int, announce: str
) -> None:
    response = await download(site.url(transport, f"/large?size={size}&announce={announce}"))
    assert len(response.body) == size
    assert response.body == (bytes(range(256)) * (size // 256 + 1))[:size]


# 3.10


@over_http1
async def test_a_folded_header_line_is_one_value(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\nX-After: 3\r\nContent-Length: 4\r\n\r\nbody")

    response = await download(serve(transport, answer).url("/"))
    assert response.headers[b"X-Folded"] == b"one two"
    assert response.headers[b"X-After"] == b"3"
    assert response.body == b"body"


@over_http1
async def test_a_header_line_without_a_colon_is_skipped_and_the_rest_is_read(
    transport: Transport, download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(
            b"HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\nno colon here\r\n folded to it\r\n"
            b"X-After: 3\r\nContent-Length: 4\r\n\r\nbody"
        )

    response = await download(serve(transport, answer).url("/"))
    assert dict(pairs(response.headers.items())) == {b"X-Folded": b"one two", b"X-After": b"3", b"Content-Length": b"4"}
    assert response.body == b"body"


# 3.11


@over_http1
async def test_bare_line_feeds_are_read_to_the_end_of_the_connection(
    transport: Transport, download: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\nX-Header: value\nServer: odd\n\n<html>no carriage return\nanywhere</html>")
        exchange.close()

    response = await download(serve(transport, answer).url("/"))
    assert response.status == 200
    assert response.headers[b"X-Header"] == b"value"
    assert response.body == b"<html>no carriage return\nanywhere</html>"
