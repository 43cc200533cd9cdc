"""What always holds, as far as the state shows it, and the state in one line. For tests and for eyes.

The numbers are those of the design. Order, failing and timing of requests are not visible here: they are judged at the
actions.
"""

from __future__ import annotations

from scrapy_poolplus.core.caps import Scope
from scrapy_poolplus.core.demand import owed, paused
from scrapy_poolplus.core.records import ConnectionRecord, ConnectionState, KeyRecord
from scrapy_poolplus.core.state import PoolState


def check_state(state: PoolState, now: float) -> None:
    """Raise AssertionError, naming the invariant, where the state breaks one."""
    for number, record in state.connections.items():
        assert record.number == number, f"I1: {number} is listed as {record.number}"
        _check_connection(record)
    for key in state.crawl.keys.values():
        _check_key(state, key, now)
    for ticket, key in state.waiting.items():
        assert ticket in key.waiting or ticket in key.bound, f"I3: {ticket} waits nowhere"
        assert ticket not in state.in_flight, f"I3: {ticket} waits and is in flight"
    for ticket, record in state.in_flight.items():
        assert ticket in record.streams, f"I3: {ticket} is in flight nowhere"
    _check_scope(state.crawl, list(state.connections.values()))
    for origin in state.origins.values():
        mine = [record for record in state.connections.values() if record.key.origin is origin]
        _check_scope(origin, mine)
        assert origin.keys or origin.hold_until is not None, f"I22: {origin.origin} is forgotten"
        claims = [key for key in state.crawl.blocked if key.origin is origin]
        assert origin.claims == len(claims), f"I2: {origin.origin} counts {origin.claims} claims of {len(claims)}"
    assert not state.touched, "I15: a key was touched and not settled"
    assert not state.stranded, "I15: a connection is gone, and those that waited for it were not passed on"
    _check_sessions(state)


def _check_connection(record: ConnectionRecord) -> None:
    key, name = record.key, f"connection {record.number}"
    connecting = record.state is ConnectionState.CONNECTING
    assert not record.gone, f"I1: {name} is CLOSED"
    assert key.connections.get(record.number) is record, f"I1: {name} is not its key's"
    assert (record.number in key.connecting) is connecting, f"I1: {name} is {record.state}, and the dials say otherwise"
    assert connecting or record.protocol is not None, f"I1: {name} is open and speaks nothing"
    if record.draining:
        assert record.streams, f"I1: {name} drains and is empty"
        assert record.reason is not None, f"I13: {name} drains for no reason"
    assert len(record.streams) <= record.policy_limit, f"I4: {name} has {len(record.streams)} streams"
    budget = record.budget.requests
    assert budget is None or record.requests <= budget, f"I5: {name} was given {record.requests} of {budget}"
    idle = record.open and not record.streams
    assert (record.idle_since is not None) is idle, f"I6: {name} is {record.state}, idle since {record.idle_since}"


def _check_sessions(state: PoolState) -> None:
    carried: dict[str, set[int]] = {}
    for number, record in state.connections.items():
        session = record.session
        if session is not None:
            carried.setdefault(session.id, set()).add(number)
            assert record.key.session in (None, session), f"I21: connection {number} is in the key of another session"
    for name, session in state.book.sessions.items():
        assert session.id == name, f"I21: session {name} is listed as {session.id}"
        assert session.connections == carried.pop(name, set()), f"I21: the connections of session {name}"
        in_flight = sum(len(state.connections[number].streams) for number in session.connections)
        assert session.in_flight == in_flight, f"I3: session {name} counts {session.in_flight} of {in_flight}"
        most = None if session.kept or session.budget is None else session.budget.requests
        assert most is None or session.requests <= most, f"I5: session {name} carried {session.requests} of {most}"
    assert not carried, f"I21: sessions that are forgotten have connections: {carried}"


