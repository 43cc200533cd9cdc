"""Flow control both ways: uploads wait for windows, windows that we give are given back."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, WindowUpdateFrame

from scrapy_poolplus.core.errors import RemoteProtocolError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.net.http2_flow import ReceiveWindow
from scrapy_poolplus.net.http2_uploads import FRAMES_PER_TURN
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome
from tests.peers.h2_peer import Conversation, H2Peer
from tests.peers.memory import RecordingExchange

COMPLETE = Outcome(end=BodyEnd.COMPLETE)
BODY = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


def upload(talk: Conversation, body: bytes = BODY, target: bytes = b"/up") -> RecordingExchange:
    exchange = talk.ask(target, method=b"POST", body=body)
    talk.turn()
    return exchange


def written(peer: H2Peer, stream: int) -> bytes:
    """The DATA that the client has sent on a stream and that nobody took yet."""
    body = b""
    while isinstance((peer.pending() or [None])[0], DataFrame):
        body += peer.want_data(stream)[0]
    return body


# What we send


def test_a_body_within_the_windows_goes_out_with_its_head(talk: Conversation) -> None:
    peer = talk.greeted()
    upload(talk, b"x" * 50_000)
    assert not peer.want_headers().end
    assert peer.want_body(1) == b"x" * 50_000


def test_a_body_goes_on_as_the_windows_are_raised(talk: Conversation) -> None:
    peer = talk.greeted()
    exchange = upload(talk)
    peer.want_headers()
    body = written(peer, 1)
    assert len(body) == 65_535
    peer.window(1, 100_000)
    assert written(peer, 1) == b""
    peer.window(0, 40_000)
    body += written(peer, 1)
    assert len(body) == 105_535
    peer.window(0, 10_000_000)
    body += written(peer, 1)
    assert len(body) == 165_535
    peer.window(1, 10_000_000)
    body += peer.want_body(1)
    assert body == BODY
    peer.answer(1, b"thanks")
    assert exchange.outcome == COMPLETE


def test_an_initial_window_of_0_lets_only_the_head_out_until_it_is_raised(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    upload(talk, b"x" * 1000)
    assert not peer.want_headers().end
    peer.want_nothing()
    peer.settings({SettingCodes.INITIAL_WINDOW_SIZE: 600})
    peer.want_settings_ack()
    assert peer.want_data(1) == (b"x" * 600, False)
    peer.settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    peer.want_settings_ack()
    assert peer.want_data(1) == (b"x" * 400, True)


def test_a_window_shrunk_below_what_is_in_use_stops_the_body_until_it_is_positive(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 20_000})
    upload(talk, b"x" * 30_000)
    peer.want_headers()
    assert len(written(peer, 1)) == 20_000
    peer.settings({SettingCodes.INITIAL_WINDOW_SIZE: 5_000})  # the window is now -15,000
    peer.want_settings_ack()
    peer.window(1, 15_000)
    peer.want_nothing()
    peer.window(1, 1)
    assert peer.want_data(1) == (b"x", False)
    peer.window(1, 100_000)
    assert len(peer.want_body(1)) == 9_999


def test_no_frame_is_larger_than_the_peer_takes(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.MAX_FRAME_SIZE: 20_000})
    upload(talk, b"x" * 50_000)
    peer.want_headers()
    assert [len(peer.want_data(1)[0]) for _ in range(3)] == [20_000, 20_000, 10_000]


def test_bodies_share_the_connections_window_frame_by_frame(talk: Conversation) -> None:
    peer = talk.greeted()
    first = talk.ask(b"/1", method=b"POST", body=BODY)
    second = talk.ask(b"/2", method=b"POST", body=BODY)
    talk.turn()
    peer.want_headers()
    peer.want_headers()
    assert [peer.want(DataFrame).stream_id for _ in range(4)] == [1, 3, 1, 3]
    assert first.was_sent
    assert second.was_sent


def test_a_body_that_waits_for_its_stream_does_not_hold_up_another(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    upload(talk, b"x" * 100, b"/1")
    upload(talk, b"y" * 100, b"/2")
    peer.want_headers()
    peer.want_data(1)
    peer.want_headers()
    peer.want_data(3)
    peer.window(3, 1000)
    assert peer.want_body(3) == b"y" * 90


def test_requests_without_a_body_go_on_while_uploads_are_stalled(talk: Conversation) -> None:
    peer = talk.greeted()
    upload(talk)
    peer.want_headers()
    written(peer, 1)
    (page,) = talk.asked(b"/page")
    peer.answer(3, b"page")
    assert page.outcome == COMPLETE


def test_a_turn_sends_a_bounded_number_of_frames_and_asks_for_another(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    peer.window(0, 2**31 - 1 - 65_535)
    talk.ask(b"/up", method=b"POST", body=b"x" * 16_384 * (FRAMES_PER_TURN + 10))
    talk.owner.flushes = 0
    talk.turn()
    assert talk.owner.flushes == 1
    peer.want_headers()
    assert len(written(peer, 1)) == 16_384 * FRAMES_PER_TURN
    talk.turn()
    assert talk.owner.flushes == 1
    assert len(peer.want_body(1)) == 16_384 * 10


def test_a_response_before_the_body_was_sent_ends_the_upload(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    exchange = upload(talk)
    peer.want_headers()
    written(peer, 1)
    peer.answer(1, b"too large", status=413)
    assert exchange.body == b"too large"
    assert exchange.outcome == COMPLETE
    assert peer.want_reset(1) is ErrorCodes.CANCEL
    peer.window(0, 1_000_000)
    peer.window(1, 1_000_000)
    peer.want_nothing()


def test_a_cancelled_upload_sends_nothing_more(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    exchange = upload(talk)
    peer.want_headers()
    written(peer, 1)
    talk.engine.cancel(exchange, talk.now)
    talk.turn()
    assert peer.want_reset(1) is ErrorCodes.CANCEL
    peer.window(0, 1_000_000)
    peer.want_nothing()


def test_a_connection_whose_send_window_stays_empty_is_drained(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    exchange = upload(talk)
    peer.want_headers()
    written(peer, 1)
    talk.wait(5)
    talk.engine.cancel(exchange, talk.now)  # its time is over; the window is not wider for that
    talk.turn()
    peer.want_reset(1)
    for stream in (3, 5):
        talk.asked(b"/page")
        peer.answer(stream)
        talk.wait(10)
    assert talk.owner.drained is None
    talk.wait(5)
    assert talk.owner.drained is CloseReason.NOT_REUSABLE
    assert talk.owner.failure is None


def test_a_connection_whose_send_window_was_widened_in_time_is_kept(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 1_000_000})
    upload(talk)
    peer.want_headers()
    talk.wait(25)
    peer.window(0, 1_000_000)
    for _ in range(10):
        talk.wait(25)
        peer.ping()
    assert talk.owner.drained is None


def test_an_upload_that_waits_for_its_own_stream_only_drains_nothing(talk: Conversation) -> None:
    peer = talk.greeted({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    upload(talk)
    for _ in range(10):
        talk.wait(25)
        peer.ping()
    assert talk.owner.drained is None


def test_a_window_over_its_maximum_costs_its_stream(talk: Conversation) -> None:
    peer = talk.greeted()
    hurt, other = talk.asked(b"/hurt", b"/other")
    peer.window(1, 2**31 - 1)
    assert hurt.outcome is not None
    assert isinstance(hurt.outcome.error, RemoteProtocolError)
    assert peer.want_reset(1) is ErrorCodes.FLOW_CONTROL_ERROR
    peer.answer(3, b"fine")
    assert other.outcome == COMPLETE


# What we receive


def test_a_large_body_is_acknowledged_in_few_updates(talk: Conversation) -> None:
    peer = talk.greeted()
    (exchange,) = talk.asked(b"/big")
    size = 40 * 1024 * 1024
    peer.headers(1, [(b":status", b"200")])
    chunk = b"x" * 16_384
    for _ in range(size // len(chunk)):
        peer.data(1, chunk)
    peer.data(1, b"", end=True)
    assert exchange.outcome == COMPLETE
    updates = peer.pending()
    assert all(isinstance(frame, WindowUpdateFrame) for frame in updates)
    connection = [frame.window_increment for frame in updates if not frame.stream_id]  # type: ignore[attr-defined]
    stream = [frame.window_increment for frame in updates if frame.stream_id]  # type: ignore[attr-defined]
    assert len(updates) < 20
    assert size - sum(connection) < 15 * 1024 * 1024 / 2
    assert size - sum(stream) < 6 * 1024 * 1024 / 2


def test_small_windows_never_stall_a_body() -> None:
    talk = Conversation(EngineConfig(stream_window=1000, connection_window=65_535))
    peer = talk.greeted()
    (exchange,) = talk.asked(b"/")
    peer.headers(1, [(b":status", b"200")])
    connection, stream, left = 65_535, 1000, 300_000
    while left:
        size = min(connection, stream, left)
        assert size > 0, "the server may send nothing more"
        left -= size
        connection, stream = connection - size, stream - size
        peer.data(1, b"x" * size, end=not left)
        while peer.pending():
            update = peer.want(WindowUpdateFrame)
            if update.stream_id:
                stream += update.window_increment
            else:
                connection += update.window_increment
    assert len(exchange.body) == 300_000


def test_padding_is_given_back_too() -> None:
    talk = Conversation(EngineConfig(stream_window=1000, connection_window=65_535))
    peer = talk.greeted()
    talk.asked(b"/")
    peer.headers(1, [(b":status", b"200")])
    peer.data(1, b"x" * 399, padding=100)  # 1 + 399 + 100
    assert peer.want(WindowUpdateFrame, 1).window_increment == 500


def test_late_data_of_reset_streams_is_given_back_to_the_connection() -> None:
    talk = Conversation(EngineConfig(connection_window=65_535, stream_window=65_535))
    peer = talk.greeted()
    room = 65_535
    for number in range(50):
        (exchange,) = talk.asked(b"/%d" % number)
        stream = 2 * number + 1
        peer.headers(stream, [(b":status", b"200")])
        peer.data(stream, b"x" * 5000)
        talk.engine.cancel(exchange, talk.now)
        talk.turn()
        peer.data(stream, b"x" * 5000, padding=50)
        room -= 10_051
        for frame in peer.pending():
            if isinstance(frame, WindowUpdateFrame) and not frame.stream_id:
                room += frame.window_increment
        while peer.pending():
            peer.want(type(peer.pending()[0]))
    assert room > 65_535 / 2, f"the connection's window has shrunk to {room} bytes"
    assert talk.owner.failure is None


def test_nothing_but_late_data_is_given_back_too() -> None:
    talk = Conversation(EngineConfig(connection_window=65_535, stream_window=65_535))
    peer = talk.greeted()
    (exchange,) = talk.asked(b"/")
    peer.headers(1, [(b":status", b"200")])
    talk.engine.cancel(exchange, talk.now)
    talk.turn()
    peer.want_reset(1)
    for _ in range(4):
        peer.data(1, b"x" * 15_000)
    assert sum(frame.window_increment for frame in peer.pending()) == 45_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("ended_by", ["us", "the peer"])
def test_late_data_is_borne_as_far_as_the_closed_streams_windows_went(ended_by: str) -> None:
    """Whoever reset a stream cannot know what was on its way; more than its window cannot have been."""
    talk = Conversation(EngineConfig(connection_window=65_535, stream_window=30_000))
    peer = talk.greeted()
    first, second = talk.asked(b"/1", b"/2")
    peer.headers(1, [(b":status", b"200")])
    if ended_by == "us":
        talk.engine.cancel(first, talk.now)
        talk.turn()
    else:
        peer.reset(1)
    peer.data(1, b"x" * 15_000)
    peer.data(1, b"x" * 15_000)
    assert talk.owner.failure is None
    peer.data(1, b"x")
    assert talk.owner.failure is not None
    assert talk.owner.failure[1] is CloseReason.PROTOCOL_ERROR
    assert second.outcome is not None
    assert peer.pending()[-1].error_code == ErrorCodes.STREAM_CLOSED  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream_window", [10_000, 100_000])
def test_data_beyond_a_window_costs_the_connection(stream_window: int) -> None:
    talk = Conversation(EngineConfig(stream_window=stream_window, connection_window=65_535, max_frame_size=100_000))
    peer = talk.greeted()
    first, second = talk.asked(b"/1", b"/2")
    peer.headers(1, [(b":status", b"200")])
    peer.data(1, b"x" * 65_536)
    for exchange in (first, second):
        assert exchange.outcome is not None
        assert isinstance(exchange.outcome.error, RemoteProtocolError)
    assert peer.want_goaway() is ErrorCodes.FLOW_CONTROL_ERROR
    assert talk.owner.failure is not None
    assert talk.owner.failure[1] is CloseReason.PROTOCOL_ERROR


def test_a_receive_window_gives_back_everything_it_took_once() -> None:
    window = ReceiveWindow(100)
    assert window.take(49)
    assert window.give_back() == 0
    assert window.take(1)
    assert window.give_back() == 50
    assert window.give_back() == 0
    assert window.take(100)
    assert not window.take(1)
