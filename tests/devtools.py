"""Chromium's own developer tools, without a window: code that runs in their page, with their modules."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NO_CHROMIUM = "chromium is not installed (Debian: apt-get install chromium)"
FRONT_END = "devtools://devtools/bundled/devtools_app.html"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
PATIENCE = 60.0
"""Seconds without a word from the browser, after which it hangs."""


class DevTools:
    """The page of the developer tools. What is written and read are the two ends of the browser's debugging pipe."""

    def __init__(self, told: int, heard: int) -> None:
        self._told = told
        self._heard = heard
        self._buffer = b""
        self._session = ""
        self._number = 0
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")
        self._ask("Page.navigate", url=FRONT_END)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def run(self, code: str) -> Any:
        """What the last expression of `code` comes to; a promise is waited for."""
        answer = self._ask("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self._ask("Browser.close")

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._told, data) :]
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, (method, answer)
        return cast("dict[str, Any]", answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._heard], [], [], PATIENCE)[0], "the browser says nothing"
            data = os.read(self._heard, 65536)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return cast("dict[str, Any]", json.loads(message))


@contextmanager
def devtools(profile: Path) -> Iterator[DevTools]:
    """A browser that resolves no name, with its developer tools as a page. It keeps its files in `profile`."""
    assert CHROMIUM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # The browser reads from its descriptor 3 and writes to 4.
    pid = os.posix_spawn(
        CHROMIUM,
        [CHROMIUM, *OPTIONS, "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "about:blank"],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs_in, 3),
            (os.POSIX_SPAWN_DUP2, theirs_out, 4),
        ],
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        tools = DevTools(ours_out, ours_in)
        yield tools
        tools.close()
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        raise
    finally:
        os.close(ours_out)
        os.close(ours_in)
        _await_end(pid)


def _await_end(pid: int) -> None:
    """Of the browser, which was told to end; one that does not is killed."""
    watched = os.pidfd_open(pid)
    try:
        ended = select.select([watched], [], [], PATIENCE)[0]
        if not ended:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(watched)
    assert ended, "the browser did not end"
