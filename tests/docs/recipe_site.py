"""The shop of docs/recipes.rst. ``GET /seen`` is what it saw: connection, method, path, cookies, Authorization and
Proxy-Authorization of each request, in order."""

from __future__ import annotations

import base64
import json
import sys
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Thread
from urllib.parse import urlsplit

FORM = '<form method="post" action="/login"><input name="user"><input name="password" type="password"></form>'
LINKS = "".join(f'<a href="/item/{number}">{number}</a>' for number in range(1, 4))
PAGES = 3
cards = count(1)
seen: list[list[str | int]] = []
never = Event()


class Shop(BaseHTTPRequestHandler):
    """Keeps connections alive; one object per connection."""

    protocol_version = "HTTP/1.1"
    challenged = False
    authenticated = False

    def log_message(self, *args: object) -> None:
        """Be silent."""

    def cookie(self, name: str) -> str:
        found = SimpleCookie(self.headers.get("Cookie", "")).get(name)
        return "" if found is None else found.value

    def answer(self, status: int, body: str = "", **headers: str) -> None:
        self.send_response(status)
        content = body.encode()
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def fresh(self) -> dict[str, str]:
        """A visitor's card, if there is none yet."""
        return {} if self.cookie("card") else {"Set_Cookie": f"card={next(cards)}; Path=/"}

    def note(self) -> None:
        cookie, authorization = self.headers.get("Cookie", ""), self.headers.get("Authorization", "")
        proxy = self.headers.get("Proxy-Authorization", "")
        seen.append([self.client_address[1], self.command, self.path, cookie, authorization, proxy])

    def do_GET(self) -> None:
        if self.path == "/seen":
            self.answer(200, json.dumps(seen), Content_Type="application/json")
            return
        self.note()
        inside = bool(self.cookie("user"))
        match urlsplit(self.path).path.split("/")[1:]:
            case ["login"]:
                self.answer(200, FORM, **self.fresh())
            case ["item", number]:
                self.answer(200 if inside else 403, f"<h1>Item {number}</h1>{LINKS}")
            case ["account" | "file", *_]:
                self.answer(200 if inside else 403, "inside")
            case ["open", _]:
                self.answer(200, "open", **self.fresh())
            case ["shelf"]:
                self.answer(200, '<a href="/open/1">1</a> <a href="/open/2">2</a>')
            case ["api"]:
                told = self.headers.get("Authorization") == "Bearer 3f2a"
                self.answer(200 if told else 401, json.dumps({"told": told}))
            case ["intranet", _]:
                self.intranet()
            case ["gone"]:
                self.close_connection = True
            case ["never"]:
                never.wait()
            case _:
                self.answer(404)

    def intranet(self) -> None:
        """As NTLM does it: a connection is challenged, and then it is authenticated, not a request."""
        message = base64.b64decode(self.headers.get("Authorization", "").removeprefix("NTLM "))
        if self.authenticated or (self.challenged and message == b"answer to 17"):
            self.authenticated = True
            self.answer(200, "inside")
        elif message == b"negotiate":
            self.challenged = True
            self.answer(401, WWW_Authenticate="NTLM " + base64.b64encode(b"17").decode())
        else:
            self.answer(401, WWW_Authenticate="NTLM")

    def do_POST(self) -> None:
        self.note()
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/login":
            # The form was given to somebody, and comes back from the same.
            if self.cookie("card") and body == "user=ada&password=lovelace":
                self.answer(200, LINKS, Set_Cookie="user=ada; Path=/")
            else:
                self.answer(403)
            return
        # A cursor is good for the visitor to whom it was given.
        card, after = self.cookie("card"), json.loads(body)["variables"]["after"]
        page, _, owner = (after or "0/").partition("/")
        if owner != card:
            self.answer(400)
            return
        fresh = {}
        if not card:
            card = str(next(cards))
            fresh = {"Set_Cookie": f"card={card}; Path=/"}
        number = int(page) + 1
        following = f"{number}/{card}" if number < PAGES else None
        answer = {"data": {"items": {"nodes": [{"name": f"item {number}"}], "next": following}}}
        self.answer(200, json.dumps(answer), **fresh)


class Server(ThreadingHTTPServer):
    """Takes bursts of connections."""

    request_queue_size = 511
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """A client that has gone is no fault of ours."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Shop)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
