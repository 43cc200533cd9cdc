"""A real nginx with three doors: cleartext, TLS with HTTP/1.1 only, TLS with HTTP/2 and HTTP/1.1.

Its sockets are bound here, to port 0, and handed down (as nginx itself does when its binary is replaced), so no port is
ever guessed, and a server that is not started yet refuses connections.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import trustme

from bench import nginx_log

PROGRAM = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
KEEPER = Path(__file__).with_name("keeper.py")


class Door(Enum):
    """A port of the server."""

    CLEARTEXT = "cleartext"
    TLS = "tls"
    H2 = "h2"

    @property
    def scheme(self) -> str:
        return "http" if self is Door.CLEARTEXT else "https"

    @property
    def protocol(self) -> str:
        """What is spoken there by a client that can do all, as nginx names it."""
        return "HTTP/2.0" if self is Door.H2 else "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class Logged:
    """A request as the server saw it. `connection`: nginx's own number; `nth`: this request's place on it, from 1;
    `sent` and `received`: bytes of the response and of the request, heads included."""

    connection: int
    nth: int
    method: str
    target: str
    protocol: str
    status: int
    length: int
    request_id: str
    tls_session: str
    sni: str
    cookies: str
    host: str
    sent: int
    received: int


LOG_FORMAT = """\
{"connection": $connection, "nth": $connection_requests, "method": "$request_method", "target": "$request_uri", \
"protocol": "$server_protocol", "status": $status, "length": $body_bytes_sent, "request_id": "$request_id", \
"sent": $bytes_sent, "received": $request_length, "tls_session": "$ssl_session_reused", "sni": "$ssl_server_name", "cookies": "$http_cookie", "host": "$http_host"}"""

CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
# At level info nginx also tells what clients do wrong: streams over the limit, bad frames.
error_log error.log info;
events {{ worker_connections 1024; }}
http {{
    types {{ text/html html; text/plain txt; }}
    default_type application/octet-stream;
    log_format oracle escape=json '{log_format}';
    access_log access.log oracle;
    {linkability}
    access_log linkability.log linkability;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    ssl_session_cache shared:tests:1m;
    client_max_body_size 64m;
    keepalive_requests {keepalive_requests};
    http2_max_concurrent_streams {max_streams};
    {servers}
}}
"""

SERVER = """\
    server {{
        listen 127.0.0.1:{port} {options};
        root {root};
        location = /ready {{ access_log off; return 204; }}
        location = /moved {{ return 302 /100; }}
        location = /visit {{ add_header Set-Cookie "visit=$request_id"; default_type text/html; return 200 "<p>"; }}
        location /slow/ {{ alias {root}/; limit_rate 8k; }}
        location /gzip/ {{ alias {root}/; gzip on; gzip_types *; }}
        location /uploads/ {{ root {folder}; dav_methods PUT; create_full_put_path on; }}
        {lines}
    }}
"""

OPTIONS = {Door.CLEARTEXT: "", Door.TLS: "ssl", Door.H2: "ssl http2"}


class Nginx:
    """`start` it, crawl it, `stop` it, then read what it saw.

    `root` holds the files that are served, beside ``/slow/`` (8 KiB/s), ``/gzip/``, ``/moved`` (to ``/100``) and
    ``PUT /uploads/...``. `lines` are added to each server block of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        certificate: trustme.LeafCert,
        *,
        keepalive_requests: int = 100_000,
        max_streams: int = 128,
        lines: str = "",
    ) -> None:
        self.folder = folder
        self._keeper: subprocess.Popen[bytes] | None = None
        # Bound, not listening: the system refuses connections until `start`.
        self._sockets = {door: socket.socket() for door in Door}
        for bound in self._sockets.values():
            bound.bind(("127.0.0.1", 0))
        folder.mkdir()
        pem = certificate.private_key_pem.bytes() + b"".join(part.bytes() for part in certificate.cert_chain_pems)
        (folder / "server.pem").write_bytes(pem)
        servers = (
            SERVER.format(port=self.port(door), options=OPTIONS[door], root=root, folder=folder, lines=lines)
            for door in Door
        )
        (folder / "nginx.conf").write_text(
            CONFIGURATION.format(
                # A worker without root's rights could not read the folder of the tests.
                user="user root;" if os.geteuid() == 0 else "",
                log_format=LOG_FORMAT,
                linkability=nginx_log.log_format(),
                keepalive_requests=keepalive_requests,
                max_streams=max_streams,
                servers="".join(servers),
            )
        )

    def port(self, door: Door) -> int:
        port: int = self._sockets[door].getsockname()[1]
        return port

    def url(self, door: Door, path: str, *, host: str = "127.0.0.1") -> str:
        return f"{door.scheme}://{host}:{self.port(door)}{path}"

    def start(self) -> None:
        """Let it listen, and see that it answers."""
        assert PROGRAM is not None
        descriptors = [bound.fileno() for bound in self._sockets.values()]
        for bound in self._sockets.values():
            bound.listen(511)
            bound.setblocking(False)
        # -e: before it has read its configuration, it would complain to a log of the system's.
        command = [PROGRAM, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), "SIGQUIT", *command],
            stdin=subprocess.PIPE,
            env={**os.environ, "NGINX": "".join(f"{descriptor};" for descriptor in descriptors)},
            pass_fds=descriptors,
        )
        ready = http.client.HTTPConnection("127.0.0.1", self.port(Door.CLEARTEXT), timeout=10)
        try:
            ready.request("GET", "/ready")
            assert ready.getresponse().status == 204
        except (OSError, http.client.HTTPException) as error:
            self.stop()
            raise AssertionError(f"nginx does not answer: {self.complaints()}") from error
        finally:
            ready.close()

    def reload(self) -> None:
        """As `nginx -s reload` does it: new workers; the old ones finish what they have. Returns at once."""
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(b"SIGHUP\n")
        self._keeper.stdin.flush()

    def stop(self) -> None:
        """End it as `nginx -s quit` does: requests finish and are logged. Returns when it is gone."""
        if self._keeper is not None:
            self._keeper.communicate(timeout=20)
            self._keeper = None
        for bound in self._sockets.values():
            bound.close()

    def log(self) -> list[Logged]:
        """What it saw, in the order of its answers. Complete only once it is stopped: it logs after it has answered."""
        assert self._keeper is None, "stop it first"
        path = self.folder / "access.log"
        return [Logged(**json.loads(line)) for line in path.read_text().splitlines()]

    def lines(self) -> list[nginx_log.Line]:
        """The same as `bench.nginx_log` reads it."""
        assert self._keeper is None, "stop it first"
        return nginx_log.read(self.folder / "linkability.log")

    def complaints(self) -> str:
        """Its error log."""
        return (self.folder / "error.log").read_text()


def requests_by_connection(log: list[Logged]) -> Counter[int]:
    """How many requests came over each connection."""
    return Counter(entry.connection for entry in log)
