"""The everyday path: requests go out, responses come back, many at once."""

from __future__ import annotations

import pytest
from h2.settings import SettingCodes

from scrapy_poolplus.core.errors import CancelledError, LocalProtocolError, Phase
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.http2 import Http2Engine
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome, ResponseHead
from tests.peers.h2_peer import Conversation, H2Peer
from tests.peers.memory import RecordingExchange

COMPLETE = Outcome(end=BodyEnd.COMPLETE)


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


@pytest.fixture
def peer(talk: Conversation) -> H2Peer:
    return talk.greeted()


def test_the_engine_says_that_it_speaks_h2() -> None:
    assert Http2Engine.protocol is HttpProtocol.HTTP2


def test_requests_go_out_at_once_before_the_peers_settings(talk: Conversation) -> None:
    exchange = talk.ask(b"/first")
    talk.turn()
    talk.peer.want_greeting()
    asked = talk.peer.want_headers()
    assert (asked.stream, asked.end) == (1, True)
    assert exchange.was_sent


def test_preface_settings_window_and_all_requests_of_a_turn_are_one_write(talk: Conversation) -> None:
    for number in range(5):
        talk.ask(b"/%d" % number)
    assert talk.transport.writes == []
    assert talk.owner.flushes == 1
    talk.turn()
    assert len(talk.transport.writes) == 1


def test_the_big_windows_are_really_sent() -> None:
    talk = Conversation(EngineConfig(max_header_list_size=50_000, max_frame_size=20_000))
    talk.turn()
    seen = talk.peer.want_greeting()
    assert seen[SettingCodes.INITIAL_WINDOW_SIZE] == 6 * 1024 * 1024
    assert seen[0] == 15 * 1024 * 1024 - 65_535
    assert seen[SettingCodes.ENABLE_PUSH] == 0
    assert seen[SettingCodes.MAX_HEADER_LIST_SIZE] == 50_000
    assert seen[SettingCodes.MAX_FRAME_SIZE] == 20_000


def test_a_get_carries_end_stream_on_its_headers_and_no_length(talk: Conversation, peer: H2Peer) -> None:
    talk.ask(b"/page?q=1", headers=[(b"User-Agent", b"me"), (b"Accept", b"a"), (b"Accept", b"b")])
    talk.turn()
    asked = peer.want_headers()
    assert asked.end
    assert asked.headers == [
        (b":method", b"GET"),
        (b":authority", b"a.example"),
        (b":scheme", b"https"),
        (b":path", b"/page?q=1"),
        (b"user-agent", b"me"),
        (b"accept", b"a"),
        (b"accept", b"b"),
    ]


