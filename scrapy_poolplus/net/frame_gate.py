"""The gate before h2: bytes become whole frames here, and what a peer may not send ends here.

h2 turns a stream's fault into the connection's in places, and closes itself on GOAWAY, which drops what it still had
to send: uploads, WINDOW_UPDATE, the ACK of SETTINGS (python-hyper/h2 #1199; nginx sends GOAWAY *before* the last
response at ``keepalive_requests``). So the engine never hands it bytes of the peer as they came. The gate cuts them,
checks each frame's form (RFC 9113, sections 4 and 6), joins a header block with its CONTINUATIONs, drops frames that
mean nothing to us, and bounds sizes and floods. What a frame means for its stream is the engine's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from h2.errors import ErrorCodes

_HEAD = Struct(">HBBBI")
_LONG = Struct(">I")
_PAIR = Struct(">II")
_SETTING = Struct(">HI")

HEAD_SIZE = 9
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20
_ID = 0x7FFF_FFFF

MAX_CONTINUATIONS = 64
"""Frames that one header block may come in. Far more than any server needs; a flood of empty ones ends here."""

FLOOD_BURST = 500
"""Frames without use to us that a peer may send at once. A SETTINGS that changes something costs up to 60 µs, so they hold
the reactor for 30 ms, and for less than 100 ms on a loaded machine."""
FLOOD_RATE = 100.0
"""Such frames per second that are forgiven."""

_KNOWN_SETTINGS = frozenset((1, 2, 3, 4, 5, 6, 8))


STATUS_SEEN = len(b"HTTP/1.1 400")
"""Bytes of a text that is no frame to wait for: with them its status is known. Not for its line, which may never end."""


class PeerFaultError(Exception):
    """The peer broke a rule in a way that costs the connection; `code` goes into our GOAWAY (RFC 9113 5.4.1)."""

    def __init__(self, message: str, code: ErrorCodes = ErrorCodes.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


# What passes the gate. Tuples, not dataclasses: one is made for each frame of each response.


class Data(NamedTuple):
    """DATA. `size` is its flow-controlled length, padding included (RFC 9113 6.1)."""

    stream: int
    payload: bytes
    size: int
    end: bool


class HeaderBlock(NamedTuple):
    """HEADERS with its CONTINUATIONs, without padding and priority."""

    stream: int
    fragment: bytes
    end: bool


class Promise(NamedTuple):
    """PUSH_PROMISE with its CONTINUATIONs."""

    stream: int
    promised: int
    fragment: bytes


class Reset(NamedTuple):
    """RST_STREAM."""

    stream: int
    code: int
    raw: bytes


class SettingsFrame(NamedTuple):
    """SETTINGS; `raw` holds only the settings that h2 knows, each once, with its last value."""

    ack: bool
    raw: bytes


class Ping(NamedTuple):
    """PING."""

    ack: bool
    raw: bytes


class Goaway(NamedTuple):
    """GOAWAY."""

    last_stream: int
    code: int
    debug: bytes


class WindowUpdate(NamedTuple):
    """WINDOW_UPDATE; an increment of 0 passes only for a stream, whose fault it is (RFC 9113 6.9)."""

    stream: int
    increment: int
    raw: bytes


Frame = Data | HeaderBlock | Promise | Reset | SettingsFrame | Ping | Goaway | WindowUpdate


def pack(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it is sent (RFC 9113 4.1)."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def pack_long(kind: int, stream: int, value: int) -> bytes:
    """RST_STREAM or WINDOW_UPDATE."""
    return pack(kind, 0, stream, _LONG.pack(value))


def pack_goaway(code: int) -> bytes:
    """GOAWAY with last stream 0: we have accepted no stream of the peer's."""
    return pack(GOAWAY, 0, 0, _PAIR.pack(0, code))


class Allowance:
    """What a peer may still send of frames that carry nothing: answers to our own frames are free, time forgives."""

    def __init__(self) -> None:
        self._left = float(FLOOD_BURST)
        self._at: float | None = None

    def refill(self, now: float) -> None:
        """Time has passed."""
        if self._at is not None and self._left < FLOOD_BURST:
            self._left = min(FLOOD_BURST, self._left + (now - self._at) * FLOOD_RATE)
        self._at = now

    def earn(self, frames: int) -> None:
        """We sent something that the peer may answer with this many frames."""
        self._left = min(FLOOD_BURST, self._left + frames)

    def spend(self, cost: float, what: str) -> None:
        """The peer sent something useless. Raises PeerFaultError when it was one too many."""
        self._left -= cost
        if self._left < 0:
            raise PeerFaultError(f"flood of {what} frames", ErrorCodes.ENHANCE_YOUR_CALM)


