"""The other side: one nginx with a door for each protocol, and a relay before it for slow networks.

Each of the 127.0.0.0/8 addresses is a host of its own to a client, so "200 hosts" need no resolver.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import nginx_log
from bench.cases import CASES, LARGE, Door
from bench.pages import body

PROGRAM = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))

CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    default_type text/html;
    log_format oracle "$connection $request_length $ssl_protocol$ssl_session_reused $status";
    {linkability}
    access_log access.log oracle;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:bench:1m;
    client_max_body_size 8m;
    client_body_buffer_size 128k;
    http2_max_concurrent_streams 128;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 120;
    {later}
    {servers}
}}
"""
SERVER = """\
    server {{
        listen 0.0.0.0:{port} {options} backlog=2048;
        root pages;
        location = /{large} {{ default_type application/octet-stream; }}
        keepalive_requests {requests};
        location = /ready {{ access_log off; return 204; }}
        # The upload is read to its end, then the answer is fetched from here.
        location /post/ {{
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_pass http://127.0.0.1:{plain}/fetched/;
        }}
        location /fetched/ {{ access_log off; alias pages/; }}
        {later}
    }}
"""
# Each new visitor gets a cookie, which ties all together that bring it.
UPSTREAM = """\
    upstream later {{ server 127.0.0.1:{port}; keepalive 128; }}
    map $cookie_visitor $new_visitor {{ "" "visitor=$request_id"; default ""; }}
"""
LATER = """\
location /later/ {
            access_log access.log oracle;
            access_log linkability.log linkability;
            add_header Set-Cookie $new_visitor;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://later;
        }
"""
OPTIONS = {Door.CLEARTEXT: "", Door.TLS: "ssl", Door.H2: "ssl http2", Door.TLS_ONCE: "ssl"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server saw of a crawl. `handshakes`: full TLS handshakes; `resumed`: those that took up a TLS session."""

    requests: int
    connections: int
    handshakes: int
    resumed: int
    uploaded: int


class Servers:
    """Running; `port` of a door, straight or through the relay. `trust`: a file for SSL_CERT_FILE, with what the system
    trusts beside our own authority."""

    def __init__(self, folder: Path, ports: dict[Door, int], relayed: dict[Door, int], trust: Path) -> None:
        self._log = folder / "access.log"
        self._linkability = folder / "linkability.log"
        self._ports = ports
        self._relayed = relayed
        self.trust = trust
        self._read = 0
        self._linked = 0

    def port(self, door: Door, *, slow: bool) -> int:
        return (self._relayed if slow else self._ports)[door]

    def seen(self, requests: int) -> Seen:
        """Since the last call; waits a little until so many `requests` are in the log."""
        until = time.monotonic() + 3
        while True:
            with self._log.open("rb") as file:
                file.seek(self._read)
                text = file.read()
            lines = text.splitlines()
            if len(lines) >= requests or time.monotonic() > until:
                break
            time.sleep(0.05)
        self._read += len(text)
        entries = [line.decode().split(" ") for line in lines]
        secure = {entry[0]: entry[2] for entry in entries if entry[2].startswith("TLS")}
        return Seen(
            len(entries),
            len({entry[0] for entry in entries}),
            sum(not how.endswith("r") for how in secure.values()),
            sum(how.endswith("r") for how in secure.values()),
            sum(int(entry[1]) for entry in entries),
        )

    def profiles(self) -> list[int]:
        """Since the last call: how many requests each profile has that can be put together from the server's log, the
        longest first. Pages that come later alone are in there."""
        entries = nginx_log.read(self._linkability)
        new, self._linked = entries[self._linked :], len(entries)
        return sorted(map(len, nginx_log.units(new, "session")), reverse=True)


@contextmanager
def servers(folder: Path, *, round_trip: float, service: float = 0.0) -> Iterator[Servers]:
    """Start them, end them. `service`: seconds after which the pages below /later/ come; 0 for none there."""
    if PROGRAM is None:
        raise SystemExit("The benchmark needs nginx (Debian: apt-get install nginx-light)")
    (folder / "pages").mkdir()
    for size in {case.size for case in CASES}:
        (folder / "pages" / str(size)).write_bytes(body(size))
    trust = _certificates(folder)
    with ExitStack() as stack:
        later = _ports_of(_start(stack, [sys.executable, "-m", "bench.later", str(service)]))[0] if service else 0
        ports = _free_ports()
        _configure(folder, ports, later)
        nginx = _start(stack, [PROGRAM, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"])
        _wait_for(nginx, ports[Door.CLEARTEXT], folder / "error.log")
        doors = (Door.TLS, Door.H2)
        relay = _start(
            stack, [sys.executable, "-m", "bench.relay", str(round_trip), *(str(ports[door]) for door in doors)]
        )
        yield Servers(folder, ports, dict(zip(doors, _ports_of(relay), strict=True)), trust)


def _configure(folder: Path, ports: dict[Door, int], later: int) -> None:
    """Write nginx's file. `later`: the port of what answers later, 0 for none."""
    described = (
        SERVER.format(
            port=port,
            options=OPTIONS[door],
            requests=1 if door is Door.TLS_ONCE else 10_000_000,
            plain=ports[Door.CLEARTEXT],
            large=LARGE,
            later=LATER if later else "",
        )
        for door, port in ports.items()
    )
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            linkability=nginx_log.log_format(),
            later=UPSTREAM.format(port=later) if later else "",
            servers="".join(described),
        )
    )


def _start(stack: ExitStack, command: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(_end, process)
    return process


def _ports_of(process: subprocess.Popen[bytes]) -> list[int]:
    """What it prints as its first line."""
    assert process.stdout is not None
    return [int(port) for port in process.stdout.readline().split()]


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _free_ports() -> dict[Door, int]:
    """One for each door, below those that systems give to clients: one of theirs might take it before nginx does."""
    with ExitStack() as bound:
        return {door: _bound(bound) for door in Door}


def _bound(stack: ExitStack) -> int:
    for port in random.sample(range(15_000, 32_000), 100):
        free = stack.enter_context(socket.socket())
        try:
            free.bind(("0.0.0.0", port))
        except OSError:
            continue
        return port
    raise SystemExit("no port is free")


def _wait_for(nginx: subprocess.Popen[bytes], port: int, errors: Path) -> None:
    for _ in range(100):
        if nginx.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nginx does not start: {errors.read_text() if errors.exists() else 'no log'}")


def _certificates(folder: Path) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "127.0.0.9", "localhost")
    pem = certificate.private_key_pem.bytes() + b"".join(part.bytes() for part in certificate.cert_chain_pems)
    (folder / "server.pem").write_bytes(pem)
    trust = folder / "trust.pem"
    system = ssl.get_default_verify_paths().cafile
    known = Path(system).read_bytes() if system and Path(system).exists() else b""
    trust.write_bytes(known + authority.cert_pem.bytes())
    return trust
