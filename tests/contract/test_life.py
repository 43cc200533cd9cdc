"""The class and its life (contract, section 1)."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scrapy import Request
from scrapy.core.downloader.handlers import DownloadHandlers
from scrapy.core.engine import ExecutionEngine
from scrapy.exceptions import NotConfigured
from scrapy.utils.misc import load_object

from .crawls import crawl
from .handlers import download_handlers, handler_path, make_crawler
from .marks import over_cleartext, over_http1, poolplus_only
from .peers import SilentConnection, works
from .resolving import resolved_to_loopback
from .running import H2, HTTP, HTTPS1, Child, Transport, gather, reactor_turns, the_reactor
from .scripts import ASYNCIO, SPIDER, every_transport, fetch_script, settings_of

# 1.1


async def test_it_works_without_an_engine(transport: Transport, downloads: Any, site: Any) -> None:
    download = downloads(transport)
    # None, or Scrapy refuses to name it (2.18).
    with suppress(RuntimeError):
        assert download.crawler.engine is None
    assert (await download(site.url(transport, "/text"))).body == b"Works"
    await download.close()


async def test_a_handler_that_downloads_nothing_can_be_closed(transport: Transport, downloads: Any) -> None:
    await downloads(transport).close()


# 1.2


def test_lazy_is_declared(kind: str, transport: Transport) -> None:
    assert isinstance(load_object(handler_path(kind, transport)).lazy, bool)


@over_http1
async def test_a_crawl_gives_each_scheme_an_instance_of_its_own(kind: str, transport: Transport, site: Any) -> None:
    made: list[Any] = []
    cls = load_object(handler_path(kind, transport))

    class Watched(cls):  # type: ignore[misc,valid-type]
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            made.append(self)

    urls = [site.url(one, "/text") for one in (HTTP, HTTPS1)]
    ended = await crawl(
        kind, transport, urls, settings={"DOWNLOAD_HANDLERS": dict.fromkeys(("http", "https"), Watched)}
    )
    assert [response.body for response in ended.responses] == [b"Works", b"Works"]
    assert len({id(one) for one in made}) == 2


async def test_a_handler_that_is_not_lazy_is_built_with_the_crawler(kind: str, transport: Transport) -> None:
    crawler = make_crawler({"DOWNLOAD_HANDLERS": download_handlers(kind, transport)})
    handlers = DownloadHandlers(crawler)
    cls = load_object(handler_path(kind, transport))
    assert (transport.scheme in handlers._handlers) is not cls.lazy
    await handlers._close()


@poolplus_only("the stock handlers have a pool each")
async def test_both_instances_share_one_pool(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, works)
    crawler = make_crawler()
    first, second = downloads(transport, crawler=crawler), downloads(transport, crawler=crawler)
    assert first.handler is not second.handler
    for download in (first, second, first):
        assert (await download(peer.url("/"))).body == b"Works"
    assert len(peer.connections) == 1


@poolplus_only("the stock handlers have a pool each")
async def test_a_closed_pool_is_replaced_when_it_is_needed_again(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    crawler = make_crawler()
    first, second = downloads(transport, crawler=crawler), downloads(transport, crawler=crawler)
    await first(peer.url("/"))
    await first.close()
    await peer.connections[0].lost.wait()
    assert (await second(peer.url("/"))).body == b"Works"
    await second.close()
    await first.handler.close()
    assert len(peer.connections) == 2


# 1.3


def test_its_methods_are_coroutine_functions_that_take_what_scrapy_gives(kind: str, transport: Transport) -> None:
    cls = load_object(handler_path(kind, transport))
    assert inspect.iscoroutinefunction(cls.download_request)
    assert inspect.iscoroutinefunction(cls.close)
    assert list(inspect.signature(cls.download_request).parameters) == ["self", "request"]
    assert list(inspect.signature(cls.close).parameters) == ["self"]
    assert list(inspect.signature(cls.from_crawler).parameters) == ["crawler"]


async def test_a_crawl_with_it_is_warned_of_nothing(
    kind: str, transport: Transport, site: Any, recwarn: pytest.WarningsRecorder
) -> None:
    await crawl(kind, transport, [site.url(transport, "/text")])
    assert [str(warning.message) for warning in recwarn] == []


# 1.4


async def test_without_a_reactor_it_is_not_configured(transport: Transport, kind: str) -> None:
    from scrapy.settings import Settings

    class Reactorless:
        settings = Settings({"TWISTED_REACTOR_ENABLED": False})

    with pytest.raises(NotConfigured, match="reactor"):
        load_object(handler_path(kind, transport)).from_crawler(Reactorless())


REACTORLESS = """
FetchSpider.urls = [{url!r}]
from scrapy.crawler import AsyncCrawlerProcess

