"""A prototype, no feature: an HTTP/2 engine on ngh2 (nghttp2 in C, sans-I/O), to see what a native framing layer would save.

ngh2 takes the place of the frame gate, the book (h2, hyperframe) and HPACK. What a request and a response may be is judged
by our own rooms, as in ``net/http2.py``. Missing, and the reason why this is no engine to crawl with: proofs for replays
after GOAWAY, bounds on floods and on late frames by our own account, liveness, early answers to uploads, texts of errors.
"""

from __future__ import annotations

import ngh2

from scrapy_poolplus.core.errors import CancelledError, ConnectionLostError, Phase, PoolPlusError, StreamResetError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.http2_flow import ReceiveWindow
from scrapy_poolplus.net.http2_head import request_headers
from scrapy_poolplus.net.http2_stream import Stream
from scrapy_poolplus.net.wire import EngineConfig, EngineOwner, EngineTransport, Exchange, Outcome, WireRequest

SETTINGS_ENABLE_PUSH, SETTINGS_INITIAL_WINDOW_SIZE = 2, 4
SETTINGS_MAX_FRAME_SIZE, SETTINGS_MAX_HEADER_LIST_SIZE = 5, 6
MAX_CONCURRENT_STREAMS = 3
CANCEL = 8


class NativeEngine:
    """See :class:`~scrapy_poolplus.net.wire.Engine`; as much of it as a crawl without incidents needs."""

    protocol = HttpProtocol.HTTP2

    def __init__(self, transport: EngineTransport, owner: EngineOwner, config: EngineConfig) -> None:
        self._transport = transport
        self._owner = owner
        self._config = config
        self._ngh2 = ngh2.Connection(
            ngh2.Role.CLIENT, ngh2.Configuration(max_inbound_header_list_size=config.max_header_list_size)
        )
        self._unused_window = ReceiveWindow(config.stream_window)
        self._queue: list[Stream] = []
        self._streams: dict[int, Stream] = {}
        self._exchanges: dict[int, Stream] = {}

    def begin(self, now: float) -> None:
        """Preface, SETTINGS, and the connection's window."""
        config = self._config
        self._ngh2.initiate_connection(
            {
                SETTINGS_ENABLE_PUSH: 0,
                SETTINGS_INITIAL_WINDOW_SIZE: config.stream_window,
                SETTINGS_MAX_FRAME_SIZE: config.max_frame_size,
                SETTINGS_MAX_HEADER_LIST_SIZE: config.max_header_list_size,
            }
        )
        self._ngh2.set_local_window_size(config.connection_window)
        self._owner.flush_soon()

    def start(self, request: WireRequest, exchange: Exchange, now: float) -> None:
        """Queued until ``flush``."""
        stream = Stream(request, exchange, self._unused_window)
        self._exchanges[id(exchange)] = stream
        self._queue.append(stream)
        self._owner.flush_soon()

    def cancel(self, exchange: Exchange, now: float) -> None:
        """Reset with CANCEL."""
        stream = self._exchanges.get(id(exchange))
        if stream is not None:
            if stream.id:
                self._ngh2.reset_stream(stream.id, CANCEL)
                self._owner.flush_soon()
            else:
                self._queue.remove(stream)
            error = CancelledError("the response is not wanted any more", phase=stream.phase)
            self._end(stream, Outcome(error=error, progress=Progress.ENDED))

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the peer."""
        self._ngh2.receive_data(data)
        for event in self._ngh2.events():
            kind = type(event)
            if kind is ngh2.DataReceived:
                self._data(event)
            elif kind is ngh2.ResponseReceived:
                self._response(event)
            elif kind is ngh2.StreamReset:
                self._reset(event)
            elif kind is ngh2.SettingsReceived and MAX_CONCURRENT_STREAMS in event.settings:
                self._owner.capacity(event.settings[MAX_CONCURRENT_STREAMS])
            elif kind is ngh2.GoAwayReceived:
                self._owner.draining(CloseReason.GOAWAY)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Open the queued streams, write once."""
        opened, self._queue = self._queue, []
        for stream in opened:
            body = stream.request.body
            stream.id = self._ngh2.send_request(request_headers(stream.request), end_stream=not body)
            self._streams[stream.id] = stream
            if body:
                self._ngh2.send_data(stream.id, body, end_stream=True)
        out = self._ngh2.data_to_send()
        if out:
            self._transport.write(out)
        for stream in opened:
            if stream.id in self._streams:
                stream.exchange.sent()

    def lost(self, error: PoolPlusError, now: float) -> None:
        """The transport is gone."""
        self._owner.draining(CloseReason.CONNECTION_RESET)
        for stream in list(self._exchanges.values()):
            lost = ConnectionLostError(str(error), phase=stream.phase)
            self._end(stream, Outcome(error=lost, progress=stream.progress))

    def goodbye(self, now: float) -> None:
        """GOAWAY."""
        self._ngh2.send_goaway()
        self.flush(now)

    def next_deadline(self) -> float | None:
        """None: no pings in a prototype."""
        return None

    def expire(self, now: float) -> None:
        """There are no deadlines."""

    def _response(self, event: ngh2.ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        head = stream.read(list(event.headers), end=event.end_stream)
        if head is not None:
            stream.exchange.head(head)
        if event.end_stream and stream.id in self._streams:
            self._end(stream, stream.ended())

    def _data(self, event: ngh2.DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        chunk, outcome = stream.take(event.data) if event.data else (b"", None)
        if chunk:
            stream.exchange.data(chunk)
        if stream.id not in self._streams:
            return
        if outcome is not None or event.end_stream:
            self._end(stream, outcome or stream.ended())

    def _reset(self, event: ngh2.StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            error = StreamResetError("the peer reset the stream", phase=Phase.FIRST_BYTE, code=event.error_code)
            self._end(stream, Outcome(error=error, progress=stream.progress))

    def _end(self, stream: Stream, outcome: Outcome) -> None:
        self._streams.pop(stream.id, None)
        self._exchanges.pop(id(stream.exchange), None)
        stream.exchange.carried(0, 0)
        stream.exchange.done(outcome)
