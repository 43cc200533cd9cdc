"""Options and fixtures of all tests: which reactor, a real nginx, a crawl."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from scrapy import Request
from scrapy.utils.misc import load_object
from scrapy.utils.reactor import install_reactor

from tests.crawling import Crawled, crawl
from tests.servers import nginx as nginx_server
from tests.servers.nginx import Nginx

ASYNCIO_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--event-loop", help="import path of the event loop of --reactor=asyncio, as uvloop.Loop")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before pytest-twisted does it: by Scrapy, whose crawls will check that theirs is the one installed.
    if config.getoption("--reactor") == "asyncio":
        event_loop = config.getoption("--event-loop")
        if event_loop is not None:
            # Scrapy would first make a loop of the default kind, and leave it open.
            asyncio.set_event_loop(load_object(event_loop)())
        install_reactor(ASYNCIO_REACTOR, event_loop)


@pytest.fixture(scope="session")
def reactor_settings(pytestconfig: pytest.Config) -> Mapping[str, Any]:
    """Scrapy's settings for the reactor that the tests run on."""
    if pytestconfig.getoption("--reactor") != "asyncio":
        return {"TWISTED_REACTOR": None}
    return {"TWISTED_REACTOR": ASYNCIO_REACTOR, "ASYNCIO_EVENT_LOOP": pytestconfig.getoption("--event-loop")}


RunCrawl = Callable[..., Coroutine[Any, Any, Crawled]]


@pytest.fixture
def run_crawl(reactor_settings: Mapping[str, Any]) -> RunCrawl:
    """`await run_crawl([request or URL, ...], SETTING=value, ...)` in this process; see tests.crawling.crawl."""

    def run(requests: Iterable[Request | str], **settings: Any) -> Coroutine[Any, Any, Crawled]:
        return crawl(requests, reactor_settings, **settings)

    return run


@pytest.fixture(scope="session")
def certificate() -> trustme.LeafCert:
    """Of a server on this machine, signed by an authority that nobody trusts."""
    return trustme.CA().issue_cert("localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, each named after its size in bytes."""
    folder = tmp_path_factory.mktemp("site")
    content = random.Random(5)
    for size in (0, 1, 100, 16 << 10, 1 << 20, 20 << 20):
        (folder / str(size)).write_bytes(content.randbytes(size))
    return folder


StartNginx = Callable[..., Nginx]


@pytest.fixture
def nginx(tmp_path: Path, site: Path, certificate: trustme.LeafCert) -> Iterator[StartNginx]:
    """`nginx(keepalive_requests=..., max_streams=...)` makes a server on `site`; it has gone when the test ends."""
    if nginx_server.PROGRAM is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    made: list[Nginx] = []

    def make(*, started: bool = True, **configuration: Any) -> Nginx:
        made.append(Nginx(tmp_path / f"nginx{len(made)}", site, certificate, **configuration))
        if started:
            made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.stop()