process = AsyncCrawlerProcess({settings!r})
process.crawl(FetchSpider)
process.start()
print("REACTOR", "twisted.internet.reactor" in sys.modules)
"""


async def test_a_reactorless_crawl_says_so_and_imports_no_reactor(kind: str, site: Any, tmp_path: Path) -> None:
    transport = HTTP
    settings = settings_of(kind, transport, TWISTED_REACTOR_ENABLED=False)
    settings["DOWNLOAD_HANDLERS"]["ftp"] = None
    ended = await script(tmp_path, SPIDER + REACTORLESS.format(url=site.url(transport, "/text"), settings=settings))
    assert "FAILED NotSupported Unsupported URL scheme" in ended.out
    assert "reactor" in ended.out
    assert "REACTOR False" in ended.out


async def test_another_error_at_build_is_logged_and_the_scheme_is_unsupported(
    kind: str, transport: Transport, site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ended = await crawl(
        kind, transport, [site.url(transport, "/text")], settings={"DOWNLOAD_TLS_MIN_VERSION": "invalid"}
    )
    assert [type(error).__name__ for error in ended.errors] == ["NotSupported"]
    path = handler_path(kind, transport)
    assert f'Loading "{path}" for scheme "{transport.scheme}"' in caplog.text


# 1.5


async def test_a_bad_setting_fails_at_build(transport: Transport, downloads: Any) -> None:
    with pytest.raises(ValueError, match="Unknown DOWNLOAD_TLS_MAX_VERSION value: TLSv9"):
        downloads(transport, DOWNLOAD_TLS_MAX_VERSION="TLSv9")


# 1.6


async def test_close_returns_while_connections_are_idle(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, works)
    download = downloads(transport)
    await gather(*(download(peer.url("/")) for _ in range(4)))
    await download.close()
    for connection in peer.connections:
        await connection.lost.wait()


async def test_close_returns_where_the_peer_does_not_say_goodbye(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    def answer(exchange: Any) -> None:
        works(exchange)
        # From now on it reads nothing, so that it answers no close_notify.
        the_reactor().callLater(0, exchange.connection.transport.pauseProducing)

    peer = serve(transport, answer)
    download = downloads(transport)
    await download(peer.url("/"))
    await reactor_turns(3)
    await download.close()


async def test_nothing_is_left_in_the_reactor_after_close(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, works)
    await reactor_turns()  # The time limit of the test itself is set by then.
    calls_before = set(the_reactor().getDelayedCalls())
    download = downloads(transport)
    await gather(*(download(peer.url("/"), meta={"download_timeout": 9}) for _ in range(4)))
    await download.close()
    for connection in peer.connections:
        await connection.lost.wait()
    await reactor_turns(3)
    left = [call for call in the_reactor().getDelayedCalls() if call not in calls_before]
    assert left == []


async def test_a_failed_connection_leaves_nothing(transport: Transport, downloads: Any, serve: Any) -> None:
    peer = serve(transport, protocol=SilentConnection, script=lambda connection: connection.abort(), hold_tls=True)
    download = downloads(transport)
    for _ in range(3):
        with pytest.raises(Exception):  # noqa: B017, PT011 - which one is the matter of test_errors
            await download(peer.url("/"), meta={"download_timeout": 2})
    await download.close()


# 1.7


async def test_it_never_asks_the_engine_to_download(
    kind: str, transport: Transport, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    download_async = ExecutionEngine.download_async

    async def watched(self: ExecutionEngine, request: Request) -> Any:
        asked.append(request.url)
        return await download_async(self, request)

    monkeypatch.setattr(ExecutionEngine, "download_async", watched)
    ended = await crawl(kind, transport, [site.url(transport, "/text")], settings={"ROBOTSTXT_OBEY": False})
    assert len(ended.responses) == 1
    assert asked == []


# 1.8


async def test_two_requests_before_any_connection_both_succeed(transport: Transport, download: Any, site: Any) -> None:
    responses = await gather(*(download(site.url(transport, "/text")) for _ in range(2)))
    assert [response.body for response in responses] == [b"Works", b"Works"]


# 1.9


STRICT = ["-X", "dev", "-W", "error::ResourceWarning"]
"""Python options that make it tell of everything that was left open."""


async def script(directory: Path, text: str, options: list[str] = STRICT) -> Any:
    """Run a program; it must end well, by itself, and leave nothing behind."""
    file = directory / "script.py"
    file.write_text(text)
    return (await Child([*options, str(file)], directory).ended()).clean()


Reactor = Mapping[str, Any]
"""Settings of the reactor that the tests run on, the fixture `reactor_settings`: child processes get the same one."""


def python_options(reactor: Reactor) -> list[str]:
    """Strict ones, but not where an event loop is installed: that leaves asyncio's own unclosed."""
    return [] if reactor.get("ASYNCIO_EVENT_LOOP") else STRICT


