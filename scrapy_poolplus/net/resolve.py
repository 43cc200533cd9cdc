"""Names to addresses, by the reactor's resolver, as a step of its own.

Twisted's HostnameEndpoint hides the time and the error of this step and rejects names that the ``idna`` package
rejects, such as ``foo_bar.example`` and ``xn--i-7iq.ws`` (scrapy#3321, scrapy#4330). Here a name in ASCII is looked
up as it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address

from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorPluggableNameResolver, IResolutionReceiver
from zope.interface import implementer

from scrapy_poolplus.core.errors import Phase, ResolveError

MAX_NAME = 253
MAX_LABEL = 63
MAX_AGES = 10_000
"""Names whose age is known, as many as Scrapy's cache holds; one that is not is looked up anew."""


@lru_cache(maxsize=1024)  # Asked several times for each connection; for a name it costs an exception.
def ip_version(host: str) -> int | None:
    """4 or 6 where `host` is an IP address (an IPv6 one may have a zone), None where it is a name."""
    try:
        return ip_address(host).version
    except ValueError:
        return None


def wire_name(host: str) -> str:
    """`host` in ASCII, as it is looked up and as TLS asks for it. ASCII is taken as it is; the rest by IDNA 2003.

    Raises ResolveError for what no resolver could take (RFC 1035 2.3.4). It must not get to the reactor's resolver:
    ``getaddrinfo`` would raise UnicodeError in its thread, and Twisted's GAIResolver would never answer.
    """
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ResolveError(f"{host!r} is not a host name: {error}", phase=Phase.RESOLVE) from error
    labels = name.removesuffix(".").split(".")
    if "\0" in name or len(name) > MAX_NAME + 1 or not all(0 < len(label) <= MAX_LABEL for label in labels):
        raise ResolveError(f"{host!r} is not a host name: a label is empty or too long", phase=Phase.RESOLVE)
    return name


def resolve(reactor: IReactorPluggableNameResolver, host: str, port: int) -> Deferred[list[str]]:
    """The addresses of `host` in the resolver's order, each once; never an empty list.

    Fails with ResolveError. When it is cancelled, what the resolver still says is ignored: resolvers cannot be
    stopped (``IHostResolution.cancel`` raises NotImplementedError in Twisted's and in Scrapy's).
    """
    answer: Deferred[list[str]] = Deferred()
    try:
        # What it returns is of no use; Scrapy's caching one returns the receiver.
        reactor.nameResolver.resolveHostName(_Receiver(host, answer), wire_name(host), port)
    except Exception as error:  # noqa: BLE001 (a user's resolver may raise anything)
        if not answer.called:
            answer.errback(_unresolved(host, error))
    return answer


class NameAges:
    """Bounds how long the resolver's cache keeps a name, by telling it to forget.

    Scrapy's caches never expire (scrapy#905) and cannot be asked how old an entry is, so what counts is the time of
    the last look-up that was begun here. Before the first one the entry may be of any age.
    """

    def __init__(self, forget: Callable[[str], object]) -> None:
        self._forget = forget
        self._begun: OrderedDict[str, float] = OrderedDict()

    def bound(self, host: str, ttl: float, now: float) -> None:
        """`host` is about to be looked up: have it forgotten where its last look-up was `ttl` seconds ago or more."""
        begun = self._begun.get(host)
        if ip_version(host) is not None or (begun is not None and now - begun < ttl):
            return
        try:
            self._forget(wire_name(host))
        except ResolveError:
            # The dial itself will say so.
            return
        self._begun[host] = now
        self._begun.move_to_end(host)
        if len(self._begun) > MAX_AGES:
            self._begun.popitem(last=False)


def usable(host: str, addresses: Sequence[str], binds: Sequence[tuple[str, int]]) -> list[str]:
    """Those of `addresses` that can be reached from one of the local addresses `binds`, from any where there are none.
    ResolveError when none is left."""
    kept = [address for address in addresses if not binds or bind_for(address, binds) is not None]
    if not kept:
        family, local = ip_version(binds[0][0]), binds[0][0]
        text = f"{host} has no IPv{family} address, and the bind address {local} can reach no other"
        raise ResolveError(text, phase=Phase.RESOLVE)
    return kept


def bind_for(address: str, binds: Sequence[tuple[str, int]]) -> tuple[str, int] | None:
    """That of `binds` from which `address` can be reached; one that is a name may be of any family."""
    for bind in binds:
        if ip_version(bind[0]) in (None, ip_version(address)):
            return bind
    return None


def _unresolved(host: str, error: Exception | None = None) -> ResolveError:
    if isinstance(error, ResolveError):
        return error
    reason = f"{type(error).__name__}: {error}" if error else "no address found"
    failed = ResolveError(f"name resolution of {host} failed: {reason}", phase=Phase.RESOLVE)
    failed.__cause__ = error
    return failed


@implementer(IResolutionReceiver)
class _Receiver:
    """Gathers addresses until the resolution is complete."""

    def __init__(self, host: str, answer: Deferred[list[str]]) -> None:
        self._host = host
        self._answer = answer
        self._addresses: dict[str, None] = {}

    def resolutionBegan(self, resolution: object) -> None:  # noqa: N802
        """There is nothing to keep."""

    def addressResolved(self, address: object) -> None:  # noqa: N802
        """One more; resolvers may name one several times."""
        host: str = address.host  # type: ignore[attr-defined]
        if isinstance(address, IPv6Address) and address.scopeID and "%" not in host:
            host = f"{host}%{address.scopeID}"
        self._addresses[host] = None

    def resolutionComplete(self) -> None:  # noqa: N802
        """No more will come."""
        if self._answer.called:
            return
        if self._addresses:
            self._answer.callback(list(self._addresses))
        else:
            self._answer.errback(_unresolved(self._host))
