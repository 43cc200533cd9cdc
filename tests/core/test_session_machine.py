"""Sessions in the scheduler, fact after fact as Hypothesis draws them, against what the promise says.

The model is the server's: it counts, for each session, the requests that were dispatched in it, and looks at nothing in
the scheduler but its actions. `Scheduler.check` looks at the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, EndSession, Fail, Kept, Tell
from scrapy_poolplus.core.budget import UNLIMITED, draw_session
from scrapy_poolplus.core.errors import ConnectError, ConnectionLostError, Phase, PoolClosedError
from scrapy_poolplus.core.events import CloseReason, SessionCrossed, SessionOpened, SessionRetired
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler
from scrapy_poolplus.core.sessions import ANY, Claim, Tie

ORIGINS = tuple(Origin("https", f"{name}.example", 443) for name in "ab")
KEYS = tuple(PoolKey(Route(origin)) for origin in ORIGINS)
WHICH = st.integers(0, 10_000)


class Request:
    """A request as the model knows it."""

    def __init__(self, key: PoolKey, claim: Claim) -> None:
        self.key = key
        self.claim = claim
        self.session: str | None = None
        self.connection: int | None = None


class SessionMachine(RuleBasedStateMachine):
    """After each fact: no session carries more than its budget unless it was kept first, none shares a connection,
    nothing that is bound goes astray, every request is answered once."""

    made_by: Callable[..., Scheduler] = Scheduler

    @initialize(
        most=st.integers(1, 5),
        age=st.sampled_from((5.0, 600.0)),
        idle=st.sampled_from((4.0, 3600.0)),
        streams=st.sampled_from((1, 3, 100)),
        protocols=st.tuples(st.sampled_from(HttpProtocol), st.sampled_from(HttpProtocol)),
        cap=st.sampled_from((None, 1, 2)),
        jitter=st.sampled_from((0.0, 0.5)),
    )
    def start(
        self,
        most: int,
        age: float,
        idle: float,
        streams: int,
        protocols: tuple[HttpProtocol, HttpProtocol],
        cap: int | None,
        jitter: float,
    ) -> None:
        self.policy = Policy(
            rotation=most,
            session_requests=most,
            session_age=age,
            session_idle=idle,
            max_streams=streams,
            max_connections=cap,
            jitter=jitter,
        )
        self.most = most
        self.spoken = dict(zip(ORIGINS, protocols, strict=True))
        self.scheduler = self.made_by(6, run="r")
        self.now = 0.0
        self.tickets = 0
        self.requests: dict[int, Request] = {}
        self.carried: dict[str, int] = defaultdict(int)
        self.promised: dict[str, int] = {}
        self.answered: set[str] = set()
        """A response head came in them."""
        self.kept: set[str] = set()
        self.ended: set[str] = set()
        self.retired: set[str] = set()
        self.told: set[str] = set()
        """Retired because somebody asked."""
        self.named: dict[tuple[Tie, str], str] = {}
        self.used_at: dict[str, float] = {}
        self.idle = idle
        self.leaving = False
        self.used: dict[Origin, set[str]] = defaultdict(set)
        self.left: dict[Origin, set[str]] = defaultdict(set)
        """What was used at an origin before it was to be left."""
        self.session_of: dict[int, set[str]] = defaultdict(set)
        self.dials: dict[int, Dial] = {}
        self.open: dict[int, HttpProtocol] = {}
        self.holds: dict[str, int] = defaultdict(int)
        self.crossed = 0

    # ---- what there is

    def sessions(self) -> list[str]:
        """Those that carried a request and are not forgotten."""
        return sorted(name for name in self.carried if name not in self.ended)

    def in_flight(self) -> list[int]:
        return sorted(ticket for ticket, request in self.requests.items() if request.connection is not None)

    def waiting(self) -> list[int]:
        return sorted(ticket for ticket, request in self.requests.items() if request.connection is None)

    def labelled(self) -> list[str]:
        """Labels whose session carried a request and is not retired."""
        return sorted(
            name for (tie, name), session in self.named.items() if tie is Tie.PIN and session not in self.retired
        )

    # ---- facts

    @rule(key=st.sampled_from(KEYS), number=st.sampled_from((1, 2, 6)), rotate=st.booleans())
    def submit(self, key: PoolKey, number: int, rotate: bool) -> None:
        for _ in range(number):
            self._submit(key, Claim(rotate=True) if rotate else ANY)

    @precondition(lambda self: self.sessions())
    @rule(
        key=st.sampled_from(KEYS),
        tie=st.sampled_from((Tie.OWN, Tie.FLOW, Tie.KEPT)),
        which=WHICH,
        far=st.booleans(),
        cause=st.sampled_from((None, "redirect")),
    )
    def submit_bound(self, key: PoolKey, tie: Tie, which: int, far: bool, cause: str | None) -> None:
        session = self.sessions()[which % len(self.sessions())]
        self._submit(key, Claim(tie, session, host=key.origin.host, far=far, cause=cause))

    @rule(key=st.sampled_from(KEYS), name=st.sampled_from(("ada", "bob")), tie=st.sampled_from((Tie.PIN, Tie.KEPT)))
    def submit_named(self, key: PoolKey, name: str, tie: Tie) -> None:
        self._submit(key, Claim(tie, name=name))

    @rule(key=st.sampled_from(KEYS))
    def submit_with_a_session_of_another_run(self, key: PoolKey) -> None:
        self._submit(key, Claim(Tie.OWN, "other-1", cause="retry"))

    @precondition(lambda self: self.sessions())
    @rule(which=WHICH, host=st.sampled_from(("a.example", ".b.example", "c.example")))
    def cookie(self, which: int, host: str) -> None:
        self.scheduler.remember_cookies(self.sessions()[which % len(self.sessions())], [host])

    @precondition(lambda self: self.sessions())
    @rule(which=WHICH)
    def hold(self, which: int) -> None:
        session = self.sessions()[which % len(self.sessions())]
        self.holds[session] += 1
        self.scheduler.hold(session)

    @precondition(lambda self: any(self.holds.values()))
    @rule(which=WHICH)
    def release(self, which: int) -> None:
        held = sorted(session for session, count in self.holds.items() if count)
        session = held[which % len(held)]
        self.holds[session] -= 1
        self._judge(self.scheduler.release(session, self.now))

    @precondition(lambda self: self.in_flight())
    @rule(which=WHICH)
    def head(self, which: int) -> None:
        ticket = self.in_flight()[which % len(self.in_flight())]
        session = self.requests[ticket].session
        assert session is not None
        self.answered.add(session)
        self._judge(self.scheduler.answered(ticket, self.now))

    @precondition(lambda self: self.in_flight())
    @rule(which=WHICH)
    def finish(self, which: int) -> None:
        ticket = self.in_flight()[which % len(self.in_flight())]
        session = self.requests.pop(ticket).session
        assert session is not None
        self.used_at[session] = self.now
        self._judge(self.scheduler.finished(ticket, self.now))

    @precondition(lambda self: self.waiting())
    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        ticket = self.waiting()[which % len(self.waiting())]
        del self.requests[ticket]
        self._judge(self.scheduler.cancel(ticket, self.now))

    @precondition(lambda self: self.dials)
    @rule(uniform=st.sampled_from((0.0, 0.5, 0.9)))
    def connect_all(self, uniform: float) -> None:
        for _ in range(1000):
            if not self.dials:
                return
            number = min(self.dials)
            dial = self.dials.pop(number)
            protocol = self.open[number] = self.spoken[dial.key.origin]
            budget = draw_session(self.policy, lambda: uniform)
            self._judge(self.scheduler.connected(number, protocol, UNLIMITED, self.now, session=budget))
        raise AssertionError("it dials without end")

    @precondition(lambda self: self.dials)
    @rule(which=WHICH)
    def fail_dial(self, which: int) -> None:
        number = sorted(self.dials)[which % len(self.dials)]
        del self.dials[number]
        self._judge(self.scheduler.dial_failed(number, ConnectError("refused", phase=Phase.CONNECT), self.now))

    @precondition(lambda self: self.open)
    @rule(which=WHICH)
    def lose(self, which: int) -> None:
        number = sorted(self.open)[which % len(self.open)]
        del self.open[number]
        self._judge(self.scheduler.lost(number, ConnectionLostError("reset", phase=Phase.BODY), self.now))

    @precondition(lambda self: self.open)
    @rule(which=WHICH, reason=st.sampled_from((CloseReason.GOAWAY, CloseReason.NOT_REUSABLE)))
    def drain(self, which: int, reason: CloseReason) -> None:
        number = sorted(self.open)[which % len(self.open)]
        self._judge(self.scheduler.retire(number, reason, self.now))

    @precondition(lambda self: self.sessions())
    @rule(which=WHICH)
    def retire(self, which: int) -> None:
        self._retire(self.sessions()[which % len(self.sessions())])

    @precondition(lambda self: self.labelled())
    @rule(which=WHICH)
    def retire_label(self, which: int) -> None:
        name = self.labelled()[which % len(self.labelled())]
        self._retire(self.named[Tie.PIN, name], called=name)

    @rule(key=st.sampled_from(KEYS))
    def retire_host(self, key: PoolKey) -> None:
        origin = key.origin
        self.left[origin] |= self.used[origin]
        self.leaving = True
        self._judge(self.scheduler.retire_all(self.now, host=origin.host))
        self.leaving = False

    @rule(seconds=st.sampled_from((0.125, 1.0, 3.0, 100.0)))
    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(1000):
            due = self.scheduler.next_deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self._judge(self.scheduler.tick(self.now))
        self.now = end
        self._judge(self.scheduler.tick(end))

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            self._judge(self.scheduler.close(PoolClosedError("closed", phase=Phase.WAIT)))
            assert not self.requests, f"I9: never answered: {sorted(self.requests)}"
            assert not self.scheduler.state.book.sessions

    # ---- judging

    def _submit(self, key: PoolKey, claim: Claim) -> None:
        self.tickets += 1
        self.requests[self.tickets] = Request(key, claim)
        self._judge(self.scheduler.submit(self.tickets, key, self.policy, self.now, slots=4, claim=claim))

    def _retire(self, session: str, *, called: str | None = None) -> None:
        self.told.add(session)
        self._judge(self.scheduler.retire_all(self.now, session=called or session))
        # A flow may begin in one that rotated until now.
        assert session in self.retired or session not in self.told, f"{session} goes on"

    def _judge(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dial():
                    self.dials[action.connection] = action
                case Close():
                    self.dials.pop(action.connection, None)
                    self.open.pop(action.connection, None)
                case Fail():
                    del self.requests[action.ticket]
                case Dispatch():
                    self._dispatched(action)
                case Kept():
                    self.kept.add(action.session)
                    # Retired as a rotating one, whatever for, it is taken up again as a flow.
                    self.retired.discard(action.session)
                    self.told.discard(action.session)
                case Tell(event=SessionOpened(session=session)):
                    assert session not in self.promised, f"{session} began twice"
                    self.promised[session] = self.most
                case Tell(event=SessionRetired(session=session, requests=requests, reason=reason)):
                    assert requests == self.carried[session]
                    self.retired.add(session)
                    if session in self.kept:
                        self._kept_no_longer(session, reason)
                case Tell(event=SessionCrossed()):
                    self.crossed += 1
                case EndSession():
                    assert action.session not in self.ended, f"{action.session} ended twice"
                    self.ended.add(action.session)
                case _:
                    pass
        if not self.scheduler.closed:
            self.scheduler.check()

    def _kept_no_longer(self, session: str, reason: CloseReason) -> None:
        """A label, or a flow, ends because somebody asked, or because nothing has happened in it."""
        if reason is CloseReason.RETIRED:
            assert session in self.told or self.leaving, f"nobody asked to retire {session}"
            return
        assert reason is CloseReason.IDLE_TIMEOUT
        assert not any(request.session == session for request in self.requests.values()), f"{session} is in use"
        assert self.now >= self.used_at[session] + self.idle, (
            f"{session} was used {self.now - self.used_at[session]} s ago"
        )

    def _dispatched(self, action: Dispatch) -> None:
        request, session = self.requests[action.ticket], action.session
        assert request.connection is None, f"I9: {action.ticket} was sent twice"
        assert session is not None, "each request of a host that rotates is in a session"
        assert session not in self.ended, f"{session} has ended"
        assert session in self.promised, "it is told of before it is used"
        alone = session not in self.kept and self.open[action.connection] is HttpProtocol.HTTP2
        if alone and session not in self.answered:
            assert session not in {other.session for other in self.requests.values()}, f"{session} is not answered yet"
        request.session, request.connection = session, action.connection
        self.carried[session] += 1
        self.used_at[session] = self.now
        self.used[request.key.origin].add(session)
        if session not in self.kept:
            assert self.carried[session] <= self.most, f"{session} carried {self.carried[session]} of {self.most}"
        users = self.session_of[action.connection]
        users.add(session)
        assert users == {session}, f"I21: connection {action.connection} carries {users}"
        claim = request.claim
        if claim.tie is Tie.NONE:
            assert session not in self.kept, f"{session} is kept for a flow"
            assert session not in self.left[request.key.origin], f"{session} was to be left"
        elif claim.tie in {Tie.PIN, Tie.KEPT} and claim.name:
            assert session in self.kept
            assert session not in self.retired, f"{session} is retired"
            self._named(claim.tie, claim.name, session)
        elif claim.tie is Tie.KEPT and claim.session in self.kept and claim.session not in self.retired:
            assert session == claim.session, f"{action.ticket} left its flow"

    def _named(self, tie: Tie, name: str, session: str) -> None:
        """A name keeps its session until that is retired, and no other name has it."""
        before = self.named.get((tie, name))
        assert before in {None, session} or before in self.retired, f"{name} left {before} for {session}"
        self.named[tie, name] = session
        assert list(self.named.values()).count(session) == 1, f"{session} has more than one name"


SessionMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestSessions = SessionMachine.TestCase
