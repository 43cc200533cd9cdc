"""A crawl that is busy reads late: what a server did meanwhile is in the socket, not in the reactor."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from pytest_twisted import ensureDeferred
from scrapy import Request
from scrapy.utils.defer import deferred_from_coro

from tests.contract.handlers import POOLPLUS, Downloads
from tests.crawling import no_error_is_logged

PATIENCE = 20.0
FIRST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"
SECOND = FIRST.replace(b"first", b"other")
POISON = FIRST.replace(b"first", b"wrong")


class Meanwhile:
    """Answers a request, does `deed` while the crawl is `busy`, and answers on the next connection as it should."""

    def __init__(self, deed: Callable[[socket.socket], object], context: ssl.SSLContext | None) -> None:
        self._deed = deed
        self._context = context
        self._now, self._done = threading.Event(), threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}/"

    def busy(self) -> None:
        """The reactor stands still until the deed is done."""
        self._now.set()
        assert self._done.wait(PATIENCE)

    def stop(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        first = self._accept()
        _asked(first)
        first.sendall(FIRST)
        assert self._now.wait(PATIENCE)
        self._deed(first)
        self._done.set()
        with self._accept() as second:
            _asked(second)
            second.sendall(SECOND)
            second.recv(1)
        first.close()

    def _accept(self) -> socket.socket:
        accepted, _ = self._listening.accept()
        accepted.settimeout(PATIENCE)
        return accepted if self._context is None else self._context.wrap_socket(accepted, server_side=True)


def _asked(connection: socket.socket) -> None:
    """Read a request with a body of one byte or none."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += connection.recv(65536)
    if read.startswith(b"POST") and read.endswith(b"\r\n\r\n"):
        connection.recv(1)


def says_goodbye(connection: socket.socket) -> None:
    # Over TLS it does so without close_notify, as many servers do.
    connection.shutdown(socket.SHUT_WR)


def says_too_much(connection: socket.socket) -> None:
    connection.sendall(POISON)


@pytest.fixture(params=["http", "https"])
def meanwhile(request: Any, tmp_path: Path, certificate: trustme.LeafCert) -> Iterator[Any]:
    context = None
    if request.param == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
    made: list[Meanwhile] = []

    def one(deed: Callable[[socket.socket], object]) -> Meanwhile:
        made.append(Meanwhile(deed, context))
        return made[-1]

    yield one
    for server in made:
        server.stop()


@pytest.mark.parametrize("deed", [says_goodbye, says_too_much], ids=lambda deed: deed.__name__)
@ensureDeferred
async def test_a_post_after_it_goes_over_a_new_connection_and_has_its_own_response(meanwhile: Any, deed: Any) -> None:
    server = meanwhile(deed)
    downloads = Downloads(POOLPLUS)
    with no_error_is_logged():
        first = await deferred_from_coro(downloads(Request(server.url)))
        # In one turn, as when a callback takes its time and the next request is due.
        server.busy()
        second = await deferred_from_coro(downloads(Request(server.url, method="POST", body=b"x")))
        await deferred_from_coro(downloads.close())
    assert [first.body, second.body] == [b"first", b"other"]
