"""Peers that die, stall or attack, each on a port of its own: ``python -m tests.servers.hostile PEM``.

Prints a JSON object of ports by name, and ends when standard input ends. Names begin with what is spoken there: ``tcp``
nothing, ``http`` HTTP/1.1 in cleartext, ``https`` the same over TLS, ``h2`` HTTP/2 over TLS. Built on hyperframe and
hpack, never on the code under test. One thread a connection, so that no peer waits for another.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

MOST = 100 << 20
"""Bytes of an endless attack; no client is to take so many."""
FOREVER = 3600.0
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"

Peer = Callable[["socket.socket", int], None]
_PEERS: dict[str, Peer] = {}


def peer(*speaks: str) -> Callable[[Peer], Peer]:
    """Put a peer on the list, once for each way of speaking. It is given the connection and its number, from 1."""

    def listed(play: Peer) -> Peer:
        for way in speaks:
            _PEERS[f"{way}/{play.__name__}"] = play
        return play

    return listed


def asked(connection: socket.socket) -> None:
    """Read a request's head."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError
        read += more


def endless(connection: socket.socket, pieces: Iterator[bytes]) -> None:
    """Send until nobody takes it any more, or `MOST` bytes."""
    sent = 0
    while sent < MOST:
        piece = b"".join(next(pieces) for _ in range(64))
        connection.sendall(piece)
        sent += len(piece)
    time.sleep(FOREVER)


# ---- peers that die


