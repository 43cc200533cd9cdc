"""`scrapy poolplus report`: what it reads from a HAR file, and that the page works in a browser without a network."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from scrapy_poolplus.commands import PoolPlusCommand
from scrapy_poolplus.report import Crawl, read_har, report_page
from tests.conftest import RunCrawl, StartNginx
from tests.crawling import scrapy_command
from tests.devtools import CHROMIUM, NO_CHROMIUM
from tests.servers.nginx import Door


def entry(number: int, connection: int, nth: int, **values: Any) -> dict[str, Any]:
    timings = {"blocked": 1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": 8, "receive": 1}
    if nth == 1:
        timings |= {"dns": 5, "connect": 30, "ssl": 20}
    return {
        "startedDateTime": f"2026-01-01T00:00:{number:02}.000+00:00",
        "time": sum(ms for name, ms in timings.items() if ms > 0 and name != "ssl"),
        "request": {"method": "GET", "url": f"https://a.example/{number}", "httpVersion": "HTTP/2"},
        "response": {"status": 200, "bodySize": 10, "httpVersion": "HTTP/2"},
        "timings": timings,
        "connection": str(connection),
        "_request_number": nth,
        "_protocol": "h2",
        "_bytes_received": 2048,
        **values,
    }


ENTRIES = [
    entry(1, 1, 1, _session="s-1"),
    entry(2, 1, 2, _session="s-1"),
    entry(3, 1, 3, _session="s-1"),
    entry(4, 2, 1, _session="s-2"),
    entry(5, 2, 2, _session="s-2", _error="DownloadTimeoutError"),
]
CONNECTIONS = {
    1: {
        "id": 1,
        "host": "a.example",
        "opened": "2026-01-01T00:00:01.000+00:00",
        "closed": "2026-01-01T00:00:09.000+00:00",
        "reason": "requests_spent",
        "requests": 3,
        "allowed": 3,
        "dial": 35.0,
    },
    3: {"id": 3, "host": "a.example", "failed": "TLSError", "closed": "2026-01-01T00:00:02.000+00:00", "dial": 5.0},
}
SESSIONS = {"s-1": {"id": "s-1", "host": "a.example", "promised": 10, "reason": "requests_spent"}}
CRAWL = Crawl(ENTRIES, CONNECTIONS, SESSIONS)


def section(page: str, title: str) -> list[list[str]]:
    """The rows of the table under a heading, as text."""
    part = page.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
    rows = part.partition("<tbody>")[2] or part.partition("<table class=bars>")[2]
    return [
        [re.sub(r"<[^>]*>|</.*", "", cell).strip() for cell in re.split(r"<t[dh][^>]*>", row)[1:]]
        for row in rows.partition("</table>")[0].split("<tr>")[1:]
    ]


def test_the_tables_are_what_the_entries_say() -> None:
    page = report_page(CRAWL, "mine")
    assert section(page, "Requests per connection") == [["1", "0", ""], ["2 to 5", "2", ""]]
    assert section(page, "Why connections were closed") == [
        ["requests_spent", "1", ""],
        ["not made: TLSError", "1", ""],
    ]
    assert section(page, "What a server could tie together") == [
        ["a.example", "5", "2", "3", "2.5", "2", "3", "2.5", "60.0%"]
    ]
    assert section(page, "Sessions") == [
        ["s-1", "a.example", "3", "10", "1", "requests_spent"],
        ["s-2", "a.example", "2", "?", "1", "open to the end"],
    ]
    assert section(page, "What handshakes cost") == [["a.example", "2", "10", "20", "40", "35.0", "14.0"]]
    assert section(page, "Budgets of connections") == [["a.example", "1", "3 to 3", "100%"]]
    assert section(page, "Slowest requests")[0][0] == "45"
    assert section(page, "Failed requests") == [["DownloadTimeoutError", "a.example", "1"]]


def test_nothing_of_a_crawl_becomes_a_part_of_the_page() -> None:
    odd = entry(1, 1, 1)
    odd["request"]["url"] = "https://a.example/</script><script>bad()</script>@DATA@<b>"
    page = report_page(Crawl([odd]), "<b>@DATA@")
    assert "<script>bad" not in page
    assert "<b>@" not in page
    assert page.count("@DATA@") >= 2, "shown as it is, not filled in"
    data = page.partition('type="application/json">')[2].partition("</script>")[0]
    assert json.loads(data)["requests"][0]["u"] == odd["request"]["url"]


def test_a_crawl_without_requests_has_a_page_too() -> None:
    assert "<b>0</b><span>requests</span>" in report_page(Crawl([]), "empty")


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "cut.har"
    lines = ",\n".join(json.dumps(found) for found in ENTRIES)
    path.write_text('{"log": {"version": "1.2", "entries": [\n' + lines[:-40])
    crawl = read_har(path)
    assert (len(crawl.entries), crawl.whole) == (4, False)
    assert "The file ends before the crawl did" in report_page(crawl, "cut")


def test_what_is_no_har_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.har"
    path.write_text('{"other": 1}')
    with pytest.raises(ValueError, match=r"no\.har is no HAR file"):
        read_har(path)


def test_scrapy_finds_the_command() -> None:
    (found,) = [point for point in entry_points(group="scrapy.commands") if point.name == "poolplus"]
    assert found.load() is PoolPlusCommand


def test_the_command_writes_the_page_beside_the_file_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "crawl.har").write_text(json.dumps({"log": {"entries": ENTRIES}}))
    ended = scrapy_command(tmp_path, "poolplus", "report", "crawl.har")
    assert (ended.exit_code, ended.log.strip()) == (0, "5 requests, shown in crawl.html")
    assert "<title>crawl - scrapy-poolplus" in (tmp_path / "crawl.html").read_text()
    assert scrapy_command(tmp_path, "poolplus", "report", "crawl.har", "-o", "x.html").exit_code == 0
    assert (tmp_path / "x.html").read_bytes() == (tmp_path / "crawl.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what"),
        (("report",), "say what"),
        (("draw", "x.har"), "say what"),
        (("report", "x.har"), "No such file"),
    ],
)
def test_a_wrong_call_says_what_would_be_right(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = scrapy_command(tmp_path, "poolplus", *arguments)
    assert ended.exit_code == 2
    assert words in ended.log
    assert "Traceback" not in ended.log


def browsed(page: Path, profile: Path) -> subprocess.CompletedProcess[str]:
    """What the page has become in a browser that resolves no name."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    return subprocess.run(
        [
            CHROMIUM,
            *options,
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=100,
        check=True,
    )


@ensureDeferred
async def test_the_page_of_a_crawl_draws_in_a_browser_that_has_no_network(
    run_crawl: RunCrawl, nginx: StartNginx, tmp_path: Path
) -> None:
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    server = nginx(keepalive_requests=10)
    har, page = tmp_path / "crawl.har", tmp_path / "crawl.html"
    crawled = await run_crawl([server.url(Door.H2, f"/100?{n}") for n in range(40)], POOLPLUS_HAR=str(har))
    page.write_text(report_page(read_har(har), "crawl"), encoding="utf-8")
    dom = browsed(page, tmp_path / "profile")
    used = {entry["connection"] for entry in json.loads(har.read_text())["log"]["entries"]}
    assert len(crawled.responses) == 40
    assert f'data-rows="{len(used)}"' in dom.stdout
    assert f"{len(used)} connections." in dom.stdout
    assert "CONSOLE" not in dom.stderr, "the browser complained"
    assert not re.findall(r"""(?:src|href)\s*=|url\(|@import""", page.read_text().partition("<script id=")[0])
