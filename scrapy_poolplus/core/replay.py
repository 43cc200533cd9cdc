"""May a request be sent again below Scrapy's RetryMiddleware?

Only with proof that the peer did not process it, or, on a connection that had worked before, where sending it twice
is the same as once (RFC 9110 9.2.2). The table is section 8 of the design.
"""

from __future__ import annotations

from enum import Enum

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 9.2.2. Methods are case-sensitive (RFC 9110 9.1)."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110 9.2.1."""


class Progress(Enum):
    """How far a request that failed had come, as its engine can prove it."""

    NOT_SENT = "not sent"
    """No byte of it was handed to the transport."""
    REFUSED = "refused"
    """The peer says that it did not process it: GOAWAY below our stream id, REFUSED_STREAM (RFC 9113 8.7), 421."""
    REFUSED_SUSPECT = "refused, suspect"
    """As REFUSED, by a GOAWAY with an error code on a connection that answered nothing: it may be ourselves."""
    REFUSED_CALM = "refused, enhance your calm"
    """GOAWAY or RST_STREAM with ENHANCE_YOUR_CALM: never replayed, dialling that host waits."""
    HTTP1_REQUIRED = "HTTP/1.1 required"
    """HTTP_1_1_REQUIRED: replayed over HTTP/1.1."""
    SENT = "sent"
    """Written, and not one byte of a response came."""
    STARTED = "response begun"
    """A part of the response came."""
    ENDED = "ended by us"
    """Timed out, cancelled, or fit for no connection (LocalProtocolError): Scrapy's RetryMiddleware decides."""


def may_replay(
    progress: Progress, method: str, *, reused: bool, attempts: int, max_replays: int, replayed_suspect: bool
) -> bool:
    """True when the request may be sent again.

    `reused`: the connection had completed an exchange before. `attempts`: replays so far that count. `replayed_suspect`:
    whether one of them was for REFUSED_SUSPECT, which is believed once. SENT is not counted apart: a server that ends
    idle connections ends many at once, and a request may meet one after the other before it gets a fresh one, whose
    loss ends it.
    """
    if not counts(progress, reused=reused):
        return True
    if attempts >= max_replays:
        return False
    match progress:
        case Progress.NOT_SENT | Progress.REFUSED | Progress.HTTP1_REQUIRED:
            return True
        case Progress.REFUSED_SUSPECT:
            return not replayed_suspect
        case Progress.SENT:
            return reused and method in IDEMPOTENT
        case _:
            return False


def counts(progress: Progress, *, reused: bool) -> bool:
    """Whether a replay counts against ``max_replays``. One of what never left does not, where a kept connection was found
    closed: the server has seen nothing of it, and it ends as there are no more such connections. A server that restarts
    closes more of them at once than any limit foresees."""
    return not (reused and progress is Progress.NOT_SENT)
