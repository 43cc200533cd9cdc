"""H2O."""

from __future__ import annotations

import os

from tests.servers.nginx import Door
from tests.servers.real import RealServer

CONFIGURATION = """\
{user}
num-threads: 1
listen:
  host: {host}
  port: {port}
{ssl}
pid-file: h2o.pid
error-log: error.log
access-log:
  path: {log}
  format: "%s %H %U%q"
http1-request-timeout: {idle}
http2-idle-timeout: {idle}
hosts:
  default:
    paths:
      /:
        file.dir: {pages}
"""


class H2O(RealServer):
    """In master mode, where a new worker is started before the old one is told to finish, a second later."""

    shortest_idle = 1.0
    program = "h2o"
    package = "h2o"

    def command(self) -> list[str]:
        ssl = ""
        if self.door is not Door.CLEARTEXT:
            ssl = f"  ssl:\n    certificate-file: {self.pem}\n    key-file: {self.pem}"
        idle = 10.0 if self.limits.idle is None else self.limits.idle
        text = CONFIGURATION.format(
            user="user: root" if os.geteuid() == 0 else "",
            host=self.host,
            port=self.port,
            ssl=ssl,
            log=self.log_path,
            idle=round(idle),
            pages=self.pages.folder,
        )
        (self.folder / "h2o.conf").write_text(text)
        return ["-m", "master", "-c", "h2o.conf"]
