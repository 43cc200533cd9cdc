"""Node: its own http, https and http2 modules, in a cluster whose worker is replaced at a reload."""

from __future__ import annotations

import json
from pathlib import Path

from tests.servers.real import RealServer

SITE = Path(__file__).with_name("node_site.js")


class Node(RealServer):
    """Over h2 the session is closed, as `session.close()` does it, after so many requests."""

    program = "node"
    package = "nodejs"

    def command(self) -> list[str]:
        options = {
            "host": self.host,
            "port": self.port,
            "door": self.door.value,
            "pem": str(self.pem),
            "pages": str(self.pages.folder),
            "requestsEach": self.limits.requests_each or 0,
            "idle": None if self.limits.idle is None else round(self.limits.idle * 1000),
            "log": str(self.log_path),
        }
        return [str(SITE), json.dumps(options)]
