"""The bodies that the server has: the same bytes for every handler, made anew in each process.

Up to TEXT bytes they are pages of HTML, beyond that bytes of no kind, so that Scrapy's middlewares do not parse them.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

TEXT = 1024 * 1024


@cache
def body(size: int) -> bytes:
    """`size` bytes that do not repeat."""
    numbers = random.Random(size)
    if size > TEXT:
        return numbers.randbytes(size)
    page = b"<!DOCTYPE html><html><head><title>A page</title></head><body><p>"
    return (page + numbers.randbytes(size // 2).hex(" ", 4).encode())[:size]


def body_of(path: str) -> bytes:
    """What is behind a path: its last part is the size."""
    return body(int(path.rpartition("/")[2]))


@cache
def digest_of(path: str) -> bytes:
    """Its hash."""
    return digest(body_of(path))


def digest(content: bytes) -> bytes:
    """BLAKE2, which costs a third of SHA-256 where the processor has no instructions for that."""
    return hashlib.blake2b(content).digest()
