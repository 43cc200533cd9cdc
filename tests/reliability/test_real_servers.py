"""2,000 pages, 32 at once, nothing retried by Scrapy, from servers that end connections in the middle of it: nothing is
lost. What they answered is in their logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.reliability.conftest import PAGES, StartServer
from tests.reliability.storm import storm
from tests.servers.apache import Apache
from tests.servers.caddy import Caddy
from tests.servers.h2o import H2O
from tests.servers.haproxy import HAProxy
from tests.servers.hypercorn import Hypercorn
from tests.servers.lighttpd import Lighttpd
from tests.servers.nghttpx import Nghttpx
from tests.servers.nginx import Door
from tests.servers.nginx_door import NginxDoor
from tests.servers.node import Node
from tests.servers.real import Limits, RealServer

LIMITS = Limits(requests_each=50, idle=0.1)
RELOAD_EVERY = 300
# H2O speaks h2 with whoever offers it.
HTTP1_OFFERED = {"POOLPLUS_POLICY": {"protocols": ["http/1.1"]}}
everywhere = pytest.mark.parametrize("door", [Door.H2, Door.TLS, Door.CLEARTEXT], ids=lambda door: door.value)


async def survive(server: RealServer, settings: Mapping[str, Any]) -> None:
    """Crawl it while it does what it does: every page came, right, and its log says the same."""
    assert server.limits.idle is not None
    came = await storm(server, settings, count=PAGES, idle=server.limits.idle, reload_every=RELOAD_EVERY)
    server.stop()
    print(came)
    assert not came.losses, came
    assert not came.wrong, came
    assert len(came.right) == PAGES, came
    assert came.reloads == (PAGES - 1) // RELOAD_EVERY
    assert set(came.protocols) == {"h2" if server.door is Door.H2 else "HTTP/1.1"}
    # It did end connections.
    assert came.stats["poolplus/connections/opened"] > came.reloads, came
    times = Counter(entry.target for entry in server.answers() if entry.status == 200)
    assert set(times) == {f"/{number}" for number in range(PAGES)}
    # What was replayed because it was refused, or not sent, was not answered before.
    assert sum(times.values()) <= PAGES + came.stats.get("poolplus/replays/sent", 0), came


@everywhere
@pytest.mark.parametrize("kind", [NginxDoor, HAProxy, Node], ids=lambda kind: kind.__name__.lower())
@ensureDeferred
async def test_nothing_is_lost(
    serve: StartServer, reactor_settings: Mapping[str, Any], kind: type[RealServer], door: Door
) -> None:
    await survive(serve(kind, door, LIMITS), reactor_settings)


@pytest.mark.servers
@everywhere
@pytest.mark.parametrize(
    "kind", [Apache, Caddy, Nghttpx, H2O, Lighttpd, Hypercorn], ids=lambda kind: kind.__name__.lower()
)
@ensureDeferred
async def test_nothing_is_lost_by_others(
    serve: StartServer, reactor_settings: Mapping[str, Any], kind: type[RealServer], door: Door
) -> None:
    offered = HTTP1_OFFERED if kind is H2O and door is Door.TLS else {}
    await survive(serve(kind, door, LIMITS), {**reactor_settings, **offered})
