"""The one room that knows h2: it keeps the book of a connection.

h2 makes the frames of every request, answers SETTINGS and PING, and counts the windows that we send into. It is shown
the peer's SETTINGS, PING, WINDOW_UPDATE and RST_STREAM after the gate has passed them. Of a response it hears nothing:
header blocks and DATA are judged by the engine, because h2 would make a stream's fault the connection's. It never
hears of GOAWAY, on which it would stop and drop what it still has to send. Only public names of h2 are used;
``tests/net/test_http2_book.py`` says which behaviour of them is relied on.
"""

from __future__ import annotations

from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, StreamReset
from h2.exceptions import ProtocolError, TooManyStreamsError
from h2.settings import SettingCodes, Settings
from hpack.hpack import Encoder

from scrapy_poolplus.net import frame_gate as gate
from scrapy_poolplus.net.frame_gate import PeerFaultError
from scrapy_poolplus.net.hpack_cache import HeaderEncoder
from scrapy_poolplus.net.http2_flow import DEFAULT_WINDOW
from scrapy_poolplus.net.wire import EngineConfig, Headers

TRIED = ("4.4.0", "4.4.1")
"""The versions of h2 that this room was tried with."""

NO_LIMIT = 2**31 - 1


class NoRoomError(Exception):
    """The peer allows no more streams at once."""


class _Forgetful(H2Connection):
    """Keeps no list of closed streams (65,536 of them by default): frames for those never reach it."""

    MAX_CLOSED_STREAMS = 1


class Book:
    """h2 for one connection. What is to be sent gathers here until `written` takes it."""

    def __init__(self, config: EngineConfig) -> None:
        self._h2 = _Forgetful(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        # h2 asks of its encoder what is public in ours.
        self._h2.encoder = cast("Encoder", HeaderEncoder())
        # Replaced, not updated: what update() sets is sent only after an ACK that never comes, and bodies over 64 KiB
        # then deadlock.
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: config.stream_window,
                SettingCodes.MAX_FRAME_SIZE: config.max_frame_size,
                SettingCodes.MAX_HEADER_LIST_SIZE: config.max_header_list_size,
            },
        )
        self._widen = config.connection_window - DEFAULT_WINDOW
        self._out: list[bytes] = []

    def begin(self) -> None:
        """Preface, SETTINGS and the connection's window (which SETTINGS cannot set, RFC 9113 6.9.2)."""
        self._h2.initiate_connection()
        if self._widen > 0:
            self.window_update(0, self._widen)

    # What we send

    def written(self) -> bytes:
        """Everything that gathered, in order."""
        self._out.append(self._h2.data_to_send())
        data = b"".join(self._out)
        self._out.clear()
        return data

    def open(self, stream_id: int, headers: Headers, *, end: bool) -> int:
        """Send a request's head; its bytes on the wire. Raises NoRoomError, and nothing is sent."""
        self._out.append(self._h2.data_to_send())
        try:
            self._h2.send_headers(stream_id, headers, end_stream=end)
        except TooManyStreamsError as error:
            raise NoRoomError(str(error)) from error
        head = self._h2.data_to_send()
        self._out.append(head)
        return len(head)

    def room(self, stream_id: int) -> int:
        """Bytes of a body that one frame on this stream may carry now; 0 or less where a window is empty."""
        return min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)

    @property
    def connection_room(self) -> int:
        """Bytes that all bodies together may still send."""
        return self._h2.outbound_flow_control_window

    def data(self, stream_id: int, chunk: bytes, *, end: bool) -> None:
        """Send a part of a body, no longer than `room`."""
        self._h2.send_data(stream_id, chunk, end_stream=end)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End an open stream."""
        self._h2.reset_stream(stream_id, code)

    def over(self, stream_id: int) -> None:
        """The response is complete, and so was the request: strike the stream out. Telling h2 by a frame costs 40 µs."""
        del self._h2.streams[stream_id]

    def refuse(self, promised: int) -> None:
        """Refuse a pushed stream. h2 was not told of it."""
        self._emit(gate.pack_long(gate.RST_STREAM, promised, ErrorCodes.REFUSED_STREAM))

    def window_update(self, stream_id: int, increment: int) -> None:
        """Give back what DATA took of a window of ours."""
        self._emit(gate.pack_long(gate.WINDOW_UPDATE, stream_id, increment))

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self._h2.ping(b"poolplus")

    def goaway(self, code: ErrorCodes) -> None:
        """Written past h2, which would refuse everything that is asked of it afterwards."""
        self._emit(gate.pack_goaway(code))

    # What h2 is shown. Each raises PeerFaultError where h2 does not take it.

    def read_settings(self, frame: gate.SettingsFrame) -> int | None:
        """The streams that the peer now allows at once; None for an ACK."""
        self._tell(frame.raw)
        return None if frame.ack else min(self._h2.remote_settings.max_concurrent_streams, NO_LIMIT)

    def read_window_update(self, frame: gate.WindowUpdate) -> bool:
        """False: it took an open stream's window over 2^31-1, and h2 has reset the stream (RFC 9113 6.9.1)."""
        return not any(isinstance(event, StreamReset) for event in self._tell(frame.raw))

    def read_reset(self, frame: gate.Reset) -> None:
        """An open stream was reset."""
        self._tell(frame.raw)

    def read_ping(self, frame: gate.Ping) -> None:
        """Answered by h2."""
        self._tell(frame.raw)

    def _tell(self, raw: bytes) -> list[Event]:
        try:
            return self._h2.receive_data(raw)
        except ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its own GOAWAY: the engine sends one
            raise PeerFaultError(str(error), ErrorCodes(error.error_code)) from error
        except Exception as error:
            # A fault of h2's own is this connection's end, not the crawl's.
            raise PeerFaultError(f"h2: {error!r}", ErrorCodes.INTERNAL_ERROR) from error

    def _emit(self, frame: bytes) -> None:
        """A frame of our own making, after what h2 has made so far."""
        self._out.append(self._h2.data_to_send())
        self._out.append(frame)
