"""lighttpd."""

from __future__ import annotations

from tests.servers.nginx import Door
from tests.servers.real import Answered, RealServer

CONFIGURATION = """\
server.document-root = "{pages}"
server.bind = "{host}"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.pid-file = "{folder}/lighttpd.pid"
server.modules = ({modules} "mod_accesslog")
accesslog.filename = "{log}"
accesslog.format = "%s %H %U%q"
server.max-keep-alive-requests = {requests_each}
server.max-keep-alive-idle = {idle}
server.feature-flags += ("server.h2proto" => "{h2}", "server.graceful-shutdown-timeout" => 5)
{ssl}
"""


class Lighttpd(RealServer):
    """Reloads by a graceful restart of itself."""

    shortest_idle = 1.0
    program = "lighttpd"
    package = "lighttpd lighttpd-mod-openssl"
    reloading = "SIGUSR1"

    def command(self) -> list[str]:
        tls = self.door is not Door.CLEARTEXT
        idle = 5.0 if self.limits.idle is None else self.limits.idle
        text = CONFIGURATION.format(
            pages=self.pages.folder,
            host=self.host,
            port=self.port,
            folder=self.folder,
            modules='"mod_openssl",' if tls else "",
            log=self.log_path,
            requests_each=self.limits.requests_each or 1000,
            idle=round(idle),
            h2="enable" if self.door is Door.H2 else "disable",
            ssl=f'ssl.engine = "enable"\nssl.pemfile = "{self.pem}"' if tls else "",
        )
        (self.folder / "lighttpd.conf").write_text(text)
        return ["-D", "-f", "lighttpd.conf"]

    def read_log(self, text: str) -> list[Answered]:
        # A connection's end is an entry of its own, for "*".
        return [entry for entry in super().read_log(text) if entry.target != "*"]
