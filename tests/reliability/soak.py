"""A long crawl of hosts that misbehave by chance: ``python -m tests.reliability.soak --duration SECONDS [--seed NUMBER]``.

Exits with 1 unless each request was answered once, no body was wrong, no request was lost that could have been replayed,
nothing went wrong unseen, and memory and descriptors stayed flat. The hosts are those of tests.reliability.chaos.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import trustme
from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess
from scrapy.http import Response
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.crawling import HANDLER, REPOSITORY
from tests.reliability.chaos import content

IN_FLIGHT = 96
GROWTH = 8 << 20
"""Bytes that the process may have grown by, from its warm-up's end to its last part."""
DESCRIPTORS = 48
"""More of them at the end than after the warm-up: connections come and go."""
WARM_UP = 0.15
"""Of the duration; the last part is as long."""


class Chaos:
    """The process of the hosts."""

    def __init__(self, seed: int, folder: Path) -> None:
        certificate = trustme.CA().issue_cert(*(f"127.88.0.{n + 1}" for n in range(64)))
        pem = folder / "server.pem"
        pem.write_bytes(certificate.private_key_pem.bytes() + certificate.cert_chain_pems[0].bytes())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.chaos", str(seed), str(pem)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.hosts: list[dict[str, Any]] = json.loads(self._process.stdout.readline())

    def stop(self) -> dict[str, Any]:
        """What it did."""
        told: dict[str, Any] = json.loads(self._process.communicate(timeout=60)[0])
        return told


def used() -> tuple[int, int]:
    """Resident memory in bytes, and descriptors."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE"), len(list(Path("/proc/self/fd").iterdir()))


@dataclass
class Soak:
    """What is seen on the client's side."""

    asked: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: int = 0
    failures: Path = Path()
    """A file, which does not count as memory: a line of path, method and error for each."""
    twice: int = 0
    measured: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds, bytes, descriptors."""

    def measure(self, seconds: float) -> None:
        gc.collect()
        self.measured.append((seconds, *used()))

    def means(self, first: float, last: float) -> tuple[float, float]:
        """Of bytes and of descriptors, between two times."""
        part = [entry for entry in self.measured if first <= entry[0] <= last] or self.measured[-1:]
        return sum(entry[1] for entry in part) / len(part), sum(entry[2] for entry in part) / len(part)


class Errors(logging.Handler):
    """Keeps what is logged as an error: nothing of that kind belongs to a failed download."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.format(record))


