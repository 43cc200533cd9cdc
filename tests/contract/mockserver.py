"""A local site for the contract tests, in a process of its own.

It prints one line of JSON with its ports and ends when its standard input is closed. The same resources are served
as http (cleartext), https1 (TLS, no h2 by ALPN) and h2 (TLS, h2 and HTTP/1.1 by ALPN) by twisted.web with h2; the
certificates are made by trustme. What a server must not do is in ``peers.py``.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from typing import Any
from urllib.parse import quote

import trustme
from twisted.internet import reactor as installed_reactor
from twisted.internet import ssl, stdio
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

reactor: Any = installed_reactor
JSON = b"application/json"


def argument(request: Request, name: bytes, default: str) -> str:
    """A query argument."""
    return request.args.get(name, [default.encode()])[0].decode()


class Leaf(Resource):
    """A resource for any method, with nothing below it."""

    isLeaf = True

    def render(self, request: Request) -> bytes | int:
        return self.answer(request)

    def answer(self, request: Request) -> bytes | int:
        """The body, or NOT_DONE_YET."""
        raise NotImplementedError


class Text(Leaf):
    """``Works``."""

    def answer(self, request: Request) -> bytes:
        return b"Works"


class Echo(Leaf):
    """The request as JSON: method, uri, headers (Latin-1), body (Latin-1), client address."""

    def answer(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", JSON)
        headers = [
            [name.decode("latin-1"), value.decode("latin-1")]
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
        client = request.getClientAddress()
        return json.dumps(
            {
                "method": request.method.decode(),
                "uri": request.uri.decode("latin-1"),
                "headers": headers,
                "body": request.content.read().decode("latin-1"),
                "client": [client.host, client.port],
            }
        ).encode()


class Payload(Leaf):
    """The request's body."""

    def answer(self, request: Request) -> bytes:
        body: bytes = request.content.read()
        if len(body) != int(request.getHeader(b"Content-Length") or len(body)):
            return b"wrong length"
        return body


class Status(Leaf):
    """``/status?n=404``."""

    def answer(self, request: Request) -> bytes:
        request.setResponseCode(int(argument(request, b"n", "200")))
        return b""


