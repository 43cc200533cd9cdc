"""How long a round trip through the relay takes in truth, and what a crawl over it must therefore take.

The relay's timers are late by up to a millisecond each way, so a round trip of 50 ms takes 51 to 52. Measured is a small page
over one TLS connection by a blocking socket: no client is faster.
"""

from __future__ import annotations

import socket
import ssl
from statistics import median
from time import perf_counter
from typing import BinaryIO

from bench.cases import Case

TIMES = 40
PAGE = 1024
LIMIT = 10.0
"""Seconds for one answer."""


def trusting() -> ssl.SSLContext:
    """The standard library's, which trusts anybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def measured(port: int) -> float:
    """Seconds, the median of TIMES requests."""
    request = b"GET /%d HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % PAGE
    with (
        socket.create_connection(("127.0.0.1", port), LIMIT) as plain,
        trusting().wrap_socket(plain) as connection,
        connection.makefile("rb") as answers,
    ):
        return median(_once(connection, answers, request) for _ in range(TIMES))


def _once(connection: ssl.SSLSocket, answers: BinaryIO, request: bytes) -> float:
    start = perf_counter()
    connection.sendall(request)
    while answers.readline().strip():
        """The head."""
    answers.read(PAGE)
    return perf_counter() - start


def count(case: Case) -> int:
    """Round trips that a crawl of the case cannot do without: TCP, TLS 1.3, and the requests, so many at once."""
    return 2 + -(-case.pages // case.concurrency)
