"""Real servers and hostile peers, each in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

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
