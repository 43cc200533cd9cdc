"""POOLPLUS_HAR: the crawl as a HAR 1.2 file, written while it runs.

An entry is one line, written when its request is over, followed by what closes the document; the next entry takes the
place of that. So the file is complete JSON at any moment, also after a kill, and nothing is kept in memory. What is
known of connections and sessions gathers in a temporary file and follows at the end, under names that begin with an
underscore, which readers of HAR pass over.
"""

from __future__ import annotations

import json
import logging
import tempfile
from base64 import b64encode
from datetime import datetime, timezone
from http.client import responses as reasons
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from scrapy_poolplus.core.events import (
    ConnectionClosed,
    ConnectionOpened,
    DialFailed,
    PoolEvent,
    SessionOpened,
    SessionRetired,
)
from scrapy_poolplus.masking import MASK, is_secret, masked_form, masked_header, masked_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from scrapy_poolplus.core.origin import PoolKey
    from scrapy_poolplus.tracing import Exchanged

logger = logging.getLogger(__name__)

Json = dict[str, Any]
Pairs = list[tuple[str, str]]

END = b"\n]}}\n"
FORM = "application/x-www-form-urlencoded"


class HarObserver:
    """Writes `path`, which is overwritten. Raises OSError where it cannot be.

    `clock` gives seconds as events and traces have them. `masked`: credentials and cookies are replaced by
    ``[masked]``. `bodies`: what was sent and received goes into the file too.
    """

    kinds: frozenset[type] = frozenset({ConnectionOpened, ConnectionClosed, DialFailed, SessionOpened, SessionRetired})
    """The pool's events that it keeps; requests come by ``exchanged``."""

    def __init__(
        self, path: Path, *, version: str, clock: Callable[[], float], masked: bool = True, bodies: bool = False
    ) -> None:
        self._masked = masked
        self.bodies = bodies
        # One point in time as both clocks have it: the wall clock may be set back while the crawl runs.
        self._epoch = datetime.now(timezone.utc).timestamp() - clock()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: each entry is one write, and whoever reads the file meanwhile finds it whole.
        self._file: IO[bytes] | None = path.open("wb", buffering=0)
        self._later = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed by `close`
        self._open: dict[int | str, Json] = {}
        """What is known of the connections (by number) and sessions (by id) that are open."""
        head = {"version": "1.2", "creator": {"name": "scrapy-poolplus", "version": version}, "pages": []}
        begin = json.dumps(head)[:-1].encode() + b', "entries": ['
        self._end = 0
        self._separator = b"\n"
        self._write(b'{"log": ' + begin)

    # ---- pool events

    def __call__(self, event: PoolEvent) -> None:
        """Keep what is known of a connection or a session."""
        if self._file is None:
            return
        match event:
            case ConnectionOpened():
                self._open[event.connection] = {"dial": _ms(event.dial_seconds)}
            case ConnectionClosed() if event.protocol is not None:
                self._keep(
                    "connection",
                    id=event.connection,
                    **_place(event.key),
                    protocol=event.protocol.value,
                    opened=self._at(event.at - event.seconds),
                    closed=self._at(event.at),
                    reason=event.reason.value,
                    requests=event.requests,
                    sent=event.sent,
                    received=event.received,
                    allowed=event.allowed,
                    **self._open.pop(event.connection, {}),
                )
            case DialFailed():
                self._keep(
                    "connection",
                    id=event.connection,
                    **_place(event.key),
                    failed=event.error,
                    closed=self._at(event.at),
                    dial=_ms(event.dial_seconds),
                )
            case SessionOpened():
                began = {**_place(event.key), "promised": event.promised, "opened": self._at(event.at)}
                self._open[event.session] = began
            case SessionRetired():
                self._keep(
                    "session",
                    id=event.session,
                    retired=self._at(event.at),
                    reason=event.reason.value,
                    requests=event.requests,
                    **self._open.pop(event.session, {}),
                )
            case _:
                pass

    def _keep(self, kind: str, **values: object) -> None:
        json.dump({"kind": kind, **values}, self._later)
        self._later.write("\n")

    # ---- requests

    def exchanged(self, exchange: Exchanged) -> None:
        """Write a request that is over."""
        if self._file is None:
            return
        entry = json.dumps(self._entry(exchange), ensure_ascii=False).encode("utf-8", "backslashreplace")
        self._write(self._separator + entry)
        self._separator = b",\n"

    def close(self) -> None:
        """Add what is known of connections and sessions, and end the file. Nothing is written after it."""
        if self._file is None:
            return
        self._later.flush()
        self._seek_end()
        for piece in self._rest():
            self._append(piece)
            if self._file is None:
                return
        self._stop()

    def _rest(self) -> Iterator[bytes]:
        """What follows the last entry."""
        for kind in ("connection", "session"):
            yield f'\n], "_{kind}s": ['.encode()
            separator = "\n"
            self._later.seek(0)
            for line in self._later:
                values = json.loads(line)
                if values.pop("kind") == kind:
                    yield (separator + json.dumps(values)).encode()
                    separator = ",\n"
        for name, values in self._open.items():
            if isinstance(name, str):
                # A session that was open to the end.
                yield (separator + json.dumps({"id": name, **values})).encode()
                separator = ",\n"
        yield END

    # ---- the file

    def _write(self, data: bytes) -> None:
        """Put `data` in the place of the end, and the end behind it."""
        self._seek_end()
        self._append(data + END)
        self._end += len(data)

    def _seek_end(self) -> None:
        if self._file is not None:
            self._file.seek(self._end)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            logger.warning("POOLPLUS_HAR ends here, the file cannot be written any more: %s", error)
            self._stop()

    def _stop(self) -> None:
        self._later.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _at(self, seconds: float) -> str:
        return datetime.fromtimestamp(self._epoch + seconds, timezone.utc).isoformat(timespec="milliseconds")

    # ---- HAR's own shapes

    def _entry(self, exchange: Exchanged) -> Json:
        trace = exchange.trace
        info = trace.info()
        timings = {
            "blocked": _ms(info.waited),
            "dns": _ms(info.dns or None),
            # HAR counts TLS into connect.
            "connect": _ms((info.connect or 0.0) + (info.tls or 0.0) or None),
            "ssl": _ms(info.tls or None),
            "send": max(0.0, _ms(info.sent)),
            "wait": max(0.0, _ms(info.first_byte)),
            "receive": max(0.0, _ms(info.received)),
        }
        entry: Json = {
            "startedDateTime": self._at(trace.asked_at),
            "time": round(sum(ms for name, ms in timings.items() if ms > 0 and name != "ssl"), 3),
            "request": self._request(exchange),
            "response": self._response(exchange),
            "cache": {},
            "timings": timings,
        }
        if info.peer_address is not None:
            entry["serverIPAddress"] = info.peer_address
        if info.id is not None:
            entry["connection"] = str(info.id)
        extra = {
            # As Chromium's developer tools read it: to them `connection` is a port.
            "_connectionId": entry.get("connection"),
            "_session": info.session,
            "_proxy": info.proxy,
            "_protocol": info.protocol,
            "_request_number": info.request_number,
            "_replays": info.replays,
            "_tls": info.tls_version,
            "_bytes_sent": info.bytes_sent,
            "_bytes_received": info.bytes_received,
            "_error": exchange.error,
        }
        if info.bytes_received is not None:
            # The same tools' name for it.
            entry["response"]["_transferSize"] = info.bytes_received
        return entry | {name: value for name, value in extra.items() if value is not None}

    def _request(self, exchange: Exchanged) -> Json:
        headers = [(_text(name), _text(value)) for name, value in exchange.sent]
        query = parse_qsl(urlsplit(exchange.url).query, keep_blank_values=True)
        found: Json = {
            "method": exchange.method,
            "url": masked_url(exchange.url) if self._masked else exchange.url,
            "httpVersion": "HTTP/2" if exchange.version == "h2" else exchange.version or "unknown",
            "cookies": self._cookies(headers, "cookie"),
            "headers": self._headers(headers),
            "queryString": self._pairs(query),
            "headersSize": -1,
            "bodySize": len(exchange.upload),
        }
        if self.bodies and exchange.upload:
            found["postData"] = self._posted(headers, exchange.upload)
        return found

    def _response(self, exchange: Exchanged) -> Json:
        headers = [(_text(name), _text(value)) for name, value in exchange.received]
        kind = _first(headers, "content-type")
        content: Json = {"size": exchange.size, "mimeType": kind or "x-unknown"}
        if self.bodies and exchange.size:
            content |= _body(exchange.body())
        location = _first(headers, "location")
        return {
            "status": exchange.status,
            "statusText": reasons.get(exchange.status, ""),
            "httpVersion": "HTTP/2" if exchange.version == "h2" else exchange.version or "unknown",
            "cookies": self._cookies(headers, "set-cookie"),
            "headers": self._headers(headers),
            "content": content,
            "redirectURL": masked_url(location) if self._masked else location,
            "headersSize": -1,
            "bodySize": exchange.size,
        }

    def _headers(self, headers: Pairs) -> list[Json]:
        shown = ((name, masked_header(name, value) if self._masked else value) for name, value in headers)
        return [{"name": name, "value": value} for name, value in shown]

    def _pairs(self, pairs: Iterable[tuple[str, str]]) -> list[Json]:
        return [
            {"name": name, "value": MASK if self._masked and value and is_secret(name) else value}
            for name, value in pairs
        ]

    def _cookies(self, headers: Pairs, header: str) -> list[Json]:
        found = []
        for name, value in headers:
            if name.lower() == header:
                for pair in value.split(";")[: 1 if header == "set-cookie" else None]:
                    cookie, _, content = pair.strip().partition("=")
                    found.append({"name": cookie, "value": MASK if self._masked else content})
        return found

    def _posted(self, headers: Pairs, upload: bytes) -> Json:
        kind = _first(headers, "content-type") or "x-unknown"
        text = _text(upload)
        form = kind.partition(";")[0].strip().lower() == FORM
        if self._masked:
            # What a form is made of is known; what else may be a credential is not.
            text = masked_form(text) if form else MASK
        return {"mimeType": kind, "text": text}


