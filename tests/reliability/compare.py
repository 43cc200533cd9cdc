"""The same peers for three handlers: ``python -m tests.reliability.compare [SCENARIO ...]`` prints the table of
docs/reliability.md.

Each scenario runs once for each handler, in a process of its own, with nothing retried by Scrapy: real servers that end
connections, scripted hosts that do one thing (tests.reliability.scripted), peers that stall and flood
(tests.servers.hostile). nginx, haproxy and node are to be installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import trustme
from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess
from scrapy.http import Response
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.crawling import HANDLER, REPOSITORY
from tests.reliability.chaos import content
from tests.reliability.scripted import NO_BODY
from tests.servers.haproxy import HAProxy
from tests.servers.nginx import Door
from tests.servers.nginx_door import NginxDoor
from tests.servers.node import Node
from tests.servers.real import Limits, Pages, RealServer

OURS = "scrapy-poolplus"
HTTP11 = "HTTP11DownloadHandler"
H2 = "H2DownloadHandler"
HANDLERS = {
    OURS: HANDLER,
    HTTP11: "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler",
    H2: "scrapy.core.downloader.handlers.http2.H2DownloadHandler",
}
NOT_FOR_IT = "\N{EN DASH}"
CONCURRENCY = 16
DOWNLOAD_TIMEOUT = 10
PATIENCE = 90.0
"""Seconds until a crawl is ended."""
RELOADS_EVERY = 60
UPLOAD = b"x" * 30_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """`speaks`: ``h2`` or ``http/1.1``; who cannot speak it has no part. `section`: of which RFC."""

    name: str
    section: str
    speaks: str
    requests: list[dict[str, Any]]
    """Of each the ``page`` of the server, the ``path`` on the scripted host with ``method`` and the ``digest`` of the right
    body, or the ``peer`` that attacks ("" for one that refuses)."""
    server: Callable[[], RealServer] | None = None
    """Makes one, with the pages that `requests` ask for by number."""
    reloads: bool = False
    pause: float = 0.0
    """Seconds; more than 0: one request after the other, so long after each answer."""
    attack: bool = False
    """What it costs is told too."""


# ---- the crawl, in a process of its own


class CompareSpider(Spider):
    """Asks for all, and prints a line for each part of it that has come, and what has come in the end."""

    name = "compare"

    def __init__(self, *, given: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._given = given
        self._right = self._wrong = self._answered = 0
        self._failed: Counter[str] = Counter()
        self._warm: Deferred[None] = Deferred()

    async def start(self) -> Any:
        warm_up = Request(self._given["warm_up"], lambda _: self._warm.callback(None))
        yield warm_up.replace(errback=lambda _: self._warm.callback(None))
        await maybe_deferred_to_future(self._warm)
        Path("/proc/self/clear_refs").write_text("5")
        self._before, self._begun = memory("VmRSS"), monotonic()
        for number, request in enumerate(self._given["requests"]):
            if number and self._given["pause"]:
                await self._rest(number)
            yield Request(
                request["url"],
                self._arrived,
                method=request["method"],
                body=UPLOAD if request["method"] == "POST" else b"",
                errback=self._lost,
                cb_kwargs={"digest": request["digest"]},
                meta={"handle_httpstatus_all": True},
                dont_filter=True,
            )

    async def _rest(self, answered: int) -> None:
        from twisted.internet import reactor

        while self._answered < answered:
            await maybe_deferred_to_future(deferLater(reactor, 0.01))
        await maybe_deferred_to_future(deferLater(reactor, self._given["pause"]))

    def _arrived(self, response: Response, digest: str | None) -> None:
        if digest is None or sha256(response.body).hexdigest() == digest:
            self._right += 1
        else:
            self._wrong += 1
        self._one_more()

    def _lost(self, failure: Failure) -> None:
        self._failed[type(failure.value).__name__] += 1
        self._one_more()

    def _one_more(self) -> None:
        self._answered += 1
        if self._answered % RELOADS_EVERY == 0:
            print("more", flush=True)
        told = {
            "right": self._right,
            "wrong": self._wrong,
            "failed": dict(self._failed),
            "seconds": monotonic() - self._begun,
            "grown": memory("VmHWM") - self._before,
        }
        print(json.dumps(told), flush=True)


def memory(key: str) -> int:
    """Bytes; VmRSS is what is used now, VmHWM the most since it was reset."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def crawl(given: dict[str, Any]) -> None:
    """The part of the child."""
    handler = given["handler"]
    process = CrawlerProcess(
        {
            "DOWNLOAD_HANDLERS": {"https": handler} if handler == HANDLERS[H2] else {"http": handler, "https": handler},
            "POOLPLUS_POLICY": {"protocols": [given["speaks"]], "ping_interval": 2.0, "ping_timeout": 2.0},
            "TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
            "RETRY_ENABLED": False,
            "DOWNLOAD_TIMEOUT": DOWNLOAD_TIMEOUT,
            "CONCURRENT_REQUESTS": given["concurrency"],
            "CONCURRENT_REQUESTS_PER_DOMAIN": given["concurrency"],
            "CONCURRENT_ITEMS": 1,
            "LOG_ENABLED": False,
            "TELNETCONSOLE_ENABLED": False,
            "REMOTE_CONTROL_ENABLED": False,
        }
    )
    process.crawl(CompareSpider, given=given)
    process.start()


