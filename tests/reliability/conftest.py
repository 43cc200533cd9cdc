"""Real servers and hostile peers, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.crawling import REPOSITORY
from tests.servers.nginx import Door
from tests.servers.real import Limits, Pages, RealServer

HERE = Path(__file__).parent
PAGES = 2_000


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "servers: needs one of the servers that only `tox -e servers` starts; deselected unless asked for"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "servers" in config.getoption("-m"):
        return
    left_out = [item for item in items if HERE in item.path.parents and item.get_closest_marker("servers")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def pages() -> Iterator[Pages]:
    """Not in a folder of pytest's: servers that give up root's rights must be able to read it."""
    with tempfile.TemporaryDirectory(prefix="pages-") as folder:
        Path(folder).chmod(0o755)
        yield Pages.write(Path(folder), PAGES)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


StartServer = Callable[[type[RealServer], Door, Limits], RealServer]


@pytest.fixture
def serve(tmp_path: Path, pages: Pages, authority: trustme.CA) -> Iterator[StartServer]:
    """`serve(Class, door, limits)` starts a server; it has gone when the test ends."""
    made: list[RealServer] = []

    def start(kind: type[RealServer], door: Door, limits: Limits) -> RealServer:
        if kind.path() is None:
            pytest.skip(f"{kind.program} is not installed (Debian: apt-get install {kind.package})")
        made.append(kind(tmp_path / f"server{len(made)}", pages, authority, door, limits))
        made[-1].start()
        return made[-1]

    yield start
    for server in made:
        server.stop()


class Hostile:
    """The peers of tests.servers.hostile."""

    def __init__(self, pem: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.hostile", str(pem)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._ports: dict[str, int] = json.loads(self._process.stdout.readline())

    def url(self, name: str, path: str = "", *, scheme: str | None = None) -> str:
        """Of a peer, as ``h2/floods_pings``; with another scheme than it speaks where that is the point."""
        if scheme is None:
            scheme = "https" if name.startswith(("https/", "h2/")) else "http"
        return f"{scheme}://127.0.0.1:{self._ports[name]}/{path}"

    def stop(self) -> None:
        self._process.communicate(timeout=20)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Iterator[Hostile]:
    """Peers that die, stall or attack."""
    pem = tmp_path_factory.mktemp("hostile") / "server.pem"
    certificate = authority.issue_cert("127.0.0.1")
    pem.write_bytes(certificate.private_key_pem.bytes() + certificate.cert_chain_pems[0].bytes())
    peers = Hostile(pem)
    yield peers
    peers.stop()
