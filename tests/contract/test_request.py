"""The request as sent (contract, section 2)."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from scrapy import Request
from scrapy.exceptions import UnsupportedURLSchemeError

from tests.versions import verbatim_url

from .crawls import crawl
from .marks import beyond_stock, over_h2, over_http1
from .peers import works
from .resolving import resolved_to_loopback
from .running import H2, Transport

FRAMING = {b"host", b"connection", b"content-length"}
CONTENT_LENGTH_LOGGER = "scrapy.core._http2.stream"


async def sent(peer: Any, download: Any, **arguments: Any) -> Any:
    """What the peer saw of one request."""
    arguments.setdefault("url", peer.url("/"))
    response = await download(Request(**arguments))
    assert response.status == 200
    return peer.requests[-1]


# 2.1


async def test_header_values_are_sent_unchanged(transport: Transport, download: Any, serve: Any) -> None:
    values = {
        "X-Plain": "A value in MIXED case",
        "X-Spaces": "two  spaces, and: a colon",
        "Accept-Language": "de;q=0.7, en",
        "X-Empty": "",
    }
    seen = await sent(serve(transport, works), download, headers=values)
    for name, value in values.items():
        assert seen.values(name.encode()) == [value.encode()]


@pytest.mark.parametrize(
    "headers",
    [{"X-Custom": ["foo", "Bar", "foo"]}, [("X-Custom", "foo"), ("X-Custom", "Bar"), ("X-Custom", "foo")]],
    ids=["list", "pairs"],
)
async def test_a_repeated_header_is_sent_with_all_values_in_order(
    transport: Transport, download: Any, serve: Any, headers: Any
) -> None:
    seen = await sent(serve(transport, works), download, headers=headers)
    assert seen.values(b"X-Custom") == [b"foo", b"Bar", b"foo"]


async def test_a_header_without_a_value_is_not_sent(transport: Transport, download: Any, serve: Any) -> None:
    seen = await sent(serve(transport, works), download, headers={"X-None": None, "X-Some": "1"})
    assert b"x-none" not in seen.names
    assert seen.values(b"X-Some") == [b"1"]


@beyond_stock("reads header values as UTF-8", on=["h2"])
async def test_latin_1_bytes_in_header_values_pass(transport: Transport, download: Any, serve: Any) -> None:
    value = "café £ \xff".encode("latin-1")
    seen = await sent(serve(transport, works), download, headers={b"X-Latin": value})
    assert seen.values(b"X-Latin") == [value]


@over_http1
async def test_header_names_are_sent_in_the_case_they_have(transport: Transport, download: Any, serve: Any) -> None:
    seen = await sent(serve(transport, works), download, headers={"x-lower-case": "1", "X-Second": "2"})
    assert [name for name, _ in seen.headers if name.lower().startswith(b"x-")] == [b"X-Lower-Case", b"X-Second"]


@over_h2
async def test_header_names_are_sent_in_lower_case_over_h2(transport: Transport, download: Any, serve: Any) -> None:
    seen = await sent(serve(transport, works), download, headers={"X-First": "1", "X-Second": "2"})
    assert [name for name, _ in seen.headers if name.startswith(b"x-")] == [b"x-first", b"x-second"]
    assert all(name == name.lower() for name, _ in seen.headers)


# 2.2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("body", [b"", b"body"], ids=["empty", "body"])
async def test_nothing_is_added_to_a_request(
    transport: Transport, download: Any, serve: Any, method: str, body: bytes
) -> None:
    seen = await sent(serve(transport, works), download, method=method, body=body)
    assert seen.method == method.encode()
    assert seen.body == body
    assert seen.names <= FRAMING
    assert {name for name, _ in seen.pseudo} == (
        {b":method", b":scheme", b":path", b":authority"} if transport.is_h2 else set()
    )


async def test_only_the_given_headers_are_added_to_the_framing(transport: Transport, download: Any, serve: Any) -> None:
    seen = await sent(serve(transport, works), download, headers={"X-Only": "this"}, method="POST", body=b"x")
    assert seen.names - FRAMING == {b"x-only"}


@over_http1
@beyond_stock("uses the connection again")
async def test_a_given_connection_header_is_sent_and_kept_to(transport: Transport, download: Any, serve: Any) -> None:
    # The server ignores it; the client has said that it is the last request.
    peer = serve(transport, works)
    for _ in range(2):
        seen = await sent(peer, download, headers={"Connection": "close"})
        assert seen.values(b"Connection") == [b"close"]
    assert len(peer.connections) == 2


@over_h2
async def test_headers_that_are_forbidden_over_h2_are_not_sent(transport: Transport, download: Any, serve: Any) -> None:
    headers = {"Connection": "keep-alive", "Keep-Alive": "timeout=5", "Transfer-Encoding": "chunked", "X-Mine": "1"}
    seen = await sent(serve(transport, works), download, headers=headers, method="POST", body=b"x")
    assert seen.names - FRAMING == {b"x-mine"}
    assert b"connection" not in seen.names


# 2.3


async def test_the_host_is_that_of_the_url_with_its_port(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, works)
    seen = await sent(peer, download)
    assert seen.authorities == [b"127.0.0.1:%d" % peer.port]


@beyond_stock("fails with an h2 ProtocolError", on=["h2"])
async def test_a_given_host_is_sent_once_with_its_value(transport: Transport, download: Any, serve: Any) -> None:
    seen = await sent(serve(transport, works), download, headers={"Host": "other.example:81"})
    assert seen.authorities == [b"other.example:81"]


@beyond_stock("fails with an h2 ProtocolError for a given Host", on=["h2"])
async def test_the_headers_of_the_request_object_are_not_changed(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    for headers in ({}, {"Host": "other.example"}, {"X-A": ["1", "2"], "Content-Length": "5", "Connection": "close"}):
        request = Request(peer.url("/"), headers=headers, method="POST", body=b"12345")
        before = request.headers.copy()
        await download(request)
        assert request.headers == before
        assert list(request.headers) == list(before)


async def test_the_request_object_keeps_its_body_url_and_method(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    request = Request(peer.url("/a?b=c#fragment"), method="PUT", body=b"body")
    await download(request)
    assert (request.url, request.method, request.body) == (peer.url("/a?b=c#fragment"), "PUT", b"body")


# 2.4


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_body_is_sent_with_its_length_whatever_the_method(
    transport: Transport, download: Any, serve: Any, method: str
) -> None:
    seen = await sent(serve(transport, works), download, method=method, body=b"some body")
    assert seen.body == b"some body"
    assert seen.values(b"Content-Length") == [b"9"]


async def test_a_posted_body_arrives_whole_and_comes_back_whole(transport: Transport, download: Any, site: Any) -> None:
    body = bytes(range(100))
    response = await download(site.url(transport, "/payload"), method="POST", body=body)
    assert response.body == body


# 2.5


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_post_without_a_body_says_length_0_once(
    transport: Transport, download: Any, serve: Any, method: str
) -> None:
    seen = await sent(serve(transport, works), download, method=method)
    assert seen.values(b"Content-Length") == [b"0"]


@over_http1
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_a_get_without_a_body_says_no_length(
    transport: Transport, download: Any, serve: Any, method: str
) -> None:
    seen = await sent(serve(transport, works), download, method=method)
    assert seen.values(b"Content-Length") == []
    assert seen.values(b"Transfer-Encoding") == []


# 2.6


@beyond_stock("sends it twice over HTTP/1.1", on=["http", "https1"])
async def test_a_right_content_length_is_sent_once_and_silently(
    transport: Transport, download: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen = await sent(serve(transport, works), download, method="POST", body=b"12345", headers={"Content-Length": "5"})
    assert seen.values(b"Content-Length") == [b"5"]
    assert "Content-Length" not in caplog.text


@beyond_stock("sends both over HTTP/1.1, or the wrong one", on=["http", "https1"])
@pytest.mark.parametrize(
    ("method", "body", "given", "true"), [("GET", b"", "1", "0"), ("POST", b"12345", "3", "5")], ids=["none", "wrong"]
)
async def test_a_wrong_content_length_is_corrected_with_a_warning(
    transport: Transport,
    download: Any,
    serve: Any,
    caplog: pytest.LogCaptureFixture,
    method: str,
    body: bytes,
    given: str,
    true: str,
) -> None:
    peer = serve(transport, works)
    seen = await sent(
        peer, download, method=method, body=body, headers={"Content-Length": given}, meta={"download_timeout": 2}
    )
    assert seen.body == body
    assert seen.values(b"Content-Length") == [true.encode()]
    assert [record.getMessage() for record in caplog.records if record.name == CONTENT_LENGTH_LOGGER] == [
        f"Ignoring bad Content-Length header '{given}' of request <{method} {peer.url('/')}>, sending '{true}' instead"
    ]
    assert [record.levelno for record in caplog.records if record.name == CONTENT_LENGTH_LOGGER] == [logging.WARNING]


@beyond_stock("sends each of them over HTTP/1.1", on=["http", "https1"])
async def test_of_several_content_lengths_only_the_true_one_is_sent(
    transport: Transport, download: Any, serve: Any
) -> None:
    seen = await sent(
        serve(transport, works), download, method="POST", body=b"12345", headers={"Content-Length": ["5", "7", "5"]}
    )
    assert seen.values(b"Content-Length") == [b"5"]


# 2.7


def _head_answer(exchange: Any) -> None:
    status = int(exchange.request.target.rpartition(b"/")[2])
    exchange.head(status, [(b"Location", b"/elsewhere")] if status == 302 else [], length=1_000)
    if hasattr(exchange, "stream"):
        exchange.end()


@pytest.mark.parametrize("status", [200, 302, 404])
async def test_a_head_response_is_not_waited_for_a_body(
    transport: Transport, download: Any, serve: Any, status: int
) -> None:
    peer = serve(transport, _head_answer)
    response = await download(peer.url(f"/{status}"), method="HEAD")
    assert (response.status, response.body) == (status, b"")
    assert response.headers[b"Content-Length"] == b"1000"
    again = await download(peer.url(f"/{status}"), method="HEAD")
    assert again.status == status


async def test_head_over_a_real_server(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/redirect"), method="HEAD")
    assert (response.status, response.body) == (302, b"")
    assert response.headers[b"Location"] == b"/text"


# 2.8


@pytest.mark.parametrize(
    ("verbatim", "target"),
    [
        pytest.param(True, b"/uri/items?data[0]=a", id="on", marks=verbatim_url),
        pytest.param(False, b"/uri/items?data%5B0%5D=a", id="off"),
    ],
)
async def test_verbatim_url_decides_how_the_target_is_sent(
    transport: Transport, download: Any, serve: Any, verbatim: bool, target: bytes
) -> None:
    peer = serve(transport, works)
    seen = await sent(peer, download, url=peer.url("/uri/items?data[0]=a"), meta={"verbatim_url": verbatim})
    assert seen.target == target


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b/./c",
        "/%7euser/%2F?x=%zz&y",
        "/double//slash/",
        "/p?q=a+b%20c&q=&q",
        "//slash",
        pytest.param("/?", marks=[verbatim_url, beyond_stock("drops an empty query")]),
        pytest.param("/a;b=c?d=e?f", marks=beyond_stock("drops what follows a semicolon", on=["h2"])),
    ],
)
async def test_the_url_is_not_canonicalised(transport: Transport, download: Any, serve: Any, path: str) -> None:
    peer = serve(transport, works)
    request = Request(peer.url(path), meta={"verbatim_url": True})
    await download(request)
    assert peer.requests[-1].target == path.encode()


async def test_the_fragment_is_not_sent(transport: Transport, download: Any, serve: Any) -> None:
    peer = serve(transport, works)
    seen = await sent(peer, download, url=peer.url("/page?x=1#part?y#z"))
    assert seen.target == b"/page?x=1"


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        pytest.param("", b"/", id="bare"),
        pytest.param("#top", b"/", id="fragment"),
        pytest.param("?a=b", b"/?a=b", id="query", marks=beyond_stock("sends the query alone")),
    ],
)
async def test_a_url_without_a_path_asks_for_the_root(
    transport: Transport, download: Any, serve: Any, rest: str, target: bytes
) -> None:
    peer = serve(transport, works)
    seen = await sent(peer, download, url=peer.url("") + rest, meta={"verbatim_url": True})
    assert seen.target == target


@over_h2
async def test_options_for_a_url_without_a_path_is_for_the_whole_server(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    seen = await sent(peer, download, url=peer.url(""), method="OPTIONS", meta={"verbatim_url": True})
    assert seen.target == b"*"


# 2.9


@pytest.mark.parametrize("host", ["xn--i-7iq.ws", "foo_bar.example"])
async def test_hosts_that_the_idna_package_rejects_are_downloaded(
    transport: Transport, download: Any, serve: Any, host: str
) -> None:
    peer = serve(transport, works)
    with resolved_to_loopback() as asked:
        seen = await sent(peer, download, url=peer.url("/", host=host))
    assert asked == [host]
    assert seen.authorities == [f"{host}:{peer.port}".encode()]
    if transport.secure:
        assert peer.names == [host.encode()]


@verbatim_url
@beyond_stock("raises a UnicodeError")
async def test_a_host_that_verbatim_url_left_in_letters_of_its_own_is_downloaded(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    with resolved_to_loopback() as asked:
        seen = await sent(peer, download, url=peer.url("/é", host="bücher.example"), meta={"verbatim_url": True})
    assert asked == ["xn--bcher-kva.example"]
    assert seen.authorities == [f"xn--bcher-kva.example:{peer.port}".encode()]
    assert seen.target == "/é".encode()
    if transport.secure:
        assert peer.names == [b"xn--bcher-kva.example"]


# 2.10


async def test_no_cookie_is_kept_by_the_handler(transport: Transport, download: Any, serve: Any) -> None:
    def answer(exchange: Any) -> None:
        exchange.respond(headers=[(b"Set-Cookie", b"a=b; Path=/")])

    peer = serve(transport, answer)
    first = await download(peer.url("/"))
    assert first.headers.getlist(b"Set-Cookie") == [b"a=b; Path=/"]
    await download(peer.url("/"))
    assert [request.values(b"Cookie") for request in peer.requests] == [[], []]


async def test_no_redirect_is_followed_by_the_handler(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/redirect"))
    assert response.status == 302
    assert response.headers[b"Location"] == b"/text"


async def test_no_body_is_decompressed_by_the_handler(transport: Transport, download: Any, site: Any) -> None:
    response = await download(site.url(transport, "/gzip"))
    assert response.headers[b"Content-Encoding"] == b"gzip"
    assert response.body.startswith(b"\x1f\x8b")


async def test_proxies_of_the_environment_are_not_read(
    transport: Transport, downloads: Any, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    response = await downloads(transport)(site.url(transport, "/text"))
    assert response.body == b"Works"


# 2.11


async def test_an_unknown_scheme_given_to_the_handler_is_unsupported(transport: Transport, download: Any) -> None:
    with pytest.raises(UnsupportedURLSchemeError):
        await download("foo://127.0.0.1/")


async def test_an_unknown_scheme_in_a_crawl_is_not_supported(kind: str, transport: Transport) -> None:
    ended = await crawl(kind, transport, ["foo://127.0.0.1/"])
    assert [f"{type(error).__name__}: {error}" for error in ended.errors] == [
        "NotSupported: Unsupported URL scheme 'foo': no handler available for that scheme"
    ]


async def test_headers_and_bodies_by_a_real_server(transport: Transport, download: Any, site: Any) -> None:
    response = await download(
        site.url(transport, "/echo?a=b&a=c%20d"), method="PUT", body="tëxt", headers={"X-Twice": ["1", "2"]}
    )
    echoed = json.loads(response.body)
    assert echoed["method"] == "PUT"
    assert echoed["uri"] == "/echo?a=b&a=c%20d"
    assert echoed["body"].encode("latin-1").decode() == "tëxt"
    assert [value for name, value in echoed["headers"] if name.lower() == "x-twice"] == ["1", "2"]
    assert response.protocol == ("h2" if transport is H2 else "HTTP/1.1")
