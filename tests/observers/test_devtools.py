"""What Chromium's developer tools make of a HAR file of ours, with their own reader of such files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request

from tests.conftest import RunCrawl, StartNginx
from tests.devtools import CHROMIUM, NO_CHROMIUM, devtools
from tests.servers.nginx import Door

READ = """
(async () => {
    let har;
    try {
        har = await import("./models/har/har.js");
    } catch (error) {
        return null;
    }
    const log = new har.HARFormat.HARRoot(%s).log;
    return har.Importer.Importer.requestsFromHARLog(log).map(request => ({
        url: request.url(),
        method: request.requestMethod,
        status: request.statusCode,
        protocol: request.protocol,
        connection: request.connectionId,
        size: request.resourceSize,
        transferred: request.transferSize,
        server: request.responseHeaderValue("server"),
        seconds: request.duration,
        timing: request.timing,
    }));
})()
"""


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """`read(path)`: the requests as the developer tools have them, by URL."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)

    def read(path: Path) -> dict[str, dict[str, Any]]:
        with devtools(tmp_path / "profile") as tools:
            requests = tools.run(READ % path.read_text(encoding="utf-8"))
        if requests is None:
            pytest.skip("the developer tools of this Chromium keep their reader of HAR elsewhere")
        return {request["url"]: request for request in requests}

    return read


@ensureDeferred
async def test_developer_tools_show_what_happened(
    run_crawl: RunCrawl, nginx: StartNginx, tmp_path: Path, read: Any
) -> None:
    server = nginx()
    first, second = server.url(Door.H2, "/100?1"), server.url(Door.H2, "/100?2")
    missing, posted = server.url(Door.TLS, "/missing"), server.url(Door.TLS, "/100?posted")
    refused = "https://127.0.0.1:1/"
    har = tmp_path / "crawl.har"
    await run_crawl(
        [first, second, missing, Request(posted, method="POST"), refused],
        POOLPLUS_HAR=str(har),
        CONCURRENT_REQUESTS=1,
    )
    entries = {entry["request"]["url"]: entry for entry in json.loads(har.read_text())["log"]["entries"]}
    shown = read(har)
    assert set(shown) == set(entries)
    assert {url: (found["status"], found["protocol"]) for url, found in shown.items()} == {
        first: (200, "http/2"),
        second: (200, "http/2"),
        missing: (404, "http/1.1"),
        posted: (405, "http/1.1"),
        refused: (0, "unknown"),
    }
    assert shown[posted]["method"] == "POST"
    assert shown[first]["server"].startswith("nginx")
    assert shown[first]["size"] == 100
    for url, found in shown.items():
        entry = entries[url]
        assert found["connection"] == entry.get("connection", "")
        assert found["transferred"] == entry.get("_bytes_received", 0)
        assert found["seconds"] * 1000 == pytest.approx(entry["time"], abs=0.01)
        assert phases(found["timing"]) == pytest.approx(expected(entry["timings"]), abs=0.01)
    assert shown[first]["connection"] == shown[second]["connection"] != shown[missing]["connection"]


def phases(timing: dict[str, float]) -> dict[str, float]:
    """Milliseconds, as the developer tools draw them."""
    drawn = {
        "dns": ("dnsStart", "dnsEnd"),
        "connect": ("connectStart", "connectEnd"),
        "ssl": ("sslStart", "sslEnd"),
        "send": ("sendStart", "sendEnd"),
        "wait": ("receiveHeadersStart", "receiveHeadersEnd"),
    }
    return {name: timing[end] - timing[begin] for name, (begin, end) in drawn.items() if timing[begin] >= 0}


def expected(timings: dict[str, float]) -> dict[str, float]:
    """Of HAR's own. A phase that did not happen is -1 in it; a wait of nothing is not drawn."""
    drawn = {name: ms for name, ms in timings.items() if ms >= 0 and name not in ("blocked", "receive")}
    return drawn if drawn["wait"] else {name: ms for name, ms in drawn.items() if name != "wait"}
