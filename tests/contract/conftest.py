"""Fixtures of the contract tests.

``pytest tests/contract`` tests our handler. ``pytest tests/contract --handler stock`` runs the same tests against
Scrapy's own handlers: what these do not do is marked with `beyond_stock` and its reason, and expected to fail there.
"""

from __future__ import annotations

import gc
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.python import log as twisted_log

from . import running
from .handlers import Downloads, handler_path
from .running import TRANSPORTS, Transport, bounded
from .servers import Site

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--handler",
        choices=("poolplus", "stock"),
        default="poolplus",
        help="what the contract tests test: our handler, or Scrapy's own",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "beyond_stock(reason, on): Scrapy's own handlers fail this test, for that reason, on these transports (all)",
    )
    if config.getoption("handler", "poolplus") == "stock":
        running.PATIENCE = 5.0  # Their hangs are known; do not sit them out.
    config.addinivalue_line("markers", "poolplus_only(reason): the test is about settings that only our handler has")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    stock = config.getoption("handler", "poolplus") == "stock"
    for item in items:
        if not isinstance(item, pytest.Function) or HERE not in item.path.parents:
            continue
        if inspect.iscoroutinefunction(item.obj):
            item.obj = bounded(item.obj)
        if stock:
            _expect_less(item)


def _expect_less(item: pytest.Function) -> None:
    """Mark what Scrapy's own handlers are known not to do."""
    for mark in item.iter_markers("poolplus_only"):
        item.add_marker(pytest.mark.skip(reason=mark.args[0]))
    transport = item.callspec.params.get("transport") if hasattr(item, "callspec") else None
    for mark in item.iter_markers("beyond_stock"):
        on = mark.kwargs.get("on")
        if on is None or transport is None or transport.name in on:
            item.add_marker(pytest.mark.xfail(reason=mark.args[0], strict=mark.kwargs.get("strict", True)))


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> Transport:
    """http, https with HTTP/1.1, https with h2."""
    return request.param


@pytest.fixture(scope="session")
def kind(pytestconfig: pytest.Config) -> str:
    """``"poolplus"`` or ``"stock"``."""
    return str(pytestconfig.getoption("handler", "poolplus"))


@pytest.fixture
def downloads(kind: str) -> Iterator[Callable[..., Downloads]]:
    """Builds handlers, ``downloads(transport, SETTING=value, ...)``, and closes them at the end."""
    built: list[Downloads] = []

    def build(transport: Transport, *, crawler: Any = None, **settings: Any) -> Downloads:
        made = Downloads(handler_path(kind, transport), settings, crawler)
        built.append(made)
        return made

    yield build
    for one in built:
        pytest_twisted.blockon(bounded(one.close)())


@pytest.fixture
def download(downloads: Callable[..., Downloads], transport: Transport) -> Downloads:
    """A handler with default settings for the transport."""
    return downloads(transport)


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts scripted servers, ``serve(transport, script)``, and ends them."""
    from .peers import Peer

    started: list[Peer] = []

    def start(*arguments: Any, **keywords: Any) -> Peer:
        peer = Peer(*arguments, **keywords)
        started.append(peer)
        return peer

    yield start
    for peer in started:
        pytest_twisted.blockon(bounded(peer.end)())


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The local site, in a process of its own. It ends when its standard input is closed, so it can not be left over."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "mockserver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path_factory.mktemp("site"),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        yield Site(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(timeout=20) == 0


@pytest.fixture(autouse=True)
def _no_twisted_error_is_left(kind: str) -> Iterator[None]:
    """An error that Twisted only logs (an unhandled one in a Deferred, an exception in a protocol) fails the test.

    Scrapy's own handlers leave some, often for a later test to find, so that these are not blamed for them.
    """
    with _twisted_errors() as errors:
        yield
    assert kind == "stock" or not errors, "\n".join(errors)


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left_for_the_collector(kind: str) -> Iterator[None]:
    """What is only found when it is collected (unfired Deferreds, sockets) is found in the module that left it."""
    yield
    with _twisted_errors() as errors:
        gc.collect()
    assert kind == "stock" or not errors, "\n".join(errors)


@contextmanager
def _twisted_errors() -> Iterator[list[str]]:
    errors: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("isError"):
            errors.append(twisted_log.textFromEventDict(event) or repr(event))

    twisted_log.addObserver(observe)
    try:
        yield errors
    finally:
        twisted_log.removeObserver(observe)
