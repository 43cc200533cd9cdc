"""Hypercorn, whose HTTP/2 is h2's server side."""

from __future__ import annotations

from pathlib import Path

from tests.servers.nginx import Door
from tests.servers.real import Answered, RealServer

REPOSITORY = Path(__file__).parents[2]
CONFIGURATION = """\
bind = ["{host}:{port}"]
alpn_protocols = {alpn}
accesslog = "{log}"
access_log_format = "%(s)s HTTP/%(H)s %(U)s%(q)s"
keep_alive_timeout = {idle}
keep_alive_max_requests = {requests_each}
{tls}
"""


class Hypercorn(RealServer):
    """It knows no reload."""

    # It counts from the connection's beginning, and a client that is busy may not have said a thing yet.
    shortest_idle = 1.0

    def command(self) -> list[str]:
        tls = self.door is not Door.CLEARTEXT
        idle = 5.0 if self.limits.idle is None else self.limits.idle
        text = CONFIGURATION.format(
            host=self.host,
            port=self.port,
            alpn='["h2", "http/1.1"]' if self.door is Door.H2 else '["http/1.1"]',
            log=self.log_path,
            idle=idle,
            requests_each=self.limits.requests_each or 1000,
            tls=f'certfile = "{self.pem}"\nkeyfile = "{self.pem}"' if tls else "",
        )
        (self.folder / "hypercorn.toml").write_text(text)
        return ["-m", "hypercorn", "--config", "hypercorn.toml", "tests.servers.hypercorn_site:app"]

    def environment(self) -> dict[str, str]:
        return {"PAGES": str(self.pages.folder), "PYTHONPATH": str(REPOSITORY)}

    def reload(self) -> None:
        pass

    def read_log(self, text: str) -> list[Answered]:
        # Time, zone, process and level come first.
        return super().read_log("\n".join(line.split("] ", 3)[3] for line in text.splitlines()))