def test_a_response_comes_with_head_body_and_end(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/")
    fields = [(b"content-length", b"5"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d")]
    peer.answer(1, b"hello", headers=fields)
    assert exchange.response == ResponseHead(200, fields, 5, "h2")
    assert exchange.body == b"hello"
    assert exchange.outcome == COMPLETE


def test_a_response_without_a_length_has_none(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/")
    peer.answer(1, b"hello")
    assert exchange.response is not None
    assert exchange.response.length is None
    assert exchange.outcome == COMPLETE


@pytest.mark.parametrize("chop", [1, 7, 10_000])
def test_bytes_may_arrive_in_any_pieces(chop: int) -> None:
    talk = Conversation(chop=chop)
    talk.greeted()
    first, second = talk.asked(b"/a", b"/b")
    body = bytes(range(256)) * 200
    with talk.peer.one_read():
        talk.peer.answer(3, b"second")
        talk.peer.answer(1, body)
    assert (first.body, second.body) == (body, b"second")
    assert first.outcome == second.outcome == COMPLETE


def test_streams_are_answered_in_any_order_and_interleaved(talk: Conversation, peer: H2Peer) -> None:
    exchanges = talk.asked(*[b"/%d" % number for number in range(10)])
    for stream in range(19, 0, -2):
        peer.headers(stream, [(b":status", b"200")])
    for part in (b"one ", b"two ", b"three"):
        for stream in range(1, 20, 2):
            peer.data(stream, part, end=part == b"three")
    assert [exchange.body for exchange in exchanges] == [b"one two three"] * 10
    assert all(exchange.outcome == COMPLETE for exchange in exchanges)


def test_a_thousand_requests_pass_over_one_connection(talk: Conversation, peer: H2Peer) -> None:
    for number in range(1000):
        (exchange,) = talk.asked(b"/%d" % number)
        peer.answer(2 * number + 1, b"x" * 1000)
        assert exchange.outcome == COMPLETE
    assert talk.owner.drained is None


def test_head_and_bodiless_statuses_have_length_0(talk: Conversation, peer: H2Peer) -> None:
    head = talk.ask(method=b"HEAD")
    empty, unchanged = talk.ask(), talk.ask()
    talk.turn()
    peer.answer(1, headers=[(b"content-length", b"1000")])
    peer.answer(3, status=204)
    peer.answer(5, status=304, headers=[(b"content-length", b"1000")])
    for exchange in (head, empty, unchanged):
        assert exchange.response is not None
        assert exchange.response.length == 0
        assert exchange.outcome == COMPLETE


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_an_empty_body_is_announced_where_one_is_expected(talk: Conversation, peer: H2Peer, method: bytes) -> None:
    talk.ask(method=method)
    talk.turn()
    asked = peer.want_headers()
    assert asked.end
    assert asked.all(b"content-length") == [b"0"]


def test_a_body_goes_with_its_length_whatever_the_method(talk: Conversation, peer: H2Peer) -> None:
    talk.ask(method=b"GET", body=b"query", headers=[(b"Content-Length", b"99")])
    talk.turn()
    asked = peer.want_headers()
    assert not asked.end
    assert asked.all(b"content-length") == [b"5"]
    assert peer.want_data(1) == (b"query", True)


def test_connection_specific_request_headers_are_not_sent(talk: Conversation, peer: H2Peer) -> None:
    names = [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade", b"Host"]
    talk.ask(headers=[*((name, b"x") for name in names), (b"TE", b"gzip"), (b"X-Kept", b"y")])
    talk.ask(headers=[(b"TE", b"trailers")])
    talk.turn()
    assert peer.want_headers().headers[4:] == [(b"x-kept", b"y")]
    assert peer.want_headers().headers[4:] == [(b"te", b"trailers")]


def test_latin_1_bytes_pass_both_ways(talk: Conversation, peer: H2Peer) -> None:
    exchange = talk.ask(b"/caf\xe9", headers=[(b"X-Name", b"caf\xe9")])
    talk.turn()
    asked = peer.want_headers()
    assert (asked[b":path"], asked[b"x-name"]) == (b"/caf\xe9", b"caf\xe9")
    peer.answer(1, headers=[(b"x-name", b"\xfcber")])
    assert exchange.response is not None
    assert exchange.response.headers == [(b"x-name", b"\xfcber")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": [(b"X-A", b"b\r\nX-C: d")]},
        {"headers": [(b"X-A", b"b\n")]},
        {"headers": [(b"X-A", b"b\0")]},
        {"headers": [(b"X A", b"b")]},
        {"headers": [(b"X-A\r\n", b"b")]},
        {"headers": [(b":path", b"/other")]},
        {"headers": [(b"", b"b")]},
        {"target": b"/a b"},
        {"target": b""},
        {"method": b"G ET"},
        {"method": b"CONNECT"},
    ],
)
def test_a_request_that_cannot_be_sent_fails_alone_and_sends_nothing(
    talk: Conversation, peer: H2Peer, wrong: dict[str, object]
) -> None:
    exchange = talk.ask(**wrong)  # type: ignore[arg-type]
    good = talk.ask(b"/good")
    assert exchange.outcome is None
    talk.turn()
    assert exchange.outcome is not None
    assert isinstance(exchange.outcome.error, LocalProtocolError)
    assert exchange.outcome.progress is Progress.ENDED
    assert not exchange.was_sent
    assert peer.want_headers()[b":path"] == b"/good"
    peer.want_nothing()
    assert good.outcome is None


def test_headers_larger_than_a_frame_are_continued(talk: Conversation, peer: H2Peer) -> None:
    talk.ask(headers=[(b"x-%d" % number, b"v" * 4000) for number in range(10)])
    talk.turn()
    asked = peer.want_headers()
    assert len(asked.headers) == 14
    assert asked.end


# Capacity


def test_the_peers_stream_limit_is_told(talk: Conversation) -> None:
    talk.greeted({SettingCodes.MAX_CONCURRENT_STREAMS: 7})
    talk.peer.settings({SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
    talk.peer.settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    assert talk.owner.capacities == [7, 0]


def test_a_peer_without_a_limit_allows_as_many_as_can_be(talk: Conversation, peer: H2Peer) -> None:
    assert talk.owner.capacities == [2**31 - 1]


def test_a_request_above_a_limit_that_was_lowered_meanwhile_is_not_sent(talk: Conversation, peer: H2Peer) -> None:
    first, second = talk.ask(b"/1"), talk.ask(b"/2")
    peer.settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    assert first.was_sent
    assert second.outcome is not None
    assert second.outcome.progress is Progress.NOT_SENT
    peer.want_settings_ack()
    assert peer.want_headers()[b":path"] == b"/1"
    peer.want_nothing()


# Re-entry


def test_done_may_start_the_next_request_which_goes_out_with_the_same_read(talk: Conversation, peer: H2Peer) -> None:
    first = RecordingExchange("first", talk.journal, on_done=lambda: talk.ask(b"/next"))
    talk.ask(b"/first", exchange=first)
    talk.turn()
    peer.want_headers()
    talk.owner.flushes = 0
    peer.answer(1, b"done")
    asked = peer.want_headers()
    assert (asked.stream, asked[b":path"]) == (3, b"/next")
    assert talk.owner.flushes == 0


def test_sent_is_told_before_anything_of_the_response(talk: Conversation, peer: H2Peer) -> None:
    talk.asked(b"/a")
    peer.answer(1, b"x")
    assert [what for who, what, _ in talk.journal if who == "/a"] == ["sent", "head", "data", "done"]


# Cancelling


def test_a_cancel_resets_that_stream_only(talk: Conversation, peer: H2Peer) -> None:
    stopped, kept = talk.asked(b"/stopped", b"/kept")
    peer.headers(1, [(b":status", b"200")])
    peer.headers(3, [(b":status", b"200")])
    talk.engine.cancel(stopped, talk.now)
    assert stopped.outcome is not None
    assert isinstance(stopped.outcome.error, CancelledError)
    assert stopped.outcome.error.phase is Phase.BODY
    assert stopped.outcome.progress is Progress.ENDED
    talk.turn()
    assert peer.want_reset(1).name == "CANCEL"
    peer.data(1, b"late")
    peer.data(3, b"body", end=True)
    assert (stopped.body, kept.body) == (b"", b"body")
    assert kept.outcome == COMPLETE
    peer.want_nothing()


def test_a_request_cancelled_before_it_was_written_sends_nothing(talk: Conversation, peer: H2Peer) -> None:
    exchange = talk.ask()
    talk.engine.cancel(exchange, talk.now)
    assert exchange.outcome is not None
    assert exchange.outcome.progress is Progress.ENDED
    talk.turn()
    peer.want_nothing()
    assert not exchange.was_sent


def test_a_cancel_from_within_data_hears_no_more_data(talk: Conversation, peer: H2Peer) -> None:
    exchange = RecordingExchange("stop", talk.journal, on_data=lambda: talk.engine.cancel(exchange, talk.now))
    talk.ask(b"/big", exchange=exchange)
    talk.turn()
    peer.want_headers()
    with peer.one_read():
        peer.headers(1, [(b":status", b"200")])
        peer.data(1, b"one")
        peer.data(1, b"two", end=True)
    assert exchange.body == b"one"
    assert peer.want_reset(1).name == "CANCEL"


def test_a_cancel_from_within_head_hears_nothing_more(talk: Conversation, peer: H2Peer) -> None:
    exchange = RecordingExchange("stop", talk.journal, on_head=lambda: talk.engine.cancel(exchange, talk.now))
    talk.ask(b"/big", exchange=exchange)
    talk.turn()
    peer.want_headers()
    peer.answer(1)
    assert exchange.outcome is not None
    assert isinstance(exchange.outcome.error, CancelledError)


def test_a_reset_by_the_peer_in_the_same_read_does_not_hide_the_cancel(talk: Conversation, peer: H2Peer) -> None:
    exchange = RecordingExchange("stop", talk.journal, on_data=lambda: talk.engine.cancel(exchange, talk.now))
    talk.ask(b"/big", exchange=exchange)
    talk.turn()
    peer.want_headers()
    with peer.one_read():
        peer.headers(1, [(b":status", b"200")])
        peer.data(1, b"x" * 1000)
        peer.reset(1)
    assert exchange.outcome is not None
    assert isinstance(exchange.outcome.error, CancelledError)
    assert talk.owner.failure is None


def test_a_cancel_from_within_data_that_is_too_long_anyway_is_a_cancel(talk: Conversation, peer: H2Peer) -> None:
    exchange = RecordingExchange("stop", talk.journal, on_data=lambda: talk.engine.cancel(exchange, talk.now))
    talk.ask(b"/big", exchange=exchange)
    talk.turn()
    peer.want_headers()
    peer.answer(1, b"more than one", headers=[(b"content-length", b"1")])
    assert exchange.body == b"m"
    assert exchange.outcome is not None
    assert isinstance(exchange.outcome.error, CancelledError)


def test_a_request_cancelled_between_its_opening_and_its_writing_is_not_told_sent(
    talk: Conversation, peer: H2Peer
) -> None:
    first = talk.ask(b"/first")
    bad = RecordingExchange("bad", talk.journal, on_done=lambda: talk.engine.cancel(first, talk.now))
    talk.ask(b"/b ad", exchange=bad)
    talk.turn()
    assert first.outcome is not None
    assert not first.was_sent
    peer.want_headers()
    assert peer.want_reset(1).name == "CANCEL"


def test_cancelling_what_is_over_does_nothing(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/")
    peer.answer(1)
    talk.engine.cancel(exchange, talk.now)
    talk.turn()
    assert exchange.outcome == COMPLETE
    peer.want_nothing()


# The end


def test_goodbye_sends_goaway_without_error(talk: Conversation, peer: H2Peer) -> None:
    talk.engine.goodbye(talk.now)
    assert peer.want_goaway().name == "NO_ERROR"
    late = talk.ask()
    talk.turn()
    assert late.outcome is not None
    assert late.outcome.progress is Progress.NOT_SENT
    peer.want_nothing()


def test_stream_ids_running_out_drain_the_connection_with_the_last_one() -> None:
    talk = Conversation(first_stream=2**31 - 3)
    peer = talk.greeted()
    talk.asked(b"/last-but-one")
    assert talk.owner.drained is None
    (last,) = talk.asked(b"/last")
    assert talk.owner.drained is CloseReason.NOT_REUSABLE
    late = talk.ask(b"/late")
    talk.turn()
    assert late.outcome is not None
    assert late.outcome.progress is Progress.NOT_SENT
    peer.answer(2**31 - 1, b"whole")
    assert last.outcome == COMPLETE


def test_the_bytes_of_an_exchange_are_those_of_its_own_frames(talk: Conversation, peer: H2Peer) -> None:
    first, second = talk.ask(b"/a", method=b"POST", body=b"x" * 40_000), talk.ask(b"/b")
    talk.transport.take()
    talk.turn()
    written = len(talk.transport.take())
    peer.answer(3, b"b" * 100)
    peer.answer(1, b"a" * 40_000)
    assert first.wire is not None
    assert second.wire is not None
    assert first.wire[0] + second.wire[0] == written
    assert 40_000 + 3 * 9 < first.wire[0] < 40_000 + 3 * 9 + 100, "head, and three frames of at most 16 KiB"
    assert 40_000 + 9 < first.wire[1] < 40_000 + 200
    assert 100 + 2 * 9 < second.wire[1] < 100 + 100
