"""The handler's own decisions: which wire request a Scrapy request becomes, which exception an error becomes."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy import Request, exceptions
from scrapy.exceptions import CannotResolveHostError, NotConfigured
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler

from scrapy_poolplus.core import errors
from scrapy_poolplus.core.errors import Phase, PhaseTimeoutError, PoolPlusError
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.exchange import Member
from scrapy_poolplus.handler import PoolPlusDownloadHandler, _target, to_scrapy
from scrapy_poolplus.shared import shared_pool
from tests.versions import verbatim_url

URL = "http://a.example/page"


def build(**settings):
    return PoolPlusDownloadHandler.from_crawler(get_crawler(settings_dict=settings))


def wire(request: Request, **settings):
    return build(**settings)._wire(request)[0]


EXPECTED = {
    errors.ResolveError: exceptions.CannotResolveHostError,
    errors.ConnectRefusedError: exceptions.DownloadConnectionRefusedError,
    errors.ConnectError: exceptions.DownloadFailedError,
    errors.TLSError: exceptions.DownloadFailedError,
    errors.TunnelError: exceptions.DownloadFailedError,
    errors.PhaseTimeoutError: exceptions.DownloadTimeoutError,
    errors.ConnectionLostError: exceptions.DownloadFailedError,
    errors.RemoteProtocolError: exceptions.DownloadFailedError,
    errors.LocalProtocolError: exceptions.DownloadFailedError,
    errors.StreamResetError: exceptions.DownloadFailedError,
    errors.BodyLengthError: exceptions.ResponseDataLossError,
    errors.CancelledError: exceptions.DownloadCancelledError,
    errors.PoolClosedError: exceptions.DownloadCancelledError,
}


def test_every_error_of_the_pool_has_its_exception_of_scrapys():
    classes = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PoolPlusError)}
    assert classes - {PoolPlusError} == set(EXPECTED)


@pytest.mark.parametrize("cls", EXPECTED, ids=lambda cls: cls.__name__)
def test_an_error_keeps_its_text(cls):
    arguments = {
        PhaseTimeoutError: {"seconds": 1.0, "setting": "connect_timeout"},
        errors.StreamResetError: {"code": 8},
    }
    error = cls("what happened", phase=Phase.CONNECT, **arguments.get(cls, {}))
    translated = to_scrapy(error, Request(URL), URL)
    assert type(translated) is EXPECTED[cls]
    assert str(translated) == "what happened"


def test_the_time_out_of_a_download_says_how_long_and_where_it_was():
    error = PhaseTimeoutError(
        "TLS handshake with a.example:443", phase=Phase.TLS, seconds=0.5, setting="download_timeout"
    )
    expected = f"Getting {URL} took longer than 0.5 seconds (TLS handshake with a.example:443)."
    assert str(to_scrapy(error, Request(URL), URL)) == expected


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://a.example", b"a.example", b"/"),
        ("http://A.example:80/b", b"a.example", b"/b"),
        ("http://a.example:8080/b?c=d#e", b"a.example:8080", b"/b?c=d"),
        pytest.param("https://a.example:443/a?", b"a.example", b"/a?", marks=verbatim_url),
        ("https://a.example:80/;p?q=%20", b"a.example:80", b"/;p?q=%20"),
        ("http://user:secret@a.example/", b"a.example", b"/"),
        ("http://[::1]:8080/x", b"[::1]:8080", b"/x"),
        ("http://[::1]/x", b"[::1]", b"/x"),
    ],
)
def test_authority_and_target_come_from_the_url(url, authority, target):
    request = wire(Request(url, meta={"verbatim_url": True}))
    assert (request.authority, request.target) == (authority, target)


def test_options_of_the_whole_server_is_an_asterisk():
    assert wire(Request("http://a.example", method="OPTIONS")).target == b"*"
    assert wire(Request("http://a.example/", method="OPTIONS")).target == b"/"


def test_a_given_host_takes_the_place_of_the_urls_once_and_the_request_is_not_changed():
    request = Request(URL, headers={"Host": "b.example", "X-A": ["1", "2"], "Content-Length": "0"})
    before = dict(request.headers)
    sent = wire(request)
    assert sent.authority == b"b.example"
    assert sent.headers == ((b"X-A", b"1"), (b"X-A", b"2"))
    assert sent.announce_length
    assert dict(request.headers) == before


def test_credentials_for_a_proxy_never_go_to_a_server():
    assert wire(Request(URL, headers={"Proxy-Authorization": "Basic c2VjcmV0"})).headers == ()


@pytest.mark.parametrize(
    ("method", "body", "announced"), [("GET", b"", False), ("GET", b"x", True), ("POST", b"", True), ("PUT", b"", True)]
)
def test_the_length_is_announced_where_there_is_a_body_or_the_method_has_one(method, body, announced):
    assert wire(Request(URL, method=method, body=body)).announce_length is announced


def test_cleartext_is_http1_and_tls_offers_what_the_policy_says():
    handler = build(POOLPLUS_DOMAINS={"old.example": {"protocols": ["http/1.1"]}})
    keys = [handler._wire(Request(url))[1] for url in (URL, "https://a.example/", "https://old.example/")]
    assert [key.protocols for key in keys] == [
        (HttpProtocol.HTTP1,),
        (HttpProtocol.HTTP2, HttpProtocol.HTTP1),
        (HttpProtocol.HTTP1,),
    ]


def test_the_bind_address_is_part_of_the_key_in_both_shapes_and_meta_beats_the_setting():
    handler = build(DOWNLOAD_BIND_ADDRESS="127.0.0.2")
    binds = [
        handler._wire(Request(URL, meta=meta))[1].route.bind
        for meta in ({}, {"bindaddress": "127.0.0.3"}, {"bindaddress": ("127.0.0.4", 5)}, {"bindaddress": None})
    ]
    assert binds == [("127.0.0.2", 0), ("127.0.0.3", 0), ("127.0.0.4", 5), ("127.0.0.2", 0)]


def test_a_requests_own_policy_changes_its_time_outs_and_protocols_only():
    handler = build(POOLPLUS_POLICY={"read_timeout": 9.0, "idle_timeout": 5.0})
    meta = {"poolplus_policy": {"read_timeout": 1.5, "protocols": ["http/1.1"]}}
    _, key, policy, own = handler._wire(Request("https://a.example/", meta=meta))
    assert (policy.read_timeout, own.read_timeout, own.idle_timeout) == (9.0, 1.5, 5.0)
    assert key.protocols == (HttpProtocol.HTTP1,)
    assert handler._wire(Request("https://a.example/", meta=meta))[3] is own


def test_another_key_in_a_requests_policy_is_an_error_that_names_it():
    handler = build()
    with pytest.raises(ValueError, match="idle_timeout"):
        handler._wire(Request(URL, meta={"poolplus_policy": {"idle_timeout": 5.0}}))


@pytest.mark.parametrize("url", ["ftp://a.example/", "http:///path", "http://a.example:0/"])
def test_a_url_that_cannot_be_downloaded_is_an_unsupported_one(url):
    with pytest.raises(exceptions.UnsupportedURLSchemeError):
        wire(Request(url))


def test_without_a_reactor_it_is_not_configured():
    with pytest.raises(NotConfigured, match="TWISTED_REACTOR_ENABLED"):
        PoolPlusDownloadHandler(SimpleNamespace(settings=Settings({"TWISTED_REACTOR_ENABLED": False})))


def test_both_handlers_of_a_crawler_share_one_pool_and_a_closed_one_is_replaced():
    crawler = get_crawler()
    handlers = [PoolPlusDownloadHandler.from_crawler(crawler) for _ in range(2)]
    pool = shared_pool(crawler)
    assert len(handlers) == 2
    assert shared_pool(crawler) is pool
    pool.close()
    assert shared_pool(crawler) is not pool
    assert shared_pool(get_crawler()) is not shared_pool(crawler)


@pytest.mark.parametrize("name", ["DOWNLOAD_TLS_MIN_VERSION", "DOWNLOAD_TLS_MAX_VERSION"])
def test_an_unknown_tls_version_fails_at_build(name):
    with pytest.raises(ValueError, match=f"Unknown {name} value: invalid"):
        build(**{name: "invalid"})


# ---- proxies


def through(url: str, proxy: str, **headers: str):
    sent, key, _, _ = build()._wire(Request(url, meta={"proxy": proxy}, headers=headers))
    return sent, key.route.proxy


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://p.example:3128", ("http", "p.example", 3128)),
        ("p.example:3128", ("http", "p.example", 3128)),
        ("p.example", ("http", "p.example", 80)),
        ("https://P.example", ("https", "p.example", 443)),
        ("socks5://[::1]", ("socks5", "::1", 1080)),
        ("socks5h://p.example:9050", ("socks5h", "p.example", 9050)),
    ],
)
def test_a_proxy_url_may_lack_its_scheme_and_port(url, expected):
    _, proxy = through("https://a.example/", url)
    assert (proxy.scheme, proxy.host, proxy.port) == expected


@pytest.mark.parametrize(
    ("proxy", "target", "credentials"),
    [
        ("http://p.example", b"http://a.example/b?c", b"Basic abc"),
        ("https://p.example", b"http://a.example/b?c", b"Basic abc"),
        ("socks5://p.example", b"/b?c", None),
    ],
)
def test_an_http_target_is_named_in_full_to_an_http_proxy_with_the_credentials(proxy, target, credentials):
    sent, route_proxy = through("http://a.example/b?c", proxy, **{"Proxy-Authorization": "Basic abc"})
    assert sent.target == target
    assert sent.headers == ()
    assert route_proxy.authorization == b"Basic abc"
    member = Member(None, 1, PoolKey(Route(Origin.of("http", "a.example"), route_proxy)), Policy(), 0.0)
    assert dict(member.dress(sent).headers).get(b"Proxy-Authorization") == credentials


def test_an_https_target_never_gets_the_credentials_of_the_proxy():
    sent, proxy = through("https://a.example/b", "http://p.example", **{"Proxy-Authorization": "Basic abc"})
    assert (sent.target, sent.headers, proxy.authorization) == (b"/b", (), b"Basic abc")


def test_two_users_of_one_proxy_have_two_keys_for_http_targets_too():
    handler = build()
    keys = {
        handler._wire(
            Request(URL, meta={"proxy": "http://p.example"}, headers={"Proxy-Authorization": f"Basic {user}"})
        )[1]
        for user in ("one", "two", "one")
    }
    assert len(keys) == 2


def test_credentials_in_the_url_of_a_proxy_are_used_and_never_shown():
    _, proxy = through("https://a.example/", "http://user:pass%20word@p.example:1")
    assert proxy.authorization == b"Basic dXNlcjpwYXNzIHdvcmQ="
    assert "pass" not in f"{proxy} {proxy!r}"


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        ("ftp://user:secret@p.example", NotImplementedError),
        ("http://user:secret@p.example:port", ValueError),
        ("http://user:secret@", ValueError),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error_without_its_credentials(proxy, error):
    with pytest.raises(error) as caught:
        through(URL, proxy)
    assert "secret" not in str(caught.value)


@given(
    st.sampled_from(["", "/", "/a", "/a;b/c;d", "/%7e", "//x", "/a/b?"]),
    st.sampled_from(["", "?", "?q", "?a/b", "?a?b", "?a://b"]),
    st.sampled_from(["", "#", "#f", "#/f?g", "#?"]),
)
def test_the_request_target_is_path_and_query_as_the_url_has_them(path, query, fragment):
    """Against the standard library's parser."""
    url = f"http://user@a.example:80{path}{query}{fragment}"
    parts = urlsplit(url)
    target = _target("GET", url).decode()
    assert target.startswith("/")
    assert target.partition("?")[0] == (parts.path or "/")
    assert target.partition("?")[2] == parts.query
    assert _target("OPTIONS", url) == (b"*" if not parts.path and not parts.query else target.encode())


