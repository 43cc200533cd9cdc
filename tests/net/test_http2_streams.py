"""One bad stream costs that stream: its exchange ends with an error of ours, its siblings finish."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes

from scrapy_poolplus.core.errors import BodyLengthError, RemoteProtocolError
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.http2_stream import MAX_INTERIM
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome
from tests.peers.h2_peer import Conversation, Fields, H2Peer
from tests.peers.memory import RecordingExchange

COMPLETE = Outcome(end=BodyEnd.COMPLETE)
OK = (b":status", b"200")
TRAILER = (b"x-checksum", b"1")


def siblings(config: EngineConfig | None = None) -> tuple[Conversation, H2Peer, list[RecordingExchange]]:
    """Three requests, of which the second will be hurt; the first has its head."""
    talk = Conversation(config)
    peer = talk.greeted()
    exchanges = talk.asked(b"/before", b"/hurt", b"/after")
    peer.headers(1, [OK])
    return talk, peer, exchanges


def unharmed(talk: Conversation, peer: H2Peer, exchanges: list[RecordingExchange]) -> None:
    """The siblings finish, and so does a new request."""
    peer.data(1, b"first", end=True)
    peer.answer(5, b"third")
    (fourth,) = talk.asked(b"/fourth")
    peer.answer(7, b"fourth")
    assert [exchange.body for exchange in (exchanges[0], exchanges[2], fourth)] == [b"first", b"third", b"fourth"]
    assert exchanges[0].outcome == exchanges[2].outcome == fourth.outcome == COMPLETE
    assert talk.owner.failure is talk.owner.drained is None


HEADS: dict[str, Fields] = {
    "no status": [(b"server", b"x")],
    "nothing at all": [],
    "two statuses": [OK, OK],
    "status after a header": [(b"server", b"x"), OK],
    "status of letters": [(b":status", b"abc")],
    "status of five digits": [(b":status", b"99999")],
    "status of two digits": [(b":status", b"20")],
    "status with a sign": [(b":status", b"+20")],
    "status 0": [(b":status", b"000")],
    "status 101": [(b":status", b"101")],
    "empty status": [(b":status", b"")],
    "a request's pseudo-header": [OK, (b":path", b"/")],
    "an unknown pseudo-header": [OK, (b":shiny", b"1")],
    "an upper-case name": [OK, (b"Server", b"x")],
    "a name with a space": [OK, (b"ser ver", b"x")],
    "a name with a colon": [OK, (b"ser:ver", b"x")],
    "a name with a line end": [OK, (b"server\r\nx", b"x")],
    "a name of Latin-1": [OK, (b"serv\xe9r", b"x")],
    "an empty name": [OK, (b"", b"x")],
    "a long upper-case name": [OK, (b"A" * 300, b"x")],
    "CR LF in a value": [OK, (b"x", b"a\r\nset-cookie: b=c")],
    "LF in a value": [OK, (b"x", b"a\nb")],
    "NUL in a value": [OK, (b"x", b"a\0b")],
    "content-length of letters": [OK, (b"content-length", b"ten")],
    "content-length with a sign": [OK, (b"content-length", b"-1")],
    "an empty content-length": [OK, (b"content-length", b"")],
    "a content-length of 40 digits": [OK, (b"content-length", b"9" * 40)],
    "two content-lengths": [OK, (b"content-length", b"1"), (b"content-length", b"2")],
}


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("fields", HEADS.values(), ids=HEADS.keys())
def test_a_malformed_head_costs_its_stream(fields: Fields, end: bool) -> None:
    talk, peer, exchanges = siblings()
    peer.headers(3, fields, end=end)
    outcome = exchanges[1].outcome
    assert outcome is not None
    assert isinstance(outcome.error, RemoteProtocolError)
    assert outcome.progress is Progress.STARTED
    assert exchanges[1].response is None
    assert peer.want_reset(3) is ErrorCodes.PROTOCOL_ERROR
    if not end:
        peer.data(3, b"late", end=True)
    unharmed(talk, peer, exchanges)


def zero_increment(peer: H2Peer) -> None:
    peer.window(3, 0)


def data_first(peer: H2Peer) -> None:
    peer.data(3, b"no head yet")


def end_first(peer: H2Peer) -> None:
    peer.data(3, b"", end=True)


def second_head(peer: H2Peer) -> None:
    peer.headers(3, [OK])
    peer.headers(3, [OK])


def open_trailers(peer: H2Peer) -> None:
    peer.headers(3, [OK])
    peer.data(3, b"body")
    peer.headers(3, [TRAILER])


def pseudo_trailers(peer: H2Peer) -> None:
    peer.headers(3, [OK])
    peer.headers(3, [OK], end=True)


def bad_trailers(peer: H2Peer) -> None:
    peer.headers(3, [OK])
    peer.headers(3, [(b"X-Upper", b"1")], end=True)


def interim_that_ends(peer: H2Peer) -> None:
    peer.headers(3, [(b":status", b"103")], end=True)


def endless_interim(peer: H2Peer) -> None:
    for _ in range(MAX_INTERIM + 1):
        peer.headers(3, [(b":status", b"103"), (b"link", b"</a>")])


@pytest.mark.parametrize(
    "fault",
    [
        zero_increment,
        data_first,
        end_first,
        second_head,
        open_trailers,
        pseudo_trailers,
        bad_trailers,
        interim_that_ends,
        endless_interim,
    ],
)
def test_a_fault_of_a_stream_costs_that_stream(fault: Callable[[H2Peer], None]) -> None:
    talk, peer, exchanges = siblings()
    fault(peer)
    outcome = exchanges[1].outcome
    assert outcome is not None
    assert isinstance(outcome.error, RemoteProtocolError)
    assert outcome.progress is Progress.STARTED
    assert peer.want_reset(3) is ErrorCodes.PROTOCOL_ERROR
    unharmed(talk, peer, exchanges)


@pytest.mark.parametrize("split", [False, True])
def test_a_body_shorter_than_announced_is_truncated(split: bool) -> None:
    talk, peer, exchanges = siblings()
    peer.headers(3, [OK, (b"content-length", b"10")])
    if split:
        peer.data(3, b"half")
        peer.data(3, b"", end=True)
    else:
        peer.data(3, b"half", end=True)
    outcome = exchanges[1].outcome
    assert outcome is not None
    assert outcome.end is BodyEnd.TRUNCATED
    assert isinstance(outcome.error, BodyLengthError)
    assert str(outcome.error) == "4 bytes of a body of 10 bytes, when the stream ended"
    assert exchanges[1].body == b"half"
    unharmed(talk, peer, exchanges)


def test_an_announced_body_that_never_begins_is_truncated() -> None:
    talk, peer, exchanges = siblings()
    peer.headers(3, [OK, (b"content-length", b"10")], end=True)
    outcome = exchanges[1].outcome
    assert outcome is not None
    assert outcome.end is BodyEnd.TRUNCATED
    assert exchanges[1].response is not None
    unharmed(talk, peer, exchanges)


@pytest.mark.parametrize("pieces", [[b"0123456789abc"], [b"0123", b"456789abc"], [b"0123456789", b"abc"]])
@pytest.mark.parametrize("end", [True, False])
def test_a_body_longer_than_announced_is_cut_and_truncated(pieces: list[bytes], end: bool) -> None:
    talk, peer, exchanges = siblings()
    with peer.one_read():
        peer.headers(3, [OK, (b"content-length", b"10")])
        for piece in pieces:
            peer.data(3, piece, end=end and piece is pieces[-1])
    outcome = exchanges[1].outcome
    assert outcome is not None
    assert outcome.end is BodyEnd.TRUNCATED
    assert isinstance(outcome.error, BodyLengthError)
    assert exchanges[1].body == b"0123456789"
    assert peer.want_reset(3) is ErrorCodes.PROTOCOL_ERROR
    unharmed(talk, peer, exchanges)


def test_equal_content_lengths_are_one() -> None:
    talk, peer, exchanges = siblings()
    peer.answer(3, b"four", headers=[(b"content-length", b"4"), (b"content-length", b"4")])
    assert exchanges[1].outcome == COMPLETE
    unharmed(talk, peer, exchanges)


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_a_body_where_there_can_be_none_is_dropped_and_the_response_stands(method: bytes, status: int) -> None:
    talk = Conversation()
    peer = talk.greeted()
    exchange = talk.ask(method=method)
    talk.turn()
    peer.want_headers()
    peer.headers(1, [(b":status", b"%d" % status), (b"content-length", b"4")])
    peer.data(1, b"body", end=True)
    assert exchange.body == b""
    assert exchange.outcome == COMPLETE
    assert peer.want_reset(1) is ErrorCodes.PROTOCOL_ERROR
    (after,) = talk.asked(b"/")
    peer.answer(3)
    assert after.outcome == COMPLETE


def test_connection_specific_response_headers_are_passed_over() -> None:
    """Servers behind proxies send them, and browsers show those pages (nghttp2 #1674)."""
    talk, peer, exchanges = siblings()
    fields = [(b"upgrade", b"h2,h2c"), (b"connection", b"Upgrade"), (b"keep-alive", b"5"), (b"server", b"x")]
    peer.answer(3, b"page", headers=fields)
    assert exchanges[1].response is not None
    assert exchanges[1].response.headers == [(b"server", b"x")]
    assert exchanges[1].outcome == COMPLETE
    unharmed(talk, peer, exchanges)


def test_space_around_a_value_is_taken_off() -> None:
    _talk, peer, exchanges = siblings()
    peer.answer(3, headers=[(b"server", b" x y\t")])
    assert exchanges[1].response is not None
    assert exchanges[1].response.headers == [(b"server", b"x y")]


def test_interim_responses_are_passed_over() -> None:
    talk, peer, exchanges = siblings()
    peer.headers(3, [(b":status", b"100")])
    peer.headers(3, [(b":status", b"103"), (b"link", b"</style.css>")])
    peer.answer(3, b"page", headers=[(b"server", b"x")])
    assert exchanges[1].response is not None
    assert exchanges[1].response.status == 200
    assert exchanges[1].response.headers == [(b"server", b"x")]
    assert exchanges[1].outcome == COMPLETE
    unharmed(talk, peer, exchanges)


def test_trailers_end_a_response_and_are_passed_over() -> None:
    talk, peer, exchanges = siblings()
    peer.headers(3, [OK, (b"content-length", b"4")])
    peer.data(3, b"body")
    peer.headers(3, [TRAILER], end=True)
    assert exchanges[1].response is not None
    assert exchanges[1].response.headers == [(b"content-length", b"4")]
    assert exchanges[1].outcome == COMPLETE
    unharmed(talk, peer, exchanges)


def test_a_body_that_is_short_of_its_length_at_the_trailers_is_truncated() -> None:
    talk, peer, exchanges = siblings()
    peer.headers(3, [OK, (b"content-length", b"10")])
    peer.data(3, b"body")
    peer.headers(3, [TRAILER], end=True)
    assert exchanges[1].outcome is not None
    assert exchanges[1].outcome.end is BodyEnd.TRUNCATED
    unharmed(talk, peer, exchanges)


def test_a_head_over_the_limit_costs_its_stream_and_leaves_the_table_right() -> None:
    _talk, peer, exchanges = siblings(EngineConfig(max_header_list_size=2000))
    peer.headers(3, [OK, *[(b"x-%d" % number, b"v" * 100) for number in range(15)]])
    assert exchanges[1].outcome is not None
    assert "header list over 2000 bytes" in str(exchanges[1].outcome.error)
    assert peer.want_reset(3) is ErrorCodes.PROTOCOL_ERROR
    peer.answer(5, b"third", headers=[(b"x-14", b"v" * 100)])  # by its index in the table
    assert exchanges[2].response is not None
    assert exchanges[2].response.headers == [(b"x-14", b"v" * 100)]


def test_a_malformed_response_to_an_upload_stops_the_upload() -> None:
    talk = Conversation()
    peer = talk.greeted()
    talk.ask(method=b"POST", body=b"x" * 200_000)
    talk.turn()
    peer.want_headers()
    while peer.pending():
        peer.want_data(1)
    peer.headers(1, [(b"server", b"x")])
    assert peer.want_reset(1) is ErrorCodes.PROTOCOL_ERROR
    peer.window(0, 1_000_000)
    peer.want_nothing()


# Frames for streams that are closed (RFC 9113 5.1)


@pytest.mark.parametrize("how", ["answered", "cancelled", "reset"])
def test_frames_for_a_closed_stream_are_passed_over(how: str) -> None:
    talk, peer, exchanges = siblings()
    if how == "answered":
        peer.answer(3)
    elif how == "cancelled":
        talk.engine.cancel(exchanges[1], talk.now)
        talk.turn()
        peer.want_reset(3)
    else:
        peer.reset(3)
    peer.headers(3, [OK, (b"x-late", b"in the table")])
    peer.data(3, b"late")
    peer.headers(3, [TRAILER], end=True)
    peer.data(3, b"later", end=True)
    peer.window(3, 1)
    peer.window(3, 0)
    peer.reset(3)
    peer.want_nothing()
    peer.headers(5, [OK, (b"x-late", b"in the table")])
    assert exchanges[2].response is not None
    assert exchanges[2].response.headers == [(b"x-late", b"in the table")]
    peer.data(5, b"third", end=True)
    peer.data(1, b"first", end=True)
    assert talk.owner.failure is None


# Server push


def test_a_push_before_our_settings_are_acknowledged_is_refused_and_the_response_comes() -> None:
    talk = Conversation()
    talk.ask()
    talk.turn()
    peer = talk.peer
    peer.want_greeting()
    asked = peer.want_headers()
    peer.settings({})
    peer.want_settings_ack()
    peer.push(asked.stream, 2)
    peer.push(asked.stream, 4)
    assert peer.want_reset(2) is ErrorCodes.REFUSED_STREAM
    assert peer.want_reset(4) is ErrorCodes.REFUSED_STREAM
    peer.answer(2, b"pushed")  # it was on its way
    peer.answer(asked.stream, b"asked")
    assert talk.journal[-2][2] == b"asked"
    assert talk.journal[-1][2] == COMPLETE


def test_a_push_after_that_costs_the_connection() -> None:
    talk, peer, exchanges = siblings()
    peer.push(3, 2)
    assert peer.want_goaway() is ErrorCodes.PROTOCOL_ERROR
    assert [exchange.outcome.progress for exchange in exchanges if exchange.outcome] == [
        Progress.STARTED,
        Progress.SENT,
        Progress.SENT,
    ]
    assert talk.owner.failure is not None