def command_line(kind: str, transport: Transport, reactor: Reactor) -> list[str]:
    """``-s`` options of the scrapy command."""
    settings = {
        "DOWNLOAD_HANDLERS": json.dumps(download_handlers(kind, transport)),
        "LOG_LEVEL": "WARNING",
        "TELNETCONSOLE_ENABLED": "0",
        "TWISTED_REACTOR": reactor["TWISTED_REACTOR"] or "",
    }
    if reactor.get("ASYNCIO_EVENT_LOOP"):
        settings["ASYNCIO_EVENT_LOOP"] = reactor["ASYNCIO_EVENT_LOOP"]
    return [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]


async def test_scrapy_fetch(
    kind: str, transport: Transport, site: Any, tmp_path: Path, reactor_settings: Reactor
) -> None:
    options = ["--headers"] if transport.is_h2 else []
    command = ["-m", "scrapy", "fetch", *options, *command_line(kind, transport, reactor_settings)]
    ended = await Child([*python_options(reactor_settings), *command, site.url(transport, "/text")], tmp_path).ended()
    assert ("< Content-Type: text/html" if options else "Works") in ended.clean().out


async def test_scrapy_shell(kind: str, site: Any, tmp_path: Path, reactor_settings: Reactor) -> None:
    # The shell downloads from another thread, in a reactor that was started late.
    code = ", ".join(
        f"fetch({site.url(one, '/gzip')!r}), print('GOT', response.status, response.protocol, len(response.body))"
        for one in every_transport(kind)
    )
    command = ["-m", "scrapy", "shell", *command_line(kind, H2, reactor_settings)]
    ended = await Child([*command, site.url(HTTP, "/text"), "-c", code], tmp_path).ended()
    got = [line for line in ended.clean().out.splitlines() if line.startswith("GOT")]
    assert got == [f"GOT 200 {one.protocol} 1000" for one in every_transport(kind)]


