from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapy_poolplus.core.replay import IDEMPOTENT, SAFE, Progress, counts, may_replay

METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "CONNECT", "get", "PROPFIND"]
IDEMPOTENT_METHODS = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}


def allowed(
    progress: Progress,
    method: str = "GET",
    *,
    reused: bool = True,
    attempts: int = 0,
    max_replays: int = 10,
    replayed_suspect: bool = False,
) -> bool:
    return may_replay(
        progress,
        method,
        reused=reused,
        attempts=attempts,
        max_replays=max_replays,
        replayed_suspect=replayed_suspect,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reused", [True, False])
@pytest.mark.parametrize("progress", [Progress.NOT_SENT, Progress.REFUSED, Progress.HTTP1_REQUIRED])
def test_with_proof_that_it_was_not_processed_any_method_goes_again_and_again(
    progress: Progress, method: str, reused: bool
) -> None:
    assert allowed(progress, method, reused=reused, attempts=9, replayed_suspect=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_suspect_refusal_is_believed_once_for_any_method(method: str) -> None:
    assert allowed(Progress.REFUSED_SUSPECT, method, reused=False)
    assert not allowed(Progress.REFUSED_SUSPECT, method, replayed_suspect=True)


@pytest.mark.parametrize("method", METHODS)
def test_after_enhance_your_calm_nothing_goes_again(method: str) -> None:
    assert not allowed(Progress.REFUSED_CALM, method)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_sent_on_a_reused_connection_goes_again_only_if_idempotent(method: str) -> None:
    assert allowed(Progress.SENT, method) is (method in IDEMPOTENT_METHODS)


def test_what_was_sent_goes_again_as_often_as_it_meets_a_connection_that_had_worked() -> None:
    assert allowed(Progress.SENT, attempts=9)
    assert not allowed(Progress.SENT, attempts=9, reused=False)


def test_what_was_sent_on_a_fresh_connection_never_goes_again() -> None:
    assert not allowed(Progress.SENT, reused=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("progress", [Progress.STARTED, Progress.ENDED])
def test_a_response_begun_a_timeout_and_a_cancel_are_never_replayed(progress: Progress, method: str) -> None:
    assert not allowed(progress, method)


@settings(deadline=None)
@given(st.sampled_from(Progress), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_no_proof_goes_beyond_the_limit(progress: Progress, attempts: int, limit: int, reused: bool) -> None:
    if allowed(progress, reused=reused, attempts=attempts, max_replays=limit) and counts(progress, reused=reused):
        assert attempts < limit


def test_what_never_left_a_connection_that_had_worked_goes_on_until_there_are_none() -> None:
    assert not counts(Progress.NOT_SENT, reused=True)
    assert allowed(Progress.NOT_SENT, "POST", attempts=10)
    assert not allowed(Progress.NOT_SENT, reused=False, attempts=10)


def test_safe_methods_are_those_of_rfc_9110_and_all_of_them_idempotent() -> None:
    assert {"GET", "HEAD", "OPTIONS", "TRACE"} == SAFE
    assert IDEMPOTENT == IDEMPOTENT_METHODS
