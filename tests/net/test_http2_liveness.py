"""Is the peer still there? PING after silence, and beside the first request after an idle time."""

from __future__ import annotations

import pytest

from scrapy_poolplus.core.errors import ConnectionLostError
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.replay import Progress
from scrapy_poolplus.net.wire import BodyEnd, EngineConfig, Outcome
from tests.peers.h2_peer import Conversation, H2Peer

COMPLETE = Outcome(end=BodyEnd.COMPLETE)


@pytest.fixture
def talk() -> Conversation:
    return Conversation(EngineConfig(ping_interval=30.0, ping_timeout=10.0))


@pytest.fixture
def peer(talk: Conversation) -> H2Peer:
    return talk.greeted()


def test_a_ping_is_answered_with_its_own_bytes(talk: Conversation, peer: H2Peer) -> None:
    peer.ping(b"are you?")
    (frame,) = peer.pending()
    assert frame.opaque_data == b"are you?"  # type: ignore[attr-defined]
    assert "ACK" in frame.flags


def test_an_idle_connection_has_no_deadline(talk: Conversation, peer: H2Peer) -> None:
    assert talk.engine.next_deadline() is None
    talk.asked(b"/")
    peer.answer(1)
    assert talk.engine.next_deadline() is None
    talk.wait(1000)
    peer.want_nothing()


def test_silence_with_a_stream_open_is_pinged_and_an_answer_is_enough(talk: Conversation, peer: H2Peer) -> None:
    (exchange,) = talk.asked(b"/slow")
    talk.wait(29.9)
    peer.want_nothing()
    talk.wait(0.2)
    question = peer.want_ping()
    talk.wait(9.0)
    peer.ping(question, ack=True)
    talk.wait(20.9)
    peer.want_nothing()
    talk.wait(9.2)
    peer.want_ping()
    peer.answer(1)
    assert exchange.outcome == COMPLETE
    assert talk.owner.failure is None


def test_a_peer_that_does_not_answer_is_given_up_in_time(talk: Conversation, peer: H2Peer) -> None:
    waiting, begun = talk.asked(b"/waiting", b"/begun")
    peer.headers(3, [(b":status", b"200")])
    talk.wait(39.9)
    assert talk.owner.failure is None
    talk.wait(0.2)
    assert talk.owner.failure is not None
    error, reason = talk.owner.failure
    assert isinstance(error, ConnectionLostError)
    assert str(error) == "the peer did not answer a PING within 10.0 s (ping_timeout)"
    assert reason is CloseReason.PING_TIMEOUT
    assert waiting.outcome is not None
    assert begun.outcome is not None
    assert (waiting.outcome.progress, begun.outcome.progress) == (Progress.SENT, Progress.STARTED)
    assert talk.owner.drained is CloseReason.PING_TIMEOUT


def test_anything_that_comes_is_a_sign_of_life(talk: Conversation, peer: H2Peer) -> None:
    talk.asked(b"/dripping")
    peer.headers(1, [(b":status", b"200")])
    for _ in range(20):
        talk.wait(29)
        peer.data(1, b"x")
    peer.want_nothing()
    talk.wait(35)
    peer.want_ping()
    peer.data(1, b"x")
    talk.wait(20)
    assert talk.owner.failure is None


def test_the_first_request_after_an_idle_time_takes_a_ping_along(talk: Conversation, peer: H2Peer) -> None:
    talk.wait(10.1)
    writes = len(talk.transport.writes)
    talk.ask(b"/")
    talk.turn()
    assert len(talk.transport.writes) == writes + 1
    peer.want_ping()
    peer.want_headers()
    assert talk.engine.next_deadline() == pytest.approx(20.1)
    talk.wait(10.0)
    assert talk.owner.failure is not None
    assert talk.owner.failure[1] is CloseReason.PING_TIMEOUT


@pytest.mark.parametrize("idle", [0.0, 9.9])
def test_no_ping_goes_along_while_the_peer_was_just_heard(talk: Conversation, peer: H2Peer, idle: float) -> None:
    talk.wait(idle)
    talk.asked(b"/")
    peer.want_nothing()


def test_no_ping_goes_along_with_a_second_request_while_the_first_waits(talk: Conversation, peer: H2Peer) -> None:
    talk.asked(b"/slow")
    talk.wait(15)
    talk.asked(b"/other")
    peer.want_nothing()


def test_one_ping_is_enough_for_several_requests_of_a_turn(talk: Conversation, peer: H2Peer) -> None:
    talk.wait(60)
    talk.ask(b"/1")
    talk.ask(b"/2")
    talk.turn()
    peer.want_ping()
    peer.want_headers()
    peer.want_headers()
    peer.want_nothing()


def test_a_ping_that_is_out_is_waited_for_even_when_no_stream_is_open(talk: Conversation, peer: H2Peer) -> None:
    talk.wait(60)
    exchange = talk.ask()
    talk.turn()
    peer.want_ping()
    talk.engine.cancel(exchange, talk.now)
    talk.wait(11)
    assert talk.owner.failure is not None


def test_expire_without_need_does_nothing(talk: Conversation, peer: H2Peer) -> None:
    talk.asked(b"/")
    talk.engine.expire(talk.now)
    talk.engine.expire(29.9)
    peer.want_nothing()
    assert talk.owner.failure is None