@pytest.mark.parametrize(
    "settings",
    [
        {"TWISTED_REACTOR": ASYNCIO},
        {"TWISTED_REACTOR": None},
        {"TWISTED_REACTOR": ASYNCIO, "ASYNCIO_EVENT_LOOP": "uvloop.Loop"},
    ],
    ids=["asyncio", "default", "uvloop"],
)
async def test_a_crawler_process_with_each_reactor(
    kind: str, site: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    if "ASYNCIO_EVENT_LOOP" in settings:
        pytest.importorskip("uvloop")
    options = python_options(settings)
    paths = {"/text": 5, "/large?size=300000": 300_000, "/chunked": 15}
    urls = [site.url(one, path) for one in every_transport(kind) for path in [*paths, "/drop?abort=1"]]
    ended = await script(tmp_path, fetch_script(settings_of(kind, H2, **settings), urls), options)
    lines = ended.out.splitlines()
    assert sorted(line for line in lines if line.startswith("GOT")) == sorted(
        f"GOT 200 {one.protocol} {size}" for one in every_transport(kind) for size in paths.values()
    )
    failed = [line for line in lines if line.startswith("FAILED")]
    assert [line.split()[1] for line in failed] == ["DownloadFailedError"] * len(every_transport(kind))
    assert lines[-1] == "ENDED"


RUNNERS = {
    "CrawlerRunner": """
from scrapy.crawler import CrawlerRunner
{install}
from twisted.internet import reactor
runner = CrawlerRunner({settings!r})
done = runner.crawl(FetchSpider)
done.addBoth(lambda _: reactor.stop())
reactor.run()
""",
    "AsyncCrawlerRunner": """
from twisted.internet.task import react
from scrapy.crawler import AsyncCrawlerRunner
from scrapy.utils.defer import deferred_f_from_coro_f
{install}

async def main(_):
    await AsyncCrawlerRunner({settings!r}).crawl(FetchSpider)

try:
    react(deferred_f_from_coro_f(main))
except SystemExit as end:
    assert end.code == 0
""",
    "AsyncCrawlerProcess": """
from scrapy.crawler import AsyncCrawlerProcess
process = AsyncCrawlerProcess({settings!r})
process.crawl(FetchSpider)
process.start()
""",
    "several at once": """
from scrapy.crawler import CrawlerProcess
process = CrawlerProcess({settings!r})
for _ in range(3):
    process.crawl(FetchSpider)
process.start()
""",
    "one after the other": """
from scrapy.crawler import CrawlerRunner
{install}
from twisted.internet import defer, reactor

@defer.inlineCallbacks
def crawls():
    runner = CrawlerRunner({settings!r})
    for _ in range(3):
        yield runner.crawl(FetchSpider)
    reactor.stop()

crawls()
reactor.run()
""",
}
INSTALL = (
    "from scrapy.utils.reactor import install_reactor; install_reactor({TWISTED_REACTOR!r}, {ASYNCIO_EVENT_LOOP!r})"
)


@pytest.mark.parametrize("runner", RUNNERS)
async def test_each_way_to_run_a_crawl(
    kind: str, site: Any, tmp_path: Path, runner: str, reactor_settings: Reactor
) -> None:
    reactor: Reactor = {"TWISTED_REACTOR": ASYNCIO, "ASYNCIO_EVENT_LOOP": None, **reactor_settings}
    if reactor["TWISTED_REACTOR"] is None and runner.startswith("Async"):
        pytest.skip("Scrapy's asyncio API needs the asyncio reactor")
    install = INSTALL.format(**reactor) if reactor["TWISTED_REACTOR"] else ""
    settings = settings_of(kind, H2, **reactor)
    urls = [site.url(one, "/text") for one in every_transport(kind) for _ in range(2)]
    text = f"FetchSpider.urls = {urls!r}\n" + RUNNERS[runner].format(settings=settings, install=install)
    ended = await script(tmp_path, SPIDER + text, python_options(reactor))
    crawls = 3 if " " in runner else 1
    expected = [f"GOT 200 {one.protocol} 5" for one in every_transport(kind)] * 2 * crawls
    assert sorted(ended.out.splitlines()) == sorted(expected)


async def test_crawls_at_once_in_one_process_keep_apart(kind: str, transport: Transport, serve: Any) -> None:
    peer = serve(transport, works)
    both = await gather(*(crawl(kind, transport, [peer.url("/")] * 2) for _ in range(2)))
    assert [[response.body for response in ended.responses] for ended in both] == [[b"Works"] * 2] * 2
    assert len(peer.connections) >= 2


# 1.10


async def test_names_are_resolved_by_the_resolver_of_the_reactor(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    with resolved_to_loopback() as asked:
        response = await downloads(transport)(peer.url("/", host="not.a.real.host.example"))
    assert asked == ["not.a.real.host.example"]
    assert str(response.ip_address) == "127.0.0.1"


async def test_a_dns_server_of_ones_own_is_asked(transport: Transport, downloads: Any, serve: Any) -> None:
    from twisted.internet.defer import succeed
    from twisted.names import dns
    from twisted.names.client import createResolver
    from twisted.names.common import ResolverBase
    from twisted.names.server import DNSServerFactory

    class Everything(ResolverBase):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[bytes] = []

        def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Any:  # noqa: A002 - its interface
            self.asked.append(name)
            if type not in {dns.A, dns.ALL_RECORDS}:
                return succeed(([], [], []))
            record = dns.Record_A(address="127.0.0.1")
            return succeed(([dns.RRHeader(name, dns.A, dns.IN, 60, record)], [], []))

    reactor = the_reactor()
    everything = Everything()
    protocol = dns.DNSDatagramProtocol(DNSServerFactory(clients=[everything]))
    protocol.noisy = False
    port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
    before = reactor.nameResolver
    reactor.installResolver(createResolver(servers=[("127.0.0.1", port.getHost().port)], hosts=b"/dev/null"))
    try:
        response = await downloads(transport)(serve(transport, works).url("/", host="asked.by.dns.example"))
        assert str(response.ip_address) == "127.0.0.1"
        assert b"asked.by.dns.example" in everything.asked
    finally:
        reactor.installNameResolver(before)
        await _stopped(port)


async def _stopped(port: Any) -> None:
    from scrapy.utils.defer import maybe_deferred_to_future
    from twisted.internet.defer import maybeDeferred

    await maybe_deferred_to_future(maybeDeferred(port.stopListening))


RESOLVER = """
from twisted.internet.address import IPv4Address
from scrapy.resolver import CachingThreadedResolver


class MyResolver(CachingThreadedResolver):
    def getHostByName(self, name, timeout=None):
        print("ASKED", name, self.timeout, flush=True)
        return super().getHostByName("127.0.0.1", timeout)
"""


@over_cleartext
@pytest.mark.parametrize("cached", [True, False])
async def test_the_resolver_settings_are_obeyed(
    kind: str, transport: Transport, site: Any, tmp_path: Path, cached: bool
) -> None:
    (tmp_path / "my_resolver.py").write_text(RESOLVER)
    url = f"http://some.where.example:{site.port(transport)}/text"
    settings = settings_of(
        kind,
        transport,
        TWISTED_DNS_RESOLVER="my_resolver.MyResolver",
        DNS_TIMEOUT=33,
        DNSCACHE_ENABLED=cached,
        DNSCACHE_SIZE=5,
    )
    text = fetch_script(settings, [url])
    ended = await script(tmp_path, f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + text)
    assert ended.out.splitlines() == ["ASKED some.where.example 33.0", "GOT 200 HTTP/1.1 5", "ENDED"]


# what is said when the log is on


async def test_an_everyday_crawl_logs_no_warning(
    kind: str, transport: Transport, site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await crawl(
        kind, transport, [site.url(transport, path, host="localhost") for path in ("/text", "/gzip", "/missing")]
    )
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
