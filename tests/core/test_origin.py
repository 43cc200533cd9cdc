from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Proxy, Route, canonical_host

HOSTS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,12}(\.[A-Za-z0-9_-]{1,12}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address.exploded.upper()}]"),
)


@pytest.mark.parametrize(
    ("scheme", "port"),
    [("http", 80), ("https", 443), ("HTTPS", 443)],
)
def test_an_origin_without_port_has_the_port_of_its_scheme(scheme: str, port: int) -> None:
    assert Origin.of(scheme, "a.example") == Origin(scheme.lower(), "a.example", port)


def test_an_explicit_default_port_is_the_same_origin() -> None:
    assert Origin.of("https", "a.example", 443) == Origin.of("https", "a.example")


def test_scheme_host_and_port_each_make_another_origin() -> None:
    origins = {
        Origin.of("https", "a.example"),
        Origin.of("http", "a.example", 443),
        Origin.of("https", "b.example"),
        Origin.of("https", "a.example", 8443),
    }
    assert len(origins) == 4


@pytest.mark.parametrize(
    ("scheme", "host", "port", "named"),
    [
        ("ftp", "a.example", None, "'ftp'"),
        ("https", "", None, "no host"),
        ("https", "ü" * 64 + ".example", None, "too long"),
        ("https", "a.example", 0, "port 0"),
        ("https", "a.example", 65_536, "port 65536"),
        ("https", "a.example", -1, "port -1"),
    ],
)
def test_what_is_no_origin_is_refused_by_name(scheme: str, host: str, port: int | None, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Origin.of(scheme, host, port)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("A.Example", "a.example"),
        ("foo_bar.example", "foo_bar.example"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("xn--i-7iq.ws", "xn--i-7iq.ws"),
        ("127.0.0.1", "127.0.0.1"),
        ("[2001:DB8:0:0:0:0:0:1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80:0::1%eth0", "fe80::1%eth0"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_hosts_have_one_form(written: str, canonical: str) -> None:
    assert canonical_host(written) == canonical


@settings(deadline=None)
@given(HOSTS)
def test_the_form_of_a_host_depends_neither_on_case_nor_on_how_often_it_is_taken(host: str) -> None:
    canonical = canonical_host(host)
    assert canonical == canonical_host(canonical) == canonical_host(host.upper()) == canonical_host(host.lower())


@settings(deadline=None)
@given(HOSTS, st.integers(1, 65_535))
def test_the_netloc_of_an_origin_leads_back_to_it(host: str, port: int) -> None:
    origin = Origin.of("https", host, port)
    name, _, digits = origin.netloc.rpartition(":")
    assert Origin.of("https", name, int(digits)) == origin


def test_an_origin_reads_as_the_beginning_of_its_urls() -> None:
    assert str(Origin.of("https", "A.example")) == "https://a.example:443"
    assert str(Origin.of("http", "[::1]", 8080)) == "http://[::1]:8080"


def test_only_https_is_secure() -> None:
    assert Origin.of("https", "a.example").secure
    assert not Origin.of("http", "a.example", 443).secure


def test_the_credentials_of_a_proxy_distinguish_it_but_are_never_shown() -> None:
    anonymous = Proxy("http", "p.example", 3128)
    alice = replace(anonymous, authorization=b"Basic YWxpY2U6c2VjcmV0")
    bob = replace(anonymous, authorization=b"Basic Ym9iOnNlY3JldA==")
    assert len({anonymous, alice, bob}) == 3
    key = PoolKey(Route(Origin.of("https", "a.example"), proxy=alice))
    for text in (str(alice), repr(alice), str(key), repr(key)):
        assert "YWxpY2U6c2VjcmV0" not in text
        assert "alice" not in text
    assert "with credentials" in repr(alice)
    assert "with credentials" not in repr(anonymous)


def test_whatever_makes_connections_different_makes_their_keys_different() -> None:
    key = PoolKey(Route(Origin.of("https", "a.example")))
    others = {
        PoolKey(replace(key.route, origin=Origin.of("https", "b.example"))),
        PoolKey(replace(key.route, proxy=Proxy("http", "p.example", 3128))),
        PoolKey(replace(key.route, proxy=Proxy("socks5", "p.example", 3128))),
        PoolKey(replace(key.route, bind=("127.0.0.2", 0))),
        PoolKey(replace(key.route, bind=("127.0.0.2", 4000))),
        replace(key, label="login"),
        replace(key, protocols=(HttpProtocol.HTTP1,)),
        replace(key, protocols=(HttpProtocol.HTTP1, HttpProtocol.HTTP2)),
    }
    assert len(others) == 8
    assert key not in others
    assert key == PoolKey(Route(Origin.of("HTTPS", "A.example", 443)))


def test_a_key_reads_as_where_it_leads() -> None:
    route = Route(Origin.of("https", "::1", 8443), proxy=Proxy("http", "p.example", 3128), bind=("127.0.0.2", 0))
    assert str(PoolKey(route, label="login")) == "[::1]:8443 via proxy http://p.example:3128 from 127.0.0.2#login"
    assert str(PoolKey(Route(Origin.of("http", "a.example")))) == "a.example:80"
