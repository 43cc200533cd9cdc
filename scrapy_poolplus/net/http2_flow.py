"""Flow control of what we receive (RFC 9113 5.2, 6.9): one window for the connection, one for each stream."""

from __future__ import annotations

DEFAULT_WINDOW = 65_535
"""Of a connection, and of a stream where SETTINGS do not say otherwise."""


class ReceiveWindow:
    """What a peer may still send, in bytes of DATA frames with their padding.

    What a frame takes is given back at once, whatever becomes of its stream, so a reset stream never shrinks the
    connection's window (with h2's book-keeping 17,535 of 65,535 bytes were left after some cancels). WINDOW_UPDATEs
    are batched: one for each half of the window.
    """

    __slots__ = ("_left", "_owed", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._owed = 0

    @property
    def left(self) -> int:
        """What may still come."""
        return self._left

    def take(self, size: int) -> bool:
        """A frame came. False: the peer sent more than it may."""
        self._left -= size
        self._owed += size
        return self._left >= 0

    def give_back(self) -> int:
        """The increment to send now, or 0 while less than half of the window is owed."""
        if self._owed * 2 < self._size:
            return 0
        owed, self._owed = self._owed, 0
        self._left += owed
        return owed