@verbatim_url
def test_a_host_without_a_form_in_ascii_cannot_be_resolved() -> None:
    with pytest.raises(CannotResolveHostError, match="is not a host name"):
        wire(Request(f"http://{'ß' * 70}.example/", meta={"verbatim_url": True}))


class Downloading:
    """A crawler whose downloader has these slots."""

    def __init__(self, **concurrency: int) -> None:
        self.slots = {name: SimpleNamespace(concurrency=allowed) for name, allowed in concurrency.items()}
        self.engine = SimpleNamespace(downloader=self)


def test_slots_that_point_to_an_origin_are_summed_and_those_that_are_gone_are_forgotten():
    """Case of scrapy#6982: a slot for each request. The sum must follow the slots that there are, not all ever seen."""
    handler, origin = build(), Origin.of("http", "a.example")
    downloading = handler._crawler = Downloading(one=8, two=4)

    def slots_of(name):
        return handler._slots_of(origin, Request(URL, meta={"download_slot": name}))

    assert (slots_of("one"), slots_of("two"), slots_of("one")) == (8, 12, 12)
    for number in range(5_000):
        downloading.slots = {f"s{number}": SimpleNamespace(concurrency=8)}
        assert slots_of(f"s{number}") <= 8 * 20
    assert slots_of("unknown") is None