# ---- the peers


class Peers:
    """A process of scripted peers, and its ports."""

    def __init__(self, module: str, pem: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, str(pem)], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.ports: dict[str, int] = json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate(timeout=20)


class Scenarios:
    """Makes them, each with a server or host of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self._pem = folder / "server.pem"
        certificate = self._authority.issue_cert("127.0.0.1")
        self._pem.write_bytes(certificate.private_key_pem.bytes() + certificate.cert_chain_pems[0].bytes())
        pages = folder / "pages"
        pages.mkdir()
        folder.chmod(0o755)
        self._pages = Pages.write(pages, 400)
        self._made = 0

    def all(self) -> Iterator[Scenario]:
        """In the order of the table."""
        for speaks, door in (("h2", Door.H2), ("http/1.1", Door.TLS)):
            limits, idle = Limits(requests_each=20), Limits(idle=0.05)
            ends = "RFC 9113 6.8" if speaks == "h2" else "RFC 9112 9.3"
            yield self._real("nginx, `keepalive_requests 20`", ends, speaks, NginxDoor, door, limits)
            yield self._real("nginx, `keepalive_timeout 50ms`", ends, speaks, NginxDoor, door, idle)
            yield self._real("nginx, reloaded 6 times", ends, speaks, NginxDoor, door, Limits(), reloads=True)
            yield self._real("haproxy, reloaded 6 times", ends, speaks, HAProxy, door, Limits(), reloads=True)
            yield self._real("node, 20 requests a connection", ends, speaks, Node, door, limits)
            yield self._real("node, worker replaced 6 times", ends, speaks, Node, door, Limits(), reloads=True)
        for name, section, paths in (
            ("GOAWAY, the accepted streams are answered", "RFC 9113 6.8", mixed("goaway")),
            ("GOAWAY below streams that are open", "RFC 9113 6.8", mixed("goaway-below")),
            ("GOAWAY with an error code", "RFC 9113 6.8", mixed("goaway-error")),
            ("GOAWAY in two steps", "RFC 9113 6.8", mixed("goaway-two-steps")),
            ("REFUSED_STREAM", "RFC 9113 8.7", mixed("refused")),
            ("HTTP_1_1_REQUIRED", "RFC 9113 7", mixed("http1-required")),
            ("SETTINGS_MAX_CONCURRENT_STREAMS lowered to 1", "RFC 9113 5.1.2", mixed("one-stream")),
            ("SETTINGS_MAX_CONCURRENT_STREAMS 0 for a while", "RFC 9113 5.1.2", mixed("no-stream")),
            ("421 for a connection that has served", "RFC 9110 15.5.20", mixed("misdirected")),
            ("103 before each response", "RFC 9113 8.1", [f"/interim/{n}" for n in range(100)]),
            ("trailers after each response", "RFC 9113 8.1", [f"/trailers/{n}" for n in range(100)]),
            ("header value in Latin-1", "RFC 9110 5.5", mixed("latin1")),
        ):
            yield self._scripted(name, section, "h2", paths)
        for name, section, what in (
            ("GOAWAY below streams that are open, POST", "RFC 9113 6.8", "goaway-below"),
            ("REFUSED_STREAM, POST", "RFC 9113 8.7", "refused"),
            ("SETTINGS_INITIAL_WINDOW_SIZE 0 for a while, POST", "RFC 9113 6.9.2", "window"),
        ):
            yield self._scripted(name, section, "h2", mixed(what), method="POST")
        for name, section, what in (
            ("one response without `:status`", "RFC 9113 8.3.2", "no-status"),
            ("one response with an upper-case name", "RFC 9113 8.2", "upper-case"),
            ("one response with a connection header", "RFC 9113 8.2.2", "connection-header"),
            ("one response with CR LF in a value", "RFC 9113 8.2.1", "newline"),
            ("one response with a wrong content-length", "RFC 9113 8.1.1", "wrong-length"),
            ("one stream reset", "RFC 9113 5.4.2", "reset"),
            ("PUSH_PROMISE where push is off", "RFC 9113 8.4", "push"),
        ):
            yield self._scripted(f"{name}: its siblings", section, "h2", [], broken=f"/{what}/1")
        for name, section, what in (
            ("closed without a word after each answer", "RFC 9112 9.5", "close"),
            ("`Connection: Close`, then closed", "RFC 9112 9.6", "close-capital"),
            ("HTTP/1.0 without keep-alive", "RFC 9112 9.3", "http10"),
            ("closed instead of an answer, once", "RFC 9110 9.2.2", "close-instead"),
            ("reset instead of an answer, once", "RFC 9110 9.2.2", "reset-instead"),
            ("421 for a connection that has served", "RFC 9110 15.5.20", "misdirected"),
            ("103 before each response", "RFC 9110 15.2", "interim"),
            ("a second response after each", "RFC 9112 9.2", "extra"),
            ("204 with a body", "RFC 9112 6.3", "no-content"),
        ):
            yield self._scripted(name, section, "http/1.1", mixed(what))
        late = [f"/late-extra/{n}" for n in range(20)]
        yield self._scripted("a response for nobody on idle connections", "RFC 9112 9.2", "http/1.1", late, pause=0.15)
        for name, what in (
            ("one response with two lengths that differ", "two-lengths"),
            ("one response with a length and chunks", "length-and-chunked"),
        ):
            yield self._scripted(f"{name}: the others", "RFC 9112 6.3", "http/1.1", [], broken=f"/{what}/1")
        yield from self._attacks()

    def _attacks(self) -> Iterator[Scenario]:
        for name, section, peer in (
            ("endless CONTINUATION", "RFC 9113 10.5.1", "h2/floods_continuation"),
            ("PING flood", "RFC 9113 10.5", "h2/floods_pings"),
            ("SETTINGS flood", "RFC 9113 10.5", "h2/floods_settings"),
            ("SETTINGS flood, each a change", "RFC 9113 10.5", "h2/toggles_its_settings"),
            ("RST_STREAM flood", "RFC 9113 10.5", "h2/floods_resets"),
            ("empty DATA flood", "RFC 9113 10.5", "h2/floods_empty_data"),
            ("endless 103", "RFC 9113 8.1", "h2/floods_interim_heads"),
            ("HPACK bomb, 40 MB", "RFC 7541 7.3", "h2/sends_an_hpack_bomb"),
            ("header block of table sizes", "RFC 7541 4.2", "h2/resizes_its_table_for_ever"),
            ("frame of 16 MB", "RFC 9113 4.2", "h2/sends_a_frame_of_16_mb"),
            ("HTTP/1.1 after ALPN h2", "RFC 9113 3.4", "h2/speaks_http1"),
            ("silence after the handshake", "RFC 9113 6.7", "h2/silent_after_the_handshake"),
            ("endless headers", "RFC 9110 5.4", "https/floods_headers"),
            ("header line of 1 MB", "RFC 9110 5.4", "https/sends_a_header_of_1_mb"),
            ("endless header line", "RFC 9110 5.4", "https/floods_a_header_line"),
            ("endless 100 Continue", "RFC 9110 15.2", "https/floods_interim_responses"),
            ("endless chunk extension", "RFC 9112 7.1.1", "https/floods_a_chunk_extension"),
            ("endless trailers", "RFC 9112 7.1.2", "https/floods_trailers"),
            ("chunk size beyond 64 bits", "RFC 9112 7.1", "https/overflows_a_chunk_size"),
            ("status 99999", "RFC 9112 4", "https/says_status_99999"),
            ("HTTP/0.9", "RFC 9112 4", "https/speaks_http_09"),
            ("half a head, then silence", "RFC 9112 8", "https/half_a_head"),
            ("half a body, then silence", "RFC 9112 8", "https/half_a_body"),
            ("a body of one byte a second", "RFC 9112 8", "https/body_byte_by_byte"),
            ("silence in the TLS handshake", "RFC 9112 9.7", "tcp/silent"),
            ("reset right after accept", "RFC 9112 9.7", "tcp/resets"),
        ):
            yield Scenario(name, section, "h2" if peer.startswith("h2/") else "http/1.1", [{"peer": peer}], attack=True)
        for speaks in ("h2", "http/1.1"):
            yield Scenario("refuses connections, 50 requests", "", speaks, [{"peer": ""}] * 50, attack=True)

    def _real(
        self,
        name: str,
        section: str,
        speaks: str,
        kind: type[RealServer],
        door: Door,
        limits: Limits,
        *,
        reloads: bool = False,
    ) -> Scenario:
        def make() -> RealServer:
            self._made += 1
            return kind(self._folder / f"server{self._made}", self._pages, self._authority, door, limits)

        return Scenario(name, section, speaks, [{"page": n} for n in range(self._pages.count)], make, reloads)

    @staticmethod
    def _scripted(
        name: str,
        section: str,
        speaks: str,
        paths: list[str],
        *,
        method: str = "GET",
        broken: str = "",
        pause: float = 0.0,
    ) -> Scenario:
        if broken:
            paths = [f"/slow/{n}" for n in range(8)] + [broken] + [f"/slow/{n}" for n in range(8, 15)]
        requests = []
        for path in paths:
            right = b"" if path.startswith("/no-content") else content(path, NO_BODY)
            digest = "" if path == broken else sha256(right).hexdigest()
            requests.append({"path": path, "method": method, "digest": digest})
        return Scenario(name, section, speaks, requests, pause=pause)

    def pem(self) -> Path:
        return self._pem


def asked(url: str, digest: str | None, method: str = "GET") -> dict[str, Any]:
    return {"url": url, "digest": digest, "method": method}


def mixed(what: str) -> list[str]:
    """100 requests; of each 10 the third is the one that matters."""
    return [f"/{what if n % 10 == 2 else 'slow'}/{n}" for n in range(100)]


# ---- running


class Comparison:
    """Runs scenarios; `scripted` and `hostile` are started anew for each."""

    def __init__(self, scenarios: Scenarios) -> None:
        self._scenarios = scenarios

    def row(self, scenario: Scenario) -> list[str]:
        spoken = {OURS: "both", HTTP11: "http/1.1", H2: "h2"}
        cells = [
            self._cell(scenario, handler) if spoken[handler] in ("both", scenario.speaks) else NOT_FOR_IT
            for handler in HANDLERS
        ]
        title = f"{scenario.name} ({'h2' if scenario.speaks == 'h2' else 'HTTP/1.1'})"
        return [title, scenario.section or NOT_FOR_IT, *cells]

    def _cell(self, scenario: Scenario, handler: str) -> str:
        scripted = Peers("tests.reliability.scripted", self._scenarios.pem())
        hostile = Peers("tests.servers.hostile", self._scenarios.pem())
        good = scripted.ports["h2" if scenario.speaks == "h2" else "https"]
        server = None if scenario.server is None else scenario.server()
        try:
            if server is not None:
                server.start()
            return self._tell(scenario, self._run(scenario, handler, good, hostile.ports, server))
        finally:
            if server is not None:
                server.stop()
            scripted.stop()
            hostile.stop()

    def _run(
        self, scenario: Scenario, handler: str, good: int, hostile: dict[str, int], server: RealServer | None
    ) -> dict[str, Any]:
        requests = []
        for request in scenario.requests:
            if "peer" in request:
                port = hostile[request["peer"]] if request["peer"] else free_port()
                requests.append(asked(f"https://127.0.0.1:{port}/", None))
            elif "path" in request:
                url = f"https://127.0.0.1:{good}{request['path']}"
                requests.append(asked(url, request["digest"], request["method"]))
            else:
                assert server is not None
                page = request["page"]
                requests.append(asked(server.url(page), sha256(server.body(page)).hexdigest()))
        if scenario.attack:
            siblings = [f"/ok/{n}" for n in range(20)]
            requests += [
                asked(f"https://127.0.0.1:{good}{p}", sha256(content(p, NO_BODY)).hexdigest()) for p in siblings
            ]
        given = {
            "handler": HANDLERS[handler],
            "speaks": scenario.speaks,
            "requests": requests,
            "warm_up": f"https://127.0.0.1:{good}/ok/warm-up",
            "concurrency": 1 if scenario.pause else 64 if scenario.attack else CONCURRENCY,
            "pause": scenario.pause,
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(given, file)
            file.flush()
            return self._child(file.name, server if scenario.reloads else None)

    @staticmethod
    def _child(name: str, reloaded: RealServer | None) -> dict[str, Any]:
        told: dict[str, Any] = {"right": 0, "wrong": 0, "failed": {}, "seconds": 0.0, "grown": 0, "ended": False}
        process = subprocess.Popen(
            # timeout(1): a crawl that hangs is ended whatever it does.
            ["timeout", "-s", "KILL", str(PATIENCE), sys.executable, "-m", "tests.reliability.compare", "--one", name],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line == "more\n":
                if reloaded is not None:
                    reloaded.reload()
            else:
                told.update(json.loads(line))
        told["ended"] = process.wait() == 0
        return told

    @staticmethod
    def _tell(scenario: Scenario, told: dict[str, Any]) -> str:
        right, wrong, failed = told["right"], told["wrong"], Counter(told["failed"])
        total = len(scenario.requests)
        never = "" if told["ended"] else f"; the crawl never ended ({PATIENCE:.0f} s)"
        errors = ", ".join(f"{count} {error}" for error, count in failed.most_common())
        if scenario.attack:
            others = f"others {min(right, 20)} of 20"
            lost = total + 20 - right - wrong - sum(failed.values())
            hung = f"{lost} without an answer{', ' if errors else ''}" if lost else ""
            seconds = "" if never else f" in {told['seconds']:.1f} s"
            answered = errors or ("" if lost else "a response")
            return f"{hung}{answered}{seconds}, +{told['grown'] / 2**20:.0f} MB; {others}{never}"
        broken = [request for request in scenario.requests if request.get("digest") == ""]
        if broken:
            # The broken one may be anything but a hang.
            total -= 1
        text = f"{right} of {total}"
        if wrong > len(broken):
            text += f", {wrong} wrong"
        if failed and right < total:
            text += f" ({errors})"
        return text + never


def free_port() -> int:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="those whose names contain one of these; all by default")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        crawl(json.loads(Path(chosen.one).read_text()))
        return
    versions = ", ".join(f"{name} {version(name)}" for name in ("scrapy-poolplus", "Scrapy", "Twisted", "h2"))
    print(f"{versions}, Python {platform.python_version()}, {os.uname().sysname}\n")
    print(f"| What the server does | Reference | {' | '.join(HANDLERS)} |\n|{'---|' * 5}", flush=True)
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        scenarios = Scenarios(Path(folder))
        comparison = Comparison(scenarios)
        for scenario in scenarios.all():
            if not chosen.scenarios or any(text in scenario.name for text in chosen.scenarios):
                print(f"| {' | '.join(comparison.row(scenario))} |", flush=True)


if __name__ == "__main__":
    main()
