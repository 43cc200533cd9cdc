"""ConnectionPool: runs what the scheduler decides and reports what came of it.

The only room that knows both ``core`` and ``net``. It decides nothing about who gets which connection: every event
becomes a fact for the scheduler, whose actions are run in order, those that a fact provokes in the middle of a run
after them. One timer serves all deadlines.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from scrapy_poolplus.alarm import Alarm
from scrapy_poolplus.audience import Audience
from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, Drain, EndSession, Fail, Kept, Tell
from scrapy_poolplus.core.budget import UNLIMITED, draw, draw_session
from scrapy_poolplus.core.deadlines import Deadlines
from scrapy_poolplus.core.errors import BodyLengthError, Phase, PoolClosedError, PoolPlusError
from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionDraining,
    DialStarted,
    Observer,
    PoolEvent,
    Replayed,
    RequestDispatched,
    RequestDone,
    RequestQueued,
    SessionEnded,
    SessionKept,
)
from scrapy_poolplus.core.exits import exit_of
from scrapy_poolplus.core.origin import HttpProtocol, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.replay import Progress, counts, may_replay
from scrapy_poolplus.core.scheduler import ROUTES_REMEMBERED, Scheduler
from scrapy_poolplus.core.sessions import ANY, Claim
from scrapy_poolplus.dialling import Dialling
from scrapy_poolplus.exchange import Attempt, Dialer, Member, Sink, Ticket
from scrapy_poolplus.goodbye import Goodbyes
from scrapy_poolplus.net.wire import Outcome, WireRequest
from scrapy_poolplus.phases import PhaseLimits

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from scrapy_poolplus.net.connection import Connection

logger = logging.getLogger(__name__)

CUT_OFF = frozenset({CloseReason.REQUEST_ENDED, CloseReason.PROTOCOL_ERROR, CloseReason.PING_TIMEOUT})
"""Reasons to abort a connection instead of saying goodbye: its peer may be sending without end, or is not there."""


class ConnectionPool:
    """All connections of one crawler.

    `clock` is the reactor, `dialer` makes connections, `uniform` draws from [0, 1) for the jitter of budgets. A closed
    pool fails every request at once; make a new one. `run` begins the ids of sessions, and is another one in each run;
    `session_ended` is told the id of a session of which nothing is left. `observers`: each with the kinds of events that
    it hears, None for all.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        dialer: Dialer,
        uniform: Callable[[], float],
        max_connections: int,
        dial_timeout: float = 180.0,
        max_frame_size: int = 16_384,
        observers: Iterable[tuple[Observer, frozenset[type] | None]] = (),
        run: str = "s",
        session_ended: Callable[[str], None] = lambda _session: None,
    ) -> None:
        self.clock = clock
        self.scheduler = Scheduler(max_connections, run=run)
        self._session_ended = session_ended
        self._uniform = uniform
        self._dialling = Dialling(
            dialer,
            timeout=dial_timeout,
            max_frame_size=max_frame_size,
            connected=self._connected,
            failed=self._dial_failed,
        )
        self._audience = Audience()
        for observer, kinds in observers:
            self._audience.add(observer, kinds)
        self._tickets: dict[int, Ticket] = {}
        self._members: dict[int, Member] = {}
        self._goodbyes = Goodbyes(clock)
        self._http1_only: OrderedDict[Route, None] = OrderedDict()
        self._numbers = 0
        self._deadlines = Deadlines()
        self._alarm = Alarm(clock, self._sweep)
        self._limits = PhaseLimits(self, self._deadlines, self._arm, self._waiting_for)
        self._queue: deque[Action] = deque()
        self._running = False
        self._when_closed: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return repr(self.scheduler)

    @property
    def closed(self) -> bool:
        """True from the call of ``close`` on."""
        return self.scheduler.closed

    def observe(self, observer: Observer, kinds: frozenset[type] | None = None) -> None:
        """Have `observer` told of every event from now on, or of those `kinds` alone."""
        self._audience.add(observer, kinds)

    def tell(self, event: PoolEvent) -> None:
        """Tell the observers of something that happened before the pool."""
        self._audience.tell(event)

    def when_closed(self, call: Callable[[], None]) -> None:
        """Have `call` called as soon as the pool is closed."""
        self._when_closed.append(call)

    # ---- what the handler calls

    def request(
        self,
        wire: WireRequest,
        key: PoolKey,
        policy: Policy,
        sink: Sink,
        *,
        seconds: float,
        own: Policy | None = None,
        slots: int | None = None,
        claim: Claim = ANY,
    ) -> Ticket:
        """Ask for a response. `seconds` from now are the deadline for all of it: waiting, dialling, sending, reading.

        `policy` is the key's; `own` is one for this request alone, whose time-outs and replays hold for it. `slots`: how
        many requests the downloader means to have at this origin at once. `claim`: which session it asks for.
        """
        self._numbers += 1
        if key.route in self._http1_only:
            key = replace(key, protocols=(HttpProtocol.HTTP1,))
        ticket = Ticket(
            self,
            self._numbers,
            wire=wire,
            key=key,
            policy=policy,
            own=own or policy,
            slots=slots,
            claim=claim,
            sink=sink,
            seconds=seconds,
        )
        if self.closed:
            ticket.gone = True
            sink.failed(PoolClosedError("the connection pool is closed", phase=Phase.WAIT))
            return ticket
        now = self.clock.seconds()
        self._tickets[ticket.number] = ticket
        if self._audience.hears(RequestQueued):
            self._audience.tell(RequestQueued(ticket.number, key, now))
        self._limits.begin(ticket, now, connect_timeout=None if own is None else own.connect_timeout)
        self._submit(ticket, now)
        return ticket

    def give_up(self, ticket: Ticket, error: PoolPlusError | None = None) -> None:
        """Take a request out of the pool wherever it is; with `error` its sink hears that."""
        sink, attempt, now = ticket.sink, ticket.attempt, self.clock.seconds()
        self._leave(ticket, error, now)
        if attempt is None:
            if ticket.number in self.scheduler.waiting:
                self.run(self.scheduler.cancel(ticket.number, now))
            # Else its Dispatch is still to be run, and finds that it is gone.
        elif attempt.member.connection is not None:
            attempt.member.connection.cancel(attempt)
        if error is not None and sink is not None:
            sink.failed(error)

    def retire(self, *, host: str | None = None, session: str | None = None) -> int:
        """Retire the open connections of a host, or all, with the sessions that they carry and those that their next ones
        would go on with, or those of one session, by its label or id. They finish what they have. Returns how many
        connections took their leave."""
        before = self._open()
        self.run(self.scheduler.retire_all(self.clock.seconds(), host=host, session=session))
        return len(before - self._open())

    def _open(self) -> set[int]:
        return {number for number, record in self.scheduler.connections.items() if record.open}

    def hold(self, session: str) -> None:
        """Keep a session, with its cookies, although its budget is spent: something may still go on in it. Each call
        wants one of ``release``. Sessions that are not known (of another run, or ended) are passed over."""
        self.scheduler.hold(session)

    def release(self, session: str) -> None:
        """Take back one ``hold``."""
        self.run(self.scheduler.release(session, self.clock.seconds()))

    def remember_cookies(self, session: str, domains: Iterable[str]) -> None:
        """The domains of all cookies that the session has now."""
        self.scheduler.remember_cookies(session, domains)

    def close(self) -> Deferred[None]:
        """Answer every request with PoolClosedError, close every connection; fires when the sockets are gone, at the
        latest after 1.5 seconds, then without waiting for those peers. May be called again."""
        if not self.closed:
            error = PoolClosedError("the connection pool was closed", phase=Phase.WAIT)
            self.run(self.scheduler.close(error))
            self._alarm.stop()
            for ticket in list(self._tickets.values()):
                # Between two attempts.
                self.give_up(ticket, error)
            for call in self._when_closed:
                call()
        return self._goodbyes.wait()

    # ---- facts from connections

    def now(self) -> float:
        """Seconds of the pool's clock."""
        seconds: float = self.clock.seconds()
        return seconds

    def capacity_changed(self, member: Member, streams: int) -> None:
        """The peer allows so many streams at once from now on."""
        self.run(self.scheduler.capacity(member.number, streams, self.clock.seconds()))

    def draining(self, member: Member, reason: CloseReason) -> None:
        """The connection takes nothing new."""
        self.run(self.scheduler.retire(member.number, reason, self.clock.seconds()))

    def answered(self, attempt: Attempt) -> None:
        """See exchange.Coordinator."""
        if attempt.ticket.claim.bare:
            # Its session has no cookies from it yet.
            return
        self.run(self.scheduler.answered(attempt.ticket.number, self.clock.seconds()))

    def has_cookie(self, session: str, host: str) -> bool:
        """Whether the session has a cookie for the host."""
        found = self.scheduler.state.book.find(session)
        return found is not None and found.has_cookie(host)

    def replayable(self, attempt: Attempt, progress: Progress) -> bool:
        """Whether the request may be sent again (core.replay)."""
        ticket = attempt.ticket
        return not ticket.gone and may_replay(
            progress,
            ticket.wire.method.decode("latin-1"),
            reused=attempt.member.completed > 0,
            attempts=ticket.counted_replays,
            max_replays=ticket.policy.max_replays,
            replayed_suspect=ticket.replayed_suspect,
        )

    def watch(self, attempt: Attempt, limit: float, setting: str) -> None:
        """See phases.PhaseLimits."""
        self._limits.watch(attempt, limit, setting)

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """An exchange is over: answer, replay or fail the request. The scheduler hears of it before the sink, whose
        callbacks may submit the next request at once."""
        if attempt.detached:
            return
        ticket, member, now = attempt.ticket, attempt.member, self.clock.seconds()
        if outcome.end is not None:
            member.completed += 1
        if ticket.gone:
            self.run(self.scheduler.finished(ticket.number, now, size=member.carried()))
            return
        progress = Progress.REFUSED if attempt.misdirected else outcome.progress
        if attempt.misdirected:
            self.run(self.scheduler.retire(member.number, CloseReason.NOT_REUSABLE, now))
        elif progress is Progress.REFUSED_CALM:
            self.run(self.scheduler.calm(member.key.origin, now))
        if attempt.misdirected or (outcome.end is None and self.replayable(attempt, progress)):
            self._replay(ticket, member, progress, now)
            return
        sink = ticket.sink
        self._leave(ticket, outcome.error, now)
        self.run(self.scheduler.finished(ticket.number, now, size=member.carried()))
        if sink is None:
            return
        if outcome.end is None:
            error = outcome.error
            assert error is not None, "an outcome without a response has an error"
            sink.failed(error)
        else:
            sink.end(outcome.end, outcome.error if isinstance(outcome.error, BodyLengthError) else None)

    def lost(self, member: Member, error: PoolPlusError, reason: CloseReason) -> None:
        """A connection is gone; its engine has told its exchanges."""
        now = self.clock.seconds()
        self._forget(member, reason, now)
        self.run(self.scheduler.lost(member.number, error, now))

    def count_traffic(self, member: Member) -> None:
        """The connection has a budget of bytes, and carried some."""
        self.run(self.scheduler.traffic(member.number, member.carried(), self.clock.seconds()))

    # ---- actions

    def run(self, actions: list[Action]) -> None:
        """Run them after those that are still to be run."""
        self._queue.extend(actions)
        if self._running:
            return
        self._running = True
        try:
            while self._queue:
                self._act(self._queue.popleft())
        finally:
            self._running = False
        self._arm()

    def _act(self, action: Action) -> None:
        match action:
            case Dispatch():
                self._dispatch(action)
            case Dial():
                self._dial(action)
            case Close():
                self._close(action)
            case Fail():
                self._fail(action)
            case Drain():
                member = self._members.get(action.connection)
                if member is not None:
                    self._audience.tell(
                        ConnectionDraining(member.number, member.key, action.reason, self.clock.seconds())
                    )
            case Tell():
                self._audience.tell(action.event)
            case Kept():
                ticket = self._tickets.get(action.ticket)
                if ticket is not None:
                    begun_by = ticket.wire.describe()
                    self._audience.tell(SessionKept(action.session, action.cause, begun_by, self.clock.seconds()))
            case EndSession():
                self._session_ended(action.session)
                self._audience.tell(SessionEnded(action.session, self.clock.seconds()))

    def _dispatch(self, action: Dispatch) -> None:
        ticket, member = self._tickets.get(action.ticket), self._members.get(action.connection)
        now = self.clock.seconds()
        if ticket is None:
            # It was cancelled while this action waited behind another one.
            self.run(self.scheduler.finished(action.ticket, now))
            return
        if member is None or member.connection is None:
            # The connection was lost while this action waited: its Fail comes behind.
            return
        member.requests += 1
        attempt = ticket.attempt = Attempt(ticket, member, now, action.session)
        if self._audience.hears(RequestDispatched):
            protocol = member.connection.protocol
            event = RequestDispatched(
                ticket.number,
                member.number,
                member.key,
                protocol,
                action.reused,
                action.waited,
                now,
                action.session,
            )
            self._audience.tell(event)
        if ticket.sink is not None:
            ticket.sink.dispatched(member.connection)
        wire = ticket.wire
        if action.session is not None and ticket.sink is not None:
            wire = attempt.wire = ticket.sink.dress(wire, action.session, kept=action.kept)
        if ticket.policy.first_byte_timeout is not None:
            self._limits.watch(attempt, ticket.policy.first_byte_timeout, "first_byte_timeout")
        member.connection.start(member.dress(wire), attempt)
        self._limits.watch_engine(member)

    def _dial(self, action: Dial) -> None:
        now = self.clock.seconds()
        record = self.scheduler.connections.get(action.connection)
        if record is None:
            # It was closed again while this action waited.
            return
        policy = record.key.policy
        route = exit_of(action.key.route, policy, action.session, action.turn)
        member = self._members[action.connection] = Member(
            self, action.connection, action.key, policy, now, route=route
        )
        self._audience.tell(DialStarted(member.number, action.key, now))
        self._dialling.start(member, route)

    def _connected(self, connection: Connection, member: Member) -> None:
        now = self.clock.seconds()
        member.connection, member.opened_at = connection, now
        self._audience.tell(member.opened_event(now))
        connection.attach(member)
        if not member.gone:
            budget = draw(member.policy, self._uniform)
            member.allowed = budget.requests
            session = draw_session(member.policy, self._uniform) if member.policy.rotates else UNLIMITED
            self.run(self.scheduler.connected(member.number, connection.protocol, budget, now, session=session))

    def _dial_failed(self, error: PoolPlusError, member: Member) -> None:
        now = self.clock.seconds()
        self._forget(member, CloseReason.DIAL_FAILED, now, error)
        self.run(self.scheduler.dial_failed(member.number, error, now))

    def _close(self, action: Close) -> None:
        member = self._members.get(action.connection)
        if member is None:
            return
        connection, dial = member.connection, member.dial
        self._forget(member, action.reason, self.clock.seconds())
        if connection is not None:
            self._goodbyes.say(connection, cut_off=action.reason in CUT_OFF)
        elif dial is not None:
            dial.cancel()

    def _fail(self, action: Fail) -> None:
        ticket = self._tickets.get(action.ticket)
        if ticket is None:
            return
        attempt, now = ticket.attempt, self.clock.seconds()
        if attempt is not None:
            attempt.detached = True
        sink = ticket.sink
        self._leave(ticket, action.error, now)
        if sink is not None:
            sink.failed(action.error)

    # ---- requests

    def _replay(self, ticket: Ticket, member: Member, progress: Progress, now: float) -> None:
        ticket.replays += 1
        ticket.counted_replays += counts(progress, reused=member.completed > 0)
        ticket.replayed_suspect |= progress is Progress.REFUSED_SUSPECT
        ticket.attempt = None
        if progress is Progress.HTTP1_REQUIRED:
            self._http1_only[ticket.key.route] = None
            if len(self._http1_only) > ROUTES_REMEMBERED:
                self._http1_only.popitem(last=False)
            ticket.key = replace(ticket.key, protocols=(HttpProtocol.HTTP1,))
        self._audience.tell(Replayed(ticket.number, member.number, progress.value, now))
        logger.debug("Replaying request %d to %s: %s", ticket.number, ticket.key, progress.value)
        if progress is Progress.SENT:
            # In the next turn: others that the peer ended together with this connection are known to be gone by then.
            self._deadlines.at(now, ticket, lambda now: self._submit(ticket, now))
        self.run(self.scheduler.finished(ticket.number, now, size=member.carried()))
        if progress is not Progress.SENT and not ticket.gone:
            self._submit(ticket, now)

    def _submit(self, ticket: Ticket, now: float) -> None:
        ticket.asked_at = now
        self.run(
            self.scheduler.submit(
                ticket.number, ticket.key, ticket.key_policy, now, slots=ticket.slots, claim=ticket.claim
            )
        )

    def _leave(self, ticket: Ticket, error: PoolPlusError | None, now: float) -> None:
        """The request is over: let go of what it holds, its body may be large."""
        ticket.gone = True
        ticket.sink = None
        del self._tickets[ticket.number]
        if self._audience.hears(RequestDone):
            connection = None if ticket.attempt is None else ticket.attempt.member.number
            self._audience.tell(
                RequestDone(ticket.number, connection, None if error is None else type(error).__name__, now)
            )

    def _waiting_for(self, ticket: Ticket) -> tuple[Phase, str]:
        """What a waiting request waits for: the oldest dial of its key, or room."""
        record = self.scheduler.waiting.get(ticket.number)
        for number in record.connecting if record is not None else ():
            member = self._members.get(number)
            if member is not None and member.dial is not None:
                return member.dial.phase, member.dial.describe()
        return Phase.WAIT, f"{Phase.WAIT.value} to {ticket.key}"

    # ---- connections

    def _forget(self, member: Member, reason: CloseReason, now: float, error: PoolPlusError | None = None) -> None:
        member.gone = True
        del self._members[member.number]
        self._audience.tell(member.gone_event(reason, error, now))

    # ---- time

    def _arm(self) -> None:
        """See that the alarm rings no later than the next deadline."""
        if self.closed:
            return
        mine, theirs = self._deadlines.next(), self.scheduler.next_deadline()
        if mine is None or (theirs is not None and theirs < mine):
            mine = theirs
        if mine is not None:
            self._alarm.by(mine)

    def _sweep(self) -> None:
        now = self.clock.seconds()
        while (due := self._deadlines.pop(now)) is not None:
            due(now)
        self.run(self.scheduler.tick(now))
