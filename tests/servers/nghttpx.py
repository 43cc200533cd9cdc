"""nghttpx, the proxy of nghttp2, before nghttpd, its file server."""

from __future__ import annotations

import socket
from pathlib import Path

import trustme

from tests.servers.nginx import Door
from tests.servers.real import Limits, Pages, RealServer

CONFIGURATION = """\
frontend={host},{port}{tls}
backend={behind},{behind_port};;proto=h2
workers=1
{key}
npn-list={alpn}
accesslog-file={log}
accesslog-format=$status $alpn $path
errorlog-file={folder}/error.log
frontend-max-requests={requests_each}
frontend-keep-alive-timeout={idle}
"""


class Nghttpd(RealServer):
    """HTTP/2 in cleartext, for those who know that it speaks that."""

    program = "nghttpd"
    package = "nghttp2-server"
    doors = ()

    def command(self) -> list[str]:
        return ["--no-tls", f"--address={self.host}", f"--htdocs={self.pages.folder}", str(self.port)]

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port)).close()
        except OSError:
            return False
        return True


class Nghttpx(RealServer):
    """Reloads its configuration: a new worker process listens, the old one finishes."""

    program = "nghttpx"
    package = "nghttp2-proxy nghttp2-server"

    @classmethod
    def path(cls) -> str | None:
        """None too where the server is not there that it stands before."""
        return None if Nghttpd.path() is None else super().path()

    def __init__(
        self, folder: Path, pages: Pages, authority: trustme.CA, door: Door, limits: Limits | None = None
    ) -> None:
        super().__init__(folder, pages, authority, door, limits)
        self._behind = Nghttpd(folder / "behind", pages, authority, Door.CLEARTEXT)

    def command(self) -> list[str]:
        tls = self.door is not Door.CLEARTEXT
        idle = 60.0 if self.limits.idle is None else self.limits.idle
        text = CONFIGURATION.format(
            folder=self.folder,
            log=self.log_path,
            host=self.host,
            port=self.port,
            tls="" if tls else ";no-tls",
            behind=self._behind.host,
            behind_port=self._behind.port,
            key=f"private-key-file={self.pem}\ncertificate-file={self.pem}" if tls else "",
            alpn="h2,http/1.1" if self.door is Door.H2 else "http/1.1",
            requests_each=self.limits.requests_each or 1_000_000,
            # For HTTP/1.1; over h2 it knows only one for all reading, streams or none.
            idle=f"{round(idle * 1000)}ms",
        )
        (self.folder / "nghttpx.conf").write_text(text)
        return [f"--conf={self.folder / 'nghttpx.conf'}"]

    def start(self) -> None:
        self._behind.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self._behind.stop()
