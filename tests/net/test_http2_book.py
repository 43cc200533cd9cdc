"""What the engine relies on in h2, by its public interface: if a version of h2 changes it, this says so first."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes, Settings

from scrapy_poolplus.net import frame_gate as gate
from scrapy_poolplus.net.frame_gate import PeerFaultError
from scrapy_poolplus.net.http2_book import NO_LIMIT, TRIED, Book, NoRoomError
from scrapy_poolplus.net.wire import EngineConfig, Headers
from tests.peers.h2_peer import Conversation

ASK: Headers = [(b":method", b"GET"), (b":authority", b"a.example"), (b":scheme", b"https"), (b":path", b"/")]


@pytest.fixture
def book() -> Book:
    book = Book(EngineConfig())
    book.begin()
    book.written()
    return book


def settings(book: Book, values: dict[int, int]) -> int | None:
    """As the gate would pass it."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return book.read_settings(gate.SettingsFrame(False, gate.pack(gate.SETTINGS, 0, 0, payload)))


def window_update(book: Book, stream: int, increment: int) -> bool:
    raw = gate.pack_long(gate.WINDOW_UPDATE, stream, increment)
    return book.read_window_update(gate.WindowUpdate(stream, increment, raw))


def test_h2_is_a_version_that_was_tried() -> None:
    """Another one is no failure: the other tests of this file say whether it still does what the book relies on."""
    installed = version("h2")
    if installed not in TRIED:
        pytest.skip(f"h2 {installed} is new here; when the tests of this file pass, add it to TRIED")
    assert "4.4" <= installed < "5"


def test_h2_sends_the_settings_that_replace_its_own() -> None:
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    book = Book(EngineConfig(stream_window=1_000_000, connection_window=2_000_000))
    book.begin()
    server.receive_data(book.written())
    assert server.remote_settings.initial_window_size == 1_000_000
    assert server.remote_settings.enable_push == 0
    assert server.outbound_flow_control_window == 2_000_000


