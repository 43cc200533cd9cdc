"""Real proxies, each in a process of its own on a loopback address of its own: squid, tinyproxy, microsocks, dante.

None of them resolves or reaches anything beyond this machine here. What they log is in ``output`` or ``access.log``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from typing import ClassVar

import trustme

from tests.servers.nginx import KEEPER
from tests.servers.real import PATH, PATIENCE, own_address


class RealProxy:
    """One that runs from ``start`` to ``stop``. `login`: the user and password that it wants, None where it is open."""

    program: ClassVar[str]
    package: ClassVar[str]
    """What has the program in Debian."""
    scheme: ClassVar[str] = "http"
    takes_logins: ClassVar[bool] = True
    """False where its users are those of the system: then it can only refuse one."""
    ending: ClassVar[str] = "SIGTERM"

    def __init__(self, authority: trustme.CA, login: tuple[str, str] | None = None) -> None:
        self.login = login
        self.host, self.port = own_address()
        self._authority = authority
        self._keeper: subprocess.Popen[bytes] | None = None
        # Not in a folder of pytest's: proxies that give up root's rights must be able to read and write it.
        self.folder = Path(tempfile.mkdtemp(prefix="proxy-"))
        self.folder.chmod(0o777)

    @classmethod
    def path(cls) -> str | None:
        """Where its program is, or None."""
        return shutil.which(cls.program, path=PATH)

    @property
    def address(self) -> str:
        """Its URL without credentials."""
        return f"{self.scheme}://{self.host}:{self.port}"

    def url(self, login: tuple[str, str] | None = None) -> str:
        """Its URL with those of `login`, or its own."""
        login = login or self.login
        return self.address if login is None else self.address.replace("://", "://{}:{}@".format(*login))

    def authorization(self, login: tuple[str, str] | None = None) -> bytes | None:
        """Proxy-Authorization as HttpProxyMiddleware makes it."""
        login = login or self.login
        return None if login is None else b"Basic " + b64encode(":".join(login).encode())

    def command(self) -> list[str]:
        """Write what configuration it needs; the program's arguments."""
        raise NotImplementedError

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """A file that it reads."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def start(self) -> None:
        """Returns when it accepts connections."""
        path = self.path()
        assert path is not None
        with (self.folder / "output").open("wb") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, str(KEEPER), self.ending, path, *self.command()],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        limit = time.monotonic() + PATIENCE
        while not self._accepts():
            if self._keeper.poll() is not None or time.monotonic() > limit:
                said = self.output()
                self.stop()
                raise AssertionError(f"{path} does not answer: {said}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Returns when it is gone, with its folder."""
        if self._keeper is not None:
            self._keeper.communicate(timeout=PATIENCE)
            self._keeper = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def output(self) -> str:
        """What it printed."""
        return (self.folder / "output").read_text(errors="replace")

    def _accepts(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=PATIENCE).close()
        except OSError:
            return False
        return True


class Squid(RealProxy):
    """Users are checked by a program of ours, as squid has it done by one in any case."""

    program = "squid"
    package = "squid-openssl"
    # By TERM it takes a second or two.
    ending = "SIGKILL"

    def command(self) -> list[str]:
        allow = "http_access allow all"
        if self.login is not None:
            user, password = self.login
            # squid escapes what is no letter, in the manner of URLs.
            checked = f'while read -r line; do [ "$line" = "{user} {password}" ] && echo OK || echo ERR; done'
            helper = self.write("check", f"#!/bin/sh\n{checked}\n", 0o755)
            allow = (
                f"auth_param basic program {helper}\nauth_param basic children 1 startup=1 idle=1\n"
                "auth_param basic realm tests\nacl users proxy_auth REQUIRED\nhttp_access allow users\nhttp_access deny all"
            )
        configuration = self.write("squid.conf", f"{self.listen()}\n{allow}\n{SQUID.format(folder=self.folder)}")
        return ["-N", "-f", str(configuration)]

    def listen(self) -> str:
        """Its port."""
        return f"http_port {self.host}:{self.port}"


SQUID = """\
visible_hostname tests.example
pid_filename {folder}/squid.pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
coredump_dir {folder}
cache deny all
cache_mem 8 MB
shutdown_lifetime 0 seconds
pinger_enable off
via on
hosts_file /etc/hosts
dns_nameservers 127.0.0.1
max_filedescriptors 1024
netdb_filename none
"""


class SquidTLS(Squid):
    """TLS is spoken to the proxy itself."""

    scheme = "https"

    def listen(self) -> str:
        certificate = self._authority.issue_cert(self.host)
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        pem = self.write("proxy.pem", (certificate.private_key_pem.bytes() + chain).decode(), 0o644)
        return f"https_port {self.host}:{self.port} tls-cert={pem}"


class Tinyproxy(RealProxy):
    """Small, and strict about what it is asked."""

    program = "tinyproxy"
    package = "tinyproxy"

    def command(self) -> list[str]:
        login = "" if self.login is None else "BasicAuth {} {}\n".format(*self.login)
        text = f"Listen {self.host}\nPort {self.port}\nTimeout 60\nMaxClients 100\nLogLevel Info\n{login}"
        return ["-d", "-c", str(self.write("tinyproxy.conf", text))]


class Microsocks(RealProxy):
    """SOCKS5 and nothing else."""

    program = "microsocks"
    package = "microsocks"
    scheme = "socks5"

    def command(self) -> list[str]:
        login = [] if self.login is None else ["-u", self.login[0], "-P", self.login[1]]
        return ["-i", self.host, "-p", str(self.port), *login]


class Dante(RealProxy):
    """Its users are those of the system, so a test can only be refused."""

    program = "danted"
    package = "dante-server"
    scheme = "socks5h"
    takes_logins = False

    def command(self) -> list[str]:
        method = "none" if self.login is None else "username"
        text = DANTE.format(
            host=self.host, port=self.port, method=method, user="root" if os.geteuid() == 0 else "nobody"
        )
        return ["-N", "1", "-f", str(self.write("danted.conf", text)), "-p", str(self.folder / "danted.pid")]


DANTE = """\
logoutput: stderr
internal: {host} port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: {method}
user.privileged: {user}
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
"""

REAL_PROXIES: tuple[type[RealProxy], ...] = (Squid, SquidTLS, Tinyproxy, Microsocks, Dante)
