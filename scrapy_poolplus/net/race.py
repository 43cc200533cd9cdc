"""One TCP connection to the first of several addresses that answers (RFC 8305, Happy Eyeballs)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest

from twisted.internet import error as twisted_errors
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IProtocol, IReactorTCP
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from scrapy_poolplus.core.errors import ConnectError, ConnectRefusedError, Phase, PhaseTimeoutError, PoolPlusError
from scrapy_poolplus.net.resolve import bind_for, ip_version

ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried beside the ones under way (RFC 8305 5)."""


def interleaved(addresses: Sequence[str]) -> list[str]:
    """The families in turn, the first address's family first, else in order (RFC 8305 4)."""
    if not addresses:
        return []
    first = ip_version(addresses[0])
    same = [address for address in addresses if ip_version(address) == first]
    other = [address for address in addresses if ip_version(address) != first]
    return [address for address in chain.from_iterable(zip_longest(same, other)) if address is not None]


class Race:
    """Attempts to connect, one more every ATTEMPT_DELAY seconds or as soon as one fails. The first to connect gets
    the protocol that `build` makes; the others are ended.

    `result` fires before that protocol's ``makeConnection``, or fails with one of core.errors; when it is cancelled,
    every attempt ends.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        addresses: Iterable[str],
        port: int,
        *,
        binds: Sequence[tuple[str, int]],
        place: str,
        build: Callable[[], IProtocol],
    ) -> None:
        self.result: Deferred[None] = Deferred(lambda _: self._stop())
        self._reactor = reactor
        self._port = port
        self._binds = binds
        self._place = place
        self._build = build
        self._started = reactor.seconds()
        self._left = interleaved(list(addresses))
        self._left.reverse()
        self._under_way: dict[_Attempt, IConnector | None] = {}
        self._failed: list[tuple[str, Exception]] = []
        self._timer: IDelayedCall | None = None
        self._over = False
        self._try_next()

    def _try_next(self) -> None:
        self._stop_timer()
        attempt = _Attempt(self, self._left.pop())
        self._under_way[attempt] = None
        if self._left:
            self._timer = self._reactor.callLater(ATTEMPT_DELAY, self._delayed)
        try:
            # No time-out of its own: the dial's covers it.
            local = bind_for(attempt.address, self._binds)
            connector = self._reactor.connectTCP(attempt.address, self._port, attempt, timeout=None, bindAddress=local)
        except Exception as error:  # noqa: BLE001 (an IPv6 zone that does not exist raises gaierror here)
            self.failed(attempt, error)
        else:
            if attempt in self._under_way:
                self._under_way[attempt] = connector

    def _delayed(self) -> None:
        self._timer = None
        self._try_next()

    def won(self, attempt: _Attempt) -> IProtocol | None:
        """`attempt` is connected: its protocol, or None to have it closed."""
        if self._over:
            return None
        self._under_way.pop(attempt)
        self._stop()
        try:
            protocol = self._build()
        except PoolPlusError as error:
            self.result.errback(error)
            return None
        self.result.callback(None)
        return protocol

    def failed(self, attempt: _Attempt, error: Exception) -> None:
        """`attempt` could not connect."""
        if self._over:
            return
        self._under_way.pop(attempt)
        self._failed.append((attempt.address, error))
        if self._left:
            self._try_next()
        elif not self._under_way:
            self._over = True
            self.result.errback(self._verdict())

    def _stop(self) -> None:
        self._over = True
        self._stop_timer()
        for connector in self._under_way.values():
            if connector is not None:
                connector.stopConnecting()
        self._under_way.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _verdict(self) -> PoolPlusError:
        """One error for all that failed, of the most telling kind: a refusal comes from the server's own machine, an
        unreachable network may only mean that this one has no IPv6."""
        each = "; ".join(f"{address}: {_reason(error)}" for address, error in self._failed)
        text = f"connecting to {self._place} failed: {each}"
        worst = min((error for _, error in self._failed), key=_rank)
        failed: PoolPlusError
        if isinstance(worst, twisted_errors.ConnectionRefusedError):
            failed = ConnectRefusedError(text, phase=Phase.CONNECT)
        elif isinstance(worst, twisted_errors.TCPTimedOutError):
            seconds = self._reactor.seconds() - self._started
            failed = PhaseTimeoutError(text, phase=Phase.CONNECT, seconds=seconds, setting="the system's TCP time-out")
        else:
            failed = ConnectError(text, phase=Phase.CONNECT)
        failed.__cause__ = worst
        return failed


def _rank(error: Exception) -> int:
    """0 is the most telling."""
    if isinstance(error, twisted_errors.ConnectionRefusedError):
        return 0
    if isinstance(error, twisted_errors.TCPTimedOutError):
        return 1
    return 3 if isinstance(error, (twisted_errors.NoRouteError, twisted_errors.ConnectBindError)) else 2


def _reason(error: Exception) -> str:
    """The system's words, without Twisted's docstring before them."""
    detail = error.args[-1] if error.args else None
    if isinstance(error, twisted_errors.ConnectBindError):
        return f"the bind address cannot be used ({detail})"
    if isinstance(error, twisted_errors.ConnectError) and error.osError is not None and detail:
        return str(detail)
    return str(error).rstrip(".") or type(error).__name__


class _Attempt(ClientFactory):
    """One address."""

    noisy = False

    def __init__(self, race: Race, address: str) -> None:
        self._race = race
        self.address = address

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:  # noqa: N802
        """It is connected."""
        return self._race.won(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:  # noqa: N802
        """It is not, and will not be."""
        assert isinstance(reason.value, Exception)
        self._race.failed(self, reason.value)
