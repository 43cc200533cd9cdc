"""Dialer: from a route to a connection that is ready. Resolve, connect, open the proxy's tunnel, TLS, ALPN.

Ready means that the TLS handshake has ended: an endpoint's ``connect()`` fires before it, when ALPN is not known and
a bad certificate still looks like success. Every failure is one of core.errors and names the phase and the place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from scrapy_poolplus.core.errors import (
    CancelledError,
    ConnectError,
    ConnectionLostError,
    Phase,
    PhaseTimeoutError,
    PoolPlusError,
    TLSError,
)
from scrapy_poolplus.core.origin import HttpProtocol, Route
from scrapy_poolplus.net.connection import Connection, MakeEngine, make_engine
from scrapy_poolplus.net.proxy import Talk, Tunnel, TunnelAnswer, talk_with
from scrapy_poolplus.net.race import Race
from scrapy_poolplus.net.resolve import NameAges, ip_version, resolve, usable, wire_name
from scrapy_poolplus.net.tls import Agreed, ClientTLS, Handshake, TLSProfile, openssl_text
from scrapy_poolplus.net.wire import EngineConfig, Timings

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTCP
    from twisted.python.failure import Failure

logger = logging.getLogger(__name__)

_PLACE = {
    Phase.RESOLVE: "name resolution of {host}",
    Phase.CONNECT: "connecting to {place}",
    Phase.TUNNEL: "proxy tunnel to {place}",
    Phase.TLS: "TLS handshake with {place}",
}


class Dialer:
    """Makes connections. `tls`: the profile of all that speak it; one that cannot work raises ValueError.
    `forget_name` drops a name from whatever cache the reactor's resolver has."""

    def __init__(
        self,
        reactor: IReactorTCP,
        tls: TLSProfile,
        *,
        make_engine: MakeEngine = make_engine,
        forget_name: Callable[[str], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._ages = None if forget_name is None else NameAges(forget_name)
        self._tls = ClientTLS(tls)
        self._make_engine = make_engine

    def dial(
        self,
        route: Route,
        protocols: tuple[HttpProtocol, ...],
        config: EngineConfig,
        *,
        timeout: float | None,
        setting: str,
        resolve_ttl: float | None = None,
    ) -> Dial:
        """Begin to make a connection. `timeout`: seconds for all of it, None for no limit; `setting` is what a
        time-out's text names as its source, such as ``connect_timeout of "*.example"``. `protocols` are offered in
        this order where TLS is spoken; in cleartext it is HTTP/1.1. `resolve_ttl`: a name that was looked up so many
        seconds ago is looked up anew; None leaves it to the resolver's cache."""
        if resolve_ttl is not None and self._ages is not None:
            first_hop = route.origin if route.proxy is None else route.proxy
            self._ages.bound(first_hop.host, resolve_ttl, self._reactor.seconds())
        dial = Dial(self._reactor, route, config, protocols=protocols, tls=self._tls, make_engine=self._make_engine)
        dial.limit(timeout, setting)
        return dial


class Dial:
    """One connection in the making.

    `result` fires with the Connection, in the turn in which it is ready, or fails with one of core.errors; never
    before ``Dialer.dial`` has returned. `phase` is how far it is.
    """

    def __init__(
        self,
        reactor: IReactorTCP,
        route: Route,
        config: EngineConfig,
        *,
        protocols: tuple[HttpProtocol, ...],
        tls: ClientTLS,
        make_engine: MakeEngine,
    ) -> None:
        self.phase = Phase.RESOLVE
        self.result: Deferred[Connection] = Deferred(lambda _: self.cancel())
        self._reactor = reactor
        self._route = route
        self._protocols = protocols
        self._tls = tls
        self._talk: Talk | None = None
        self._tunnel: Tunnel | None = None
        self._with_proxy: Handshake | None = None
        self._with_origin: Handshake | None = None
        self._timings = Timings()
        self._since: float = reactor.seconds()
        self._over = False
        self._timer: IDelayedCall | None = None
        self._tunnel_open: Deferred[TunnelAnswer] = Deferred()
        self._opened: Deferred[Agreed | None] = Deferred()
        secure = route.origin.secure or (route.proxy is not None and route.proxy.scheme == "https")
        self._connection = Connection(reactor, str(route), config, self, secure=secure, make_engine=make_engine)
        self._task: Deferred[None] | None = None
        self._begin: IDelayedCall | None = reactor.callLater(0, self._run)

    def limit(self, timeout: float | None, setting: str) -> None:
        """Give up `timeout` seconds from now."""
        if timeout is not None:
            self._timer = self._reactor.callLater(timeout, self._too_long, timeout, setting)

    def describe(self) -> str:
        """What is being done, and where: ``TLS handshake with a.example:443 via proxy http://p:3128``."""
        return self._describe(self.phase)

    def cancel(self) -> None:
        """Nobody wants it any more: its sockets and timers end, `result` fails with CancelledError. Does nothing when
        it has ended."""
        if not self._over:
            self._end(CancelledError(f"{self.describe()} was cancelled", phase=self.phase))
            # Whoever listens has heard it by now; it is not an unhandled error for those who do not.
            self.result.addErrback(_pass_over)

    # Connection's Opening.

    def opened(self, agreed: Agreed | None) -> None:
        """TCP is connected and, where it is spoken, the TLS handshake has ended."""
        if not self._opened.called:
            self._opened.callback(agreed)

    def lost(self, reason: Failure, beneath: Failure) -> None:
        """The transport was lost before that."""
        if not self._opened.called:
            self._opened.errback(self._lost_while_opening(reason, beneath))

    # Inside.

    def _run(self) -> None:
        self._begin = None
        self._task = Deferred.fromCoroutine(self._make())
        self._task.addErrback(self._failed)

    async def _make(self) -> None:
        """The whole way, step by step."""
        host, port = self._plan()
        addresses = await self._addresses(host, port)
        self._timings.resolve = self._enter(Phase.CONNECT)
        place = f"proxy {self._route.proxy}" if self._route.proxy is not None else self._route.origin.netloc
        binds = self._route.binds
        await Race(self._reactor, addresses, port, binds=binds, place=place, build=self._protocol_stack).result
        if self._talk is not None:
            self._timings.connect = self._enter(Phase.TUNNEL)
            self._connection.tunnel = await self._tunnel_open
            self._timings.tunnel = self._enter(Phase.TLS)
        else:
            self._timings.connect = self._enter(Phase.TLS)
        agreed = await self._opened
        if agreed is not None:
            self._timings.tls = self._enter(Phase.TLS)
        self._hand_over(agreed)

    def _plan(self) -> tuple[str, int]:
        """What will be spoken, and the first hop: the proxy where there is one."""
        origin, proxy = self._route.origin, self._route.proxy
        host, port = wire_name(origin.host), origin.port
        if origin.secure:
            self._with_origin = self._tls.handshake(host, port, self._protocols)
        if proxy is None:
            return host, port
        if origin.secure or proxy.scheme not in ("http", "https"):
            self._talk = talk_with(proxy, host, port, self._describe(Phase.TUNNEL))
        host, port = wire_name(proxy.host), proxy.port
        if proxy.scheme == "https":
            self._with_proxy = self._tls.handshake(host, port, (HttpProtocol.HTTP1,))
        return host, port

    @property
    def _handshake(self) -> Handshake | None:
        """The one whose end makes the connection ready."""
        return self._with_origin or self._with_proxy

    async def _addresses(self, host: str, port: int) -> list[str]:
        found = [host] if ip_version(host) is not None else await resolve(self._reactor, host, port)
        return usable(host, found, self._route.binds)

    def _protocol_stack(self) -> IProtocol:
        """What speaks on the TCP connection, from the inside out."""
        stack: IProtocol = self._connection
        if self._with_origin is not None:
            stack = self._with_origin.wrap(stack, self._reactor)
        if self._talk is not None:
            stack = self._tunnel = Tunnel(
                self._talk,
                stack,
                self._describe(Phase.TUNNEL),
                tls=self._with_proxy,
                opened=self._tunnel_open.callback,
                failed=self._tunnel_open.errback,
            )
        if self._with_proxy is not None:
            stack = self._with_proxy.wrap(stack, self._reactor)
        return stack

    def _hand_over(self, agreed: Agreed | None) -> None:
        protocol = self._judge(agreed)
        self._connection.timings = self._timings
        # TLS with the proxy is no TLS with an http origin.
        self._connection.ready(protocol, agreed if self._route.origin.secure else None)
        self._over = True
        self._stop_timer()
        self.result.callback(self._connection)

    def _judge(self, agreed: Agreed | None) -> HttpProtocol:
        """The protocol that is spoken, or TLSError for an answer that cannot be accepted."""
        if agreed is None:
            return HttpProtocol.HTTP1
        assert self._handshake is not None
        self._handshake.check_name(self._connection.transport.getHandle())
        if self._handshake.problem is not None:
            raise TLSError(f"{self.describe()} failed: {self._handshake.problem}", phase=Phase.TLS)
        if not self._route.origin.secure:
            return HttpProtocol.HTTP1
        if agreed.alpn is None and HttpProtocol.HTTP1 in self._protocols:
            return HttpProtocol.HTTP1
        for protocol in self._protocols:
            if agreed.alpn == protocol.value.encode():
                return protocol
        offered = ", ".join(protocol.value for protocol in self._protocols)
        picked = "none of them" if agreed.alpn is None else repr(agreed.alpn.decode("latin-1"))
        raise TLSError(f"{self.describe()} failed: {offered} offered, the server picked {picked}", phase=Phase.TLS)

    def _lost_while_opening(self, reason: Failure, beneath: Failure) -> PoolPlusError:
        error = reason.value
        failed: PoolPlusError
        if self._handshake is not None and self._handshake.problem is not None:
            failed = TLSError(f"{self.describe()} failed: {self._handshake.problem}", phase=self.phase)
        elif isinstance(error, SSL.Error):
            failed = TLSError(f"{self.describe()} failed: {openssl_text(error)}", phase=self.phase)
        elif isinstance(error, (ConnectionDone, ConnectionLost)):
            closed = isinstance(beneath.value, ConnectionDone)
            text = "the peer closed the connection" if closed else "the peer reset the connection, or it broke"
            failed = ConnectionLostError(f"{self.describe()} failed: {text}", phase=self.phase, clean=closed)
        else:
            # A user's own policy may end the connection with an error of its own.
            failed = TLSError(f"{self.describe()} failed: {type(error).__name__}: {error}", phase=self.phase)
        failed.__cause__ = error
        return failed

    def _describe(self, phase: Phase) -> str:
        origin, proxy = self._route.origin, self._route.proxy
        if proxy is None:
            return _PLACE[phase].format(host=origin.host, place=origin.netloc)
        if phase in (Phase.RESOLVE, Phase.CONNECT) or (phase is Phase.TLS and not origin.secure):
            return _PLACE[phase].format(host=proxy.host, place=f"proxy {proxy}")
        return _PLACE[phase].format(host=origin.host, place=origin.netloc) + f" via proxy {proxy}"

    def _enter(self, phase: Phase) -> float:
        """Go on to `phase`; the seconds that the last one took."""
        now: float = self._reactor.seconds()
        took, self._since, self.phase = now - self._since, now, phase
        return took

    def _failed(self, failure: Failure) -> None:
        if self._over:
            return
        error = failure.value
        if not isinstance(error, PoolPlusError):
            logger.error("Unexpected error: %s", self.describe(), exc_info=error)
            unexpected = ConnectError(f"{self.describe()} failed: {type(error).__name__}: {error}", phase=self.phase)
            unexpected.__cause__ = error
            error = unexpected
        self._end(error)

    def _too_long(self, seconds: float, setting: str) -> None:
        self._timer = None
        text = f"{self.describe()} took longer than {round(seconds, 3)} s ({setting})"
        self._end(PhaseTimeoutError(text, phase=self.phase, seconds=seconds, setting=setting))

    def _end(self, error: PoolPlusError) -> None:
        """Stop all that is under way, then tell."""
        self._over = True
        self._stop_timer()
        if self._begin is not None:
            self._begin.cancel()
            self._begin = None
        if self._task is not None:
            self._task.cancel()
        if self._tunnel is not None:
            self._tunnel.abort()
        self._connection.abort()
        self.result.errback(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _pass_over(failure: Failure) -> None:
    """Nothing is left to be told."""
