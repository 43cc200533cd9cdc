"""The time limits of a request, phase by phase, and what engines want to be woken for.

Entries of one heap of deadlines, which the pool's timer serves. What runs out is given up, with an error that names the
phase it was in and the setting that set the limit.
"""

from __future__ import annotations

from collections.abc import Callable

from scrapy_poolplus.core.deadlines import Deadlines
from scrapy_poolplus.core.errors import Phase, PhaseTimeoutError
from scrapy_poolplus.exchange import Attempt, Coordinator, Member, Ticket


class PhaseLimits:
    """`waits_for` says what a request waits for that is on no connection yet; `arm` is called when there is a deadline
    that the timer may not know of."""

    __slots__ = ("_arm", "_deadlines", "_pool", "_waits_for")

    def __init__(
        self,
        pool: Coordinator,
        deadlines: Deadlines,
        arm: Callable[[], None],
        waits_for: Callable[[Ticket], tuple[Phase, str]],
    ) -> None:
        self._pool = pool
        self._deadlines = deadlines
        self._arm = arm
        self._waits_for = waits_for

    def begin(self, ticket: Ticket, now: float, *, connect_timeout: float | None) -> None:
        """A request begins: all of it is to be over in its ``seconds``. `connect_timeout`: one of its own, shorter or
        longer than that of the dial it may wait for."""
        self._deadlines.at(now + ticket.seconds, ticket, lambda _now: self._out_of_time(ticket))
        if connect_timeout is not None:
            self._deadlines.at(now + connect_timeout, ticket, lambda _now: self._not_connected(ticket, connect_timeout))

    def watch(self, attempt: Attempt, limit: float, setting: str) -> None:
        """Time out a phase of an attempt: ``first_byte_timeout`` until the response head, ``read_timeout`` after it,
        `limit` seconds since something was last heard."""
        if attempt.head_seen is not (setting == "read_timeout"):
            return
        due = attempt.heard_at + limit
        if due > self._pool.now():
            self._deadlines.at(due, attempt, lambda _now: self.watch(attempt, limit, setting))
            self._arm()
            return
        phase, policy = attempt.phase(), attempt.ticket.policy
        message = f'{phase.value} of {attempt.ticket.key} took longer than {limit} s ({setting} of "{policy.name}")'
        self._pool.give_up(attempt.ticket, PhaseTimeoutError(message, phase=phase, seconds=limit, setting=setting))

    def watch_engine(self, member: Member) -> None:
        """Have the engine's ``expire`` called when it wants that, with one entry a connection."""
        if member.watched or member.gone or member.connection is None:
            return
        due = member.connection.next_deadline()
        if due is not None:
            member.watched = True
            self._deadlines.at(due, member, lambda now: self._engine_due(member, now))

    def _engine_due(self, member: Member, now: float) -> None:
        member.watched = False
        if member.connection is None:
            return
        due = member.connection.next_deadline()
        if due is not None and due <= now:
            member.connection.expire()
        self.watch_engine(member)

    def _out_of_time(self, ticket: Ticket) -> None:
        attempt = ticket.attempt
        if attempt is None:
            phase, where = self._waits_for(ticket)
        else:
            phase = attempt.phase()
            where = f"{phase.value} of {ticket.key}"
        error = PhaseTimeoutError(where, phase=phase, seconds=ticket.seconds, setting="download_timeout")
        self._pool.give_up(ticket, error)

    def _not_connected(self, ticket: Ticket, seconds: float) -> None:
        if ticket.attempt is not None:
            return
        phase, where = self._waits_for(ticket)
        message = f'{where} took longer than {seconds} s (connect_timeout of "{ticket.policy.name}")'
        if phase is not Phase.WAIT:
            error = PhaseTimeoutError(message, phase=phase, seconds=seconds, setting="connect_timeout")
            self._pool.give_up(ticket, error)
