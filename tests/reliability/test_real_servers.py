"""2,000 pages, 32 at once, nothing retried by Scrapy, from servers that end connections in the middle of it: nothing is
lost. What they answered is in their logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.reliability.conftest import PAGES, StartServer
from tests.reliability.storm import Storm, storm
from tests.servers.apache import Apache
from tests.servers.caddy import Caddy
from tests.servers.h2o import H2O
from tests.servers.haproxy import HAProxy
from tests.servers.hypercorn import Hypercorn
from tests.servers.lighttpd import Lighttpd
from tests.servers.nghttpx import Nghttpx
from tests.servers.nginx import Door
from tests.servers.node import Node
from tests.servers.real import Limits, RealServer

LIMITS = Limits(requests_each=50, idle=0.02)
RELOAD_EVERY = 300
everywhere = pytest.mark.parametrize("door", [Door.H2, Door.TLS, Door.CLEARTEXT], ids=lambda door: door.value)


def judge(came: Storm, server: RealServer) -> None:
    """Every page came, right, and the server says the same."""
    server.stop()
    assert not came.losses, came
    assert not came.wrong, came
    assert len(came.right) == PAGES, came
    assert set(came.protocols) == {"h2" if server.door is Door.H2 else "HTTP/1.1"}
    answers = server.answers()
    if answers is None:
        return
    times = Counter(entry.target for entry in answers if entry.status == 200)
    assert set(times) == {f"/{number}" for number in range(PAGES)}
    # One more for each replay at most; over h2 a replayed request is one that was not processed.
    assert sum(times.values()) <= PAGES + (0 if server.door is Door.H2 else came.replays), came


@everywhere
@pytest.mark.parametrize("kind", [HAProxy, Node], ids=lambda kind: kind.__name__.lower())
@ensureDeferred
async def test_nothing_is_lost(
    serve: StartServer, reactor_settings: Mapping[str, Any], kind: type[RealServer], door: Door
) -> None:
    server = serve(kind, door, LIMITS)
    came = await storm(server, reactor_settings, count=PAGES, reload_every=RELOAD_EVERY)
    print(came)
    judge(came, server)


@pytest.mark.servers
@everywhere
@pytest.mark.parametrize(
    "kind", [Apache, Caddy, Nghttpx, H2O, Lighttpd, Hypercorn], ids=lambda kind: kind.__name__.lower()
)
@ensureDeferred
async def test_nothing_is_lost_by_others(
    serve: StartServer, reactor_settings: Mapping[str, Any], kind: type[RealServer], door: Door
) -> None:
    server = serve(kind, door, LIMITS)
    came = await storm(server, reactor_settings, count=PAGES, reload_every=RELOAD_EVERY)
    print(came)
    judge(came, server)