class Large(Leaf):
    """``/large?size=N``: N bytes, announced; ``&announce=0``: not announced."""

    def answer(self, request: Request) -> bytes | int:
        size = int(argument(request, b"size", "1048576"))
        body = bytes(range(256)) * (size // 256 + 1)
        if argument(request, b"announce", "1") == "1":
            return body[:size]
        request.write(body[:size])
        request.finish()
        return NOT_DONE_YET


@implementer(IPullProducer)
class _Endless:
    """Writes for as long as it is read, and counts."""

    PIECE = bytes(65_536)

    def __init__(self, request: Request, counts: dict[str, int], size: int) -> None:
        self._request = request
        self._counts = counts
        self._left = size
        self._over = False
        request.notifyFinish().addBoth(self._ended)
        request.registerProducer(self, False)

    def _ended(self, _: object) -> None:
        if not self._over:
            self._over = True
            self._counts["endless_ended"] += 1

    def resumeProducing(self) -> None:
        if self._over:
            return
        piece = self.PIECE[: self._left]
        self._left -= len(piece)
        self._counts["endless_bytes"] += len(piece)
        self._request.write(piece)
        if not self._left:
            self._request.unregisterProducer()
            self._request.finish()

    def stopProducing(self) -> None:
        self._over = True


class Endless(Leaf):
    """``/endless?size=N&announce=0|1``: produced only as fast as it is taken; the counts say how much was."""

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__()
        self._counts = counts

    def answer(self, request: Request) -> int:
        size = int(argument(request, b"size", str(2**30)))
        if argument(request, b"announce", "1") == "1":
            request.setHeader(b"Content-Length", str(size).encode())
        _Endless(request, self._counts, size)
        return NOT_DONE_YET


class Chunked(Leaf):
    """``chunked content`` in two pieces, no length."""

    def answer(self, request: Request) -> int:
        request.write(b"chunked ")
        reactor.callLater(0, self._rest, request)
        return NOT_DONE_YET

    def _rest(self, request: Request) -> None:
        request.write(b"content")
        request.finish()


class Delay(Leaf):
    """``/delay?n=0.5``: answers after n seconds; ``&b=1``: the head at once."""

    def answer(self, request: Request) -> int:
        if argument(request, b"b", "0") == "1":
            request.write(b"")
            request.write(b" ")
        later = reactor.callLater(float(argument(request, b"n", "0.5")), self._answer, request)
        request.notifyFinish().addErrback(lambda _: later.active() and later.cancel())
        return NOT_DONE_YET

    def _answer(self, request: Request) -> None:
        request.write(b"late")
        request.finish()


class Hang(Leaf):
    """Never answers; ``?head=1``: a head and some body, then silence."""

    def answer(self, request: Request) -> int:
        request.notifyFinish().addErrback(lambda _: None)
        if argument(request, b"head", "0") == "1":
            request.setHeader(b"Content-Length", b"1024")
            request.write(b"some body")
        return NOT_DONE_YET


class Drop(Leaf):
    """``/drop?abort=0|1``: announces 1024 bytes, writes some and closes the connection, or resets it before they go."""

    def answer(self, request: Request) -> int:
        request.notifyFinish().addErrback(lambda _: None)
        request.setHeader(b"Content-Length", b"1024")
        request.write(b"this connection will be dropped\n")
        channel = request.channel
        if argument(request, b"abort", "0") == "0":
            channel.loseConnection()
        elif isinstance(channel, HTTPChannel):
            channel.transport.abortConnection()
        else:
            channel.abortConnection()
        return NOT_DONE_YET


class Refused(Leaf):
    """Closes without an answer."""

    def answer(self, request: Request) -> int:
        request.notifyFinish().addErrback(lambda _: None)
        channel = request.channel
        (channel.transport if isinstance(channel, HTTPChannel) else channel).abortConnection()
        return NOT_DONE_YET


class Redirect(Leaf):
    """302 to ``/text``."""

    def answer(self, request: Request) -> bytes:
        request.redirect(b"/text")
        return b"moved"


class SetCookie(Leaf):
    """Two cookies."""

    def answer(self, request: Request) -> bytes:
        request.responseHeaders.setRawHeaders(b"Set-Cookie", [b"a=b", b"c=d"])
        return b""


class Compressed(Leaf):
    """A gzip body."""

    def answer(self, request: Request) -> bytes:
        request.setHeader(b"Content-Encoding", b"gzip")
        return gzip.compress(b"compressed" * 100, mtime=0)


class Headers(Leaf):
    """The JSON object in the request's body becomes response headers (Latin-1); a list: repeated."""

    def answer(self, request: Request) -> bytes:
        for name, value in json.loads(request.content.read()).items():
            values = value if isinstance(value, list) else [value]
            request.responseHeaders.setRawHeaders(name.encode("latin-1"), [one.encode("latin-1") for one in values])
        return b""


class Typed(Leaf):
    """``/typed?type=...&body=...``: a body with that Content-Type."""

    def answer(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", argument(request, b"type", "").encode())
        return argument(request, b"body", "").encode()


class Robots(Leaf):
    """robots.txt of the pages below ``/pages``."""

    def answer(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"text/plain")
        return b"User-agent: *\nDisallow: /pages/*/private\n"


class Pages(Leaf):
    """``/pages/<run>/...``: a small site for whole crawls. What it remembers, it remembers per run, so that every crawl
    meets the same site. Links are relative to the run."""

    def __init__(self) -> None:
        super().__init__()
        self._hits: dict[tuple[str, str], int] = {}

    def answer(self, request: Request) -> bytes:
        _, _, run, *rest = request.uri.split(b"?")[0].decode().split("/")
        kind, _, rest_of_it = "/".join(rest).partition("/")
        page = getattr(self, f"page_{kind or 'index'}", None)
        if page is None:
            request.setResponseCode(404)
            return b"<html><title>missing</title></html>"
        key = (run, request.uri.decode())
        self._hits[key] = self._hits.get(key, 0) + 1
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        return page(request, f"/pages/{run}", rest_of_it, self._hits[key])

    @staticmethod
    def _html(title: str, links: list[str], body: str = "") -> bytes:
        anchors = "".join(f'<a href="{quote(link)}">{link}</a>\n' for link in links)
        return f"<html><head><title>{title}</title></head><body>{body}{anchors}</body></html>".encode()

    def page_index(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        names = ["list/1", "redirect/1", "flaky/1", "missing", "private/1", "cookie/set", "auth", "broken", "head"]
        names += [f"compressed/{coding}" for coding in ("gzip", "deflate", "identity")]
        return self._html("index", [f"{base}/{name}" for name in names])

    def page_list(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        number = int(rest)
        links = [f"{base}/item/{number * 10 + one}" for one in range(5)]
        if number < 4:
            links.append(f"{base}/list/{number + 1}")
        return self._html(f"list {number}", links)

    def page_item(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        request.setHeader(b"ETag", f'"item-{rest}"'.encode())
        request.setHeader(b"Cache-Control", b"max-age=0")
        if request.getHeader(b"If-None-Match") == f'"item-{rest}"'.encode():
            request.setResponseCode(304)
            return b""
        files = f'<img src="{base}/file/{rest}.bin">'
        return self._html(f"item {rest}", [f"{base}/item/{rest}"], files + "text " * (200 * (int(rest) % 7)))

    def page_file(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        request.setHeader(b"Content-Type", b"application/octet-stream")
        return zlib.crc32(rest.encode()).to_bytes(4, "big") * 5_000

    def page_redirect(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        number = int(rest)
        request.setResponseCode((301, 302, 303, 307, 308)[number % 5])
        target = f"{base}/redirect/{number + 1}" if number < 4 else f"{base}/item/77"
        request.setHeader(b"Location", target.encode())
        return b"moved"

    def page_flaky(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        if hits < 3:
            request.setResponseCode(503)
        return self._html(f"flaky at hit {hits}", [])

    def page_broken(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        request.setResponseCode(500)
        return self._html("broken", [])

    def page_private(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        return self._html("private", [])

    def page_cookie(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        if rest == "set":
            request.responseHeaders.setRawHeaders(b"Set-Cookie", [b"first=1; Path=/", b"second=2; Path=/"])
            request.setResponseCode(302)
            request.setHeader(b"Location", f"{base}/cookie/show".encode())
            return b""
        cookies = sorted((request.getHeader(b"Cookie") or b"").decode().split("; "))
        return self._html("cookies " + " ".join(cookies), [])

    def page_auth(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        if (request.getUser(), request.getPassword()) != (b"user", b"secret"):
            request.setResponseCode(401)
            request.setHeader(b"WWW-Authenticate", b'Basic realm="pages"')
        return self._html("auth " + request.getUser().decode(), [])

    def page_head(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        return self._html("by " + request.method.decode(), [])

    def page_compressed(self, request: Request, base: str, rest: str, hits: int) -> bytes:
        offered = (request.getHeader(b"Accept-Encoding") or b"").decode()
        plain = self._html(f"compressed {rest}", [], "again and again " * 500)
        encoders = {"gzip": lambda data: gzip.compress(data, mtime=0), "deflate": zlib.compress}
        if rest not in encoders or rest not in offered:
            return plain
        request.setHeader(b"Content-Encoding", rest.encode())
        return encoders[rest](plain)


class CountingSite(Site):
    """A site that counts connections and offers chosen protocols by ALPN."""

    noisy = False

    def __init__(self, root: Resource, counts: dict[str, int], protocols: list[bytes]) -> None:
        super().__init__(root)
        self._counts = counts
        self._protocols = protocols

    def buildProtocol(self, addr: Any) -> Any:
        self._counts["connections"] += 1
        return super().buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        return self._protocols

    def log(self, request: Request) -> None:
        """Count instead."""
        self._counts["requests"] += 1


def resources(counts: dict[str, int]) -> Resource:
    """The tree."""
    root = Resource()
    leaves = {
        "": Text(),
        "text": Text(),
        "echo": Echo(),
        "payload": Payload(),
        "status": Status(),
        "large": Large(),
        "endless": Endless(counts),
        "chunked": Chunked(),
        "delay": Delay(),
        "hang": Hang(),
        "drop": Drop(),
        "refused": Refused(),
        "redirect": Redirect(),
        "set-cookie": SetCookie(),
        "gzip": Compressed(),
        "headers": Headers(),
        "typed": Typed(),
        "robots.txt": Robots(),
        "pages": Pages(),
    }
    for path, leaf in leaves.items():
        root.putChild(path.encode(), leaf)
    return root


class Counts(Leaf):
    """All counts as JSON."""

    def __init__(self, counts: dict[str, dict[str, int]]) -> None:
        super().__init__()
        self._counts = counts

    def answer(self, request: Request) -> bytes:
        return json.dumps(self._counts).encode()


class UntilClosed(Protocol):
    """Ends the site when standard input is closed, however its parent ended."""

    def connectionLost(self, reason: Any = None) -> None:
        reactor.stop()


def main() -> None:
    """Listen, say where, and serve."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1", "127.0.0.2", "::1", common_name="localhost")
    key = leaf.private_key_pem.bytes()
    chain = [pem.bytes() for pem in leaf.cert_chain_pems]
    private = ssl.PrivateCertificate.loadPEM(key + b"\n" + chain[0])
    protocols = {"http": [b"http/1.1"], "https1": [b"http/1.1"], "h2": [b"h2", b"http/1.1"]}
    counts = {
        name: dict.fromkeys(("connections", "requests", "endless_bytes", "endless_ended"), 0) for name in protocols
    }
    ports = {}
    for name, offered in protocols.items():
        site = CountingSite(resources(counts[name]), counts[name], offered)
        if name == "http":
            port = reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            options = ssl.CertificateOptions(
                privateKey=private.privateKey.original, certificate=private.original, acceptableProtocols=offered
            )
            port = reactor.listenSSL(0, site, options, interface="127.0.0.1")
        ports[name] = port.getHost().port
    counting = Site(Counts(counts))
    counting.noisy = False
    ports["counts"] = reactor.listenTCP(0, counting, interface="127.0.0.1").getHost().port
    authority_pem = authority.cert_pem.bytes().decode()
    sys.stdout.write(json.dumps({"ports": ports, "authority": authority_pem, "process": os.getpid()}) + "\n")
    sys.stdout.flush()
    stdio.StandardIO(UntilClosed())
    reactor.run()


if __name__ == "__main__":
    main()
