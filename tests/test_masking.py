from __future__ import annotations

import pytest

from scrapy_poolplus.masking import MASK, is_secret, masked_form, masked_header, masked_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/x?page=2&q=lamp", "https://a.example/x?page=2&q=lamp"),
        ("https://me:secret@a.example/x", f"https://{MASK}@a.example/x"),
        ("https://me:se@cret@a.example/x", f"https://{MASK}@a.example/x"),
        ("https://a.example/?api_key=abc&page=2", f"https://a.example/?api_key={MASK}&page=2"),
        ("https://a.example/?page=2&Access%5FToken=abc", f"https://a.example/?page=2&Access%5FToken={MASK}"),
        ("https://a.example/?token=", "https://a.example/?token="),
        ("https://a.example/;jsessionid=77?x=1", f"https://a.example/;jsessionid={MASK}"),
        ("https://a.example/#access_token=abc", f"https://a.example/#access_token={MASK}"),
        ("https://a.example/user@home?mail=a@b", "https://a.example/user@home?mail=a@b"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Accept", "text/html", "text/html"),
        ("Authorization", "Bearer abc", f"Bearer {MASK}"),
        ("authorization", "abc", MASK),
        ("Proxy-Authorization", "Basic abc", f"Basic {MASK}"),
        ("Cookie", "sid=77; theme=dark", f"sid={MASK}; theme={MASK}"),
        ("Cookie", "odd", MASK),
        ("Set-Cookie", "sid=77; Path=/; HttpOnly", f"sid={MASK}; Path=/; HttpOnly"),
        ("X-Api-Key", "abc def", MASK),
        ("X-CSRF-Token", "abc", MASK),
        ("WWW-Authenticate", 'Basic realm="x"', MASK),
        ("Location", "https://u:p@a.example/?token=1&x=2", f"https://{MASK}@a.example/?token={MASK}&x=2"),
        ("Referer", "https://a.example/?session=1", f"https://a.example/?session={MASK}"),
        ("Content-Type", "text/html; charset=utf-8", "text/html; charset=utf-8"),
    ],
)
def test_headers(name: str, value: str, shown: str) -> None:
    assert masked_header(name, value) == shown


def test_forms() -> None:
    assert masked_form("user=ada&password=lovelace&csrf_token=1") == f"user=ada&password={MASK}&csrf_token={MASK}"


@pytest.mark.parametrize("name", ["monkey", "keyboard", "author_name_no", "postcode", "sidebar", "design"])
def test_names_that_only_resemble_a_credentials(name: str) -> None:
    assert is_secret(name) is (name == "author_name_no")
