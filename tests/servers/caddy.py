"""Caddy: Go's net/http and its HTTP/2 server."""

from __future__ import annotations

import json
import subprocess

from tests.servers.nginx import Door
from tests.servers.real import PATIENCE, Answered, RealServer, own_address


class Caddy(RealServer):
    """Reloads through its admin interface: the new configuration listens before the old one is shut down."""

    program = "caddy"
    package = "caddy"

    def command(self) -> list[str]:
        self._generation = 0
        self._reloads: list[subprocess.Popen[bytes]] = []
        self._admin = "{}:{}".format(*own_address())
        self._write()
        return ["run", "--config", "caddy.json"]

    def environment(self) -> dict[str, str]:
        return {"XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder), "HOME": str(self.folder)}

    def reload(self) -> None:
        path = self.path()
        assert path is not None
        # A configuration that has not changed would not be loaded.
        self._generation += 1
        self._write()
        self._reloads.append(
            subprocess.Popen(
                [path, "reload", "--config", "caddy.json", "--address", self._admin],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.environment(),
            )
        )

    def stop(self) -> None:
        # One that is under way ends with the server it talks to.
        super().stop()
        for reload in self._reloads:
            reload.wait(PATIENCE)

    def _write(self) -> None:
        server = {
            "listen": [f"{self.host}:{self.port}"],
            "automatic_https": {"disable": True},
            "protocols": ["h1", "h2"] if self.door is Door.H2 else ["h1"],
            "logs": {},
            "routes": [
                {
                    "handle": [
                        {"handler": "headers", "response": {"set": {"X-Generation": [str(self._generation)]}}},
                        {"handler": "file_server", "root": str(self.pages.folder)},
                    ]
                }
            ],
        }
        if self.limits.idle is not None:
            server["idle_timeout"] = round(self.limits.idle * 1e9)
        if self.door is not Door.CLEARTEXT:
            server["tls_connection_policies"] = [{}]
        writer = {"output": "file", "filename": str(self.log_path), "roll": False}
        configuration = {
            "admin": {"listen": self._admin},
            "logging": {"logs": {"default": {"level": "INFO", "writer": writer, "encoder": {"format": "json"}}}},
            "apps": {
                "http": {"servers": {"pages": server}},
                "tls": {"certificates": {"load_files": [{"certificate": str(self.pem), "key": str(self.pem)}]}},
            },
        }
        (self.folder / "caddy.json").write_text(json.dumps(configuration))

    def read_log(self, text: str) -> list[Answered]:
        entries = [json.loads(line) for line in text.splitlines()]
        return [
            Answered(entry["status"], entry["request"]["proto"], entry["request"]["uri"])
            for entry in entries
            if entry["msg"] == "handled request"
        ]
