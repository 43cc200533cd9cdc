"""The bodies that we send, into the windows that the peer gives (RFC 9113 6.9)."""

from __future__ import annotations

from collections import deque

from scrapy_poolplus.net.frame_gate import HEAD_SIZE
from scrapy_poolplus.net.http2_book import Book
from scrapy_poolplus.net.http2_stream import Stream

_FRAME_SIZE = 65_536
FRAMES_PER_TURN = 64
"""So one flush sends at most 4 MiB of bodies and blocks the reactor for some milliseconds."""


class Uploads:
    """Request bodies on their way: a frame of each in turn, as far as the stream's and the connection's window allow."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._streams: deque[Stream] = deque()
        self.starved = False
        """Whether a body found the connection's window empty, and it still is."""

    def add(self, stream: Stream) -> None:
        """A stream whose head was sent."""
        self._streams.append(stream)

    def forget(self, stream: Stream) -> None:
        """It has ended; nothing more is sent on it."""
        if stream in self._streams:
            self._streams.remove(stream)

    def send(self) -> int:
        """The number of frames that were handed to h2. FRAMES_PER_TURN: there may be more to send, in another turn."""
        blocked: list[Stream] = []
        frames = 0
        while self._streams and frames < FRAMES_PER_TURN:
            stream = self._streams.popleft()
            size = min(self._book.room(stream.id), _FRAME_SIZE)
            if size <= 0:
                blocked.append(stream)
                continue
            frames += 1
            chunk = stream.request.body[stream.uploaded : stream.uploaded + size]
            stream.uploaded += len(chunk)
            stream.wire_sent += HEAD_SIZE + len(chunk)
            self._book.data(stream.id, chunk, end=not stream.uploading)
            if stream.uploading:
                self._streams.append(stream)
        self._streams.extend(blocked)
        if self._book.connection_room > 0:
            self.starved = False
        elif blocked:
            self.starved = True
        return frames
