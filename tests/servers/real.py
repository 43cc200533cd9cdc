"""What the starters of real servers share: a process of its own, on an address of its own, with one door.

A server that ends connections while they are used has `Limits`, and `reload` has it replace itself in the gentlest way
it knows. What it answered is in its log, where it writes one.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import trustme

from tests.servers.nginx import KEEPER, Door

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
PATIENCE = 20.0
"""Seconds until a server must answer."""
# Not the tests' seed: two of them that run at once must not choose the same.
_dice = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server allows a connection: so many requests, so many seconds without one. None: what it does by itself."""

    requests_each: int | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A request in a server's log."""

    status: int
    protocol: str
    target: str


@dataclass(frozen=True, slots=True)
class Pages:
    """Files named by their numbers, from 0, each with a content of its own, of 100 bytes to 60 KB."""

    folder: Path
    count: int

    @classmethod
    def write(cls, folder: Path, count: int) -> Pages:
        content = random.Random(7)
        for number in range(count):
            size = 60_000 if number % 40 == 7 else 100 + number * 7919 % 8_000
            (folder / str(number)).write_bytes(f"page {number}\n".encode() + content.randbytes(size))
        return cls(folder, count)

    def body(self, number: int) -> bytes:
        return (self.folder / str(number)).read_bytes()


def own_address() -> tuple[str, int]:
    """A free port at a loopback address that nobody else uses, so that nobody can take it before the server does.

    Only Linux has the whole of 127.0.0.0/8.
    """
    host = f"127.{_dice.randint(1, 254)}.{_dice.randint(0, 255)}.{_dice.randint(1, 254)}"
    with socket.socket() as bound:
        bound.bind((host, 0))
        port: int = bound.getsockname()[1]
        return host, port


class RealServer:
    """Serves `pages` at ``/0``, ``/1``, ... through one door. `start` it, crawl it, `stop` it, then read `answers`.

    Subclasses say how it is run. A server without a program of its own runs on this Python.
    """

    program: ClassVar[str] = ""
    package: ClassVar[str] = ""
    """What has the program in Debian."""
    doors: ClassVar[tuple[Door, ...]] = (Door.H2, Door.TLS, Door.CLEARTEXT)
    ending: ClassVar[str] = "SIGTERM"
    reloading: ClassVar[str] = "SIGHUP"
    shortest_idle: ClassVar[float] = 0.0
    """Seconds; it can have no shorter idle time-out."""

    def __init__(
        self, folder: Path, pages: Pages, authority: trustme.CA, door: Door, limits: Limits | None = None
    ) -> None:
        self.folder = folder
        self.pages = pages
        self.door = door
        self.limits = limits or Limits()
        """What it was asked for; `idle` is not below the shortest."""
        if self.limits.idle is not None:
            self.limits = replace(self.limits, idle=max(self.limits.idle, self.shortest_idle))
        self.host, self.port = own_address()
        self._keeper: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        # Servers that start as root give up its rights, and must still find their files.
        folder.chmod(0o777)
        self.pem = folder / "server.pem"
        certificate = authority.issue_cert(self.host)
        pem = certificate.private_key_pem.bytes() + b"".join(part.bytes() for part in certificate.cert_chain_pems)
        self.pem.write_bytes(pem)
        self.log_path = folder / "access.log"

    @classmethod
    def path(cls) -> str | None:
        """Where its program is, or None."""
        return shutil.which(cls.program, path=PATH) if cls.program else sys.executable

    def url(self, number: int) -> str:
        return f"{self.door.scheme}://{self.host}:{self.port}/{number}"

    def body(self, number: int) -> bytes:
        """What it answers there."""
        return self.pages.body(number)

    def command(self) -> list[str]:
        """Write what configuration it needs; the program's arguments."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def read_log(self, text: str) -> list[Answered]:
        """Lines of ``STATUS PROTOCOL TARGET``."""
        entries = (line.split(" ", 2) for line in text.splitlines())
        return [Answered(int(status), protocol, target) for status, protocol, target in entries]

    def start(self) -> None:
        """Returns when it answers."""
        path = self.path()
        assert path is not None
        with (self.folder / "output").open("wb") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, str(KEEPER), self.ending, path, *self.command()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
            )
        limit = time.monotonic() + PATIENCE
        while not self._answers():
            if self._keeper.poll() is not None or time.monotonic() > limit:
                self.stop()
                raise AssertionError(f"{self.path()} does not answer: {self.output()}")
            time.sleep(0.05)

    def reload(self) -> None:
        """Have it replace itself, without an end for those whom it serves. Returns at once."""
        self.signal(self.reloading)

    def signal(self, name: str) -> None:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{name}\n".encode())
        self._keeper.stdin.flush()

    def stop(self) -> None:
        """Returns when it is gone."""
        if self._keeper is not None:
            self._keeper.communicate(timeout=PATIENCE)
            self._keeper = None

    def output(self) -> str:
        """What it printed."""
        return (self.folder / "output").read_text(errors="replace")

    def answers(self) -> list[Answered]:
        """Its log without the start's own request. Complete only once it is stopped."""
        assert self._keeper is None, "stop it first"
        return [entry for entry in self.read_log(self.log_path.read_text()) if entry.target != "/ready"]

    def _answers(self) -> bool:
        """Whether it does: by a request, as some listen before they can serve."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with socket.create_connection((self.host, self.port), timeout=PATIENCE) as plain:
                speaking = plain if self.door is Door.CLEARTEXT else context.wrap_socket(plain)
                with speaking:
                    speaking.sendall(b"GET /ready HTTP/1.1\r\nHost: ready\r\nConnection: close\r\n\r\n")
                    return speaking.recv(5) == b"HTTP/"
        except (OSError, ssl.SSLError):
            return False