def har_path(template: str, name: str, spider: object) -> Path:
    """`template` with ``%(name)s`` (of the spider), ``%(time)s`` (UTC, as in FEEDS) and other attributes of the spider.

    Raises ValueError that names what cannot be filled in.
    """
    now = datetime.now(timezone.utc).replace(microsecond=0).isoformat().replace(":", "-")
    places = _Places(spider, {"name": name, "time": now})
    try:
        return Path(template % places)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error}; write a percent sign as %%") from None


class _Places(dict[str, str]):
    def __init__(self, spider: object, known: dict[str, str]) -> None:
        super().__init__(known)
        self._spider = spider

    def __missing__(self, key: str) -> object:
        try:
            return getattr(self._spider, key)
        except AttributeError:
            raise ValueError(f"%({key})s is neither %(name)s nor %(time)s nor an attribute of the spider") from None


def _place(key: PoolKey) -> Json:
    proxy = key.route.proxy
    place: Json = {"host": key.origin.host, "origin": str(key.origin)}
    return place if proxy is None else place | {"proxy": str(proxy)}


def _ms(seconds: float | None) -> float:
    """Milliseconds; -1 for what there was not, as HAR has it."""
    return -1 if seconds is None else round(seconds * 1000, 3)


def _first(headers: Pairs, wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _body(body: bytes) -> Json:
    try:
        return {"text": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"text": b64encode(body).decode(), "encoding": "base64"}
