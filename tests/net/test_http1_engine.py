"""The HTTP/1.1 engine: what it writes, what it makes of what comes, and when its connection must end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scrapy_poolplus.core.errors import (
    BodyLengthError,
    CancelledError,
    ConnectionLostError,
    LocalProtocolError,
    Phase,
    PoolClosedError,
    RemoteProtocolError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress, may_replay
from scrapy_poolplus.net.http1 import JOINED_BODY, Http1Engine
from scrapy_poolplus.net.wire import BodyEnd, Engine, EngineConfig, Outcome, ResponseHead, WireRequest
from tests.peers.memory import Journal, MemoryTransport, RecordingExchange, RecordingOwner

NOW = 1000.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSED = ConnectionLostError("the peer closed the connection", phase=Phase.FIRST_BYTE, clean=True)
RESET = ConnectionLostError("the peer reset the connection", phase=Phase.FIRST_BYTE)

Headers = tuple[tuple[bytes, bytes], ...]


def get(method: bytes = b"GET", target: bytes = b"/", headers: Headers = (), body: bytes = b"") -> WireRequest:
    return WireRequest(method, b"http", b"a.example", target, headers, body)


class Talk:
    """An engine between a transport and an owner, and the exchanges that a test starts on it; one journal of all."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.journal: Journal = []
        self.transport = MemoryTransport()
        self.owner = RecordingOwner(self.journal)
        self.engine = Http1Engine(self.transport, self.owner, config or EngineConfig())
        self.engine.begin(NOW)

    def start(
        self,
        request: WireRequest | None = None,
        name: str = "exchange",
        *,
        on_head: Callable[[], None] | None = None,
        on_data: Callable[[], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> RecordingExchange:
        exchange = RecordingExchange(name, self.journal, on_head=on_head, on_data=on_data, on_done=on_done)
        self.engine.start(request or get(), exchange, NOW)
        return exchange

    def hear(self, data: bytes) -> None:
        self.engine.receive(data, NOW)

    @property
    def usable(self) -> bool:
        return self.owner.drained is None and self.owner.failure is None


@pytest.fixture
def talk() -> Talk:
    return Talk()


def sent(request: WireRequest) -> bytes:
    talk = Talk()
    talk.start(request)
    return talk.transport.take()


def outcome(exchange: RecordingExchange) -> Outcome:
    assert exchange.outcome is not None, "the exchange has not ended"
    return exchange.outcome


def response(exchange: RecordingExchange) -> ResponseHead:
    assert exchange.response is not None, "no head came"
    return exchange.response


# The request as it is written


def test_a_get_is_its_line_host_and_the_given_headers() -> None:
    request = get(target=b"/a?b=c", headers=((b"User-Agent", b"me"), (b"accept", b" x ")))
    assert sent(request) == b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nUser-Agent: me\r\naccept:  x \r\n\r\n"


def test_repeated_headers_keep_their_order_and_their_bytes() -> None:
    request = get(headers=((b"X-Many", b"foo"), (b"X-Other", b"\xe9\t\x80"), (b"X-Many", b"bar")))
    assert sent(request).endswith(b"\r\nX-Many: foo\r\nX-Other: \xe9\t\x80\r\nX-Many: bar\r\n\r\n")


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_a_method_that_means_a_body_says_so_also_when_there_is_none(method: bytes) -> None:
    assert sent(get(method)) == method + b" / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"SEARCH"])
def test_other_methods_without_a_body_say_nothing_of_one(method: bytes) -> None:
    assert b"ength" not in sent(get(method))


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
def test_a_body_goes_out_with_its_length_whatever_the_method(method: bytes) -> None:
    assert sent(get(method, body=b"hello")).endswith(b"\r\nContent-Length: 5\r\n\r\nhello")


def test_a_length_of_nothing_is_announced_where_the_user_did_so() -> None:
    request = WireRequest(b"GET", b"http", b"a.example", b"/", announce_length=True)
    assert sent(request) == b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n"


def test_host_and_framing_are_never_sent_twice_nor_as_the_user_gave_them() -> None:
    headers = ((b"hOST", b"evil"), (b"content-length", b"99"), (b"Transfer-Encoding", b"chunked"), (b"X", b"1"))
    assert sent(get(b"POST", headers=headers, body=b"ab")) == (
        b"POST / HTTP/1.1\r\nHost: a.example\r\nX: 1\r\nContent-Length: 2\r\n\r\nab"
    )


def test_a_connection_header_goes_out_as_the_user_gave_it() -> None:
    assert b"\r\nConnection: Keep-Alive, Foo\r\n" in sent(get(headers=((b"Connection", b"Keep-Alive, Foo"),)))


def test_a_short_body_goes_out_in_one_write_with_its_head(talk: Talk) -> None:
    talk.start(get(b"POST", body=b"x" * JOINED_BODY))
    assert len(talk.transport.writes) == 1


def test_a_long_body_is_handed_on_at_once_without_a_copy() -> None:
    body = b"x" * (JOINED_BODY + 1)
    written: list[bytes] = []

    class Transport(MemoryTransport):
        def write(self, data: bytes) -> None:
            written.append(data)

    exchange = RecordingExchange()
    Http1Engine(Transport(), RecordingOwner(), EngineConfig()).start(get(b"POST", body=body), exchange, NOW)
    assert written[0].endswith(b"\r\n\r\n")
    assert written[1] is body
    assert exchange.was_sent


def test_a_proxied_target_is_written_in_absolute_form() -> None:
    assert sent(get(target=b"http://b.example/x")).startswith(b"GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n")


UNSENDABLE = {
    "CR LF in a value": get(headers=((b"X", b"a\r\nEvil: 1"),)),
    "LF in a value": get(headers=((b"X", b"a\nb"),)),
    "CR in a value": get(headers=((b"X", b"a\rb"),)),
    "NUL in a value": get(headers=((b"X", b"a\0b"),)),
    "CR and LF apart": get(headers=((b"X", b"\r"), (b"Y", b"\n"))),
    "CR LF in a name": get(headers=((b"X\r\nY", b"a"),)),
    "NUL in a name": get(headers=((b"X\0", b"a"),)),
    "colon in a name": get(headers=((b"X: y\r", b"a"),)),
    "a name that hides another one": get(headers=((b"Host: evil", b"a"),)),
    "space in a name": get(headers=((b"Content-Length ", b"3"),)),
    "empty name": get(headers=((b"", b"a"),)),
    "CR LF in the target": get(target=b"/\r\nX: 1"),
    "space in the target": get(target=b"/ HTTP/1.1"),
    "NUL in the target": get(target=b"/\0"),
    "empty target": get(target=b""),
    "CR LF in the method": get(b"GET / HTTP/1.1\r\n\r\nGET"),
    "space in the method": get(b"GET "),
    "empty method": get(b""),
    "CR LF in the host": WireRequest(b"GET", b"http", b"a\r\nX: 1", b"/"),
    "empty host": WireRequest(b"GET", b"http", b"", b"/"),
}


@pytest.mark.parametrize("request_", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_would_forge_a_message_is_never_written_and_fails_that_request_alone(request_: WireRequest) -> None:
    talk = Talk()
    refused = talk.start(request_)
    assert refused.outcome is None, "done from within start"
    assert talk.owner.flushes == 1
    talk.engine.flush(NOW)

    assert talk.transport.take() == b""
    assert not refused.was_sent
    error = outcome(refused).error
    assert isinstance(error, LocalProtocolError)
    assert error.phase is Phase.SEND
    assert talk.usable
    next_one = talk.start()
    talk.hear(OK)
    assert next_one.body == b"ok"


def test_a_request_that_cannot_be_sent_is_not_replayed(talk: Talk) -> None:
    refused = talk.start(get(headers=((b"X", b"\n"),)))
    talk.engine.flush(NOW)
    assert not may_replay(
        outcome(refused).progress,
        "GET",
        reused=True,
        attempts=0,
        max_replays=10,
        replayed_suspect=False,
    )


def test_the_value_that_cannot_be_sent_is_not_shown(talk: Talk) -> None:
    refused = talk.start(get(headers=((b"Authorization", b"secret\n"),)))
    talk.engine.flush(NOW)
    assert "Authorization" in str(outcome(refused).error)
    assert "secret" not in str(outcome(refused).error)


def test_a_request_that_cannot_be_sent_ends_once_when_it_is_cancelled_first(talk: Talk) -> None:
    refused = talk.start(get(target=b"\n"))
    talk.engine.cancel(refused, NOW)
    talk.engine.flush(NOW)
    assert isinstance(outcome(refused).error, CancelledError)
    assert talk.usable


def test_a_request_that_cannot_be_sent_ends_once_when_the_connection_is_lost_first(talk: Talk) -> None:
    refused = talk.start(get(target=b"\n"))
    talk.engine.lost(CLOSED, NOW)
    talk.engine.flush(NOW)
    assert isinstance(outcome(refused).error, LocalProtocolError)


def test_a_request_that_cannot_be_sent_is_answered_before_its_connection_fails(talk: Talk) -> None:
    refused = talk.start(get(target=b"\n"))
    talk.hear(OK)
    talk.engine.flush(NOW)
    assert refused.response is None
    assert [what for _, what, _ in talk.journal] == ["draining", "done", "failed"]


def test_nothing_is_sent_where_the_server_has_spoken_or_closed_already(talk: Talk) -> None:
    talk.start()
    talk.hear(OK)
    talk.transport.take()
    talk.transport.waiting = True
    posted = talk.start(get(b"POST", body=b"once"))
    assert talk.owner.drained is CloseReason.PEER_CLOSED
    assert posted.outcome is None, "told in a turn of its own"
    talk.engine.flush(NOW)
    assert outcome(posted).progress is Progress.NOT_SENT
    assert isinstance(outcome(posted).error, ConnectionLostError)
    assert not talk.transport.take()


def test_what_had_come_before_a_request_is_not_its_response(talk: Talk) -> None:
    talk.transport.waiting = True
    asked = talk.start()
    talk.hear(OK)
    talk.engine.flush(NOW)
    talk.hear(OK)
    assert asked.response is None
    assert outcome(asked).progress is Progress.NOT_SENT


@pytest.mark.parametrize("ends", ["lost", "cancelled"])
def test_a_request_that_was_not_sent_ends_once_whatever_comes_first(talk: Talk, ends: str) -> None:
    talk.transport.waiting = True
    asked = talk.start()
    if ends == "lost":
        talk.engine.lost(CLOSED, NOW)
        assert outcome(asked).progress is Progress.NOT_SENT
    else:
        talk.engine.cancel(asked, NOW)
        assert isinstance(outcome(asked).error, CancelledError)
    talk.engine.flush(NOW)


# The response


def test_an_exchange_hears_sent_head_data_done_in_this_order(talk: Talk) -> None:
    exchange = talk.start()
    talk.hear(OK)
    assert [what for _, what, _ in talk.journal] == ["sent", "head", "data", "done"]
    assert outcome(exchange) == Outcome(end=BodyEnd.COMPLETE)
    assert talk.usable


def test_a_connection_carries_one_response_after_the_other(talk: Talk) -> None:
    for number in range(3):
        exchange = talk.start(get(target=b"/%d" % number))
        talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: %d\r\n\r\n%d" % (number, number))
        assert exchange.body == b"%d" % number
    assert talk.usable


def test_done_may_start_the_next_request(talk: Talk) -> None:
    following: list[RecordingExchange] = []
    talk.start(get(target=b"/1"), "first", on_done=lambda: following.append(talk.start(get(target=b"/2"), "second")))
    talk.hear(OK)
    assert talk.transport.take().startswith(b"GET /1")
    assert talk.transport.writes[-1].startswith(b"GET /2")
    talk.hear(OK)
    assert outcome(following[0]) == Outcome(end=BodyEnd.COMPLETE)
    assert talk.usable


def test_a_body_goes_up_as_it_comes(talk: Talk) -> None:
    exchange = talk.start()
    talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
    talk.hear(b"abc")
    assert exchange.chunks == [b"abc"]
    talk.hear(b"def")
    assert exchange.chunks == [b"abc", b"def"]
    assert exchange.outcome is not None


def test_a_read_within_a_body_goes_up_without_a_copy(talk: Talk) -> None:
    exchange = talk.start()
    talk.hear(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    piece = b"x" * 50000
    talk.hear(piece)
    talk.hear(piece)
    assert all(chunk is piece for chunk in exchange.chunks)
    assert outcome(exchange) == Outcome(end=BodyEnd.COMPLETE)


def test_an_early_answer_to_an_upload_is_the_response(talk: Talk) -> None:
    exchange = talk.start(get(b"POST", body=b"x" * 1_000_000))
    talk.hear(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\nno")
    talk.engine.lost(RESET, NOW)
    assert response(exchange).status == 413
    assert exchange.body == b"no"
    assert outcome(exchange) == Outcome(end=BodyEnd.CLOSE_DELIMITED)


def test_the_engine_is_what_the_seam_says() -> None:
    engine: Engine = Http1Engine(MemoryTransport(), RecordingOwner(), EngineConfig())
    assert engine.protocol is HttpProtocol.HTTP1
    assert engine.next_deadline() is None
    engine.expire(NOW)
    engine.goodbye(NOW)
    engine.flush(NOW)


# May the connection be used again?

REUSABLE = {
    "HTTP/1.1": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    "HTTP/1.1 close": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
    "HTTP/1.1 Close in a list": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: foo , cLOSE\r\n\r\n", False),
    "HTTP/1.1 close in a second field": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\nconnection: close\r\n\r\n",
        False,
    ),
    "HTTP/1.1 a token that holds close": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-close-x\r\n\r\n",
        True,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
    "HTTP/1.0 keep-alive": (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", True),
    "HTTP/1.0 keep-alive and close": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, close\r\n\r\n",
        False,
    ),
    "HTTP/1.0 chunked": (
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n",
        False,
    ),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
    "chunked and a length": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        False,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\n\r\nbody", False),
    "bytes after a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy", False),
    "bytes after no length": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\r\n", False),
    "bytes after the last chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n", False),
    "bytes after the trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\nx", False),
    "a second response": (OK + OK, False),
}


@pytest.mark.parametrize(("data", "reusable"), REUSABLE.values(), ids=REUSABLE.keys())
def test_a_connection_is_kept_exactly_where_the_rfc_lets_it_be(data: bytes, reusable: bool) -> None:
    talk = Talk()
    exchange = talk.start()
    talk.hear(data)
    assert outcome(exchange) == Outcome(end=BodyEnd.COMPLETE)
    assert talk.owner.drained is (None if reusable else CloseReason.NOT_REUSABLE)
    assert talk.owner.failure is None


def test_the_owner_hears_that_it_may_not_be_reused_before_the_exchange_ends(talk: Talk) -> None:
    talk.start()
    talk.hear(OK + b"!")
    assert [what for _, what, _ in talk.journal] == ["sent", "head", "data", "draining", "done"]


@pytest.mark.parametrize("value", [b"close", b"Close", b"foo, close"])
def test_a_request_that_asks_to_close_ends_its_connection_though_the_server_would_not(talk: Talk, value: bytes) -> None:
    talk.start(get(headers=((b"connection", value),)))
    talk.hear(OK)
    assert talk.owner.drained is CloseReason.NOT_REUSABLE


def test_asking_to_close_is_not_remembered_from_a_request_that_was_not_sent(talk: Talk) -> None:
    talk.start(get(headers=((b"Connection", b"close"), (b"X", b"\n"))))
    talk.engine.flush(NOW)
    talk.start()
    talk.hear(OK)
    assert talk.usable


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_a_body_after_a_response_without_one_is_never_read_as_anything(method: bytes) -> None:
    talk = Talk()
    exchange = talk.start(get(method))
    status = b"200 OK" if method == b"HEAD" else b"304 Not Modified"
    talk.hear(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n" + OK)
    assert exchange.chunks == []
    assert response(exchange).length == 0
    assert talk.owner.drained is CloseReason.NOT_REUSABLE
    talk.hear(OK)
    talk.engine.lost(CLOSED, NOW)
    assert talk.owner.failure is None


# Bytes that belong to nobody


def test_a_response_nobody_asked_for_ends_the_connection(talk: Talk) -> None:
    talk.start()
    talk.hear(OK)
    talk.hear(OK)
    assert talk.owner.failure is not None
    error, reason = talk.owner.failure
    assert isinstance(error, RemoteProtocolError)
    assert "HTTP/1.1 200 OK" in str(error)
    assert reason is CloseReason.PROTOCOL_ERROR
    assert [what for _, what, _ in talk.journal][-2:] == ["draining", "failed"]


def test_bytes_before_the_first_request_end_the_connection(talk: Talk) -> None:
    talk.hear(b"\r\n")
    assert talk.owner.failure is not None
    talk.hear(b"more")


def test_a_408_to_an_idle_connection_is_only_a_close(talk: Talk) -> None:
    talk.hear(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
    assert talk.owner.failure is not None
    assert talk.owner.failure[1] is CloseReason.PEER_CLOSED


# Faults


def test_what_is_not_http_is_named_and_ends_the_connection(talk: Talk) -> None:
    exchange = talk.start()
    talk.hear(b"SSH-2.0-OpenSSH_9.2\r\n")
    ended = outcome(exchange)
    assert isinstance(ended.error, RemoteProtocolError)
    assert str(ended.error) == (
        "a.example: the response does not begin with an HTTP/1 status line but with b'SSH-2.0-OpenSSH_9.2\\r\\n'"
    )
    assert (ended.end, ended.progress) == (None, Progress.STARTED)
    assert [what for _, what, _ in talk.journal] == ["sent", "draining", "done", "failed"]
    talk.hear(OK)
    talk.engine.lost(CLOSED, NOW)


def test_a_broken_chunk_is_lost_data_after_what_came_before_it(talk: Talk) -> None:
    exchange = talk.start()
    talk.hear(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
    ended = outcome(exchange)
    assert exchange.body == b"abc"
    assert isinstance(ended.error, BodyLengthError)
    assert ended.error.phase is Phase.BODY
    assert ended.end is BodyEnd.TRUNCATED
    assert talk.owner.drained is CloseReason.PROTOCOL_ERROR
    assert talk.owner.failure == (ended.error, CloseReason.PROTOCOL_ERROR)


def test_a_connection_closed_before_a_byte_of_the_response_leaves_the_request_sent(talk: Talk) -> None:
    exchange = talk.start()
    talk.engine.lost(CLOSED, NOW)
    ended = outcome(exchange)
    assert isinstance(ended.error, ConnectionLostError)
    assert ended.error.phase is Phase.FIRST_BYTE
    assert ended.progress is Progress.SENT
    assert talk.owner.drained is None, "the owner itself said so"


@pytest.mark.parametrize("data", [b"H", b"HTTP/1.1 200 OK\r\nX: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_connection_closed_in_the_head_leaves_the_response_begun(talk: Talk, data: bytes) -> None:
    exchange = talk.start()
    talk.hear(data)
    talk.engine.lost(CLOSED, NOW)
    ended = outcome(exchange)
    assert isinstance(ended.error, ConnectionLostError)
    assert ended.error.phase is Phase.FIRST_BYTE
    assert ended.progress is Progress.STARTED


def test_how_far_one_response_came_says_nothing_of_the_next(talk: Talk) -> None:
    talk.start()
    talk.hear(OK)
    second = talk.start()
    talk.engine.lost(CLOSED, NOW)
    assert outcome(second).progress is Progress.SENT


UNFINISHED = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "2 of 5 bytes of the body are missing"),
    "no byte of the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "5 of 5 bytes of the body are missing"),
    "in a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "the chunked body has no end"),
    "between chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "has no end"),
    "in the trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "has no end"),
}


@pytest.mark.parametrize(("data", "text"), UNFINISHED.values(), ids=UNFINISHED.keys())
def test_a_body_cut_by_a_close_is_truncated_and_says_what_is_missing(data: bytes, text: str) -> None:
    talk = Talk()
    exchange = talk.start()
    talk.hear(data)
    talk.engine.lost(CLOSED, NOW)
    ended = outcome(exchange)
    assert isinstance(ended.error, BodyLengthError)
    assert text in str(ended.error)
    assert "the peer closed the connection" in str(ended.error)
    assert (ended.end, ended.progress) == (BodyEnd.TRUNCATED, Progress.STARTED)


@pytest.mark.parametrize("data", [data for data, _ in UNFINISHED.values()], ids=UNFINISHED.keys())
def test_a_body_cut_by_a_reset_is_a_lost_connection_and_no_response(data: bytes) -> None:
    talk = Talk()
    exchange = talk.start()
    talk.hear(data)
    talk.engine.lost(RESET, NOW)
    ended = outcome(exchange)
    assert isinstance(ended.error, ConnectionLostError)
    assert ended.error.phase is Phase.BODY
    assert (ended.end, ended.progress) == (None, Progress.STARTED)


@pytest.mark.parametrize("loss", [CLOSED, RESET])
def test_a_body_without_length_ends_with_the_connection_however_that_ends(loss: ConnectionLostError) -> None:
    talk = Talk()
    exchange = talk.start()
    talk.hear(b"HTTP/1.1 200 OK\r\n\r\nab")
    talk.hear(b"cd")
    assert exchange.outcome is None
    talk.engine.lost(loss, NOW)
    assert exchange.body == b"abcd"
    assert response(exchange).length is None
    assert outcome(exchange) == Outcome(end=BodyEnd.CLOSE_DELIMITED)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n\r\nab"])
def test_a_connection_that_we_end_ourselves_ends_no_body(talk: Talk, data: bytes) -> None:
    exchange = talk.start()
    if data:
        talk.hear(data)
    error = PoolClosedError("the pool was closed", phase=Phase.BODY)
    talk.engine.lost(error, NOW)
    assert outcome(exchange).error is error


def test_an_idle_connection_is_lost_in_silence(talk: Talk) -> None:
    talk.start()
    talk.hear(OK)
    heard = list(talk.journal)
    talk.engine.lost(RESET, NOW)
    talk.hear(b"late")
    assert talk.journal == heard


# Cancelling


@pytest.mark.parametrize(
    ("data", "phase"),
    [
        (b"", Phase.FIRST_BYTE),
        (b"HTTP/1.1 2", Phase.FIRST_BYTE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", Phase.BODY),
        (b"HTTP/1.1 200 OK\r\n\r\n", Phase.BODY),
    ],
)
def test_a_cancel_ends_the_exchange_at_once_and_its_connection(talk: Talk, data: bytes, phase: Phase) -> None:
    exchange = talk.start()
    if data:
        talk.hear(data)
    talk.engine.cancel(exchange, NOW)
    ended = outcome(exchange)
    assert isinstance(ended.error, CancelledError)
    assert ended.error.phase is phase
    assert ended.progress is Progress.ENDED
    assert talk.owner.drained is CloseReason.REQUEST_ENDED
    assert [what for _, what, _ in talk.journal][-2:] == ["draining", "done"]
    talk.hear(b"the rest")
    talk.engine.cancel(exchange, NOW)
    talk.engine.lost(CLOSED, NOW)
    assert talk.owner.failure is None


def test_a_cancel_in_head_stops_everything_after_it(talk: Talk) -> None:
    exchange = talk.start(on_head=lambda: talk.engine.cancel(exchange, NOW))
    talk.hear(OK)
    assert exchange.chunks == []
    assert isinstance(outcome(exchange).error, CancelledError)
    assert talk.owner.drained is CloseReason.REQUEST_ENDED


def test_a_cancel_in_data_stops_everything_after_it(talk: Talk) -> None:
    exchange = talk.start(on_data=lambda: talk.engine.cancel(exchange, NOW))
    talk.hear(OK)
    assert exchange.chunks == [b"ok"]
    assert isinstance(outcome(exchange).error, CancelledError)


def test_a_cancel_of_an_exchange_that_is_over_touches_nothing(talk: Talk) -> None:
    first = talk.start(name="first")
    talk.hear(OK)
    second = talk.start(name="second")
    talk.engine.cancel(first, NOW)
    talk.hear(OK)
    assert outcome(second) == Outcome(end=BodyEnd.COMPLETE)
    assert talk.usable


def test_a_head_is_bounded_by_the_configuration() -> None:
    talk = Talk(EngineConfig(max_header_list_size=100))
    exchange = talk.start()
    talk.hear(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100)
    assert isinstance(outcome(exchange).error, RemoteProtocolError)
    assert "max_header_list_size" in str(outcome(exchange).error)


def test_the_bytes_of_an_exchange_are_its_own() -> None:
    talk = Talk()
    first = talk.start(get(b"POST", body=b"x" * (JOINED_BODY + 1)))
    sent = len(talk.transport.take())
    talk.hear(OK[:10])
    talk.hear(OK[10:])
    assert first.wire == (sent, len(OK))
    second = talk.start()
    talk.hear(OK)
    assert second.wire == (len(talk.transport.take()), len(OK))
