"""What a server refuses, and what a lost connection proves: GOAWAY, REFUSED_STREAM, loss (RFC 9113 6.8, 8.7)."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import WindowUpdateFrame

from scrapy_poolplus.core.errors import (
    BodyLengthError,
    ConnectionLostError,
    Phase,
    PoolClosedError,
    StreamResetError,
)
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.wire import BodyEnd, Outcome
from tests.peers.h2_peer import Conversation, H2Peer
from tests.peers.memory import RecordingExchange

COMPLETE = Outcome(end=BodyEnd.COMPLETE)
CLEAN = ConnectionLostError("the peer closed", phase=Phase.FIRST_BYTE, clean=True)
ABORTED = ConnectionLostError("reset by the peer", phase=Phase.FIRST_BYTE)


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


@pytest.fixture
def peer(talk: Conversation) -> H2Peer:
    return talk.greeted()


def progress(exchange: RecordingExchange) -> Progress:
    assert exchange.outcome is not None
    assert exchange.outcome.error is not None
    return exchange.outcome.progress


# GOAWAY


def test_streams_up_to_the_last_finish_and_those_above_are_refused(talk: Conversation, peer: H2Peer) -> None:
    kept, refused, also = talk.asked(b"/1", b"/3", b"/5")
    peer.goaway(1)
    assert [progress(exchange) for exchange in (refused, also)] == [Progress.REFUSED] * 2
    assert refused.outcome is not None
    assert isinstance(refused.outcome.error, StreamResetError)
    assert kept.outcome is None
    peer.answer(1, b"whole")
    assert (kept.body, kept.outcome) == (b"whole", COMPLETE)


def test_the_owner_hears_draining_before_a_refused_exchange_ends(talk: Conversation, peer: H2Peer) -> None:
    talk.asked(b"/1", b"/3")
    del talk.journal[:]
    peer.goaway(1)
    assert [(who, what) for who, what, _ in talk.journal] == [("owner", "draining"), ("/3", "done")]
    assert talk.owner.drained is CloseReason.GOAWAY
    assert talk.owner.failure is None


def test_a_goaway_before_the_last_responses_frames_loses_nothing(talk: Conversation, peer: H2Peer) -> None:
    """nginx sends it so at keepalive_requests (h2 #1199)."""
    (exchange,) = talk.asked(b"/last")
    with peer.one_read():
        peer.goaway(1)
        peer.answer(1, b"x" * 50_000, headers=[(b"content-length", b"50000")])
    assert (len(exchange.body), exchange.outcome) == (50_000, COMPLETE)


def test_after_goaway_our_own_frames_still_go_out(talk: Conversation, peer: H2Peer) -> None:
    download, upload = talk.ask(b"/down"), talk.ask(b"/up", method=b"POST", body=b"x" * 100_000)
    talk.turn()
    peer.want_headers()
    peer.want_headers()
    sent = sum(len(peer.want_data(3)[0]) for _ in range(len(peer.pending())))
    peer.goaway(3)
    peer.settings({})
    peer.want_settings_ack()
    peer.ping(b"stillup?")
    assert peer.pending()[0].opaque_data == b"stillup?"  # type: ignore[attr-defined]
    peer.want(type(peer.pending()[0]))
    with peer.one_read():
        peer.window(0, 100_000)
        peer.window(3, 100_000)
    assert sent + len(peer.want_body(3)) == 100_000
    peer.headers(1, [(b":status", b"200")])
    for _ in range(500):
        peer.data(1, b"x" * 16_384)
    assert any(isinstance(frame, WindowUpdateFrame) for frame in peer.pending())
    peer.data(1, b"", end=True)
    peer.answer(3)
    assert download.outcome == upload.outcome == COMPLETE


def test_a_graceful_goaway_in_two_steps_refuses_only_at_the_second(talk: Conversation, peer: H2Peer) -> None:
    kept, refused = talk.asked(b"/1", b"/3")
    peer.goaway(2**31 - 1)
    assert talk.owner.drained is CloseReason.GOAWAY
    assert kept.outcome is refused.outcome is None
    peer.goaway(1)
    assert progress(refused) is Progress.REFUSED
    peer.answer(1)
    assert kept.outcome == COMPLETE


def test_a_second_goaway_never_takes_a_refusal_back(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.goaway(0)
    peer.goaway(2**31 - 1)
    assert progress(exchange) is Progress.REFUSED
    peer.answer(1)
    assert talk.owner.failure is None


def test_a_request_that_was_not_written_when_goaway_came_is_not_sent(talk: Conversation, peer: H2Peer) -> None:
    exchange = talk.ask()
    peer.goaway(2**31 - 1)
    assert progress(exchange) is Progress.NOT_SENT
    assert not exchange.was_sent
    late = talk.ask()
    talk.turn()
    assert progress(late) is Progress.NOT_SENT
    peer.want_nothing()


def test_goaway_with_an_error_is_suspect_only_while_nothing_was_answered(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.goaway(0, ErrorCodes.INTERNAL_ERROR)
    assert progress(exchange) is Progress.REFUSED_SUSPECT

    other = Conversation()
    peer = other.greeted()
    first, second = other.asked(b"/1", b"/3")
    peer.headers(1, [(b":status", b"200")])
    peer.goaway(1, ErrorCodes.INTERNAL_ERROR)
    assert progress(second) is Progress.REFUSED
    peer.data(1, b"x", end=True)
    assert first.outcome == COMPLETE


def test_goaway_without_error_is_never_suspect(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.goaway(0)
    assert progress(exchange) is Progress.REFUSED


def test_enhance_your_calm_is_told_as_such(talk: Conversation, peer: H2Peer) -> None:
    done, open_, refused = talk.asked(b"/1", b"/3", b"/5")
    peer.answer(1)
    peer.goaway(3, ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings")
    assert progress(refused) is Progress.REFUSED_CALM
    assert done.outcome == COMPLETE
    assert open_.outcome is None
    assert refused.outcome is not None
    assert "ENHANCE_YOUR_CALM 'too_many_pings'" in str(refused.outcome.error)


def test_what_a_peer_that_wants_calm_leaves_unanswered_is_not_asked_again_at_once(
    talk: Conversation, peer: H2Peer
) -> None:
    waiting, begun = talk.asked(b"/waiting", b"/begun")
    peer.headers(3, [(b":status", b"200")])
    peer.goaway(3, ErrorCodes.ENHANCE_YOUR_CALM)
    talk.engine.lost(ABORTED, talk.now)
    assert progress(waiting) is Progress.REFUSED_CALM
    assert progress(begun) is Progress.STARTED


def test_goaway_that_asks_for_http_1_1_says_so(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.goaway(0, ErrorCodes.HTTP_1_1_REQUIRED)
    assert progress(exchange) is Progress.HTTP1_REQUIRED


def test_a_response_that_had_begun_is_not_refused_by_a_goaway_below_it(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.headers(1, [(b":status", b"200")])
    peer.goaway(0)
    assert progress(exchange) is Progress.STARTED


def test_what_comes_for_a_refused_stream_is_passed_over(talk: Conversation, peer: H2Peer) -> None:
    kept, refused = talk.asked(b"/1", b"/3")
    peer.goaway(1)
    peer.answer(3, b"after all")
    peer.answer(1, b"yes")
    assert refused.body == b""
    assert kept.body == b"yes"


def test_a_close_after_goaway_says_both(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.goaway(1, ErrorCodes.INTERNAL_ERROR, b"bye")
    talk.engine.lost(CLEAN, talk.now)
    assert progress(exchange) is Progress.SENT
    assert exchange.outcome is not None
    assert "the peer closed (after GOAWAY INTERNAL_ERROR 'bye', last stream 1)" in str(exchange.outcome.error)


def test_a_refused_exchange_may_start_again_at_once_and_is_told_no(talk: Conversation, peer: H2Peer) -> None:
    again: list[RecordingExchange] = []
    first = RecordingExchange("first", talk.journal, on_done=lambda: again.append(talk.ask(b"/again")))
    talk.ask(b"/1", exchange=first)
    talk.turn()
    peer.goaway(0)
    assert progress(again[0]) is Progress.NOT_SENT


def test_the_end_of_a_refused_exchange_may_cancel_another(talk: Conversation, peer: H2Peer) -> None:
    second = RecordingExchange("second", talk.journal)
    third = RecordingExchange("third", talk.journal)

    def stop() -> None:
        talk.engine.cancel(second, talk.now)
        talk.engine.cancel(third, talk.now)

    talk.ask(b"/1", exchange=RecordingExchange("first", talk.journal, on_done=stop))
    talk.ask(b"/3", exchange=second)
    talk.turn()
    talk.ask(b"/5", exchange=third)
    peer.goaway(0)
    assert progress(second) is progress(third) is Progress.ENDED


# RST_STREAM


@pytest.mark.parametrize(
    ("code", "proof"),
    [
        (ErrorCodes.REFUSED_STREAM, Progress.REFUSED),
        (ErrorCodes.ENHANCE_YOUR_CALM, Progress.REFUSED_CALM),
        (ErrorCodes.HTTP_1_1_REQUIRED, Progress.HTTP1_REQUIRED),
        (ErrorCodes.INTERNAL_ERROR, Progress.STARTED),
        (ErrorCodes.CANCEL, Progress.STARTED),
        (ErrorCodes.NO_ERROR, Progress.STARTED),
        (0xABCD, Progress.STARTED),
    ],
)
def test_a_reset_before_the_response_proves_what_its_code_says(
    talk: Conversation, peer: H2Peer, code: int, proof: Progress
) -> None:
    hurt, other = talk.asked(b"/hurt", b"/other")
    peer.reset(1, code)
    assert progress(hurt) is proof
    assert hurt.outcome is not None
    assert isinstance(hurt.outcome.error, StreamResetError)
    assert hurt.outcome.error.code == code
    assert hurt.outcome.error.phase is Phase.FIRST_BYTE
    peer.answer(3, b"fine")
    assert other.outcome == COMPLETE
    peer.want_nothing()


@pytest.mark.parametrize("code", [ErrorCodes.REFUSED_STREAM, ErrorCodes.HTTP_1_1_REQUIRED, ErrorCodes.NO_ERROR])
def test_a_reset_during_the_response_proves_nothing(talk: Conversation, peer: H2Peer, code: int) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.headers(1, [(b":status", b"200")])
    peer.data(1, b"half")
    peer.reset(1, code)
    assert progress(exchange) is Progress.STARTED
    assert exchange.outcome is not None
    assert exchange.outcome.error is not None
    assert exchange.outcome.error.phase is Phase.BODY
    assert exchange.outcome.end is None


def test_a_reset_after_the_response_changes_nothing(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    with peer.one_read():
        peer.answer(1, b"whole")
        peer.reset(1, ErrorCodes.NO_ERROR)
    assert exchange.outcome == COMPLETE
    (after,) = talk.asked(b"/3")
    peer.answer(3)
    assert after.outcome == COMPLETE


def test_a_refused_upload_is_stopped(talk: Conversation, peer: H2Peer) -> None:
    exchange = talk.ask(method=b"POST", body=b"x" * 200_000)
    talk.turn()
    peer.want_headers()
    while peer.pending():
        peer.want_data(1)
    peer.reset(1, ErrorCodes.REFUSED_STREAM)
    peer.window(0, 1_000_000)
    assert progress(exchange) is Progress.REFUSED
    peer.want_nothing()


# Loss


def test_loss_ends_each_exchange_with_what_is_proved(talk: Conversation, peer: H2Peer) -> None:
    sent, begun = talk.asked(b"/sent", b"/begun")
    peer.headers(3, [(b":status", b"200")])
    queued = talk.ask(b"/queued")
    del talk.journal[:]
    talk.engine.lost(ABORTED, talk.now)
    assert talk.journal[0][:2] == ("owner", "draining")
    assert [progress(exchange) for exchange in (queued, sent, begun)] == [
        Progress.NOT_SENT,
        Progress.SENT,
        Progress.STARTED,
    ]
    phases = [exchange.outcome.error.phase for exchange in (queued, sent, begun)]  # type: ignore[union-attr]
    assert phases == [Phase.SEND, Phase.FIRST_BYTE, Phase.BODY]
    assert all(exchange.outcome.end is None for exchange in (queued, sent, begun))  # type: ignore[union-attr]
    assert talk.owner.drained is CloseReason.CONNECTION_RESET
    assert talk.owner.failure is None


@pytest.mark.parametrize("announced", [True, False])
def test_an_orderly_close_within_a_body_truncates_it(talk: Conversation, peer: H2Peer, announced: bool) -> None:
    (exchange,) = talk.asked(b"/1")
    peer.headers(1, [(b":status", b"200"), *([(b"content-length", b"10")] if announced else [])])
    peer.data(1, b"half")
    talk.engine.lost(CLEAN, talk.now)
    assert exchange.body == b"half"
    assert exchange.outcome is not None
    assert exchange.outcome.end is BodyEnd.TRUNCATED
    assert isinstance(exchange.outcome.error, BodyLengthError)


def test_another_error_of_the_owner_is_handed_on_as_it_is(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/1")
    closed = PoolClosedError("the pool was closed", phase=Phase.WAIT)
    talk.engine.lost(closed, talk.now)
    assert exchange.outcome is not None
    assert exchange.outcome.error is closed


def test_after_a_loss_nothing_is_written_and_nothing_is_read(talk: Conversation, peer: H2Peer) -> None:
    exchange = talk.ask()
    talk.engine.lost(ABORTED, talk.now)
    talk.engine.lost(ABORTED, talk.now)
    late = talk.ask()
    talk.turn()
    peer.answer(1)
    talk.engine.cancel(late, talk.now)
    talk.engine.goodbye(talk.now)
    talk.engine.expire(talk.now + 1000)
    assert talk.engine.next_deadline() is None
    peer.want_nothing()
    assert progress(exchange) is progress(late) is Progress.NOT_SENT


def test_a_request_started_by_the_end_of_another_in_a_loss_is_answered(talk: Conversation, peer: H2Peer) -> None:
    again: list[RecordingExchange] = []
    first = RecordingExchange("first", talk.journal, on_done=lambda: again.append(talk.ask(b"/again")))
    talk.ask(exchange=first)
    talk.turn()
    talk.engine.lost(ABORTED, talk.now)
    assert progress(first) is Progress.SENT
    assert progress(again[0]) is Progress.NOT_SENT