def test_a_stream_that_is_struck_out_frees_its_place(book: Book) -> None:
    settings(book, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    for stream in range(1, 200, 2):
        book.open(stream, ASK, end=True)
        with pytest.raises(NoRoomError):
            book.open(stream + 2, ASK, end=True)
        book.over(stream)


@pytest.mark.parametrize("end", [True, False])
def test_a_reset_either_way_frees_its_stream(book: Book, end: bool) -> None:
    settings(book, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    book.open(1, ASK, end=end)
    book.reset(1, ErrorCodes.CANCEL)
    book.open(3, ASK, end=end)
    book.read_reset(gate.Reset(3, 8, gate.pack_long(gate.RST_STREAM, 3, 8)))
    book.open(5, ASK, end=end)


def test_a_stream_that_was_not_opened_leaves_nothing_behind(book: Book) -> None:
    settings(book, {SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    book.written()
    with pytest.raises(NoRoomError):
        book.open(1, ASK, end=True)
    assert book.written() == b""
    settings(book, {SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    book.open(1, ASK, end=True)


def test_settings_give_the_limit_and_an_ack_gives_none(book: Book) -> None:
    assert settings(book, {}) == NO_LIMIT
    assert settings(book, {SettingCodes.MAX_CONCURRENT_STREAMS: 5}) == 5
    assert settings(book, {}) == 5
    assert book.read_settings(gate.SettingsFrame(True, gate.pack(gate.SETTINGS, gate.ACK, 0))) is None


def test_settings_change_the_room_of_open_streams(book: Book) -> None:
    book.open(1, ASK, end=False)
    assert book.room(1) == 16_384
    settings(book, {SettingCodes.MAX_FRAME_SIZE: 100_000, SettingCodes.INITIAL_WINDOW_SIZE: 50_000})
    assert book.room(1) == 50_000
    book.data(1, b"x" * 50_000, end=False)
    settings(book, {SettingCodes.INITIAL_WINDOW_SIZE: 10_000})
    assert book.room(1) == -40_000
    assert window_update(book, 1, 40_010)
    assert book.room(1) == 10
    assert book.connection_room == 15_535
    assert window_update(book, 0, 100)
    assert book.connection_room == 15_635


def test_a_window_over_its_maximum_resets_the_stream_in_h2(book: Book) -> None:
    book.open(1, ASK, end=False)
    book.written()
    assert not window_update(book, 1, 2**31 - 1)
    assert book.written() == gate.pack_long(gate.RST_STREAM, 1, ErrorCodes.FLOW_CONTROL_ERROR)


def test_what_h2_does_not_take_is_the_peers_fault_and_h2_says_nothing_of_its_own(book: Book) -> None:
    with pytest.raises(PeerFaultError) as caught:
        settings(book, {SettingCodes.MAX_FRAME_SIZE: 1})
    assert caught.value.code is ErrorCodes.PROTOCOL_ERROR
    assert book.written() == b""


def test_frames_go_out_in_the_order_they_were_made(book: Book) -> None:
    book.open(1, ASK, end=True)
    book.window_update(1, 1000)
    book.reset(1, ErrorCodes.CANCEL)
    book.refuse(2)
    book.ping()
    book.goaway(ErrorCodes.NO_ERROR)
    kinds, data = [], book.written()
    while data:
        kinds.append(data[3])
        data = data[9 + int.from_bytes(data[:3], "big") :]
    assert kinds == [gate.HEADERS, gate.WINDOW_UPDATE, gate.RST_STREAM, gate.RST_STREAM, gate.PING, gate.GOAWAY]


def test_h2_keeps_no_list_of_streams_that_are_over(book: Book) -> None:
    """Its own keeps 65,536 of them."""
    for stream in range(1, 2000, 4):
        book.open(stream, ASK, end=True)
        book.over(stream)
        book.open(stream + 2, ASK, end=True)
        book.reset(stream + 2, ErrorCodes.CANCEL)
    h2 = book._h2
    assert len(h2.streams) <= 1
    assert len(h2._closed_streams) <= 1


def test_an_independent_server_understands_every_word() -> None:
    """h2 as the server: it checks what the client sends, by its own rules."""
    talk = Conversation()
    server = H2Connection(H2Configuration(client_side=False))
    server.local_settings = Settings(client=False, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    server.initiate_connection()
    talk.engine.receive(server.data_to_send(), talk.now)
    exchanges = [talk.ask(b"/%d" % number, method=b"PUT", body=b"x" * number * 1000) for number in range(20)]
    stopped = talk.ask(b"/stopped")
    talk.turn()
    talk.engine.cancel(stopped, talk.now)
    talk.turn()
    bodies: dict[int, bytes] = {}
    seen: set[type] = set()
    server.ping(b"01234567")
    for _ in range(1000):
        events = server.receive_data(talk.transport.take())
        seen |= {type(event) for event in events}
        cancelled = [event.stream_id for event in events if isinstance(event, StreamReset)]
        for event in events:
            if isinstance(event, RequestReceived):
                assert event.stream_id is not None
                bodies[event.stream_id] = b""
            elif isinstance(event, DataReceived):
                assert event.stream_id is not None
                assert event.flow_controlled_length is not None
                bodies[event.stream_id] += event.data or b""
                server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded) and event.stream_id not in cancelled:
                assert event.stream_id is not None
                body = bodies[event.stream_id]
                server.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(body)))])
                for start in range(0, len(body), 16_384):
                    server.send_data(event.stream_id, body[start : start + 16_384])
                server.end_stream(event.stream_id)
        answer = server.data_to_send()
        if not answer:
            break
        talk.engine.receive(answer, talk.now)
    assert [len(exchange.body) for exchange in exchanges] == [number * 1000 for number in range(20)]
    assert all(exchange.outcome and exchange.outcome.error is None for exchange in exchanges)
    assert StreamReset in seen
    assert PingReceived not in seen
    assert talk.owner.failure is None
