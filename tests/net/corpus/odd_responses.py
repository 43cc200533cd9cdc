"""Odd responses, what we make of them, and why h11, twisted.web or httptools make something else of them.

Each entry was seen in the field, stands in an RFC, or is what an attacker would try. `differs` names each reader whose
verdict is not ours, with the reason; a difference without a reason here fails the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.net.corpus.readers import LIMIT, NOTHING, WAITS, Verdict


@dataclass(frozen=True)
class Odd:
    """A response to `method` and what we make of it. `closes`: the server closes after it. `headers`: where they are
    the point, all of them, in lower case and sorted."""

    name: str
    data: bytes
    want: Verdict
    method: bytes = b"GET"
    closes: bool = False
    headers: tuple[tuple[bytes, bytes], ...] | None = None
    differs: dict[str, str] = field(default_factory=dict)


NUL = "refuses NUL; we put a space in its place (RFC 9110 5.5 allows both)"
NUL_KEPT = "hands NUL on; we put a space in its place (RFC 9110 5.5)"
SPACES = "wants exactly one space; browsers take any white space (RFC 9112 4 allows it)"
CASE = "wants HTTP in capitals; browsers and twisted do not"
MINOR = "knows 1.0 and 1.1 only; a later minor version is read as 1.1 (RFC 9110 2.5)"
MAJOR = "would reuse the connection of a server that names another major version"
VERSION = "takes any number for a version; it is one digit (RFC 9112 2.3)"
STATUS = "takes any integer for a status; it is three digits from 100 on (RFC 9112 4)"
STATUS_LOW = "takes a status under 100, and counts it as interim here"
EMPTY_LINE = (
    "skips empty lines before a response; to us they are bytes of nobody (RFC 9112 2.2 allows them in requests only)"
)
UNTIL_LINE = "waits for a whole line or head of what can be no HTTP any more"
NO_COLON = "fails on a line without a colon; browsers and Scrapy skip it (scrapy #210)"
FOLDED_STATUS = "fails; we read the line as more of the reason phrase (RFC 9112 2.2 allows both)"
SPACE_COLON = "refuses white space before a colon; in a response it is removed (RFC 9112 5.1)"
NAME = "refuses names that are no tokens; we hand them on as they came"
BARE_LF = "wants CR LF; a bare LF ends a line of a head too (RFC 9112 2.2)"
BARE_LF_CHUNK = "waits for the CR LF that a chunk's framing must have; we fail at once (RFC 9112 7.1)"
BARE_LF_TRAILER = "wants CR LF in trailers; they are field lines, which may end in LF (RFC 9112 2.2)"
FOLD = "refuses folded values; one or more spaces take the fold's place (RFC 9112 5.2)"
FOLD_SPACES = "keeps the white space of the fold; we put one space (RFC 9112 5.2)"
TRAILING = "keeps white space after a value; it is no part of it (RFC 9112 5)"
CONTROL = "refuses control characters in values; browsers do not"
BARE_CR = "refuses a bare CR; we put a space in its place (RFC 9112 2.2 allows both)"
LINE_16K = "takes no line over 16 KB; a CSP or cookie header may be longer"
NO_LIMIT = "has no limit there, or none that one read reaches"
EXCESS = "has no limit on chunk extensions over a whole body"
NORMAL = "hands on a tidied value; we hand on what came"
TWICE = "refuses a repeated Content-Length; equal values are allowed (RFC 9110 8.6)"
ZEROS = "compares lengths as text; they are numbers"
ANY_LENGTH = "waits for more bytes than any disk holds"
LEFTOVER = "drops bytes after the response and reuses the connection: they could answer the next request"
ANYWAY = "refuses contradicting lengths where there is no body that they could measure"
TUNNEL = "goes on as a tunnel, or reads to the close; what answers CONNECT has no body (RFC 9112 6.3)"
INTERIM = "has no limit on interim responses"
INTERIM_CLOSE = "ends the connection at an interim response's close; only the final one counts"
UPGRADE = "takes 101 for another interim response and waits; what follows would be no HTTP"
SIZE_SPACE = "refuses spaces after a chunk size; old servers pad it (RFC 9112 7.1.1 lets white space be)"
SIZE_DIGITS = "takes 17 digits and more: beyond 64 bits"
TRAILER_LINE = "fails on a trailer without a colon; we pass over trailers unread"
TRAILER_LENGTH = "refuses Content-Length as a trailer; we pass over trailers unread"
BOTH_KEPT = "reuses the connection after both framings at once (RFC 9112 6.3 lets no one trust it)"
BOTH_REFUSED = "refuses both framings at once; the coding wins, and the connection ends (RFC 9112 6.3)"
CODINGS = "fails on all but one plain chunked; the last coding decides, another is read to the close (RFC 9112 6.3)"
EMPTY_CODING = "takes an empty field for a coding; it lists none"
PARAMETER = "takes the parameter for another coding"
VT = "strips a vertical tab as white space; it is none, so this is not chunked"
CODING_10 = "reuses the connection after a coding from HTTP/1.0 (RFC 9112 6.1)"
CONNECTION = "looks at one whole value only: not at lists, nor at the version"
KEEP_10 = "never keeps an HTTP/1.0 connection; keep-alive allows it (RFC 9112 9.3)"
PROXY_CONNECTION = "obeys Proxy-Connection; RFC 9112 C.2.2 says to ignore it"

LENGTH_2 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
FULL_HEAD = LENGTH_2 + b"X: " + b"y" * (LIMIT - len(LENGTH_2) - 7) + b"\r\n\r\nok"

READ = Verdict(200, b"ok", "complete", keep=True)
READ_ONCE = Verdict(200, b"ok", "complete", keep=False)
ERROR = NOTHING

ODD_RESPONSES = [
    # The status line
    Odd("plain", LENGTH_2 + b"\r\nok", READ),
    Odd("no reason phrase", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", READ),
    Odd("no reason phrase but its space", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", READ),
    Odd("Latin-1 reason phrase", b"HTTP/1.1 200 D\xe9j\xe0\r\nContent-Length: 2\r\n\r\nok", READ),
    Odd("NUL in the reason phrase", b"HTTP/1.1 200 a\0b\r\nContent-Length: 2\r\n\r\nok", READ, differs={"h11": NUL}),
    Odd(
        "two spaces before the status",
        b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
        differs={"h11": SPACES, "twisted": SPACES, "httptools": SPACES},
    ),
    Odd(
        "tab before the status",
        b"HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
        differs={"h11": SPACES, "twisted": SPACES, "httptools": SPACES},
    ),
    Odd(
        "lower-case http",
        b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
        differs={"h11": CASE, "httptools": CASE},
    ),
    Odd("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok", READ, differs={"httptools": MINOR}),
    Odd(
        "HTTP/2.0 in the text",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ_ONCE,
        differs={"h11": MAJOR, "twisted": MAJOR},
    ),
    Odd("HTTP/2 without minor version", b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd(
        "HTTP/0.9 in the text", b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", READ_ONCE, differs={"twisted": MAJOR}
    ),
    Odd("HTTP/1.10", b"HTTP/1.10 200 OK\r\nContent-Length: 2\r\n\r\nok", ERROR, differs={"twisted": VERSION}),
    Odd("negative version", b"HTTP/1.-1 200 OK\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd(
        "status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", ERROR, differs={"twisted": STATUS}
    ),
    Odd(
        "status of five digits", b"HTTP/1.1 99999 OK\r\nContent-Length: 2\r\n\r\nok", ERROR, differs={"twisted": STATUS}
    ),
    Odd("status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", ERROR, differs={"twisted": STATUS}),
    Odd(
        "status 099",
        b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
        ERROR,
        differs={"twisted": STATUS, "httptools": STATUS_LOW},
    ),
    Odd(
        "status 000",
        b"HTTP/1.1 000\r\nContent-Length: 2\r\n\r\nok",
        ERROR,
        differs={"twisted": STATUS, "httptools": STATUS_LOW},
    ),
    Odd("status 600", b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok", Verdict(600, b"ok", "complete", keep=True)),
    Odd(
        "status 999",
        b"HTTP/1.1 999 Request denied\r\nContent-Length: 2\r\n\r\nok",
        Verdict(999, b"ok", "complete", keep=True),
    ),
    Odd("signed status", b"HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nok", ERROR, differs={"twisted": STATUS}),
    Odd(
        "status with an underscore",
        b"HTTP/1.1 2_0 OK\r\nContent-Length: 2\r\n\r\nok",
        ERROR,
        differs={"twisted": STATUS},
    ),
    Odd("status in letters", b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd("no space after the status", b"HTTP/1.1 200OK\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd("no status", b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd(
        "empty line first",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ERROR,
        differs={"httptools": EMPTY_LINE},
    ),
    Odd("space first", b" HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd("ICY", b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", ERROR),
    Odd("HTTP/0.9: a body only", b"<html>hello</html>\n", ERROR, closes=True),
    Odd("a mail server", b"220 mail.example ESMTP\r\n", ERROR, differs={"h11": UNTIL_LINE}),
    Odd("a TLS alert", b"\x15\x03\x01\0\x02\x02F", ERROR, differs={"twisted": UNTIL_LINE}),
    Odd("HTTP/2 frames", b"\0\0\x12\x04\0\0\0\0\0", ERROR, differs={"twisted": UNTIL_LINE}),
    Odd("a request", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ERROR),
    Odd("nothing but the beginning of HTTP", b"HT", WAITS),
    Odd("closed in the status line", b"HTTP/1.1 20", ERROR, closes=True),
    Odd("closed in the head", LENGTH_2, ERROR, closes=True),
    # Header lines
    Odd(
        "bare LF line ends",
        b"HTTP/1.1 200 OK\nContent-Length: 2\nX: y\n\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"y"),
        ),
        differs={"httptools": BARE_LF},
    ),
    Odd(
        "bare LF line ends, no length",
        b"HTTP/1.1 200 OK\nX: y\n\nok\n\nok",
        Verdict(200, b"ok\n\nok", "at close", keep=False),
        closes=True,
        differs={"httptools": BARE_LF},
    ),
    Odd(
        "mixed line ends",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\nX: y\r\n\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"y"),
        ),
        differs={"httptools": BARE_LF},
    ),
    Odd(
        "LF line ends, CR LF at the end",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\r\nok",
        READ,
        differs={"httptools": BARE_LF},
    ),
    Odd(
        "no colon",
        LENGTH_2 + b"bad line\r\nX: y\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"y"),
        ),
        differs={"h11": NO_COLON, "twisted": NO_COLON, "httptools": NO_COLON},
    ),
    Odd(
        "no colon in the first line",
        b"HTTP/1.1 200 OK\r\nbad\r\nContent-Length: 2\r\n\r\nok",
        READ,
        headers=((b"content-length", b"2"),),
        differs={"h11": NO_COLON, "twisted": NO_COLON, "httptools": NO_COLON},
    ),
    Odd(
        "no name",
        LENGTH_2 + b": y\r\nX: y\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"y"),
        ),
        differs={"h11": NO_COLON, "twisted": NO_COLON, "httptools": NO_COLON},
    ),
    Odd(
        "folded value",
        LENGTH_2 + b"X: one\r\n two\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"one two"),
        ),
        differs={"httptools": FOLD},
    ),
    Odd(
        "value folded with a tab and spaces",
        LENGTH_2 + b"X: one\r\n\t  two\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"one two"),
        ),
        differs={"twisted": FOLD_SPACES, "httptools": FOLD},
    ),
    Odd(
        "value folded twice",
        LENGTH_2 + b"X:\r\n one\r\n two\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"one two"),
        ),
        differs={"httptools": FOLD},
    ),
    Odd(
        "folded value before a line without colon",
        LENGTH_2 + b"X: one\r\n two\r\nbad\r\nY: z\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"one two"),
            (b"y", b"z"),
        ),
        differs={"h11": NO_COLON, "twisted": NO_COLON, "httptools": NO_COLON},
    ),
    Odd(
        "folded content-length",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok",
        READ,
        differs={"httptools": FOLD},
    ),
    Odd(
        "folded status line",
        b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nok",
        READ,
        headers=((b"content-length", b"2"),),
        differs={"h11": FOLDED_STATUS, "twisted": FOLDED_STATUS, "httptools": FOLDED_STATUS},
    ),
    Odd(
        "space before the colon",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        READ,
        differs={"h11": SPACE_COLON, "twisted": SPACE_COLON, "httptools": SPACE_COLON},
    ),
    Odd("no space after the colon", b"HTTP/1.1 200 OK\r\nContent-Length:2\r\n\r\nok", READ),
    Odd(
        "spaces and tabs around a value",
        LENGTH_2 + b"X: \t y z \t\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"y z"),
        ),
        differs={"httptools": TRAILING},
    ),
    Odd("empty value", LENGTH_2 + b"X:\r\n\r\nok", READ),
    Odd("colon in a value", LENGTH_2 + b"X: a:b::c\r\n\r\nok", READ),
    Odd(
        "Latin-1 value",
        LENGTH_2 + b"X: caf\xe9 \x80\xff\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"caf\xe9 \x80\xff"),
        ),
    ),
    Odd(
        "Latin-1 name",
        LENGTH_2 + b"X-\xe9: y\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x-\xe9", b"y"),
        ),
        differs={"h11": NAME, "twisted": NAME, "httptools": NAME},
    ),
    Odd(
        "space in a name",
        LENGTH_2 + b"X Y: z\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x y", b"z"),
        ),
        differs={"h11": NAME, "twisted": NAME, "httptools": NAME},
    ),
    Odd(
        "parentheses in a name",
        LENGTH_2 + b"X(1): z\r\n\r\nok",
        READ,
        differs={"h11": NAME, "twisted": NAME, "httptools": NAME},
    ),
    Odd(
        "control character in a value",
        LENGTH_2 + b"X: a\x01\x7fb\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"a\x01\x7fb"),
        ),
        differs={"httptools": CONTROL},
    ),
    Odd(
        "NUL in a value",
        LENGTH_2 + b"X: a\0b\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"a b"),
        ),
        differs={"h11": NUL, "twisted": NUL_KEPT, "httptools": NUL},
    ),
    Odd(
        "bare CR in a value",
        LENGTH_2 + b"X: a\rEvil: b\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"a Evil: b"),
        ),
        differs={"h11": BARE_CR, "httptools": BARE_CR},
    ),
    Odd("two CR at a line end", LENGTH_2 + b"X: y\r\r\n\r\nok", READ, differs={"h11": BARE_CR, "httptools": BARE_CR}),
    Odd(
        "repeated header",
        LENGTH_2 + b"Set-Cookie: a=b\r\nset-cookie: c=d\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"set-cookie", b"a=b"),
            (b"set-cookie", b"c=d"),
        ),
    ),
    Odd("header line of 20 KB", LENGTH_2 + b"X: " + b"y" * 20000 + b"\r\n\r\nok", READ, differs={"twisted": LINE_16K}),
    Odd("head of 64 KiB", FULL_HEAD, READ, differs={"twisted": LINE_16K}),
    Odd(
        "head longer than 64 KiB",
        LENGTH_2 + b"X: " + b"y" * 65536 + b"\r\n\r\nok",
        ERROR,
        differs={"h11": NO_LIMIT, "httptools": NO_LIMIT},
    ),
    Odd(
        "head without end, longer than 64 KiB",
        LENGTH_2 + b"X: y\r\n" * 12000,
        ERROR,
        differs={"twisted": NO_LIMIT, "httptools": NO_LIMIT},
    ),
    Odd("1,000 headers", LENGTH_2 + b"X: y\r\n" * 1000 + b"\r\nok", READ),
    Odd(
        "one value of 60,000 spaces",
        LENGTH_2 + b"X:" + b" " * 60000 + b"y\r\n\r\nok",
        READ,
        headers=(
            (b"content-length", b"2"),
            (b"x", b"y"),
        ),
        differs={"twisted": LINE_16K},
    ),
    Odd("no header at all", b"HTTP/1.1 200 OK\r\n\r\nok", Verdict(200, b"ok", "at close", keep=False), closes=True),
    # Length
    Odd("length 0", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Verdict(200, b"", "complete", keep=True)),
    Odd("name in upper case", b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 2\r\n\r\nok", READ),
    Odd("leading zeros", b"HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nok", READ),
    Odd("twice, equal", LENGTH_2 + b"Content-Length: 2\r\n\r\nok", READ, differs={"h11": NORMAL, "httptools": TWICE}),
    Odd(
        "twice in one field, equal",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        READ,
        differs={"h11": NORMAL, "httptools": TWICE},
    ),
    Odd(
        "twice, equal but for zeros",
        LENGTH_2 + b"Content-Length: 02\r\n\r\nok",
        READ,
        differs={"h11": ZEROS, "httptools": TWICE},
    ),
    Odd("twice, different", LENGTH_2 + b"Content-Length: 3\r\n\r\nok", ERROR),
    Odd("twice in one field, different", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", ERROR),
    Odd("negative", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", ERROR),
    Odd("with a plus", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", ERROR),
    Odd("hexadecimal", b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", ERROR),
    Odd("with an underscore", b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\nok", ERROR),
    Odd("with a unit", b"HTTP/1.1 200 OK\r\nContent-Length: 2 bytes\r\n\r\nok", ERROR),
    Odd("a fraction", b"HTTP/1.1 200 OK\r\nContent-Length: 2.0\r\n\r\nok", ERROR),
    Odd("empty length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", ERROR, closes=True),
    Odd("empty list element", b"HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\nok", ERROR),
    Odd(
        "20 digits",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        ERROR,
        differs={"h11": ANY_LENGTH, "twisted": ANY_LENGTH},
    ),
    Odd("5,000 digits", b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nok", ERROR),
    Odd("superscript digits", b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nok", ERROR),
    Odd(
        "body cut short",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        Verdict(200, b"ok", "cut", keep=False),
        closes=True,
    ),
    Odd(
        "body not yet complete",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        Verdict(200, b"ok", "waits", keep=False),
    ),
    Odd("more than announced", LENGTH_2 + b"\r\nok!", READ_ONCE, differs={"twisted": LEFTOVER}),
    Odd(
        "two responses at once",
        LENGTH_2 + b"\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ_ONCE,
        differs={"twisted": LEFTOVER},
    ),
    Odd(
        "an empty line after the body",
        LENGTH_2 + b"\r\nok\r\n",
        READ_ONCE,
        differs={"twisted": LEFTOVER, "httptools": EMPTY_LINE},
    ),
    Odd("no length, kept open", b"HTTP/1.1 200 OK\r\n\r\nok", Verdict(200, b"ok", "waits", keep=False)),
    Odd(
        "no length, an empty body",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        Verdict(200, b"", "at close", keep=False),
        closes=True,
    ),
    # Responses without a body
    Odd("204", b"HTTP/1.1 204 No Content\r\n\r\n", Verdict(204, b"", "complete", keep=True)),
    Odd(
        "204 with a length",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        Verdict(204, b"", "complete", keep=True),
    ),
    Odd(
        "204 with a body",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        Verdict(204, b"", "complete", keep=False),
        differs={"twisted": LEFTOVER},
    ),
    Odd(
        "304 with a length",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
        Verdict(304, b"", "complete", keep=True),
    ),
    Odd(
        "304 chunked",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        Verdict(304, b"", "complete", keep=True),
    ),
    Odd(
        "304 with two lengths",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        Verdict(304, b"", "complete", keep=True),
        differs={"h11": ANYWAY, "httptools": ANYWAY},
    ),
    Odd(
        "205 with a body",
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok",
        Verdict(205, b"ok", "complete", keep=True),
    ),
    Odd("HEAD with a length", LENGTH_2 + b"\r\n", Verdict(200, b"", "complete", keep=True), method=b"HEAD"),
    Odd("HEAD chunked", CHUNKED + b"\r\n", Verdict(200, b"", "complete", keep=True), method=b"HEAD"),
    Odd(
        "HEAD with a body",
        LENGTH_2 + b"\r\nok",
        Verdict(200, b"", "complete", keep=False),
        method=b"HEAD",
        differs={"twisted": LEFTOVER},
    ),
    Odd(
        "HEAD answered 302",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\n",
        Verdict(302, b"", "complete", keep=True),
        method=b"HEAD",
    ),
    Odd("HEAD without length", b"HTTP/1.1 200 OK\r\n\r\n", Verdict(200, b"", "complete", keep=True), method=b"HEAD"),
    Odd(
        "CONNECT answered 200",
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        Verdict(200, b"", "complete", keep=False),
        method=b"CONNECT",
        differs={"h11": TUNNEL, "twisted": TUNNEL},
    ),
    Odd(
        "CONNECT refused",
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno",
        Verdict(407, b"no", "complete", keep=True),
        method=b"CONNECT",
    ),
    # Interim responses
    Odd(
        "100 before the response", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", READ
    ),
    Odd(
        "103 with headers before the response",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
        headers=((b"content-length", b"2"),),
    ),
    Odd(
        "102, 102 and 103",
        b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
    ),
    Odd(
        "interim with a length",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
    ),
    Odd(
        "interim that says close",
        b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        READ,
        differs={"httptools": INTERIM_CLOSE},
    ),
    Odd("199", b"HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", READ),
    Odd(
        "101",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ERROR,
        differs={"twisted": UPGRADE},
    ),
    Odd(
        "endless 100",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
        ERROR,
        differs={"h11": INTERIM, "twisted": INTERIM, "httptools": INTERIM},
    ),
    Odd("closed after 100", b"HTTP/1.1 100 Continue\r\n\r\n", ERROR, closes=True),
    Odd(
        "garbage after 100",
        b"HTTP/1.1 100 Continue\r\n\r\nok",
        ERROR,
        differs={"h11": UNTIL_LINE, "twisted": UNTIL_LINE},
    ),
    # Chunked bodies
    Odd("chunked", CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n", READ),
    Odd("no chunk", CHUNKED + b"\r\n0\r\n\r\n", Verdict(200, b"", "complete", keep=True)),
    Odd("several chunks", CHUNKED + b"\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", READ),
    Odd(
        "hexadecimal in both cases",
        CHUNKED + b"\r\nA\r\n0123456789\r\nb\r\n0123456789a\r\n0\r\n\r\n",
        Verdict(200, b"01234567890123456789a", "complete", keep=True),
    ),
    Odd(
        "coding in upper case",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": NORMAL},
    ),
    Odd("extension", CHUNKED + b"\r\n2;name=value\r\nok\r\n0;last\r\n\r\n", READ),
    Odd("quoted extension", CHUNKED + b'\r\n2;name="a;b c"\r\nok\r\n0\r\n\r\n', READ),
    Odd(
        "space before an extension",
        CHUNKED + b"\r\n2 ; name\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": SIZE_SPACE, "twisted": SIZE_SPACE, "httptools": SIZE_SPACE},
    ),
    Odd(
        "extension longer than 64 KiB",
        CHUNKED + b"\r\n2;" + b"x" * 70000 + b"\r\nok\r\n0\r\n\r\n",
        Verdict(200, b"", "cut", keep=False),
        differs={"h11": NO_LIMIT, "httptools": NO_LIMIT},
    ),
    Odd(
        "many long extensions",
        CHUNKED + (b"\r\n1;" + b"x" * 1000 + b"\r\na") * 100 + b"\r\n0\r\n\r\n",
        Verdict(200, b"a" * 66, "cut", keep=False),
        differs={"h11": EXCESS, "twisted": EXCESS, "httptools": EXCESS},
    ),
    Odd(
        "size padded with spaces",
        CHUNKED + b"\r\n2   \r\nok\r\n0  \r\n\r\n",
        READ,
        differs={"twisted": SIZE_SPACE, "httptools": SIZE_SPACE},
    ),
    Odd("size padded with zeros", CHUNKED + b"\r\n0000000002\r\nok\r\n000\r\n\r\n", READ),
    Odd("size after a space", CHUNKED + b"\r\n 2\r\nok\r\n0\r\n\r\n", Verdict(200, b"", "cut", keep=False)),
    Odd("size with 0x", CHUNKED + b"\r\n0x2\r\nok\r\n0\r\n\r\n", Verdict(200, b"", "cut", keep=False)),
    Odd("negative size", CHUNKED + b"\r\n-2\r\nok\r\n0\r\n\r\n", Verdict(200, b"", "cut", keep=False)),
    Odd(
        "size with an underscore",
        CHUNKED + b"\r\n1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
        Verdict(200, b"", "cut", keep=False),
    ),
    Odd("empty size", CHUNKED + b"\r\n\r\nok\r\n0\r\n\r\n", Verdict(200, b"", "cut", keep=False)),
    Odd("size of 16 digits", CHUNKED + b"\r\nffffffffffffffff\r\nok", Verdict(200, b"ok", "waits", keep=False)),
    Odd(
        "size of 17 digits",
        CHUNKED + b"\r\nfffffffffffffffff\r\nok",
        Verdict(200, b"", "cut", keep=False),
        differs={"h11": SIZE_DIGITS, "twisted": SIZE_DIGITS},
    ),
    Odd(
        "size of 32-bit overflow",
        CHUNKED + b"\r\n100000002\r\nok\r\n0\r\n\r\n",
        Verdict(200, b"ok\r\n0\r\n\r\n", "waits", keep=False),
    ),
    Odd("not chunked at all", CHUNKED + b"\r\n<html>ok</html>\r\n", Verdict(200, b"", "cut", keep=False)),
    Odd(
        "bare LF in the framing",
        CHUNKED + b"\r\n2\nok\n0\n\n",
        Verdict(200, b"", "cut", keep=False),
        differs={"h11": BARE_LF_CHUNK, "twisted": BARE_LF_CHUNK},
    ),
    Odd(
        "chunk shorter than its size by one, so that only LF follows",
        CHUNKED + b"\r\n3\r\nok\r\n0\r\n\r\n",
        Verdict(200, b"ok\r", "cut", keep=False),
    ),
    Odd("bare CR after a size", CHUNKED + b"\r\n2\rok\r\n0\r\n\r\n", Verdict(200, b"", "cut", keep=False)),
    Odd("chunk longer than its size", CHUNKED + b"\r\n2\r\nokay\r\n0\r\n\r\n", Verdict(200, b"ok", "cut", keep=False)),
    Odd(
        "chunk shorter than its size", CHUNKED + b"\r\n4\r\nok\r\n0\r\n\r\n", Verdict(200, b"ok\r\n", "cut", keep=False)
    ),
    Odd("no line end after a chunk", CHUNKED + b"\r\n2\r\nok0\r\n\r\n", Verdict(200, b"ok", "cut", keep=False)),
    Odd("two CR after a chunk", CHUNKED + b"\r\n2\r\nok\r\r\n0\r\n\r\n", Verdict(200, b"ok", "cut", keep=False)),
    Odd(
        "trailers",
        CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: y\r\nZ: a\r\n\r\n",
        READ,
        headers=((b"transfer-encoding", b"chunked"),),
    ),
    Odd(
        "trailer without a colon",
        CHUNKED + b"\r\n2\r\nok\r\n0\r\nbad\r\n\r\n",
        READ,
        differs={"h11": TRAILER_LINE, "httptools": TRAILER_LINE},
    ),
    Odd(
        "bare LF after the last chunk's size",
        CHUNKED + b"\r\n2\r\nok\r\n0\nX: y\n\n",
        Verdict(200, b"ok", "cut", keep=False),
        differs={"h11": BARE_LF_CHUNK, "twisted": BARE_LF_CHUNK},
    ),
    Odd(
        "trailers with bare LF",
        CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: y\n\n",
        READ,
        differs={"twisted": BARE_LF_TRAILER, "httptools": BARE_LF_TRAILER},
    ),
    Odd(
        "trailers that try to frame",
        CHUNKED + b"\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\nConnection: close\r\n\r\n",
        READ,
        differs={"httptools": TRAILER_LENGTH},
    ),
    Odd(
        "trailers longer than 64 KiB",
        CHUNKED + b"\r\n2\r\nok\r\n0" + b"\r\nX: y" * 12000 + b"\r\n\r\n",
        Verdict(200, b"ok", "cut", keep=False),
        differs={"h11": NO_LIMIT, "httptools": NO_LIMIT},
    ),
    Odd("no last chunk", CHUNKED + b"\r\n2\r\nok\r\n", Verdict(200, b"ok", "cut", keep=False), closes=True),
    Odd(
        "no line after the last chunk",
        CHUNKED + b"\r\n2\r\nok\r\n0\r\n",
        Verdict(200, b"ok", "cut", keep=False),
        closes=True,
    ),
    Odd("closed in a chunk", CHUNKED + b"\r\n5\r\nok", Verdict(200, b"ok", "cut", keep=False), closes=True),
    Odd("closed in a size", CHUNKED + b"\r\n2\r\nok\r\n1", Verdict(200, b"ok", "cut", keep=False), closes=True),
    Odd(
        "bytes after the last chunk",
        CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\nmore",
        READ_ONCE,
        differs={"twisted": LEFTOVER},
    ),
    # Transfer codings
    Odd(
        "chunked and a length",
        CHUNKED + b"Content-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ_ONCE,
        differs={"h11": BOTH_KEPT, "twisted": BOTH_KEPT, "httptools": BOTH_REFUSED},
    ),
    Odd(
        "a length and chunked",
        LENGTH_2 + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ_ONCE,
        differs={"h11": BOTH_KEPT, "twisted": BOTH_KEPT, "httptools": BOTH_REFUSED},
    ),
    Odd(
        "chunked and a bad length",
        CHUNKED + b"Content-Length: x\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ_ONCE,
        differs={"h11": BOTH_REFUSED, "twisted": BOTH_KEPT, "httptools": BOTH_REFUSED},
    ),
    Odd(
        "chunked and two lengths",
        CHUNKED + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ_ONCE,
        differs={"h11": BOTH_REFUSED, "twisted": BOTH_KEPT, "httptools": BOTH_REFUSED},
    ),
    Odd(
        "gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": CODINGS, "twisted": CODINGS},
    ),
    Odd(
        "gzip and chunked in two fields",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": CODINGS, "twisted": CODINGS},
    ),
    Odd(
        "chunked twice",
        CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": CODINGS},
    ),
    Odd(
        "chunked, gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nok",
        Verdict(200, b"ok", "at close", keep=False),
        closes=True,
        differs={"h11": CODINGS, "twisted": CODINGS},
    ),
    Odd(
        "unknown coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: zip\r\n\r\nok",
        Verdict(200, b"ok", "at close", keep=False),
        closes=True,
        differs={"h11": CODINGS, "twisted": CODINGS},
    ),
    Odd(
        "unknown coding and a length",
        LENGTH_2 + b"Transfer-Encoding: zip\r\n\r\nokay",
        Verdict(200, b"okay", "at close", keep=False),
        closes=True,
        differs={"h11": CODINGS, "twisted": CODINGS, "httptools": BOTH_REFUSED},
    ),
    Odd(
        "a coding that only looks like chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok",
        Verdict(200, b"ok", "at close", keep=False),
        closes=True,
        differs={"h11": CODINGS, "twisted": CODINGS},
    ),
    Odd(
        "identity and a length",
        LENGTH_2 + b"Transfer-Encoding: identity\r\n\r\nok",
        READ,
        differs={"h11": CODINGS, "twisted": CODINGS, "httptools": BOTH_REFUSED},
    ),
    Odd(
        "identity",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        Verdict(200, b"ok", "at close", keep=False),
        closes=True,
        differs={"h11": CODINGS, "twisted": CODINGS},
    ),
    Odd(
        "empty coding and a length",
        LENGTH_2 + b"Transfer-Encoding:\r\n\r\nok",
        READ,
        differs={"h11": EMPTY_CODING, "twisted": EMPTY_CODING, "httptools": EMPTY_CODING},
    ),
    Odd(
        "chunked with a parameter",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": CODINGS, "twisted": CODINGS, "httptools": PARAMETER},
    ),
    Odd(
        "space before the colon of the coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ,
        differs={"h11": SPACE_COLON, "twisted": SPACE_COLON, "httptools": SPACE_COLON},
    ),
    Odd(
        "vertical tab before chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Verdict(200, b"2\r\nok\r\n0\r\n\r\n", "at close", keep=False),
        closes=True,
        differs={"h11": CODINGS, "twisted": VT, "httptools": CONTROL},
    ),
    Odd(
        "HTTP/1.0 chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        READ_ONCE,
        differs={"twisted": CODING_10, "httptools": CODING_10},
    ),
    # Connection
    Odd("close", LENGTH_2 + b"Connection: close\r\n\r\nok", READ_ONCE),
    Odd(
        "Close in upper case, in a list",
        LENGTH_2 + b"Connection: Upgrade , CLOSE\r\n\r\nok",
        READ_ONCE,
        differs={"twisted": CONNECTION},
    ),
    Odd("close in a second field", LENGTH_2 + b"Connection: keep-alive\r\nConnection: close\r\n\r\nok", READ_ONCE),
    Odd("a token that holds close", LENGTH_2 + b"Connection: enclosed\r\n\r\nok", READ),
    Odd("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", READ_ONCE, differs={"twisted": CONNECTION}),
    Odd(
        "HTTP/1.0 keep-alive",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok",
        READ,
        differs={"h11": KEEP_10},
    ),
    Odd(
        "HTTP/1.0 keep-alive without length",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok",
        Verdict(200, b"ok", "at close", keep=False),
        closes=True,
    ),
    Odd("Upgrade offered", LENGTH_2 + b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\n\r\nok", READ),
    Odd(
        "Proxy-Connection: close",
        LENGTH_2 + b"Proxy-Connection: close\r\n\r\nok",
        READ,
        differs={"httptools": PROXY_CONNECTION},
    ),
]
