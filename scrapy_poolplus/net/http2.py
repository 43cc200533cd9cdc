"""The HTTP/2 engine: many exchanges on one connection (RFC 9113).

How the work is shared: bytes of the peer become frames in the frame gate; h2 keeps the book of streams, settings and
send windows, and makes what we send; a Stream judges its response; here is decided what a frame means for whom.

- A stream leaves ``_streams`` before its ``done`` is called: whatever comes for it later is read, counted against the
  connection's window, given back, and dropped (RFC 9113 5.1, closed).
- ``_closing`` is the only road to the end of the connection; ``_over`` is set first, and nothing is sent after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from h2.errors import ErrorCodes

from scrapy_poolplus.core.errors import (
    CancelledError,
    ConnectionLostError,
    LocalProtocolError,
    Phase,
    PoolPlusError,
    RemoteProtocolError,
    StreamResetError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net import frame_gate as gate
from scrapy_poolplus.net.frame_gate import FrameGate, PeerFaultError
from scrapy_poolplus.net.hpack_cache import HeaderBlockError, HeaderDecoder
from scrapy_poolplus.net.http2_book import Book, NoRoomError
from scrapy_poolplus.net.http2_flow import DEFAULT_WINDOW, ReceiveWindow
from scrapy_poolplus.net.http2_head import MalformedError, request_headers
from scrapy_poolplus.net.http2_stream import PROOF_BY_CODE, Stream, code_name
from scrapy_poolplus.net.http2_uploads import FRAMES_PER_TURN, Uploads
from scrapy_poolplus.net.http2_watch import Due, Watch
from scrapy_poolplus.net.wire import (
    EngineConfig,
    EngineOwner,
    EngineTransport,
    Exchange,
    Headers,
    Outcome,
    WireRequest,
)

LAST_STREAM = 2**31 - 1
"""The highest stream id there is (RFC 9113 5.1.1)."""

_BLOCK_SLACK = 2
"""A header block may have this many times ``max_header_list_size`` on the wire, so that a head that is somewhat too
large costs its stream: only a block read to its end leaves the HPACK table right."""

_ANSWERS_TO_HEAD, _ANSWERS_TO_DATA = 8, 4
"""Control frames that a peer may well send for each head and each DATA frame of ours."""


class Http2Engine:
    """See :class:`~scrapy_poolplus.net.wire.Engine`. `first_stream`: the first stream id, odd."""

    protocol = HttpProtocol.HTTP2

    def __init__(
        self, transport: EngineTransport, owner: EngineOwner, config: EngineConfig, *, first_stream: int = 1
    ) -> None:
        self._transport = transport
        self._owner = owner
        self._config = config
        self._gate = FrameGate(
            max_frame_size=config.max_frame_size,
            max_block_size=config.max_header_list_size * _BLOCK_SLACK,
        )
        self._decoder = HeaderDecoder(config.max_header_list_size)
        self._window = ReceiveWindow(max(config.connection_window, DEFAULT_WINDOW))
        self._watch = Watch(config.ping_interval, config.ping_timeout)
        self._book = Book(config)
        self._uploads = Uploads(self._book)
        self._queue: deque[Stream] = deque()
        self._streams: dict[int, Stream] = {}
        self._exchanges: dict[int, Stream] = {}
        """By the id of the exchange: all that is queued or open."""
        self._next_id = first_stream
        self._late = 0
        """Bytes of DATA that may still come for streams that have ended: what their windows had left."""
        self._promised = 0
        self._peer_limit: int | None = None
        self._settings_acked = False
        self._answered = False
        self._last_words = ""
        self._calm = False
        """The peer has asked for calm, so that what it leaves unanswered is not asked again at once."""
        self._full = False
        """No stream can be opened any more: GOAWAY either way, or no ids are left."""
        self._drained = False
        self._over = False
        self._reading = False
        self._flush_asked = False

    # What the owner calls

    def begin(self, now: float) -> None:
        """Preface, SETTINGS and the connection's window, written with the first requests of this reactor turn."""
        self._watch.heard(now)
        self._book.begin()
        self._ask_flush()

    def start(self, request: WireRequest, exchange: Exchange, now: float) -> None:
        """Queued until ``flush``: what is cancelled or refused before that has sent nothing."""
        stream = Stream(request, exchange, ReceiveWindow(self._config.stream_window))
        self._exchanges[id(exchange)] = stream
        self._queue.append(stream)
        self._ask_flush()

    def cancel(self, exchange: Exchange, now: float) -> None:
        """Reset with CANCEL; an exchange that is over already is left alone."""
        stream = self._exchanges.get(id(exchange))
        if stream is None:
            return
        if stream in self._queue:
            self._queue.remove(stream)
        elif stream.id and not self._over:
            self._book.reset(stream.id, ErrorCodes.CANCEL)
            self._ask_flush()
        error = CancelledError("the response is not wanted any more", phase=stream.phase)
        self._end(stream, Outcome(error=error, progress=Progress.ENDED))

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the peer; what they call for is written before this returns."""
        if self._over:
            return
        self._watch.heard(now)
        self._reading = True
        try:
            for frame in self._gate.frames(data, now):
                self._handle(frame)
                if self._over:
                    break
        except PeerFaultError as fault:
            self._fault(fault)
        finally:
            self._reading = False
        self._send(now)

    def flush(self, now: float) -> None:
        """Open the queued streams, send what the windows allow of bodies, write once."""
        self._flush_asked = False
        self._send(now)

    def lost(self, error: PoolPlusError, now: float) -> None:
        """End everything. A response that had begun, on a connection closed in good order, is truncated."""
        if self._over:
            return
        clean = isinstance(error, ConnectionLostError) and error.clean
        self._closing(
            CloseReason.PEER_CLOSED if clean else CloseReason.CONNECTION_RESET,
            lambda stream: stream.lost(error, said=self._last_words, calm=self._calm),
        )

    def goodbye(self, now: float) -> None:
        """GOAWAY(NO_ERROR)."""
        if not self._over:
            self._full = True
            self._book.goaway(ErrorCodes.NO_ERROR)
            self._write()

    def next_deadline(self) -> float | None:
        """PING interval or time-out, or the end of patience with an empty send window."""
        if self._over:
            return None
        return self._watch.deadline(streams=bool(self._exchanges), draining=self._drained)

    def expire(self, now: float) -> None:
        """Ping, give up, or drain."""
        if self._over:
            return
        due = self._watch.due(now, streams=bool(self._exchanges))
        if due is Due.GIVE_UP:
            message = f"the peer did not answer a PING within {self._config.ping_timeout} s (ping_timeout)"
            self._fail(lambda phase: ConnectionLostError(message, phase=phase), CloseReason.PING_TIMEOUT)
            return
        if due is Due.PING:
            self._ping(now)
            self._write()
        if self._watch.starved_too_long(now):
            self._drain(CloseReason.NOT_REUSABLE)

    # Sending

    def _ask_flush(self) -> None:
        # While reading, the end of ``receive`` sends.
        if not self._flush_asked and not self._reading:
            self._flush_asked = True
            self._owner.flush_soon()

    def _send(self, now: float) -> None:
        opened = self._open_queued(now)
        if not self._over:
            frames = self._uploads.send()
            self._gate.allowance.earn(frames * _ANSWERS_TO_DATA)
            if frames == FRAMES_PER_TURN:
                self._ask_flush()
            self._watch.starving(now, starved=self._uploads.starved)
            self._write()
        for stream in opened:
            if self._is_open(stream):
                stream.exchange.sent()

    def _write(self) -> None:
        data = self._book.written()
        if data:
            self._transport.write(data)

    def _open_queued(self, now: float) -> list[Stream]:
        opened: list[Stream] = []
        while self._queue:
            stream = self._queue.popleft()
            error = self._open(stream, now)
            if error is None:
                opened.append(stream)
            else:
                progress = Progress.ENDED if isinstance(error, LocalProtocolError) else Progress.NOT_SENT
                self._end(stream, Outcome(error=error, progress=progress))
        return opened

    def _open(self, stream: Stream, now: float) -> PoolPlusError | None:
        """Send the head. Gives the error where nothing was sent."""
        if self._over or self._full:
            return ConnectionLostError("the connection takes no new stream", phase=Phase.SEND)
        body = stream.request.body
        try:
            headers = request_headers(stream.request)
            if not self._streams and self._watch.idle_too_long(now):
                self._ping(now)
            stream.wire_sent = self._book.open(self._next_id, headers, end=not body)
        except LocalProtocolError as error:
            return error
        except NoRoomError as error:
            return StreamResetError(str(error), phase=Phase.SEND, code=ErrorCodes.REFUSED_STREAM)
        stream.id = self._next_id
        self._streams[stream.id] = stream
        self._next_id += 2
        self._gate.allowance.earn(_ANSWERS_TO_HEAD)
        if body:
            self._uploads.add(stream)
        if self._next_id > LAST_STREAM:
            self._full = True
            self._drain(CloseReason.NOT_REUSABLE)
        return None

    def _ping(self, now: float) -> None:
        self._book.ping()
        self._watch.pinged(now)

    # Receiving

    def _handle(self, frame: gate.Frame) -> None:
        match frame:
            case gate.Data():
                self._data(frame)
            case gate.HeaderBlock():
                self._header_block(frame)
            case gate.WindowUpdate():
                self._window_update(frame)
            case gate.SettingsFrame():
                self._settings(frame)
            case gate.Reset():
                self._reset(frame)
            case gate.Goaway():
                self._went_away(frame)
            case gate.Promise():
                self._promise(frame)
            case gate.Ping():
                self._book.read_ping(frame)

    def _is_open(self, stream: Stream) -> bool:
        return self._streams.get(stream.id) is stream

    def _stream_of(self, stream_id: int) -> Stream | None:
        """The open stream, or None where it is closed. Raises PeerFaultError for one that never was."""
        stream = self._streams.get(stream_id)
        if stream is None and stream_id >= (self._next_id if stream_id % 2 else self._promised + 1):
            raise PeerFaultError(f"a frame for stream {stream_id}, which is idle (RFC 9113 5.1)")
        return stream

    def _data(self, frame: gate.Data) -> None:
        if not self._window.take(frame.size):
            raise PeerFaultError("DATA beyond the connection's window", ErrorCodes.FLOW_CONTROL_ERROR)
        self._give_back(self._window, 0)
        stream = self._stream_of(frame.stream)
        if stream is None:
            self._late -= frame.size
            if self._late < 0:
                raise PeerFaultError("DATA on closed streams, beyond their windows", ErrorCodes.STREAM_CLOSED)
            return
        stream.wire_received += gate.HEAD_SIZE + frame.size
        if not stream.window.take(frame.size):
            raise PeerFaultError("DATA beyond the stream's window", ErrorCodes.FLOW_CONTROL_ERROR)
        if stream.head is None:
            self._malformed(stream, "DATA before the response head")
            return
        if frame.payload:
            self._body(stream, frame.payload)
        if not self._is_open(stream):
            return
        if frame.end:
            self._finish(stream, stream.ended())
        else:
            self._give_back(stream.window, stream.id)

    def _give_back(self, window: ReceiveWindow, stream_id: int) -> None:
        increment = window.give_back()
        if increment:
            self._book.window_update(stream_id, increment)

    def _body(self, stream: Stream, payload: bytes) -> None:
        chunk, outcome = stream.take(payload)
        if chunk:
            stream.exchange.data(chunk)
        if outcome is not None and self._is_open(stream):
            self._finish(stream, outcome, reset=ErrorCodes.PROTOCOL_ERROR)

    def _header_block(self, frame: gate.HeaderBlock) -> None:
        headers = self._decode(frame.fragment)
        stream = self._stream_of(frame.stream)
        if stream is None:
            self._gate.allowance.spend(1 + len(frame.fragment) / 256, "late HEADERS")
            return
        stream.wire_received += gate.HEAD_SIZE + len(frame.fragment)
        try:
            if headers is None:
                raise MalformedError(f"header list over {self._config.max_header_list_size} bytes")
            head = stream.read(headers, end=frame.end)
        except MalformedError as fault:
            self._malformed(stream, str(fault))
            return
        if head is not None:
            self._answered = True
            stream.exchange.head(head)
        if frame.end and self._is_open(stream):
            self._finish(stream, stream.ended())

    def _decode(self, fragment: bytes) -> Headers | None:
        """The header list, or None where it is too large. Raises PeerFaultError: the table is lost."""
        try:
            return self._decoder.decode(fragment)
        except HeaderBlockError as error:
            raise PeerFaultError(f"HPACK: {error}", ErrorCodes.COMPRESSION_ERROR) from error

    def _window_update(self, frame: gate.WindowUpdate) -> None:
        if not frame.stream:
            self._book.read_window_update(frame)
            return
        stream = self._stream_of(frame.stream)
        if stream is None:
            return
        if not frame.increment:
            self._malformed(stream, "WINDOW_UPDATE by 0")
            return
        if not self._book.read_window_update(frame):
            error = RemoteProtocolError(f"HTTP/2 stream {stream.id}: window over 2^31-1", phase=stream.phase)
            self._end(stream, Outcome(error=error))

    def _settings(self, frame: gate.SettingsFrame) -> None:
        limit = self._book.read_settings(frame)
        if limit is None:
            self._settings_acked = True
        elif limit != self._peer_limit:
            self._peer_limit = limit
            self._owner.capacity(limit)

    def _reset(self, frame: gate.Reset) -> None:
        stream = self._stream_of(frame.stream)
        if stream is None:
            self._gate.allowance.spend(1, "RST_STREAM")
            return
        self._book.read_reset(frame)
        message = f"the peer reset stream {stream.id} with {code_name(frame.code)}"
        error = StreamResetError(message, phase=stream.phase, code=frame.code)
        # Any other code is an answer of a kind: no proof that the request was not processed.
        proof = PROOF_BY_CODE.get(frame.code, Progress.STARTED)
        self._end(stream, Outcome(error=error, progress=proof if stream.head is None else Progress.STARTED))

    def _went_away(self, frame: gate.Goaway) -> None:
        """Streams above the last one were not processed (RFC 9113 6.8); the others finish. A first GOAWAY with 2^31-1
        announces the second, with the real last stream. Never given to h2, which would drop what we still send."""
        self._full = True
        self._calm = self._calm or frame.code == ErrorCodes.ENHANCE_YOUR_CALM
        last = frame.last_stream
        debug = f" {frame.debug[:100].decode('latin-1')!r}" if frame.debug else ""
        self._last_words = f"GOAWAY {code_name(frame.code)}{debug}, last stream {last}"
        self._drain(CloseReason.GOAWAY)
        proof = PROOF_BY_CODE.get(frame.code, Progress.REFUSED)
        if proof is Progress.REFUSED and frame.code and not self._answered:
            proof = Progress.REFUSED_SUSPECT
        refused = [stream for stream in self._streams.values() if stream.id > last] + list(self._queue)
        self._queue.clear()
        for stream in self._still(refused):
            progress = proof if stream.progress is Progress.SENT else stream.progress
            error = StreamResetError(f"the peer sent {self._last_words}", phase=stream.phase, code=frame.code)
            self._end(stream, Outcome(error=error, progress=progress))

    def _promise(self, frame: gate.Promise) -> None:
        """Refused while the peer may not have seen that we want none; after that a fault (RFC 9113 6.5.2, 8.4)."""
        if self._settings_acked:
            raise PeerFaultError("PUSH_PROMISE, which our SETTINGS forbid")
        self._decode(frame.fragment)
        self._stream_of(frame.stream)
        if frame.promised % 2 or frame.promised <= self._promised:
            raise PeerFaultError(f"PUSH_PROMISE of stream {frame.promised}")
        self._promised = frame.promised
        self._late += self._config.stream_window
        self._book.refuse(frame.promised)

    # Ends

    def _end(self, stream: Stream, outcome: Outcome) -> None:
        if self._streams.pop(stream.id, None) is not None:
            self._late += stream.window.left
        self._exchanges.pop(id(stream.exchange), None)
        if stream.uploading:
            self._uploads.forget(stream)
        stream.exchange.carried(stream.wire_sent, stream.wire_received)
        stream.exchange.done(outcome)

    def _finish(self, stream: Stream, outcome: Outcome, *, reset: ErrorCodes | None = None) -> None:
        """End a stream on which the peer has nothing more to say that we want to hear, in h2's book first."""
        if reset is None and stream.uploading:
            # The response came before the request was sent whole (RFC 9113 8.1): the rest is not wanted.
            reset = ErrorCodes.CANCEL
        if reset is None:
            self._book.over(stream.id)
        else:
            self._book.reset(stream.id, reset)
        self._end(stream, outcome)

    def _malformed(self, stream: Stream, message: str) -> None:
        error = RemoteProtocolError(f"HTTP/2 stream {stream.id}: {message}", phase=stream.phase)
        self._finish(stream, Outcome(error=error, progress=Progress.STARTED), reset=ErrorCodes.PROTOCOL_ERROR)

    def _drain(self, reason: CloseReason) -> None:
        if not self._drained:
            self._drained = True
            self._owner.draining(reason)

    def _fault(self, fault: PeerFaultError) -> None:
        self._book.goaway(fault.code)
        self._write()
        self._fail(lambda phase: RemoteProtocolError(f"HTTP/2: {fault}", phase=phase), CloseReason.PROTOCOL_ERROR)

    def _fail(self, error: Callable[[Phase], PoolPlusError], reason: CloseReason) -> None:
        self._closing(reason, lambda stream: Outcome(error=error(stream.phase), progress=stream.progress))
        self._owner.failed(error(Phase.FIRST_BYTE), reason)

    def _closing(self, reason: CloseReason, ended: Callable[[Stream], Outcome]) -> None:
        """The end of the connection: the owner first, then every exchange, also those started meanwhile."""
        self._over = True
        self._drain(reason)
        for stream in self._still(list(self._exchanges.values())):
            if not stream.id:
                self._queue.remove(stream)
            self._end(stream, ended(stream))
        self._open_queued(0.0)

    def _still(self, streams: list[Stream]) -> Iterator[Stream]:
        """Those that have not ended meanwhile: the end of one may cancel another."""
        return (stream for stream in streams if self._exchanges.get(id(stream.exchange)) is stream)
