"""One door of a real nginx, as the other servers have one."""

from __future__ import annotations

from pathlib import Path

import trustme

from tests.servers import nginx
from tests.servers.nginx import Door, Nginx
from tests.servers.real import Answered, Limits, Pages, RealServer


class NginxDoor(RealServer):
    """Reloads as ``nginx -s reload`` does."""

    program = "nginx"
    package = "nginx-light"

    def __init__(
        self, folder: Path, pages: Pages, authority: trustme.CA, door: Door, limits: Limits | None = None
    ) -> None:
        super().__init__(folder, pages, authority, door, limits)
        idle = self.limits.idle
        self._nginx = Nginx(
            folder / "nginx",
            pages.folder,
            authority.issue_cert("127.0.0.1"),
            keepalive_requests=self.limits.requests_each or 100_000,
            lines="" if idle is None else f"keepalive_timeout {round(idle * 1000)}ms;",
        )
        self.host, self.port = "127.0.0.1", self._nginx.port(door)

    @classmethod
    def path(cls) -> str | None:
        return nginx.PROGRAM

    def start(self) -> None:
        self._nginx.start()

    def reload(self) -> None:
        self._nginx.reload()

    def stop(self) -> None:
        self._nginx.stop()

    def answers(self) -> list[Answered]:
        return [Answered(entry.status, entry.protocol, entry.target) for entry in self._nginx.log()]