def _check_key(state: PoolState, key: KeyRecord, now: float) -> None:
    name = str(key.key)
    assert state.crawl.keys[key.key] is key, f"I1: {name} is not itself"
    assert key.waiting or key.connections, f"I22: {name} has nothing"
    for ticket, record in key.bound.items():
        assert ticket in record.bound, f"I3: {ticket} waits for a connection that does not know of it"
        assert record.number in key.connections, f"I15: {ticket} waits for a connection that takes nothing"
        assert not record.draining, f"I15: {ticket} waits for connection {record.number}, which drains"
    assert (key in state.crawl.surplus) is (len(key.connecting) > len(key.waiting)), f"I2: the dials of {name}"
    if not key.waiting:
        assert key.blocked_by is None, f"I22: {name} is blocked, and nobody waits"
        return
    assert key.first() == min(key.waiting), f"I8: {key.first()} is not the oldest of {name}"
    for record in key.connections.values():
        assert not record.room() or record.spent(now), f"I7: {name} waits beside connection {record.number}"
    probing = key.spoken.protocol is None and key.connecting
    assert not owed(key, now) or key.blocked_by is not None or probing, f"I15: {name} is owed a dial"
    awaited = key.session is not None and key.session.awaited
    coming = key.connections or key.blocked_by is not None or paused(key, now) or awaited
    assert coming, f"I15: {name} waits for nothing"


def _check_scope(scope: Scope, connections: list[ConnectionRecord]) -> None:
    assert scope.count == len(connections), f"I2: {scope.count} counted of {len(connections)}"
    draining = sum(record.draining for record in connections)
    assert scope.draining == draining, f"I2: {scope.draining} counted as draining, {draining} are"
    idle = {record.number for record in connections if record.idle_since is not None}
    assert set(scope.idle) == idle, f"I6: {set(scope.idle)} listed as idle, {idle} are"
    tickets = sum(len(key.waiting) + len(key.bound) for key in scope.keys.values()) + sum(
        len(record.streams) for record in connections
    )
    assert scope.tickets == tickets, f"I3: {scope.tickets} tickets counted of {tickets}"
    if scope.limit is not None:
        assert scope.count + scope.claims <= scope.limit, f"I2: {scope.count} of {scope.limit}, {scope.claims} claimed"
    if scope.blocked and sum(1 for key in scope.keys.values() if key.connections or key in scope.blocked) > 1:
        assert scope.reclaim_at is not None, "I17: nobody looks who starves"
    for key in scope.blocked:
        assert key.blocked_by is scope, f"I15: {key.key} is in a queue that it does not know of"
        assert scope.full(), f"I15: {key.key} waits beside a free place"
        assert scope.gives_way() is None, f"I15: {key.key} waits beside a connection that gives way"


def describe_state(state: PoolState, now: float, *, closed: bool) -> str:
    """``<Pool open: 2 waiting | a.example:443#p1 h2: 7 READY 3/100 sent 41/50 age 12.5s>``, with one part for each
    connection: its key and protocol, number, state, streams of its limit, requests of its budget, seconds."""
    parts = [f"{'closed' if closed else 'open'}: {len(state.waiting)} waiting"]
    parts += [_describe(record, now) for record in state.connections.values()]
    return f"<Pool {' | '.join(parts)}>"


def _describe(record: ConnectionRecord, now: float) -> str:
    if record.opened_at is None or record.protocol is None:
        return f"{record.key.key}: {record.number} CONNECTING age {now - record.dialed_at:.1f}s"
    why = "" if record.reason is None else f" ({record.reason.value})"
    sent = str(record.requests) if record.budget.requests is None else f"{record.requests}/{record.budget.requests}"
    idle = "" if record.idle_since is None else f" idle {now - record.idle_since:.1f}s"
    return (
        f"{record.key.key} {record.protocol.value}: {record.number} {record.state.value}{why} "
        f"{len(record.streams)}/{record.limit()} sent {sent} age {now - record.opened_at:.1f}s{idle}"
    )
