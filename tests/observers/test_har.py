"""HAR: whole at any moment, as the format wants it, and without what nobody may read."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pytest_twisted import ensureDeferred
from scrapy import Request

from scrapy_poolplus.core.events import (
    CloseReason,
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    SessionOpened,
    SessionRetired,
)
from scrapy_poolplus.core.origin import HttpProtocol, Origin, PoolKey, Proxy, Route
from scrapy_poolplus.net.wire import BodyEnd, Outcome, ResponseHead, Timings
from scrapy_poolplus.observers.har import HarObserver, har_path
from scrapy_poolplus.tracing import Exchanged, Trace
from tests.conftest import RunCrawl, StartNginx
from tests.observers.har_schema import HAR
from tests.peers.pooling import Bench
from tests.servers.nginx import Door

KEY = PoolKey(Route(Origin.of("https", "a.example"), proxy=Proxy("http", "p.example", 3128, b"Basic c2VjcmV0")))
H2 = HttpProtocol.HTTP2
validator = Draft202012Validator(HAR)


def har_of(path: Path) -> dict[str, Any]:
    """The file, which is valid."""
    document = json.loads(path.read_text(encoding="utf-8"))
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not problems, "\n".join(problems)
    log: dict[str, Any] = document["log"]
    return log


def trace() -> Trace:
    """Of a request that took 0.25 s of waiting, 0.25 of DNS, 0.5 of TCP, 1 of TLS, then 0.125, 2 and 0.5."""
    bench = Bench()
    ticket, _ = bench.ask()
    bench.clock.advance(2.0)
    connection = bench.dials[0].connect(H2)
    connection.timings = Timings(resolve=0.25, connect=0.5, tls=1.0)
    exchange = connection.exchanges.pop(0)
    bench.clock.advance(0.125)
    exchange.sent()
    bench.clock.advance(2.0)
    exchange.head(ResponseHead(200, [], None, "h2"))
    bench.clock.advance(0.5)
    exchange.carried(120, 3_400)
    exchange.done(Outcome(end=BodyEnd.COMPLETE))
    return Trace(ticket)


def exchanged(**values: Any) -> Exchanged:
    body = values.pop("body", b"<p>")
    given: dict[str, Any] = {
        "trace": trace(),
        "method": "GET",
        "url": "https://a.example/x?page=2",
        "sent": [(b"Host", b"a.example"), (b"Accept", b"text/html")],
        "upload": b"",
        "version": "h2",
        "status": 200,
        "received": [(b"content-type", b"text/html"), (b"server", b"x")],
        "size": len(body),
        "error": None,
    }
    return Exchanged(**{**given, **values}, body=lambda: body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "crawl.har"


Writer = Callable[..., HarObserver]


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    """`writer(masked=..., bodies=...)` begins the file; it is closed when the test ends."""
    made: list[HarObserver] = []

    def make(**options: bool) -> HarObserver:
        made.append(HarObserver(path, version="1.0", clock=lambda: 0.0, **options))
        return made[-1]

    yield make
    for har in made:
        har.close()


def test_the_file_is_whole_before_the_first_request_after_each_and_at_the_end(path: Path, writer: Writer) -> None:
    har = writer()
    assert har_of(path)["entries"] == []
    for count in (1, 2, 3):
        har.exchanged(exchanged())
        assert len(har_of(path)["entries"]) == count
    har.close()
    assert len(har_of(path)["entries"]) == 3
    assert (har_of(path)["_connections"], har_of(path)["_sessions"]) == ([], [])


def test_memory_does_not_grow_with_the_number_of_entries(path: Path, writer: Writer) -> None:
    har, one = writer(), exchanged()
    for _ in range(100):
        har.exchanged(one)
    tracemalloc.start()
    try:
        for _ in range(2_000):
            har.exchanged(one)
        # The interpreter keeps the memory of freed objects for new ones until then.
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The entries are a megabyte and more; what is kept of each is nothing.
    assert path.stat().st_size > 1_000_000
    assert grown < 50_000


def test_an_entry_says_what_went_over_the_wire_and_where_its_time_went(path: Path, writer: Writer) -> None:
    har = writer()
    har.exchanged(exchanged())
    (entry,) = har_of(path)["entries"]
    assert entry["timings"] == {
        "blocked": 250,
        "dns": 250,
        "connect": 1500,
        "ssl": 1000,
        "send": 125,
        "wait": 2000,
        "receive": 500,
    }
    assert entry["time"] == 4625, "TLS is part of connect"
    assert (entry["connection"], entry["_request_number"], entry["_protocol"]) == ("1", 1, "h2")
    assert (entry["_bytes_sent"], entry["_bytes_received"]) == (120, 3_400)
    assert entry["request"]["headers"] == [
        {"name": "Host", "value": "a.example"},
        {"name": "Accept", "value": "text/html"},
    ]
    assert entry["request"]["queryString"] == [{"name": "page", "value": "2"}]
    assert entry["response"]["content"] == {"size": 3, "mimeType": "text/html"}
    assert "_error" not in entry


def test_a_request_without_a_response_is_an_entry_too(path: Path, writer: Writer) -> None:
    har = writer()
    bench = Bench()
    ticket, _ = bench.ask()
    bench.clock.advance(3.0)
    ticket.cancel()
    har.exchanged(
        exchanged(trace=Trace(ticket), status=0, version="", received=(), size=0, error="DownloadTimeoutError")
    )
    (entry,) = har_of(path)["entries"]
    assert (entry["response"]["status"], entry["_error"], entry["time"]) == (0, "DownloadTimeoutError", 3000)
    assert (entry["timings"]["connect"], entry["timings"]["wait"]) == (-1, 0)
    assert "connection" not in entry


SECRETS = {
    "url": "https://ada:lovelace@a.example/x?api_key=lovelace",
    "method": "POST",
    "upload": b"user=ada&password=lovelace",
    "sent": [
        (b"Host", b"a.example"),
        (b"Authorization", b"Bearer lovelace"),
        (b"Cookie", b"sid=lovelace; theme=lovelace"),
        (b"Content-Type", b"application/x-www-form-urlencoded"),
        (b"Referer", b"https://a.example/?token=lovelace"),
    ],
    "received": [(b"Set-Cookie", b"sid=lovelace; Path=/"), (b"Location", b"/?session=lovelace")],
}


@pytest.mark.parametrize("bodies", [False, True])
def test_credentials_and_cookies_are_masked(path: Path, writer: Writer, bodies: bool) -> None:
    har = writer(bodies=bodies)
    har.exchanged(exchanged(**SECRETS, body=b"welcome"))
    assert "lovelace" not in path.read_text()
    (entry,) = har_of(path)["entries"]
    assert [cookie["name"] for cookie in entry["request"]["cookies"]] == ["sid", "theme"]
    assert [cookie["name"] for cookie in entry["response"]["cookies"]] == ["sid"]
    assert ("postData" in entry["request"], "text" in entry["response"]["content"]) == (bodies, bodies)


def test_other_uploads_than_forms_are_masked_whole(path: Path, writer: Writer) -> None:
    har = writer(bodies=True)
    har.exchanged(exchanged(sent=[(b"Content-Type", b"application/json")], upload=b'{"p": "lovelace"}'))
    assert "lovelace" not in path.read_text()


def test_nothing_is_masked_where_the_user_wants_to_see_it(path: Path, writer: Writer) -> None:
    har = writer(masked=False, bodies=True)
    har.exchanged(exchanged(**SECRETS, body=b"\xff\xfe"))
    assert path.read_text().count("lovelace") >= 10
    (entry,) = har_of(path)["entries"]
    assert entry["request"]["postData"]["text"] == "user=ada&password=lovelace"
    assert entry["response"]["content"]["encoding"] == "base64"


def test_odd_bytes_and_surrogates_do_not_break_the_file(path: Path, writer: Writer) -> None:
    har = writer()
    har.exchanged(exchanged(received=[(b"X-Odd", b"\xe9\x00\xff")], url="https://a.example/\udc80?x=\ud800"))
    har.exchanged(exchanged())
    assert len(har_of(path)["entries"]) == 2


def test_connections_and_sessions_follow_at_the_end(path: Path, writer: Writer) -> None:
    har = writer()
    har(ConnectionOpened(1, KEY, H2, 0.25, 1.0))
    har(SessionOpened("s1", KEY, 50, 1.0))
    har(DialFailed(2, KEY, "TLSError", 0.5, 1.5))
    har(ConnectionClosed(2, KEY, None, CloseReason.DIAL_FAILED, 0, 0, 0, 0.0, 1.5))
    har(ConnectionClosed(1, KEY, H2, CloseReason.GOAWAY, 5, 100, 200, 3.0, 4.0))
    har(SessionRetired("s1", CloseReason.REQUESTS_SPENT, 5, 4.0))
    har.exchanged(exchanged())
    har.close()
    log = har_of(path)
    failed, closed = log["_connections"]
    assert (failed["id"], failed["failed"], failed["host"]) == (2, "TLSError", "a.example")
    assert (closed["reason"], closed["requests"], closed["dial"], closed["sent"]) == ("goaway", 5, 250, 100)
    assert closed["opened"] < closed["closed"]
    assert closed["proxy"] == "http://p.example:3128"
    (session,) = log["_sessions"]
    assert (session["id"], session["promised"], session["requests"]) == ("s1", 50, 5)
    assert "c2VjcmV0" not in path.read_text()


def test_nothing_is_written_after_the_end(path: Path, writer: Writer) -> None:
    har = writer()
    har.close()
    before = path.read_bytes()
    har.exchanged(exchanged())
    har(ConnectionOpened(1, KEY, H2, 0.25, 1.0))
    har.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_full_disk_ends_the_file_and_not_the_crawl(
    writer: Writer, caplog: pytest.LogCaptureFixture, at_the_end: bool
) -> None:
    class Full:
        closed = False

        def seek(self, _: int) -> None:
            pass

        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.closed = True

    har = writer()
    assert har._file is not None
    har._file.close()
    har._file = full = Full()  # type: ignore[assignment]
    if at_the_end:
        har.close()
    har.exchanged(exchanged())
    har.exchanged(exchanged())
    har.close()
    assert full.closed
    assert [record.getMessage() for record in caplog.records if "POOLPLUS_HAR" in record.getMessage()] == [
        "POOLPLUS_HAR ends here, the file cannot be written any more: [Errno 28] No space left on device"
    ]


class Named:
    name, region = "books", "eu"


def test_a_path_takes_the_spiders_name_the_time_and_its_attributes() -> None:
    filled = str(har_path("out/%(name)s-%(region)s-%(time)s-100%%.har", "books", Named()))
    assert filled.startswith("out/books-eu-20")
    assert filled.endswith("-100%.har")
    assert ":" not in filled


@pytest.mark.parametrize(
    ("template", "words"),
    [("%(nmae)s.har", "%(nmae)s is neither"), ("100%!.har", "%%"), ("%(time)d.har", "%%")],
)
def test_a_path_that_cannot_be_filled_in_says_why(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        har_path(template, "books", Named())


@ensureDeferred
async def test_a_crawl_is_written_with_every_request_and_connection(
    run_crawl: RunCrawl, nginx: StartNginx, tmp_path: Path
) -> None:
    server = nginx(keepalive_requests=20)
    urls: list[Request | str] = [server.url(Door.H2, f"/100?{n}&token=lovelace") for n in range(50)]
    urls.append(Request(server.url(Door.TLS, "/100"), cookies={"sid": "lovelace"}))
    urls.append(Request(server.url(Door.TLS, f"/{1 << 20}"), meta={"download_maxsize": 10}))
    template = str(tmp_path / "%(name)s-%(time)s.har")
    crawled = await run_crawl(urls, POOLPLUS_HAR=template)
    assert len(crawled.responses) == 51
    (path,) = tmp_path.glob("fetch-*.har")
    assert "lovelace" not in path.read_text()
    log = har_of(path)
    assert len(log["entries"]) == 52
    assert [entry["_error"] for entry in log["entries"] if "_error" in entry] == ["DownloadCancelledError"]
    opened = crawled.stats["poolplus/connections/opened"]
    assert len([found for found in log["_connections"] if "failed" not in found]) == opened
    assert {int(entry["connection"]) for entry in log["entries"]} <= {found["id"] for found in log["_connections"]}
    assert sum(connection.get("requests", 0) for connection in log["_connections"]) >= 52
    assert {connection.get("reason") for connection in log["_connections"]} >= {"goaway"}


@ensureDeferred
async def test_a_path_that_cannot_be_written_stops_the_crawl(
    run_crawl: RunCrawl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await run_crawl([], POOLPLUS_HAR=str(tmp_path))
    assert "POOLPLUS_HAR is" in caplog.text
    assert "cannot be written" in caplog.text
