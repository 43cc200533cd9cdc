"""What is remembered of sessions in a long crawl: as much as lives, and nothing at its end. Counted, not weighed: the
process's memory has many other reasons to grow."""

from __future__ import annotations

from collections import deque
from random import Random

from scrapy import Request
from scrapy.http import Headers
from scrapy.utils.test import get_crawler

from scrapy_poolplus.core.actions import Action, Close, Dial, Dispatch, EndSession, Fail
from scrapy_poolplus.core.budget import UNLIMITED, draw_session
from scrapy_poolplus.core.errors import ConnectionLostError, Phase
from scrapy_poolplus.core.events import CloseReason
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.core.scheduler import Scheduler
from scrapy_poolplus.core.sessions import ANY, Claim, Tie
from scrapy_poolplus.jars import SessionJars

HOSTS = tuple(f"h{number}.example" for number in range(10))
KEYS = tuple(PoolKey(Route(Origin("https", host, 443))) for host in HOSTS)
RESET = ConnectionLostError("reset", phase=Phase.BODY)
REQUESTS = 100_000
AT_ONCE = 16
PAUSE = 0.02
"""Seconds from one request to the next: with a few hundred of them in the time for which a flow is kept."""
POLICY = Policy(rotation=40, session_requests=40, session_age=60.0, session_idle=10.0, idle_timeout=5.0, jitter=0.5)


