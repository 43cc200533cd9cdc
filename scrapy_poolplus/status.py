"""The running pool as text: for the telnet console, for Scrapy's remote control, and as a line of the log."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from scrapy_poolplus.core.records import ConnectionState

if TYPE_CHECKING:
    from scrapy_poolplus.core.origin import PoolKey
    from scrapy_poolplus.core.records import ConnectionRecord
    from scrapy_poolplus.core.sessions import Session
    from scrapy_poolplus.pool import ConnectionPool

MOST_SHOWN = 200
"""Connections that a snapshot lists; the rest is counted."""


def pool_text(pool: ConnectionPool) -> str:
    """Totals, then per key who waits, and each connection: state, streams and their limit, requests and what is left of
    its budget, age. Ages are seconds. Credentials are never shown."""
    scheduler, now = pool.scheduler, pool.now()
    waiting: Counter[PoolKey] = Counter(record.key for record in scheduler.waiting.values())
    connections: dict[PoolKey, list[ConnectionRecord]] = {}
    for record in scheduler.connections.values():
        connections.setdefault(record.key.key, []).append(record)
    lines = [f"{'Closed pool' if pool.closed else 'Pool'}: {pool_line(pool)}"]
    left = MOST_SHOWN
    for key in dict.fromkeys((*connections, *waiting)):
        records = connections.get(key, [])
        lines.append(f"{key}: {_counted(len(records), 'connection')}, {waiting[key]} waiting")
        lines += [f"  {_connection_text(record, now)}" for record in records[: max(0, left)]]
        left -= len(records)
    if left < 0:
        lines.append(f"... and {-left} more connections")
    return "\n".join(lines)


def pool_line(pool: ConnectionPool) -> str:
    """How many connections there are in each state, requests in flight and waiting."""
    scheduler = pool.scheduler
    states = Counter(record.state for record in scheduler.connections.values())
    shown = ", ".join(f"{states[state]} {state.value}" for state in ConnectionState if states[state])
    total = _counted(len(scheduler.connections), "connection")
    return (
        f"{total}{f' ({shown})' if shown else ''}, {_counted(len(scheduler.in_flight), 'request')} in flight, "
        f"{len(scheduler.waiting)} waiting"
    )


def _connection_text(record: ConnectionRecord, now: float) -> str:
    if record.opened_at is None or record.protocol is None:
        return f"connection {record.number} {record.state.value} for {now - record.dialed_at:.1f} s"
    parts = [f"connection {record.number} {record.protocol.value} {record.state.value}"]
    if record.reason is not None:
        parts.append(record.reason.value)
    parts.append(f"{len(record.streams)}/{record.limit()} streams")
    parts.append(f"{_counted(record.requests, 'request')}{_left(record, now)}")
    if record.session is not None:
        parts.append(_session_text(record.session))
    parts.append(f"age {now - record.opened_at:.1f} s")
    return ", ".join(parts)


def _left(record: ConnectionRecord, now: float) -> str:
    """What the connection's budget leaves."""
    budget, left = record.budget, []
    if budget.requests is not None:
        left.append(f"{max(0, budget.requests - record.requests)} requests")
    if budget.age is not None and record.opened_at is not None:
        left.append(f"{max(0.0, budget.age - (now - record.opened_at)):.1f} s")
    if budget.size is not None:
        left.append(f"{max(0, budget.size - record.size)} bytes")
    return f" ({', '.join(left)} left)" if left else ""


def _session_text(session: Session) -> str:
    left = session.left()
    what = "kept whole" if session.kept else "no limit" if left is None else f"{left} requests left"
    return f"session {session.id} ({what})"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
