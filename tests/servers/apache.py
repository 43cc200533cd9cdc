"""Apache httpd with mod_http2 and the event MPM."""

from __future__ import annotations

import os

from tests.servers.nginx import Door
from tests.servers.real import RealServer

MODULES = "/usr/lib/apache2/modules"
CONFIGURATION = """\
ServerRoot {folder}
ServerName localhost
PidFile httpd.pid
DefaultRuntimeDir {folder}
ErrorLog error.log
LogLevel warn
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
{tls_modules}
Listen {host}:{port}
{user}
StartServers 2
MinSpareThreads 16
MaxSpareThreads 64
ThreadsPerChild 16
MaxRequestWorkers 64
GracefulShutdownTimeout 5
KeepAlive On
MaxKeepAliveRequests {requests_each}
KeepAliveTimeout {idle}
DocumentRoot {pages}
<Directory {pages}>
    Require all granted
</Directory>
LogFormat "%>s %H %U%q" oracle
CustomLog access.log oracle
{tls}
"""
TLS_MODULES = """\
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
LoadModule http2_module {modules}/mod_http2.so
"""


class Apache(RealServer):
    """Reloads by ``graceful``: the children finish what they have and are replaced."""

    program = "apache2"
    package = "apache2"
    reloading = "SIGUSR1"

    def command(self) -> list[str]:
        tls = self.door is not Door.CLEARTEXT
        protocols = "h2 http/1.1" if self.door is Door.H2 else "http/1.1"
        idle = 5.0 if self.limits.idle is None else self.limits.idle
        text = CONFIGURATION.format(
            folder=self.folder,
            modules=MODULES,
            tls_modules=TLS_MODULES.format(modules=MODULES) if tls else "",
            host=self.host,
            port=self.port,
            user="User nobody\nGroup nogroup" if os.geteuid() == 0 else "",
            requests_each=self.limits.requests_each or 0,
            idle=f"{round(idle * 1000)}ms",
            pages=self.pages.folder,
            tls=f"SSLEngine on\nSSLCertificateFile server.pem\nProtocols {protocols}" if tls else "",
        )
        (self.folder / "httpd.conf").write_text(text)
        return ["-d", str(self.folder), "-f", "httpd.conf", "-DFOREGROUND"]
