"""The processes that a spider starts: the shop, the relay that makes it far away, the proxies on the way to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from bookshop.places import PROJECT
from bookshop.site.catalogue import BOOKS
from bookshop.site.serve import SiteMode

START_SECONDS = 30.0
END_SECONDS = 5.0


class Child:
    """A Python module of ours in a process of its own that printed its port; `end()` ends it by its pid.

    It has a session of its own, so that Ctrl-C reaches only the crawl, which ends its children in order. A crawl that is
    killed closes their standard input, at which they go by themselves.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=PROJECT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port = self._announced_port(module)

    def end(self) -> None:
        """Idempotent; a child that does not go within END_SECONDS is killed."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _announced_port(self, module: str) -> int:
        overdue = threading.Timer(START_SECONDS, self._process.kill)
        overdue.start()
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        finally:
            overdue.cancel()
        if not line:
            self.end()
            raise RuntimeError(f"{module} ended before it was ready; its message is above")
        return int(json.loads(line)["port"])


def start_site(mode: SiteMode, log: Path, *, books: int = BOOKS, close_after: int | None = None) -> Child:
    """The shop, serving; `close_after` requests it closes each connection, None: never."""
    arguments = ["--site", mode.value, "--books", str(books), "--log", str(log.absolute())]
    if close_after is not None:
        arguments += ["--close-after", str(close_after)]
    return Child("bookshop.site.serve", *arguments)


def start_relay(port: int, round_trip: float) -> Child:
    """A relay to a local port, `round_trip` seconds away."""
    return Child("bookshop.site.relay", "--to", str(port), "--round-trip", str(round_trip))


def start_proxy(port: int, exit_address: str, log: Path) -> Child:
    """A proxy to the shop at a local port, which sees its connections come from `exit_address`."""
    return Child("bookshop.site.proxy", "--to", str(port), "--exit", exit_address, "--log", str(log.absolute()))


def child_environment() -> dict[str, str]:
    """Ours, with this project importable from anywhere."""
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": str(PROJECT) + (os.pathsep + inherited if inherited else "")}
