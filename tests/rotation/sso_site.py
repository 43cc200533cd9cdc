"""A shop at localhost whose login is at 127.0.0.1: each of the two knows its visitors by its own cookie alone."""

from __future__ import annotations

import json
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from urllib.parse import parse_qs, urlsplit

numbers = count(1)
at_login: dict[str, str] = {}
"""Where a visitor of the login came from: his number at the shop."""
known: set[str] = set()


class Site(BaseHTTPRequestHandler):
    """Keeps connections alive."""

    protocol_version = "HTTP/1.1"
    server: ThreadingHTTPServer

    def log_message(self, *args: object) -> None:
        """Be silent."""

    def visitor(self) -> str:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("id")
        return "" if cookie is None else cookie.value

    def answer(self, status: int, body: str = "", **headers: str) -> None:
        self.send_response(status)
        content = body.encode()
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        parts, port = urlsplit(self.path), self.server.server_port
        visitor, query = self.visitor(), parse_qs(parts.query)
        match parts.path:
            case "/login":
                self.answer(200, '<form action="/start"></form>', Set_Cookie=f"id=shop{next(numbers)}")
            case "/ask":
                number = f"login{next(numbers)}"
                at_login[number] = query["from"][0]
                self.answer(200, '<form action="/password"></form>', Set_Cookie=f"id={number}")
            case "/back" if query["ticket"] == [visitor]:
                known.add(visitor)
                self.answer(303, Location=f"http://localhost:{port}/account/0")
            case "/page":
                fresh = {} if visitor else {"Set_Cookie": f"id=shop{next(numbers)}"}
                self.answer(200, "page", **fresh)
            case path if path.startswith("/account/") and visitor in known:
                self.answer(200, "account")
            case _:
                self.answer(403)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        visitor, port = self.visitor(), self.server.server_port
        if self.path == "/start" and visitor:
            self.answer(303, Location=f"http://127.0.0.1:{port}/ask?from={visitor}")
        elif self.path == "/password" and visitor in at_login:
            self.answer(303, Location=f"http://localhost:{port}/back?ticket={at_login[visitor]}")
        else:
            self.answer(403)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    sys.stdin.read()
