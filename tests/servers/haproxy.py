"""HAProxy, which answers by itself: no server stands behind it."""

from __future__ import annotations

from tests.servers.nginx import Door
from tests.servers.real import Answered, RealServer

CONFIGURATION = """\
global
    log stdout format raw local0
    nbthread 1
    # The sockets are handed from the old process to the new one, so nobody is refused in between.
    stats socket {folder}/admin.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    log global
    log-format "answered %ST %HV %HPO"
    timeout connect 5s
    timeout client 30s
    timeout http-request 10s
    timeout server 30s
    timeout http-keep-alive {idle}
frontend pages
    bind {host}:{port} {options}
    {rules}
    http-request return status 200 content-type text/plain lf-string "page %[path] {padding}"
"""

OPTIONS = {
    Door.CLEARTEXT: "",
    Door.TLS: "ssl crt server.pem alpn http/1.1",
    Door.H2: "ssl crt server.pem alpn h2,http/1.1",
}
PADDING = "-" * 1000


class HAProxy(RealServer):
    """Reloads as its service does: a new process, which tells the old one to finish (``-sf``).

    It knows no limit of requests for a connection: with one, every so manieth answer carries ``Connection: close``,
    which is GOAWAY over h2.
    """

    program = "haproxy"
    package = "haproxy"
    reloading = "SIGUSR2"
    # SIGUSR1 waits for connections that are idle; its log is written at once, so nothing is lost by TERM.
    ending = "SIGTERM"

    def command(self) -> list[str]:
        idle = 30.0 if self.limits.idle is None else self.limits.idle
        each = self.limits.requests_each
        rules = ""
        if each is not None:
            rules = f"http-after-response set-header Connection close if {{ rand({each}) eq 0 }}"
        text = CONFIGURATION.format(
            folder=self.folder,
            host=self.host,
            port=self.port,
            options=OPTIONS[self.door],
            idle=f"{round(idle * 1000)}ms",
            rules=rules,
            padding=PADDING,
        )
        (self.folder / "haproxy.cfg").write_text(text)
        return ["-W", "-f", "haproxy.cfg"]

    def body(self, number: int) -> bytes:
        return f"page /{number} {PADDING}".encode()

    def answers(self) -> list[Answered]:
        lines = [line for line in self.output().splitlines() if line.startswith("answered ")]
        entries = self.read_log("\n".join(line.removeprefix("answered ") for line in lines))
        return [entry for entry in entries if entry.target != "/ready"]