class Crawl:
    """A crawl without sockets: what the scheduler decides comes true at once, answers come in order."""

    def __init__(self) -> None:
        self.random = Random(5)
        self.scheduler = Scheduler(50, run="r")
        jars = SessionJars.of(get_crawler())
        assert jars is not None
        self.jars = jars
        self.now = 0.0
        self.tickets = 0
        self.on: dict[int, tuple[str, str]] = {}
        """What is in flight: the session and host of each."""
        self.asked: dict[int, str] = {}
        self.open: dict[int, None] = {}
        self.recent: deque[str] = deque(maxlen=20)
        self.sessions: set[str] = set()
        self.cookies: set[tuple[str, str]] = set()
        """Which session was given one by which host."""
        self.ended = 0
        self.failed = 0

    def remembered(self) -> dict[str, int]:
        """How much there is of everything."""
        state = self.scheduler.state
        return {
            "sessions": len(state.book.sessions),
            "names": len(state.book._named),
            "closed early": len(state.book._orphans),
            "claims": len(state.claims),
            "waiting": len(state.waiting),
            "in flight": len(state.in_flight),
            "connections": len(state.connections),
            "keys": len(state.crawl.keys),
            "idle": len(state.crawl.idle),
            "surplus": len(state.crawl.surplus),
            "origins": len(state.origins),
            "deadlines": len(state.deadlines),
            "touched": len(state.touched) + len(state.ended) + len(state.stranded) + len(state.actions),
            "apart": sum(len(session.apart) for session in state.book.sessions.values()),
            "jars": len(self.jars),
            "hosts of jars": len(self.jars._begun),
        }

    def ask(self) -> None:
        """One more request, as a crawl with logins, redirects and labels in it asks for them."""
        self.tickets += 1
        key = self.random.choice(KEYS)
        self.asked[self.tickets] = key.origin.host
        claim = self._claim(key.origin.host)
        self._run(self.scheduler.submit(self.tickets, key, POLICY, self.now, slots=AT_ONCE, claim=claim))
        if len(self.on) >= AT_ONCE:
            self.answer(next(iter(self.on)))
        if self.random.random() < 0.01:
            self._trouble()

    def answer(self, ticket: int) -> None:
        session, host = self.on[ticket]
        self._run(self.scheduler.answered(ticket, self.now))
        if (session, host) not in self.cookies:
            self.cookies.add((session, host))
            self.jars.store(session, Request(f"https://{host}/"), 200, Headers({"Set-Cookie": f"id={session}"}))
            self.scheduler.remember_cookies(session, self.jars.domains(session))
        del self.on[ticket], self.asked[ticket]
        self._run(self.scheduler.finished(ticket, self.now))
        self.recent.append(session)
        self._run(self.scheduler.release(session, self.now))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = self.scheduler.next_deadline()
        if due is not None and due <= self.now:
            self._run(self.scheduler.tick(self.now))

    def _claim(self, host: str) -> Claim:
        chance = self.random.random()
        session = self.random.choice(self.recent) if self.recent else None
        if chance < 0.85:
            return ANY
        if chance < 0.90:
            return Claim(Tie.OWN, session, cause=self.random.choice(("retry", "redirect")))
        if chance < 0.91:
            return Claim(rotate=True)
        if chance < 0.92:
            return Claim(Tie.FLOW, session, host=host)
        if chance < 0.95:
            return Claim(Tie.KEPT, session, name=self.random.choice(("", f"login {self.tickets}")))
        if chance < 0.97:
            return Claim(Tie.PIN, name=f"new {self.tickets}")
        return Claim(Tie.PIN, name="ada")

    def _trouble(self) -> None:
        number = self.random.choice(list(self.open))
        what = self.random.random()
        if what < 0.4:
            del self.open[number]
            self._run(self.scheduler.lost(number, RESET, self.now))
        elif what < 0.7:
            self._run(self.scheduler.retire(number, CloseReason.GOAWAY, self.now))
        elif what < 0.8:
            self._run(self.scheduler.retire_all(self.now, host=self.random.choice(HOSTS)))
        elif what < 0.9:
            self._run(self.scheduler.retire_all(self.now, session=self.random.choice(("ada", *self.recent))))
        elif self.scheduler.waiting:
            ticket = next(iter(self.scheduler.waiting))
            self.asked.pop(ticket)
            self.failed += 1
            self._run(self.scheduler.cancel(ticket, self.now))

    def _run(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Dial():
                    self.open[action.connection] = None
                    protocol = HttpProtocol.HTTP2 if action.key.origin.host in HOSTS[:5] else HttpProtocol.HTTP1
                    budget = draw_session(POLICY, self.random.random)
                    self._run(
                        self.scheduler.connected(action.connection, protocol, UNLIMITED, self.now, session=budget)
                    )
                case Close():
                    self.open.pop(action.connection, None)
                case Dispatch():
                    assert action.session is not None
                    host = self.asked[action.ticket]
                    if action.session not in self.sessions:
                        self.jars.header(action.session, Request(f"https://{host}/"), POLICY)
                    self.sessions.add(action.session)
                    self.on[action.ticket] = action.session, host
                    self.scheduler.hold(action.session)
                case Fail():
                    del self.asked[action.ticket]
                    self.failed += 1
                    if action.ticket in self.on:
                        self._run(self.scheduler.release(self.on.pop(action.ticket)[0], self.now))
                case EndSession():
                    self.ended += 1
                    self.jars.drop(action.session)
                case _:
                    pass


def test_a_hundred_thousand_requests_over_thousands_of_sessions_leave_nothing_behind() -> None:
    crawl = Crawl()
    samples: list[dict[str, int]] = []
    for number in range(1, REQUESTS + 1):
        crawl.ask()
        crawl.pass_time(PAUSE)
        if number % 1000 == 0:
            crawl.scheduler.check()
            samples.append(crawl.remembered())
    assert len(crawl.sessions) > 2000
    # Flat: the last half of the crawl remembers no more at once than the first, but for chance.
    half = len(samples) // 2
    for name in samples[0]:
        early, late = (max(sample[name] for sample in part) for part in (samples[:half], samples[half:]))
        assert late <= 1.25 * early + 8, f"{name} grows: {[sample[name] for sample in samples]}"
    while crawl.on:
        crawl.answer(next(iter(crawl.on)))
    for _ in range(10_000):
        due = crawl.scheduler.next_deadline()
        if due is None:
            break
        crawl.pass_time(max(0.0, due - crawl.now))
    assert not crawl.asked
    assert {name: count for name, count in crawl.remembered().items() if count} == {}
    assert crawl.ended >= len(crawl.sessions)
    assert crawl.failed < REQUESTS / 50