class SoakSpider(Spider):
    """Keeps so many requests under way until the time is over."""

    name = "soak"

    def __init__(self, *, soak: Soak, hosts: list[dict[str, Any]], duration: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._soak = soak
        self._hosts = hosts
        self._duration = duration
        self._dice = random.Random(seed)
        self._open: set[str] = set()
        self._room: Deferred[None] | None = None

    async def start(self) -> AsyncIterator[Request]:
        begun = reported = measured = time.monotonic()
        while (now := time.monotonic()) < begun + self._duration:
            while len(self._open) >= IN_FLIGHT:
                self._room = Deferred()
                await maybe_deferred_to_future(self._room)
            if now >= measured + max(0.5, self._duration / 400):
                measured = now
                self._soak.measure(now - begun)
            if now >= reported + max(10.0, self._duration / 60):
                reported = now
                memory, descriptors = used()
                print(
                    f"{now - begun:6.0f} s  {self._soak.asked:8,} requests  {self._soak.failed:6,} failed  "
                    f"{memory / 2**20:6.1f} MB  {descriptors} descriptors",
                    flush=True,
                )
            yield self._next()
        while self._open:
            self._room = Deferred()
            await maybe_deferred_to_future(self._room)

    def _next(self) -> Request:
        self._soak.asked += 1
        number = self._dice.randrange(len(self._hosts))
        host = self._hosts[number]
        path = f"/{number}/{self._soak.asked}"
        self._open.add(path)
        method, body = "GET", b""
        # What is sent to a rough host may have to be sent again without proof.
        if self._dice.random() < 0.2:
            method = "POST" if host["gentle"] else "PUT"
            body = self._dice.randbytes(self._dice.randint(0, 20_000))
        return Request(
            host["url"] + path,
            self._arrived,
            method=method,
            body=body,
            errback=self._failed,
            cb_kwargs={"path": path, "digest": sha256(body).hexdigest()},
        )

    def _arrived(self, response: Response, path: str, digest: str) -> None:
        self._ended(path)
        if response.body == content(path, digest):
            self._soak.right += 1
        else:
            self._soak.wrong.append(f"{response.url} {response.status}: {response.body[:80]!r}")

    def _failed(self, failure: Failure) -> None:
        path = failure.request.cb_kwargs["path"]  # type: ignore[attr-defined]
        self._soak.failed += 1
        text = f"{failure.request.method} {type(failure.value).__name__}: {failure.value}"  # type: ignore[attr-defined]
        with self._soak.failures.open("a") as file:
            file.write(f"{path} {' '.join(text.split())}\n")
        self._ended(path)

    def _ended(self, path: str) -> None:
        if path in self._open:
            self._open.remove(path)
        else:
            self._soak.twice += 1
        if self._room is not None and (not self._open or len(self._open) < IN_FLIGHT):
            room, self._room = self._room, None
            room.callback(None)


def settings(hosts: list[dict[str, Any]], reactor: str | None) -> dict[str, Any]:
    """Of the crawl: short limits, so that each of them is met again and again."""
    domains: dict[str, dict[str, Any]] = {}
    for number, host in enumerate(hosts):
        policy: dict[str, Any] = {}
        if not host["gentle"]:
            policy = (
                {"ping_interval": 2.0, "ping_timeout": 8.0} if host["speaks"] == "h2" else {"first_byte_timeout": 10.0}
            )
        if number % 3 == 1:
            policy["max_requests_per_connection"] = 40
        if number % 3 == 2:
            policy |= {"max_connection_age": 3.0, "idle_timeout": 0.5}
        if number % 4 == 3:
            policy["max_connections"] = 2
        domains[host["url"].split("/")[2].split(":")[0]] = policy
    return {
        "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
        "POOLPLUS_DOMAINS": domains,
        "TWISTED_REACTOR": reactor,
        "RETRY_ENABLED": False,
        "REDIRECT_ENABLED": False,
        "COOKIES_ENABLED": False,
        "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter",
        "DOWNLOAD_TIMEOUT": 60,
        "CONCURRENT_REQUESTS": IN_FLIGHT,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
        "CONCURRENT_ITEMS": 1,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "MEMUSAGE_ENABLED": False,
    }


def judge(soak: Soak, told: dict[str, Any], errors: list[str], duration: float) -> list[str]:
    """What is not as it must be."""
    spoiled = set(told["spoiled"])
    failed = dict(line.split(" ", 1) for line in soak.failures.read_text().splitlines())
    lost = {path: error for path, error in failed.items() if path not in spoiled}
    start, start_descriptors = soak.means(duration * WARM_UP, duration * 2 * WARM_UP)
    end, end_descriptors = soak.means(duration * (1 - WARM_UP), duration)
    faults: dict[str, int] = told["faults"]
    print(f"faults               {sum(faults.values()):,}")
    for fault, times in sorted(faults.items()):
        print(f"    {fault:52} {times:8,}")
    print(f"requests             {soak.asked:,}; {told['requests']:,} as the hosts saw it")
    print(f"right                {soak.right:,}")
    print(f"failed, unavoidably  {len(failed) - len(lost):,} of {len(spoiled):,} that a host broke for good")
    for text, times in Counter(error.split(":")[0] for error in failed.values()).most_common():
        print(f"    {text:52} {times:8,}")
    print(f"wrong bodies         {len(soak.wrong):,}")
    print(f"lost                 {len(lost):,}")
    print(f"memory               {start / 2**20:.1f} MB at the start, {end / 2**20:.1f} MB at the end")
    print(f"descriptors          {start_descriptors:.0f} at the start, {end_descriptors:.0f} at the end")
    problems = [f"wrong: {text}" for text in soak.wrong[:10]]
    problems += [f"lost: {path} {error}" for path, error in list(lost.items())[:10]]
    problems += [f"logged: {text}" for text in errors[:5]]
    if soak.right + len(soak.wrong) + len(failed) != soak.asked or soak.twice:
        problems.append(f"not each request was answered once: {soak.twice} twice")
    if end - start > GROWTH:
        problems.append("memory grew")
    if end_descriptors - start_descriptors > DESCRIPTORS:
        problems.append("descriptors grew")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=3600.0, help="seconds (3600)")
    parser.add_argument("--seed", type=int, default=None, help="by default a new one, which is printed")
    parser.add_argument("--default-reactor", action="store_true", help="instead of the asyncio reactor")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed                 {seed}\nduration             {given.duration:.0f} s", flush=True)
    soak, errors = Soak(), Errors()
    reactor = None if given.default_reactor else "twisted.internet.asyncioreactor.AsyncioSelectorReactor"
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(seed, Path(folder))
        soak.failures = Path(folder) / "failures"
        soak.failures.touch()
        process = CrawlerProcess(settings(chaos.hosts, reactor))
        logging.getLogger().addHandler(errors)
        crawler = process.create_crawler(SoakSpider)
        process.crawl(crawler, soak=soak, hosts=chaos.hosts, duration=given.duration, seed=seed)
        process.start()
        told = chaos.stop()
        assert crawler.stats is not None
        for name, value in sorted(crawler.stats.get_stats().items()):
            if name.startswith("poolplus/"):
                print(f"    {name:52} {value:10,.0f}")
        problems = judge(soak, told, errors.seen, given.duration)
    print("\n".join(problems) if problems else "nothing else to report")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
