"""Any bytes, in any pieces: a talk with a proxy ends open, with one of our errors or waiting for more, however the bytes
are cut, and never repeats the credentials."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scrapy_poolplus.core.errors import ConnectRefusedError, TunnelError
from scrapy_poolplus.net.proxy import MAX_ANSWER, ConnectTalk, SocksTalk, Talk, TunnelAnswer

USER, PASSWORD = b"customer-7", b"hunter2:\xe9xtra"
ENCODED = b64encode(USER + b":" + PASSWORD)
AUTHORIZATION = b"Basic " + ENCODED
SECRETS = [USER, PASSWORD, ENCODED]

lines = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 407 Proxy Authentication Required\r\n",
        b"HTTP/1.1 502 for " + USER + b"\r\n",
        b"HTTP/2 200\r\n",
        b"HTTP/1.1 2000 no\r\n",
        b"X-Exit: 192.0.2.1\r\n",
        b" folded\r\n",
        b"Proxy-Authorization: " + AUTHORIZATION + b"\r\n",
        b"for " + PASSWORD,
        b"\r\n",
        b"\n",
        b"\0",
        b"\x16\x03\x01",
    ]
)
http_answers = st.lists(lines | st.binary(max_size=20), max_size=8).map(b"".join)

socks_parts = st.sampled_from(
    [
        b"\x05\x00",
        b"\x05\x02",
        b"\x05\xff",
        b"\x01\x00",
        b"\x01\x01",
        b"\x05\x00\x00\x01\x7f\0\0\x01\0\x50",
        b"\x05\x00\x00\x03\x05a.bcd\0\x50",
        b"\x05\x00\x00\x04" + bytes(18),
        b"\x05\x05\x00\x01" + bytes(6),
        b"\x05\x00\x00\x09",
        b"\x04Z",
        USER + PASSWORD,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ]
)
socks_answers = st.lists(socks_parts | st.binary(max_size=6), max_size=6).map(b"".join)
cuts = st.lists(st.integers(0, 200), max_size=6)

Made = Callable[[], Talk]


def connect() -> Talk:
    return ConnectTalk("a.example", 443, AUTHORIZATION, "proxy tunnel to a.example:443")


def socks() -> Talk:
    return SocksTalk("a.example", 443, AUTHORIZATION, "proxy tunnel to a.example:443")


def outcome(make: Made, answer: bytes, places: list[int]) -> tuple[str, TunnelAnswer | None, bytes]:
    """How a talk ends that hears `answer` cut at `places`: the word for it, what it was answered, what is left over."""
    talk = make()
    talk.first()
    ends = sorted({place for place in places if 0 < place < len(answer)} | {len(answer)})
    begin, told, word = 0, "", "waits"
    for end in ends:
        try:
            talk.heard(answer[begin:end])
        except (TunnelError, ConnectRefusedError) as error:
            told, word = str(error), type(error).__name__
            if isinstance(error, TunnelError) and "before TLS began" in told:
                word = "open"
            break
        begin = end
        if talk.answer is not None:
            word = "open"
            break
    for secret in SECRETS:
        for form in (secret, repr(secret.decode("latin-1"))[1:-1].encode()):
            assert form not in (told + talk.unfinished()).encode("latin-1", "replace")
    return word, talk.answer, talk.left_over() + answer[begin:] if word == "open" else b""


@given(http_answers, cuts)
@example(b"HTTP/1.1 200 OK\r\n\r\n" + PASSWORD, [])
@example(b"HTTP/1.1 407 You said: " + AUTHORIZATION[:-3], [])
@example(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", [26, 27])
def test_connect_ends_the_same_way_however_an_answer_is_cut(answer: bytes, places: list[int]) -> None:
    whole, cut = outcome(connect, answer, []), outcome(connect, answer, places)
    assert cut[:2] == whole[:2]


@given(socks_answers, cuts)
@example(b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\0\0\x01\0\x50rest", [3, 5])
def test_socks_ends_the_same_way_however_an_answer_is_cut(answer: bytes, places: list[int]) -> None:
    pytest.importorskip("socksio", reason="the extra socks is not installed")
    assert outcome(socks, answer, places) == outcome(socks, answer, [])


@pytest.mark.parametrize("length", range(4, len(ENCODED)))
def test_the_beginning_of_the_credentials_is_not_shown_either(length: int) -> None:
    # The packet ended in the middle of what a proxy repeats.
    talk = connect()
    talk.heard(b"HTTP/1.1 407 You said Basic " + ENCODED[:length])
    assert talk.unfinished() == "'HTTP/1.1 407 You said ***'"


def test_an_answer_of_single_bytes_is_searched_once() -> None:
    talk = connect()
    answer = b"HTTP/1.1 200 OK\r\nA: " + b"x" * (MAX_ANSWER - 100) + b"\r\n\r\n"
    for number in range(len(answer)):
        talk.heard(answer[number : number + 1])
    assert talk.answer is not None