@peer("tcp")
def resets(connection: socket.socket, number: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@peer("tcp")
def silent(connection: socket.socket, number: int) -> None:
    time.sleep(FOREVER)


@peer("tcp")
def no_tls(connection: socket.socket, number: int) -> None:
    connection.sendall(b"SSH-2.0-peer\r\n")
    time.sleep(0.2)


@peer("http", "https")
def good(connection: socket.socket, number: int) -> None:
    while True:
        asked(connection)
        connection.sendall(GOOD)


@peer("http", "https")
def good_but_never_closes(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(GOOD)
    time.sleep(FOREVER)


@peer("http", "https")
def half_a_head(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
    time.sleep(FOREVER)


@peer("http", "https")
def half_a_body(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 50)
    time.sleep(FOREVER)


@peer("http", "https")
def head_byte_by_byte(connection: socket.socket, number: int) -> None:
    asked(connection)
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3600:
        connection.sendall(bytes([byte]))
        time.sleep(1)


@peer("http", "https")
def body_byte_by_byte(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(3600):
        connection.sendall(b"x")
        time.sleep(1)


@peer("http", "https")
def slow_but_whole(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
    time.sleep(1.5)
    connection.sendall(b"half")
    time.sleep(FOREVER)


# ---- floods of HTTP/1.1


@peer("http", "https")
def floods_headers(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    endless(connection, (b"X-%d: %s\r\n" % (n, b"v" * 100) for n in count()))


@peer("http", "https")
def sends_a_header_of_1_mb(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"v" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n")
    time.sleep(FOREVER)


@peer("http", "https")
def floods_a_header_line(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    endless(connection, (b"v" * 1024 for _ in count()))


@peer("http", "https")
def floods_interim_responses(connection: socket.socket, number: int) -> None:
    asked(connection)
    endless(connection, (b"HTTP/1.1 100 Continue\r\nX: %d\r\n\r\n" % n for n in count()))


@peer("http", "https")
def floods_a_chunk_extension(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=")
    endless(connection, (b"v" * 1024 for _ in count()))


@peer("http", "https")
def floods_trailers(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n")
    endless(connection, (b"X-%d: %s\r\n" % (n, b"v" * 100) for n in count()))


@peer("http", "https")
def overflows_a_chunk_size(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000004\r\ngood\r\n0\r\n\r\n")
    time.sleep(FOREVER)


@peer("http", "https")
def says_two_lengths(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\ngood")
    time.sleep(FOREVER)


@peer("http", "https")
def says_status_99999(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 99999 OK\r\nContent-Length: 4\r\n\r\ngood")
    time.sleep(FOREVER)


@peer("http", "https")
def speaks_http_09(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"<html>good</html>")
    time.sleep(FOREVER)


@peer("http", "https")
def sends_20000_short_headers(connection: socket.socket, number: int) -> None:
    """Within the limit on the head's bytes."""
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\nContent-Length: 4\n" + b"a:\n" * 20_000 + b"\ngood")
    time.sleep(FOREVER)


@peer("http", "https")
def floods_a_body(connection: socket.socket, number: int) -> None:
    asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    endless(connection, (b"x" * 1024 for _ in count()))


@peer("http", "https")
def floods_what_nobody_asked_for(connection: socket.socket, number: int) -> None:
    endless(connection, (GOOD for _ in count()))


# ---- HTTP/2


def preface(connection: socket.socket, settings: dict[int, int] | None = None) -> None:
    """Both prefaces, and whatever the client sent with its own."""
    read = b""
    while len(read) < 24:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError
        read += more
    send(connection, SettingsFrame(0, settings=settings or {}), SettingsFrame(0, flags=["ACK"]))


def send(connection: socket.socket, *frames: Frame) -> None:
    connection.sendall(b"".join(frame.serialize() for frame in frames))


def h2_head(stream: int, *fields: tuple[bytes, bytes], end: bool = False) -> HeadersFrame:
    flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
    return HeadersFrame(stream, Encoder().encode([(b":status", b"200"), *fields]), flags=flags)


@peer("h2")
def silent_after_the_handshake(connection: socket.socket, number: int) -> None:
    time.sleep(FOREVER)


@peer("h2")
def silent_after_the_preface(connection: socket.socket, number: int) -> None:
    preface(connection)
    time.sleep(FOREVER)


@peer("h2")
def silent_at_first(connection: socket.socket, number: int) -> None:
    """The first connection; later ones answer."""
    preface(connection)
    if number == 1:
        time.sleep(FOREVER)
    send(connection, h2_head(1, (b"content-length", b"4")), DataFrame(1, b"good", flags=["END_STREAM"]))
    time.sleep(FOREVER)


@peer("h2")
def stops_in_a_body(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, h2_head(1, (b"content-length", b"100")), DataFrame(1, b"x" * 50))
    time.sleep(FOREVER)


@peer("h2")
def gives_a_body_byte_by_byte(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, h2_head(1))
    for _ in range(3600):
        send(connection, DataFrame(1, b"x"))
        time.sleep(1)


@peer("h2")
def says_goaway_and_stays(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, GoAwayFrame(0, last_stream_id=1))
    time.sleep(FOREVER)


@peer("h2")
def speaks_http1(connection: socket.socket, number: int) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    time.sleep(FOREVER)


@peer("h2")
def floods_continuation(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, HeadersFrame(1, b""))
    one = ContinuationFrame(1, Encoder().encode([(b"x", b"v" * 100)], huffman=False)).serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def floods_empty_continuation(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, HeadersFrame(1, b""))
    endless(connection, (ContinuationFrame(1, b"").serialize() for _ in count()))


@peer("h2")
def floods_pings(connection: socket.socket, number: int) -> None:
    preface(connection)
    one = PingFrame(0, b"01234567").serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def floods_settings(connection: socket.socket, number: int) -> None:
    preface(connection)
    one = SettingsFrame(0, settings={3: 100}).serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def toggles_its_settings(connection: socket.socket, number: int) -> None:
    """Each of them changes the room for streams and the windows of all."""
    preface(connection)
    both = [SettingsFrame(0, settings={3: n * 100, 4: 65_535 + n}).serialize() for n in (0, 1)]
    endless(connection, (both[n % 2] for n in count()))


@peer("h2")
def floods_resets(connection: socket.socket, number: int) -> None:
    preface(connection)
    one = RstStreamFrame(1, error_code=0).serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def floods_empty_data(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, h2_head(1))
    one = DataFrame(1, b"").serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def floods_a_body_in_frames(connection: socket.socket, number: int) -> None:
    """Whatever the windows say."""
    preface(connection)
    send(connection, h2_head(1))
    one = DataFrame(1, b"x" * 4096).serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def floods_interim_heads(connection: socket.socket, number: int) -> None:
    preface(connection)
    one = HeadersFrame(1, Encoder().encode([(b":status", b"103")]), flags=["END_HEADERS"]).serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def sends_an_hpack_bomb(connection: socket.socket, number: int) -> None:
    """A field of 4,000 bytes in the table, then 10,000 references to it of a byte each: 40 MB of headers."""
    preface(connection)
    block = b"\x88" + b"\x40\x01x" + b"\x7f" + encoded_integer(4000 - 127) + b"v" * 4000 + b"\xbe" * 10_000
    send(connection, HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]))
    time.sleep(FOREVER)


@peer("h2")
def resizes_its_table_for_ever(connection: socket.socket, number: int) -> None:
    """A header block of 120 KB that says nothing but a size of the table (RFC 7541 6.3), a byte each time."""
    preface(connection)
    piece = b"\x20" * 16_384
    send(connection, HeadersFrame(1, piece), *[ContinuationFrame(1, piece)] * 6)
    send(connection, ContinuationFrame(1, b"\x88", flags=["END_HEADERS"]))
    time.sleep(FOREVER)


@peer("h2")
def floods_a_closed_stream(connection: socket.socket, number: int) -> None:
    """What a response may not be followed by, whatever the windows say."""
    preface(connection)
    send(connection, h2_head(1, (b"content-length", b"4")), DataFrame(1, b"good", flags=["END_STREAM"]))
    one = DataFrame(1, b"x" * 16_384).serialize()
    endless(connection, (one for _ in count()))


@peer("h2")
def sends_a_frame_of_16_mb(connection: socket.socket, number: int) -> None:
    preface(connection)
    send(connection, h2_head(1))
    connection.sendall(((1 << 24) - 1).to_bytes(3, "big") + b"\x00\x00" + (1).to_bytes(4, "big"))
    endless(connection, (b"x" * 1024 for _ in count()))


def encoded_integer(rest: int) -> bytes:
    """What follows the prefix of an HPACK integer (RFC 7541 5.1)."""
    encoded = b""
    while rest >= 128:
        encoded += bytes([rest % 128 + 128])
        rest //= 128
    return encoded + bytes([rest])


# ---- the process


def serve(name: str, play: Peer, pem: str) -> int:
    """Listen; the port."""
    way = name.split("/", maxsplit=1)[0]
    context = None
    if way in ("https", "h2"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        context.set_alpn_protocols(["h2" if way == "h2" else "http/1.1"])
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)

    def one(accepted: socket.socket, number: int) -> None:
        try:
            connection = accepted if context is None else context.wrap_socket(accepted, server_side=True)
            with connection:
                play(connection, number)
        except OSError:
            accepted.close()

    def accept() -> None:
        for number in count(1):
            accepted = listening.accept()[0]
            threading.Thread(target=one, args=(accepted, number), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


def main() -> None:
    print(json.dumps({name: serve(name, play, sys.argv[1]) for name, play in _PEERS.items()}), flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
