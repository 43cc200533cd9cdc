"""Demand: how many connections a key is owed, by what its route is known to speak.

Capacity arithmetic, not one dial per request: those who wait, less what is arriving, over what one connection takes.
"""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from typing import TYPE_CHECKING

from scrapy_poolplus.core.budget import preconnect_due
from scrapy_poolplus.core.origin import HttpProtocol
from scrapy_poolplus.core.policy import H2_STREAMS_BEFORE_SETTINGS, Policy

if TYPE_CHECKING:
    from scrapy_poolplus.core.origin import PoolKey, Route
    from scrapy_poolplus.core.records import ConnectionRecord, KeyRecord


class Spoken:
    """What a route speaks where the same protocols are offered: one for all its keys."""

    __slots__ = ("keys", "protocol", "streams")

    def __init__(self, protocol: HttpProtocol | None) -> None:
        self.keys = 0
        """How many key records know it."""
        self.protocol = protocol
        """None: not known yet."""
        self.streams: int | None = None
        """The last SETTINGS_MAX_CONCURRENT_STREAMS of its peer that was not 0; None: not known yet."""

    def streams_expected(self) -> int:
        """Streams that its peer is taken to allow before it says so (RFC 9113 3.4: it need not be waited for)."""
        return H2_STREAMS_BEFORE_SETTINGS if self.streams is None else self.streams

    def arriving(self, policy: Policy) -> int:
        """Requests that wait which one connection more takes at once; there is a protocol."""
        if self.protocol is HttpProtocol.HTTP1:
            return 1
        streams = min(policy.max_streams, self.streams_expected())
        for budget in (policy.max_requests_per_connection, policy.session_requests if policy.rotates else None):
            if budget is not None:
                streams = min(streams, budget)
        return streams


class RouteMemory:
    """What routes speak, at most `size` of them, the least recently used forgotten first: a crawl of many hosts must not
    grow (I22). A key that exists keeps what it knows; of a route through a proxy nothing is known beyond that, as a
    crawl may use thousands once."""

    __slots__ = ("_proxied", "_size", "_spoken")

    def __init__(self, size: int) -> None:
        self._size = size
        self._spoken: OrderedDict[tuple[Route, tuple[HttpProtocol, ...]], Spoken] = OrderedDict()
        self._proxied: dict[tuple[Route, tuple[HttpProtocol, ...]], Spoken] = {}

    def of(self, key: PoolKey) -> Spoken:
        """What the key's route speaks, for a record that is made for it. Known at once where one protocol is offered, which says nothing about what is
        agreed on where there are two."""
        place = (key.route, key.protocols)
        if key.route.proxy is not None:
            proxied = self._proxied.get(place)
            if proxied is None:
                proxied = self._proxied[place] = _unknown(key)
            proxied.keys += 1
            return proxied
        spoken = self._spoken.get(place)
        if spoken is None:
            spoken = self._spoken[place] = _unknown(key)
            if len(self._spoken) > self._size:
                self._spoken.popitem(last=False)
        else:
            self._spoken.move_to_end(place)
        return spoken

    def forget(self, key: PoolKey, spoken: Spoken) -> None:
        """A key's record is forgotten: with the last one, what a route through a proxy speaks."""
        if key.route.proxy is not None:
            spoken.keys -= 1
            if not spoken.keys:
                self._proxied.pop((key.route, key.protocols), None)


def _unknown(key: PoolKey) -> Spoken:
    return Spoken(key.protocols[0] if len(key.protocols) == 1 else None)


def owed(key: KeyRecord, now: float) -> int:
    """Connections that should be dialled for those who wait, beside the dials that are out."""
    if not key.waiting or (key.failing and key.connecting) or paused(key, now):
        return 0
    if key.session is not None and key.session.awaited:
        # A connection would have nothing to do before that answer, and be closed for whoever needs its place.
        return 0
    waiting, spoken = len(key.waiting), key.spoken
    if key.graced:
        waiting -= sum(_expected(record, now) for record in key.graced.values())
    if key.alone:
        waiting -= sum(_to_follow(record) for record in key.alone.values())
    if waiting <= 0:
        return 0
    if spoken.protocol is None:
        # One probe: its answer says how many are needed.
        return 0 if key.connecting else 1
    return max(0, ceil(waiting / spoken.arriving(key.policy)) - len(key.connecting))


def paused(key: KeyRecord, now: float) -> bool:
    """True while the key may not dial: a dial failed just now, or the origin is to be left in peace."""
    return (key.redial_at is not None and now < key.redial_at) or (
        key.origin.hold_until is not None and now < key.origin.hold_until
    )


def successor_due(key: KeyRecord, record: ConnectionRecord, now: float) -> bool:
    """True when the successor of a connection that has just been given a request should be dialled ahead: it is nearly
    spent, requests keep coming, and nothing else of the key has room or is arriving."""
    requests_left, age_left = _left(record, now)
    if record.succeeded or (requests_left is None and age_left is None):
        return False
    if not key.policy.preconnect or (key.interval is None and not key.waiting):
        return False
    due = preconnect_due(
        requests_left=requests_left,
        age_left=age_left,
        # An interval of 0 is one burst that tells no rate: then the last request makes it due.
        rate=1 / key.interval / _sharing(key) if key.interval else 0.0,
        # What a new session's first request takes alone is a part of its setting up.
        setup_seconds=key.setup_seconds + key.answer_seconds,
    )
    return (
        due
        and not key.failing
        and not paused(key, now)
        and len(key.connecting) * key.spoken.arriving(key.policy) <= len(key.waiting)
        and not any(other.room() for other in key.connections.values() if other is not record)
    )


def _left(record: ConnectionRecord, now: float) -> tuple[int | None, float | None]:
    """Requests and seconds until the connection, or its session, is spent; None for no limit."""
    budget, session, opened_at = record.budget, record.session, record.opened_at
    assert opened_at is not None
    requests = None if budget.requests is None else budget.requests - record.requests
    age = None if budget.age is None else opened_at + budget.age - now
    if session is None or session.kept or session.budget is None or session.opened_at is None:
        return requests, age
    left = session.left()
    if left is not None and (requests is None or left < requests):
        requests = left
    if session.budget.age is not None:
        rest = session.opened_at + session.budget.age - now
        age = rest if age is None else min(age, rest)
    return requests, age


def _sharing(key: KeyRecord) -> int:
    """Connections over which the requests of the key are spread: each is given that part of the rate."""
    if key.spoken.protocol is not HttpProtocol.HTTP1:
        return 1
    return max(1, len(key.connections) - len(key.connecting))


def _to_follow(record: ConnectionRecord) -> int:
    """Requests that may go on the connection when the first one of its session is answered."""
    session = record.session
    if not record.streams and not _awaits(record):
        return 0
    limit, left = record.limit(), None if session is None else session.left()
    return limit if left is None else min(limit, left)


def _awaits(record: ConnectionRecord) -> bool:
    """The connection has nothing to do until its session is answered on another one."""
    return record.open and not record.streams and record.session is not None and record.session.in_flight > 0


def _expected(record: ConnectionRecord, now: float) -> int:
    """Room that an open connection is expected to give soon, though its peer allows no stream at present."""
    if not record.open or record.limit() > 0 or record.grace_until is None or now >= record.grace_until:
        return 0
    streams = min(record.key.policy.max_streams, record.key.spoken.streams_expected())
    left = record.budget.requests
    return streams if left is None else min(streams, left - record.requests)
