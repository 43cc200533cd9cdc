"""TLS (contract, section 8)."""

from __future__ import annotations

import logging
import re
import stat
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from scrapy import version_info
from scrapy.core.downloader import contextfactory
from scrapy.exceptions import DownloadConnectionRefusedError, DownloadFailedError, ScrapyDeprecationWarning

from .certificates import ServerCertificate, authority, issued, self_signed
from .handlers import Downloads, handler_path
from .marks import beyond_stock, poolplus_only
from .peers import works
from .resolving import resolved_to_loopback
from .running import H2, HTTPS1, Child, Transport, gather
from .scripts import fetch_script, settings_of

REFUSED = (DownloadConnectionRefusedError, DownloadFailedError)
VERSIONS = {
    "TLSv1.0": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}


@pytest.fixture(params=(HTTPS1, H2), ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> Transport:
    """https with HTTP/1.1, https with h2."""
    return request.param


def mine() -> ServerCertificate:
    """Signed by itself, for this machine."""
    return self_signed("localhost", dns=("localhost",), ip=("127.0.0.1",))


# 8.1, 8.2


CERTIFICATES = {
    "self-signed": (mine, "127.0.0.1"),
    "another host": (lambda: self_signed("www.example.com", dns=("www.example.com",)), "localhost"),
    "name for address": (lambda: self_signed("localhost", dns=("localhost",)), "127.0.0.1"),
    "address for name": (lambda: self_signed("127.0.0.1", ip=("127.0.0.1",)), "localhost"),
    "no names at all": (lambda: self_signed("localhost"), "localhost"),
    "unknown authority": (lambda: issued("localhost", "127.0.0.1"), "localhost"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_certificates_are_not_verified_by_default(
    transport: Transport, download: Any, serve: Any, case: str
) -> None:
    make, host = CERTIFICATES[case]
    response = await download(serve(transport, works, certificate=make()).url("/", host=host))
    assert response.body == b"Works"


@pytest.mark.parametrize(
    ("case", "host"), [("another host", "localhost"), ("name for address", "127.0.0.1")], ids=["name", "address"]
)
async def test_a_certificate_for_another_host_is_warned_of(
    transport: Transport, download: Any, serve: Any, caplog: pytest.LogCaptureFixture, case: str, host: str
) -> None:
    make, _ = CERTIFICATES[case]
    await download(serve(transport, works, certificate=make()).url("/", host=host))
    warned = [record for record in caplog.records if "Remote certificate is not valid" in record.getMessage()]
    assert {record.levelno for record in warned} == {logging.WARNING}
    assert all(
        record.getMessage().startswith(f'Remote certificate is not valid for hostname "{host}"; ') for record in warned
    )


async def test_a_certificate_for_the_host_is_not_warned_of(
    transport: Transport, download: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = serve(transport, works, certificate=mine())
    for host in ("localhost", "127.0.0.1"):
        await download(peer.url("/", host=host))
    assert "Remote certificate" not in caplog.text


@pytest.mark.parametrize("case", CERTIFICATES)
async def test_with_verification_the_same_servers_fail(
    transport: Transport, downloads: Any, serve: Any, case: str
) -> None:
    make, host = CERTIFICATES[case]
    download = downloads(transport, DOWNLOAD_VERIFY_CERTIFICATES=True)
    with pytest.raises(REFUSED):
        await download(serve(transport, works, certificate=make()).url("/", host=host), meta={"download_timeout": 5})


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL trusts the authority of these tests, as it would one of the system."""
    file = tmp_path / "authority.pem"
    file.write_bytes(authority().cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_with_verification_a_trusted_certificate_for_the_host_works(
    transport: Transport, downloads: Any, serve: Any, host: str
) -> None:
    download = downloads(transport, DOWNLOAD_VERIFY_CERTIFICATES=True)
    response = await download(serve(transport, works, certificate=issued("localhost", "127.0.0.1")).url("/", host=host))
    assert response.body == b"Works"


@pytest.mark.usefixtures("trusted")
async def test_with_verification_a_trusted_certificate_for_another_host_fails(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    download = downloads(transport, DOWNLOAD_VERIFY_CERTIFICATES=True)
    for name, host in (("other.example", "localhost"), ("localhost", "127.0.0.1")):
        with pytest.raises(REFUSED):
            await download(
                serve(transport, works, certificate=issued(name)).url("/", host=host), meta={"download_timeout": 5}
            )


@pytest.mark.usefixtures("trusted")
async def test_the_verification_of_one_host_does_not_touch_that_of_another(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    # Both handshakes at once: what is kept in a shared context would be that of the last host.
    download = downloads(transport, DOWNLOAD_VERIFY_CERTIFICATES=True)
    peers = {name: serve(transport, works, certificate=issued(name)) for name in ("one.example", "two.example")}
    with resolved_to_loopback():
        for _ in range(2):
            responses = await gather(*(download(peer.url("/", host=name)) for name, peer in peers.items()))
            assert [response.body for response in responses] == [b"Works", b"Works"]
            for name, peer in zip(("two.example", "one.example"), peers.values(), strict=True):
                with pytest.raises(REFUSED):
                    await download(peer.url("/", host=name), meta={"download_timeout": 5})


# 8.3

TRIED_SCRAPY = ((2, 15), (2, 16), (2, 17), (2, 18), (2, 19))
"""With these the private function of Scrapy that the handler asks for a context factory was tried."""


def test_scrapy_is_a_version_that_was_tried() -> None:
    """Another one is no failure: the tests below say whether it still does what the handler relies on."""
    if version_info[:2] not in TRIED_SCRAPY:
        pytest.skip(f"Scrapy {version_info} is new here; when the tests of this file pass, add it to TRIED_SCRAPY")
    assert callable(contextfactory._load_context_factory_from_settings)


async def test_the_deprecated_verifying_context_factory_verifies(transport: Transport, kind: str, serve: Any) -> None:
    settings = {"DOWNLOADER_CLIENTCONTEXTFACTORY": "scrapy.core.downloader.contextfactory.BrowserLikeContextFactory"}
    with pytest.warns(ScrapyDeprecationWarning) as caught:
        download = Downloads(handler_path(kind, transport), settings)
    try:
        texts = [str(warning.message) for warning in caught]
        assert sum("'DOWNLOADER_CLIENTCONTEXTFACTORY' setting is deprecated" in text for text in texts) == 1
        assert sum("BrowserLikeContextFactory is deprecated" in text for text in texts) == 1
        with pytest.raises(REFUSED):
            await download(serve(transport, works, certificate=mine()).url("/"), meta={"download_timeout": 5})
    finally:
        await download.close()


@pytest.mark.usefixtures("trusted")
async def test_the_deprecated_verifying_context_factory_accepts_what_is_trusted(
    transport: Transport, kind: str, serve: Any
) -> None:
    settings = {"DOWNLOADER_CLIENTCONTEXTFACTORY": "scrapy.core.downloader.contextfactory.BrowserLikeContextFactory"}
    with pytest.warns(ScrapyDeprecationWarning):
        download = Downloads(handler_path(kind, transport), settings)
    try:
        response = await download(serve(transport, works, certificate=issued("localhost")).url("/", host="localhost"))
        assert (response.body, response.protocol) == (b"Works", transport.protocol)
    finally:
        await download.close()


class PinnedContextFactory:
    """A user's own: deprecated, but still asked for every connection."""

    asked: list[tuple[bytes, int]] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        from scrapy.core.downloader.contextfactory import _ScrapyClientContextFactory

        self._inner = _ScrapyClientContextFactory()

    @classmethod
    def from_crawler(cls, crawler: Any, *arguments: Any, **keywords: Any) -> PinnedContextFactory:
        return cls()

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        self.asked.append((hostname, port))
        return self._inner.creatorForNetloc(hostname, port)


async def test_a_context_factory_of_the_user_is_asked_for_each_connection(
    transport: Transport, kind: str, serve: Any
) -> None:
    from twisted.web.iweb import IPolicyForHTTPS
    from zope.interface import classImplements

    classImplements(PinnedContextFactory, IPolicyForHTTPS)
    PinnedContextFactory.asked.clear()
    peer = serve(transport, works)
    with pytest.warns(ScrapyDeprecationWarning):
        download = Downloads(
            handler_path(kind, transport), {"DOWNLOADER_CLIENTCONTEXTFACTORY": f"{__name__}.PinnedContextFactory"}
        )
    try:
        response = await download(peer.url("/", host="localhost"))
        assert (response.body, response.protocol) == (b"Works", transport.protocol)
    finally:
        await download.close()
    assert PinnedContextFactory.asked == [(b"localhost", peer.port)]


@pytest.mark.parametrize(("value", "version"), [("TLS", None), ("TLSv1.2", "TLSv1.2")])
async def test_the_deprecated_tls_method(
    transport: Transport, kind: str, serve: Any, value: str, version: str | None
) -> None:
    if version is None:
        download = Downloads(handler_path(kind, transport), {"DOWNLOADER_CLIENT_TLS_METHOD": value})
    else:
        # Deprecated since Scrapy 2.17.
        warned = version_info >= (2, 17)
        with pytest.warns(ScrapyDeprecationWarning, match="DOWNLOADER_CLIENT_TLS_METHOD") if warned else nullcontext():
            download = Downloads(handler_path(kind, transport), {"DOWNLOADER_CLIENT_TLS_METHOD": value})
    try:
        peer = serve(transport, works)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Twisted's, for a method
            assert (await download(peer.url("/"))).body == b"Works"
        if version is not None:
            assert peer.connections[0].transport.getHandle().get_protocol_version_name() == version
    finally:
        await download.close()


# 8.4


def camellia(transport: Transport) -> SSL.Context:
    """A server that has nothing but CAMELLIA256-SHA."""
    return mine().context(alpn=transport.alpn, ciphers="CAMELLIA256-SHA:@SECLEVEL=0", maximum=SSL.TLS1_2_VERSION)


@pytest.mark.parametrize("ciphers", ["CAMELLIA256-SHA", "CAMELLIA256-SHA:@SECLEVEL=0"])
async def test_a_cipher_string_is_obeyed(transport: Transport, downloads: Any, serve: Any, ciphers: str) -> None:
    download = downloads(transport, DOWNLOADER_CLIENT_TLS_CIPHERS=ciphers)
    peer = serve(transport, works, context=camellia(transport))
    response = await download(peer.url("/"))
    assert (response.body, response.protocol) == (b"Works", transport.protocol)
    assert peer.connections[0].transport.getHandle().get_cipher_name() == "CAMELLIA256-SHA"


async def test_without_a_cipher_string_the_defaults_of_the_library_hold(
    transport: Transport, downloads: Any, serve: Any
) -> None:
    download = downloads(transport, DOWNLOADER_CLIENT_TLS_CIPHERS=None)
    assert (await download(serve(transport, works).url("/"))).body == b"Works"
    with pytest.raises(REFUSED):
        await download(serve(transport, works, context=camellia(transport)).url("/"), meta={"download_timeout": 5})


# 8.5


def limits(low: str | None, high: str | None) -> dict[str, str | None]:
    """The settings."""
    return {"DOWNLOAD_TLS_MIN_VERSION": low, "DOWNLOAD_TLS_MAX_VERSION": high}


def server(transport: Transport, low: str | None, high: str | None) -> SSL.Context:
    """A server with those limits; old versions need weak ciphers."""
    return mine().context(
        alpn=transport.alpn,
        ciphers="DEFAULT:@SECLEVEL=0",
        minimum=VERSIONS[low] if low else None,
        maximum=VERSIONS[high] if high else None,
    )


@pytest.mark.parametrize(
    ("server_limits", "client_limits", "spoken"),
    [
        ((None, None), (None, None), "TLSv1.3"),
        ((None, None), ("TLSv1.2", None), "TLSv1.3"),
        ((None, None), (None, "TLSv1.2"), "TLSv1.2"),
        ((None, None), ("TLSv1.2", "TLSv1.2"), "TLSv1.2"),
        ((None, None), ("TLSv1.3", None), "TLSv1.3"),
        ((None, None), ("TLSv1.3", "TLSv1.3"), "TLSv1.3"),
        ((None, None), ("TLSv1.0", None), "TLSv1.3"),
        (("TLSv1.2", "TLSv1.2"), (None, None), "TLSv1.2"),
        (("TLSv1.3", None), ("TLSv1.2", "TLSv1.3"), "TLSv1.3"),
        ((None, "TLSv1.2"), ("TLSv1.1", None), "TLSv1.2"),
    ],
)
async def test_version_limits_with_a_version_in_common(
    transport: Transport, downloads: Any, serve: Any, server_limits: Any, client_limits: Any, spoken: str
) -> None:
    peer = serve(transport, works, context=server(transport, *server_limits))
    response = await downloads(transport, **limits(*client_limits))(peer.url("/"))
    assert (response.body, response.protocol) == (b"Works", transport.protocol)
    assert peer.connections[0].transport.getHandle().get_protocol_version_name() == spoken


@pytest.mark.parametrize(
    ("server_limits", "client_limits"),
    [
        (("TLSv1.3", None), (None, "TLSv1.2")),
        ((None, "TLSv1.2"), ("TLSv1.3", None)),
        (("TLSv1.2", "TLSv1.2"), ("TLSv1.3", "TLSv1.3")),
        (("TLSv1.3", "TLSv1.3"), ("TLSv1.0", "TLSv1.1")),
    ],
)
async def test_version_limits_without_a_version_in_common(
    transport: Transport, downloads: Any, serve: Any, server_limits: Any, client_limits: Any
) -> None:
    peer = serve(transport, works, context=server(transport, *server_limits))
    with pytest.raises(REFUSED):
        await downloads(transport, **limits(*client_limits))(peer.url("/"), meta={"download_timeout": 5})


@pytest.mark.parametrize("setting", ["DOWNLOAD_TLS_MIN_VERSION", "DOWNLOAD_TLS_MAX_VERSION"])
async def test_an_unknown_version_fails_at_build(transport: Transport, downloads: Any, setting: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown {setting} value: invalid"):
        downloads(transport, **{setting: "invalid"})


# 8.6


async def test_verbose_logging_tells_protocol_cipher_and_certificate(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer = serve(transport, works, certificate=mine())
    await downloads(transport, DOWNLOADER_CLIENT_TLS_VERBOSE_LOGGING=True)(peer.url("/", host="localhost"))
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert any(
        re.fullmatch(r"SSL connection to localhost using protocol TLSv1\.3, cipher \S+", message)
        for message in messages
    )
    name = "CN=localhost,O=Scrapy,C=IE"
    assert f'SSL connection certificate: issuer "{name}", subject "{name}"' in messages


@beyond_stock("tells of the connection only", on=["h2"])
async def test_verbose_logging_tells_of_each_response_of_a_kept_connection(
    transport: Transport, downloads: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer = serve(transport, works, certificate=mine())
    download = downloads(transport, DOWNLOADER_CLIENT_TLS_VERBOSE_LOGGING=True)
    for number in (1, 2, 3):
        await download(peer.url("/", host="localhost"))
        assert caplog.text.count("SSL connection to localhost using protocol TLSv1.3, cipher ") == number
        assert caplog.text.count("SSL connection certificate: issuer ") == number
    assert len(peer.connections) == 1


async def test_without_verbose_logging_nothing_of_it_is_logged(
    transport: Transport, download: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await download(serve(transport, works, certificate=mine()).url("/", host="localhost"))
    assert "SSL connection" not in caplog.text


# 8.7


@pytest.mark.parametrize("verify", [False, True], ids=["unverified", "verified"])
@pytest.mark.usefixtures("trusted")
async def test_session_keys_are_written(
    transport: Transport, downloads: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    download = downloads(transport, DOWNLOAD_VERIFY_CERTIFICATES=verify)
    await download(serve(transport, works, certificate=issued("localhost", "127.0.0.1")).url("/"))
    lines = keys.read_text().splitlines()
    assert lines
    assert all(len(line.split()) == 3 for line in lines)


@beyond_stock("warns at each connection")
async def test_session_keys_that_can_not_be_written_are_warned_of_once(
    transport: Transport,
    downloads: Any,
    serve: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = tmp_path / "no such folder" / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    download = downloads(transport)
    for peer in (serve(transport, works), serve(transport, works)):
        assert (await download(peer.url("/"))).body == b"Works"
    warned = [record for record in caplog.records if "TLS session keys" in record.getMessage()]
    assert [record.levelno for record in warned] == [logging.WARNING]
    assert warned[0].getMessage().startswith(f"Cannot write TLS session keys to {keys}: ")


async def test_no_session_keys_are_written_unasked(
    transport: Transport, download: Any, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    await download(serve(transport, works).url("/"))
    assert [path for path in tmp_path.iterdir() if stat.S_ISREG(path.stat().st_mode)] == []


async def test_session_keys_are_not_written_where_python_ignores_the_environment(
    kind: str, site: Any, tmp_path: Path
) -> None:
    transport = H2
    keys = tmp_path / "keys.log"
    script = tmp_path / "fetch.py"
    script.write_text(fetch_script(settings_of(kind, transport), [site.url(transport, "/text")]))
    for option, expected in ((["-E"], False), ([], True)):
        ended = await Child([*option, str(script)], tmp_path, {"SSLKEYLOGFILE": str(keys)}).ended()
        assert "200" in ended.clean().out
        assert keys.exists() is expected


# 8.8


@pytest.mark.parametrize(("host", "name"), [("localhost", b"localhost"), ("127.0.0.1", None)], ids=["name", "address"])
async def test_the_server_name_is_that_of_the_url_and_never_an_address(
    transport: Transport, download: Any, serve: Any, host: str, name: bytes | None
) -> None:
    peer = serve(transport, works)
    await download(peer.url("/", host=host))
    assert peer.names == [name]


@beyond_stock("fails with an h2 ProtocolError for a given Host", on=["h2"])
async def test_a_given_host_header_does_not_change_the_server_name(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    await download(peer.url("/", host="localhost"), headers={"Host": "other.example"})
    assert peer.names == [b"localhost"]


async def test_each_of_two_names_of_one_server_gets_its_own_handshake(
    transport: Transport, download: Any, serve: Any
) -> None:
    peer = serve(transport, works)
    with resolved_to_loopback():
        for name in ("one.example", "two.example"):
            await download(peer.url("/", host=name))
    assert peer.names == [b"one.example", b"two.example"]
    assert len(peer.connections) == 2


async def test_servers_without_secure_renegotiation_are_not_refused(
    transport: Transport, downloads: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No library of today makes a server that old, so the option is looked for where it counts: in the context.
    options: dict[SSL.Context, int] = {}
    used: list[int] = []
    set_options = SSL.Context.set_options
    set_connect_state = SSL.Connection.set_connect_state

    def remember_options(context: SSL.Context, given: int) -> int:
        options[context] = options.get(context, 0) | given
        return set_options(context, given)

    def remember_use(connection: SSL.Connection) -> None:
        used.append(options.get(connection.get_context(), 0))
        set_connect_state(connection)

    monkeypatch.setattr(SSL.Context, "set_options", remember_options)
    monkeypatch.setattr(SSL.Connection, "set_connect_state", remember_use)
    await downloads(transport)(serve(transport, works).url("/"))
    legacy_server_connect = 0x4
    assert [bool(given & legacy_server_connect) for given in used] == [True]


# 8.9


@pytest.mark.parametrize(
    ("alpn", "protocol"),
    [
        ((b"h2",), "h2"),
        ((b"h2", b"http/1.1"), "h2"),
        ((b"http/1.1", b"h2"), "HTTP/1.1"),
        ((b"http/1.1",), "HTTP/1.1"),
        ((), "HTTP/1.1"),
    ],
    ids=["h2", "h2 first", "http/1.1 first", "http/1.1", "no ALPN"],
)
@poolplus_only("only our handler knows both protocols")
async def test_the_server_chooses_the_protocol(
    downloads: Any, serve: Any, alpn: tuple[bytes, ...], protocol: str
) -> None:
    chosen = H2 if protocol == "h2" else HTTPS1
    peer = serve(chosen, works, context=mine().context(alpn=alpn))
    response = await downloads(chosen)(peer.url("/"))
    assert (response.body, response.protocol) == (b"Works", protocol)


@pytest.mark.parametrize(
    ("offered", "protocol"),
    [(["h2"], "h2"), (["http/1.1"], "HTTP/1.1"), (["http/1.1", "h2"], "h2")],
    ids=["h2", "http/1.1", "both"],
)
@poolplus_only("a policy of ours")
async def test_only_the_protocols_of_the_policy_are_offered(
    downloads: Any, serve: Any, offered: list[str], protocol: str
) -> None:
    chosen = H2 if protocol == "h2" else HTTPS1
    peer = serve(chosen, works, context=mine().context(alpn=(b"h2", b"http/1.1")))
    response = await downloads(chosen, POOLPLUS_POLICY={"protocols": offered})(peer.url("/"))
    assert (response.body, response.protocol) == (b"Works", protocol)
