"""From a decision to dial to a connection, or to an error of our own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from scrapy_poolplus.core.errors import ConnectionLostError, Phase, PoolPlusError
from scrapy_poolplus.core.origin import Route
from scrapy_poolplus.core.policy import Policy
from scrapy_poolplus.exchange import Dialer, Member
from scrapy_poolplus.net.wire import EngineConfig

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from scrapy_poolplus.net.connection import Connection

logger = logging.getLogger(__name__)


class Dialling:
    """Dials for members as their policies say. `timeout`: seconds where a policy has no ``connect_timeout``. Of a member
    that is not gone by then, either `connected` or `failed` is told."""

    __slots__ = ("_configs", "_connected", "_dialer", "_failed", "_max_frame_size", "_timeout")

    def __init__(
        self,
        dialer: Dialer,
        *,
        timeout: float,
        max_frame_size: int,
        connected: Callable[[Connection, Member], None],
        failed: Callable[[PoolPlusError, Member], None],
    ) -> None:
        self._dialer = dialer
        self._timeout = timeout
        self._max_frame_size = max_frame_size
        self._connected = connected
        self._failed = failed
        self._configs: dict[Policy, EngineConfig] = {}

    def start(self, member: Member, route: Route) -> None:
        """Dial `route` for the member, whose ``dial`` it is from here on."""
        policy = member.policy
        timeout, setting = policy.connect_timeout, f'connect_timeout of "{policy.name}"'
        if timeout is None:
            timeout, setting = self._timeout, "DOWNLOAD_TIMEOUT"
        config = self._configs.get(policy)
        if config is None:
            config = self._configs[policy] = EngineConfig.of(policy, max_frame_size=self._max_frame_size)
        member.dial = self._dialer.dial(
            route,
            member.key.protocols,
            config,
            timeout=timeout,
            setting=setting,
            resolve_ttl=policy.resolve_ttl,
        )
        member.dial.result.addCallbacks(self._done, self._undone, callbackArgs=(member,), errbackArgs=(member,))

    def _done(self, connection: Connection, member: Member) -> None:
        if member.gone:
            connection.abort()
        else:
            self._connected(connection, member)

    def _undone(self, failure: Failure, member: Member) -> None:
        if member.gone:
            return
        error = failure.value
        if not isinstance(error, PoolPlusError):
            # A fault of ours: the request that waits must still be answered.
            logger.error("Dialling %s failed unexpectedly", member.key, exc_info=error)
            error = ConnectionLostError(f"dialling {member.key} failed: {error!r}", phase=Phase.CONNECT)
        self._failed(error, member)