class _Block(NamedTuple):
    """A header block whose end has not come yet."""

    stream: int
    promised: int | None
    end: bool
    fragments: list[bytes]

    def whole(self) -> HeaderBlock | Promise:
        fragment = b"".join(self.fragments)
        if self.promised is not None:
            return Promise(self.stream, self.promised, fragment)
        return HeaderBlock(self.stream, fragment, self.end)


class FrameGate:
    """Cuts what a server sends into frames. Sizes in bytes: `max_frame_size` of a payload, `max_block_size` of a
    header block as it is on the wire."""

    def __init__(self, *, max_frame_size: int, max_block_size: int) -> None:
        self.allowance = Allowance()
        self._max_frame_size = max_frame_size
        self._max_block_size = max_block_size
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEAD_SIZE
        self._greeted = False
        self._block: _Block | None = None

    def frames(self, data: bytes, now: float) -> Iterator[Frame]:
        """The frames that `data` completes, one at a time. Raises PeerFaultError; the gate is of no use after that."""
        self.allowance.refill(now)
        buffer = self._gather(data)
        if buffer is None:
            return
        if not self._greeted and not self._greeting(buffer):
            self._keep(buffer, len(buffer) + 1)
            return
        position, end = 0, len(buffer)
        need = HEAD_SIZE
        while end - position >= HEAD_SIZE:
            high, low, kind, flags, stream = _HEAD.unpack_from(buffer, position)
            length = high << 8 | low
            if length > self._max_frame_size:
                raise PeerFaultError(
                    f"frame of {length} bytes, {self._max_frame_size} allowed", ErrorCodes.FRAME_SIZE_ERROR
                )
            start = position + HEAD_SIZE
            if end - start < length:
                need = HEAD_SIZE + length
                break
            position = start + length
            frame = self._frame(kind, flags, stream & _ID, buffer[start:position])
            if frame is not None:
                yield frame
        self._keep(buffer[position:], need)

    # A large frame comes in many reads: they are joined once, when it is whole, not at each read.

    def _gather(self, data: bytes) -> bytes | None:
        if not self._parts:
            return data
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return None
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole

    def _keep(self, rest: bytes, need: int) -> None:
        self._have, self._need = len(rest), need
        if rest:
            self._parts.append(rest)

    def _greeting(self, buffer: bytes) -> bool:
        """Whether the server's preface has begun: a SETTINGS frame comes first (RFC 9113 3.4). False: too early to say."""
        if len(buffer) < HEAD_SIZE:
            return False
        if buffer[3] == SETTINGS and not buffer[4] & ACK:
            self._greeted = True
            return True
        if buffer.startswith(b"HTTP/") and b"\n" not in buffer and len(buffer) < STATUS_SEEN:
            return False
        # A server that negotiated h2 and then answers in HTTP/1.1 says what is wrong: the text belongs to the error.
        line = buffer[:200].split(b"\n", 1)[0].rstrip(b"\r").decode("latin-1")
        raise PeerFaultError(f"the peer does not speak HTTP/2, it sent {line!r}")

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        """The frame, or None where it is not complete or means nothing to us."""
        if self._block is not None:
            return self._continued(self._block, kind, flags, stream, payload)
        if kind == DATA:
            return self._data(flags, stream, payload)
        if kind == HEADERS:
            return self._headers(flags, stream, payload)
        if kind > CONTINUATION:
            # Unknown types are ignored (RFC 9113 4.1), ALTSVC and ORIGIN among them.
            self.allowance.spend(1, f"unknown (type {kind})")
            return None
        return self._control(kind, flags, stream, payload)

    def _data(self, flags: int, stream: int, payload: bytes) -> Data:
        if not stream:
            raise PeerFaultError("DATA on stream 0")
        size = len(payload)
        if flags & PADDED:
            payload = _unpadded(payload)
        end = bool(flags & END_STREAM)
        if not payload and not end:
            self.allowance.spend(1, "empty DATA")
        return Data(stream, payload, size, end)

    def _headers(self, flags: int, stream: int, payload: bytes) -> Frame | None:
        if not stream:
            raise PeerFaultError("HEADERS on stream 0")
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & HAS_PRIORITY:
            if len(payload) < 5:
                raise PeerFaultError("HEADERS too short for its priority", ErrorCodes.FRAME_SIZE_ERROR)
            payload = payload[5:]
        return self._begun(_Block(stream, None, bool(flags & END_STREAM), []), flags, payload)

    def _begun(self, block: _Block, flags: int, payload: bytes) -> Frame | None:
        if len(payload) > self._max_block_size:
            raise PeerFaultError(f"header block over {self._max_block_size} bytes", ErrorCodes.ENHANCE_YOUR_CALM)
        block.fragments.append(payload)
        if flags & END_HEADERS:
            return block.whole()
        self._block = block
        return None

    def _continued(self, block: _Block, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        if kind != CONTINUATION or stream != block.stream:
            raise PeerFaultError("another frame inside a header block")
        block.fragments.append(payload)
        if len(block.fragments) > MAX_CONTINUATIONS or sum(map(len, block.fragments)) > self._max_block_size:
            raise PeerFaultError(
                f"header block in more than {MAX_CONTINUATIONS} frames or over {self._max_block_size} bytes",
                ErrorCodes.ENHANCE_YOUR_CALM,
            )
        if not flags & END_HEADERS:
            return None
        self._block = None
        return block.whole()

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> Frame | None:
        if kind == SETTINGS:
            return self._settings(flags, stream, payload)
        if kind == WINDOW_UPDATE:
            return self._window_update(stream, payload)
        if kind == RST_STREAM:
            _check("RST_STREAM", stream, payload, size=4, on_stream=True)
            return Reset(stream, _LONG.unpack(payload)[0], pack(RST_STREAM, 0, stream, payload))
        if kind == PING:
            _check("PING", stream, payload, size=8, on_stream=False)
            self.allowance.spend(1, "PING")
            return Ping(bool(flags & ACK), pack(PING, flags & ACK, 0, payload))
        if kind == GOAWAY:
            if stream or len(payload) < 8:
                raise PeerFaultError("GOAWAY on a stream, or too short", ErrorCodes.PROTOCOL_ERROR)
            self.allowance.spend(1, "GOAWAY")
            last, code = _PAIR.unpack_from(payload)
            return Goaway(last & _ID, code, payload[8:])
        if kind == PRIORITY:
            # Deprecated (RFC 9113 5.3.2), and a server has no business to send it.
            _check("PRIORITY", stream, payload, size=5, on_stream=True)
            self.allowance.spend(1, "PRIORITY")
            return None
        if kind == PUSH_PROMISE:
            return self._promise(flags, stream, payload)
        raise PeerFaultError("CONTINUATION without a header block")

    def _settings(self, flags: int, stream: int, payload: bytes) -> SettingsFrame:
        if stream:
            raise PeerFaultError("SETTINGS on a stream")
        ack = flags & ACK
        if len(payload) % 6 or (ack and payload):
            raise PeerFaultError(f"SETTINGS of {len(payload)} bytes", ErrorCodes.FRAME_SIZE_ERROR)
        self.allowance.spend(1, "SETTINGS")
        # h2 keeps every setting that it is sent for the life of the connection: 65,536 unknown ones are 40 MB.
        settings = {key: value for key, value in _SETTING.iter_unpack(payload) if key in _KNOWN_SETTINGS}
        known = b"".join(_SETTING.pack(key, value) for key, value in settings.items())
        return SettingsFrame(bool(ack), pack(SETTINGS, ack, 0, known))

    def _window_update(self, stream: int, payload: bytes) -> WindowUpdate:
        if len(payload) != 4:
            raise PeerFaultError(f"WINDOW_UPDATE of {len(payload)} bytes", ErrorCodes.FRAME_SIZE_ERROR)
        increment = _LONG.unpack(payload)[0] & _ID
        if not increment and not stream:
            raise PeerFaultError("WINDOW_UPDATE of the connection by 0")
        self.allowance.spend(1, "WINDOW_UPDATE")
        return WindowUpdate(stream, increment, pack(WINDOW_UPDATE, 0, stream, payload))

    def _promise(self, flags: int, stream: int, payload: bytes) -> Frame | None:
        if not stream:
            raise PeerFaultError("PUSH_PROMISE on stream 0")
        if flags & PADDED:
            payload = _unpadded(payload)
        if len(payload) < 4:
            raise PeerFaultError("PUSH_PROMISE too short", ErrorCodes.FRAME_SIZE_ERROR)
        self.allowance.spend(1, "PUSH_PROMISE")
        promised = _LONG.unpack_from(payload)[0] & _ID
        return self._begun(_Block(stream, promised, False, []), flags, payload[4:])


def _unpadded(payload: bytes) -> bytes:
    """Raises PeerFaultError where the padding is as long as the rest or longer (RFC 9113 6.1)."""
    if not payload:
        raise PeerFaultError("padded frame without a pad length", ErrorCodes.FRAME_SIZE_ERROR)
    padding = payload[0]
    if padding >= len(payload):
        raise PeerFaultError(f"padding of {padding} bytes in a frame of {len(payload)}")
    return payload[1 : len(payload) - padding]


def _check(name: str, stream: int, payload: bytes, *, size: int, on_stream: bool) -> None:
    if bool(stream) is not on_stream:
        raise PeerFaultError(f"{name} on stream {stream}")
    if len(payload) != size:
        raise PeerFaultError(f"{name} of {len(payload)} bytes", ErrorCodes.FRAME_SIZE_ERROR)
