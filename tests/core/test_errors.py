from __future__ import annotations

import pytest

from scrapy_poolplus.core.errors import (
    ConfigError,
    ConnectionLostError,
    Phase,
    PhaseTimeoutError,
    PoolPlusError,
    StreamResetError,
)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PhaseTimeoutError("slow", phase=Phase.TLS, seconds=2.5, setting="connect_timeout"), {"seconds": 2.5}),
        (PhaseTimeoutError("slow", phase=Phase.BODY, seconds=9.0, setting="read_timeout"), {"setting": "read_timeout"}),
        (ConnectionLostError("gone", phase=Phase.BODY, clean=True), {"clean": True}),
        (ConnectionLostError("gone", phase=Phase.BODY), {"clean": False}),
        (StreamResetError("refused", phase=Phase.FIRST_BYTE, code=7), {"code": 7}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_how_far_its_request_had_come_and_what_ended_it(
    error: PoolPlusError, told: dict[str, object]
) -> None:
    assert isinstance(error.phase, Phase)
    assert {name: getattr(error, name) for name in told} == told
    assert str(error) in {"slow", "gone", "refused"}


def test_a_configuration_error_has_its_problems_one_by_one() -> None:
    error = ConfigError("2 problems", ("jitter is 2", "protocols is empty"))
    assert str(error) == "2 problems"
    assert error.problems == ("jitter is 2", "protocols is empty")
    assert ConfigError("it is wrong").problems == ()
