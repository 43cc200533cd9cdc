"""How a child process of the example starts and ends: it prints its port, and goes when its parent goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading


def announce(port: int) -> None:
    """Tell the parent on standard output, as one line of JSON, that the port takes connections."""
    print(json.dumps({"port": port}), flush=True)


async def told_to_end() -> None:
    """Return at SIGTERM, at SIGINT, or when standard input ends: a parent that was killed closes it too."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    def watch() -> None:
        # By the descriptor: a buffered reader cannot be left in a read while the interpreter shuts down.
        while os.read(0, 4096):
            pass
        # A loop that is closed already has ended for another reason.
        if not loop.is_closed():
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
    await ended.wait()
