"""An ASGI application that asks to be left alone, and writes what came when into the file in the environment's LOG.

``/any/path?status=429&after=2&times=1``: that path is answered so for the first `times` times, with Retry-After of
`after`, or with the date in so many seconds where it is ``date:2``; then, and without a query, with 200.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from math import ceil
from typing import Any
from urllib.parse import parse_qs

log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
asked: Counter[str] = Counter()


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    came = time.monotonic()
    while (await receive()).get("more_body"):
        pass
    path = scope["path"]
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
    asked[path] += 1
    headers = [(b"content-length", b"2"), (b"content-type", b"text/plain")]
    status = 200
    if "after" in query and asked[path] <= int(query.get("times", "1")):
        status = int(query.get("status", "429"))
        after = query["after"]
        if after.startswith("date:"):
            after = formatdate(ceil(time.time()) + int(after.removeprefix("date:")), usegmt=True)
        headers.append((b"retry-after", after.encode()))
    entry = {"path": path, "method": scope["method"], "status": status, "came": came, "answered": time.monotonic()}
    os.write(log, json.dumps(entry).encode() + b"\n")
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"ok"})
