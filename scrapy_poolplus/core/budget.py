"""What one connection may spend.

Requests are a hard budget: charged when a stream is assigned, for counted at completion it overshoots by the
concurrency (budget 20: the worst connection carried 83 at 64 streams). Age and bytes are soft: nothing new after the
crossing, streams in flight finish. Jitter goes downward only, so a maximum stays a maximum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.policy import Policy

PRECONNECT_MARGIN = 1.2
"""Share by which the successor is dialled earlier than the arithmetic says, for set-up times that vary."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Drawn once, at the birth of a connection. None: no limit. `age` in seconds, `size` in bytes, both directions."""

    requests: int | None = None
    age: float | None = None
    size: int | None = None


UNLIMITED = Budget()


def draw(policy: Policy, uniform: Callable[[], float]) -> Budget:
    """A budget of ``ceil(maximum * (1 - jitter * u))`` for each limit, `u` drawn anew from [0, 1) each time."""

    def drawn(maximum: float) -> float:
        return maximum * (1 - policy.jitter * uniform())

    requests, age, size = policy.max_requests_per_connection, policy.max_connection_age, policy.max_connection_bytes
    if requests is None and age is None and size is None:
        return UNLIMITED
    return Budget(
        requests=None if requests is None else ceil(drawn(requests)),
        age=None if age is None else drawn(age),
        size=None if size is None else ceil(drawn(size)),
    )


def draw_session(policy: Policy, uniform: Callable[[], float]) -> Budget:
    """The budget of a session that rotates, drawn in the same manner: its requests and its age."""
    requests, age = policy.session_requests, policy.session_age
    return Budget(
        requests=None if requests is None else ceil(requests * (1 - policy.jitter * uniform())),
        age=age * (1 - policy.jitter * uniform()),
    )


def spent(budget: Budget, *, requests: int, age: float, size: int) -> CloseReason | None:
    """Why the connection may take no further request, or None.

    `requests`: dispatched so far; `age`: seconds since it was ready; `size`: bytes in both directions.
    """
    if budget.requests is not None and requests >= budget.requests:
        return CloseReason.REQUESTS_SPENT
    if budget.age is not None and age >= budget.age:
        return CloseReason.AGE_SPENT
    if budget.size is not None and size >= budget.size:
        return CloseReason.BYTES_SPENT
    return None


def preconnect_due(*, requests_left: int | None, age_left: float | None, rate: float, setup_seconds: float) -> bool:
    """Whether a successor should be dialled now.

    True when what is left lasts no longer than setting up a connection: ``left <= rate * setup_seconds * 1.2`` for
    requests (`rate` per second), ``left <= setup_seconds * 1.2`` for age. Without a measured set-up time (0): False,
    but for the last request, which always makes it due.
    """
    lead = setup_seconds * PRECONNECT_MARGIN
    if requests_left is not None and requests_left <= max(1.0, rate * lead):
        return True
    return age_left is not None and age_left <= lead
