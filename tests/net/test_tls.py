"""TLS against servers on this machine: who is trusted, what is agreed on, and that nothing of one connection is in another."""

from __future__ import annotations

import contextlib
import datetime
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from scrapy_poolplus.core.errors import PoolPlusError, TLSError
from scrapy_poolplus.core.origin import HttpProtocol, Origin, Route
from scrapy_poolplus.net import names as names_room
from scrapy_poolplus.net import tls as tls_room
from scrapy_poolplus.net.connection import Connection
from scrapy_poolplus.net.dialer import Dial, Dialer
from scrapy_poolplus.net.tls import TLSProfile, TLSVersion, openssl_text, tls_version, was_resumed
from scrapy_poolplus.net.wire import EngineConfig
from tests.peers.engines import RecordingConnectionOwner, SilentEngine
from tests.peers.listening import Listening, Server, ServerTLS
from tests.peers.machine import Machine, Names

BOTH = (HttpProtocol.HTTP2, HttpProtocol.HTTP1)
LOCAL = Names({name: ["127.0.0.1"] for name in ("a.example", "b.example", "foo_bar.example")})


class Client:
    """A dialer with one profile, for which the names of LOCAL are this machine."""

    def __init__(self, **profile: Any) -> None:
        from twisted.internet import reactor

        self.dialer = Dialer(Machine(reactor, LOCAL), TLSProfile(**profile), make_engine=SilentEngine)

    def dial(self, host: str, server: Server) -> Dial:
        return self.dial_port(host, server.port)

    def dial_port(self, host: str, port: int) -> Dial:
        route = Route(Origin.of("https", host, port))
        return self.dialer.dial(route, BOTH, EngineConfig(), timeout=None, setting="")

    async def connect(self, host: str, server: Server) -> Connection:
        """Dial, and close again."""
        connection = await self.dial(host, server).result
        await ended(connection)
        return connection

    async def refused(self, host: str, server: Server) -> PoolPlusError:
        with pytest.raises(PoolPlusError) as raised:
            await self.dial(host, server).result
        return raised.value


async def ended(connection: Connection) -> None:
    gone: Deferred[None] = Deferred()
    connection.when_gone = lambda: gone.callback(None)
    connection.close()
    await gone


@pytest.fixture
def leaf(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("a.example", "127.0.0.1")


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform trusts our authority."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.fixture
def server(listening: Listening, leaf: trustme.LeafCert, tmp_path: Path) -> Server:
    return listening.start(ServerTLS(leaf, tmp_path, alpn=[b"h2"]))


# Verification.


@ensureDeferred
async def test_without_verification_any_chain_is_accepted(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    await Client().connect("a.example", server)
    await Client().connect("127.0.0.1", server)
    assert caplog.records == []


@ensureDeferred
@pytest.mark.parametrize("host", ["b.example", "127.0.0.2", "foo_bar.example"])
async def test_without_verification_a_wrong_name_is_one_warning(
    host: str, listening: Listening, leaf: trustme.LeafCert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path), interface="127.0.0.2" if host == "127.0.0.2" else "127.0.0.1")
    await Client().connect(host, server)
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.WARNING, "scrapy_poolplus.net.tls")
    assert record.getMessage().startswith(f'Remote certificate is not valid for hostname "{host}"; ')


@ensureDeferred
@pytest.mark.parametrize("host", ["a.example", "a.example.", "127.0.0.1"])
async def test_with_verification_a_right_chain_and_name_are_accepted(host: str, trusted: None, server: Server) -> None:
    client = Client(verify=True)
    if host.endswith("."):
        client.dialer._reactor.nameResolver = Names({host: ["127.0.0.1"]})
    connection = await client.connect(host, server)
    assert connection.protocol is HttpProtocol.HTTP2


@ensureDeferred
async def test_with_verification_an_unknown_authority_is_an_error_with_openssls_reason(server: Server) -> None:
    error = await Client(verify=True).refused("a.example", server)
    assert isinstance(error, TLSError)
    assert str(error) == (
        f"TLS handshake with a.example:{server.port} failed: "
        "certificate verify failed: unable to get local issuer certificate (depth 0)"
    )
    await server.all_gone()


@ensureDeferred
async def test_with_verification_an_expired_certificate_is_an_error_that_says_so(
    trusted: None, listening: Listening, authority: trustme.CA, tmp_path: Path
) -> None:
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    leaf = authority.issue_cert("a.example", not_before=then, not_after=then + datetime.timedelta(days=1))
    server = listening.start(ServerTLS(leaf, tmp_path))
    error = await Client(verify=True).refused("a.example", server)
    assert isinstance(error, TLSError)
    assert "certificate verify failed: certificate has expired (depth 0)" in str(error)


@ensureDeferred
@pytest.mark.parametrize("host", ["b.example", "foo_bar.example", "127.0.0.2"])
async def test_with_verification_a_wrong_name_is_an_error_before_anything_is_sent(
    host: str, trusted: None, listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    interface = host if host == "127.0.0.2" else "127.0.0.1"
    server = listening.start(ServerTLS(leaf, tmp_path), interface=interface)
    error = await Client(verify=True).refused(host, server)
    assert isinstance(error, TLSError)
    assert f'failed: certificate is not valid for "{host}": ' in str(error)
    await server.all_gone()
    assert [connection.received for connection in server.connections] == [b""]


def anonymous(context: SSL.Context) -> None:
    context.set_options(SSL.OP_NO_TLSv1_3)
    context.set_cipher_list(b"AECDH-AES256-SHA:@SECLEVEL=0")


@ensureDeferred
async def test_a_server_without_certificate_is_a_wrong_name(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path, configure=anonymous))
    ciphers = "AECDH-AES256-SHA:@SECLEVEL=0"
    connection = await Client(ciphers=ciphers).connect("a.example", server)
    assert connection.certificate is None
    assert caplog.messages == ['Remote certificate is not valid for hostname "a.example"; the server has none']
    error = await Client(ciphers=ciphers, verify=True).refused("a.example", server)
    assert str(error).endswith('failed: certificate is not valid for "a.example": the server has none')


@ensureDeferred
@pytest.mark.parametrize("verify", [False, True])
async def test_a_certificate_that_cannot_be_parsed_is_a_wrong_name(
    *, verify: bool, trusted: None, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unparsable(connection: SSL.Connection, host: str) -> None:
        raise OverflowError("odd extension")

    monkeypatch.setattr(names_room, "verify_hostname", unparsable)
    client = Client(verify=verify)
    if verify:
        assert str(await client.refused("a.example", server)).endswith('valid for "a.example": odd extension')
    else:
        await client.connect("a.example", server)
        assert caplog.messages == ['Remote certificate is not valid for hostname "a.example"; odd extension']


@ensureDeferred
async def test_hosts_that_share_a_context_are_each_verified_for_their_own_name(trusted: None, server: Server) -> None:
    client = Client(verify=True)
    dials = [client.dial(host, server) for host in ("a.example", "b.example") * 3]
    results: list[Any] = await gatherResults([dial.result.addErrback(lambda failure: failure.value) for dial in dials])
    assert [type(result) for result in results] == [Connection, TLSError] * 3
    for connection in results[::2]:
        await ended(connection)


@ensureDeferred
async def test_each_host_on_a_shared_context_has_its_own_server_name(
    listening: Listening, leaf: trustme.LeafCert, tmp_path: Path
) -> None:
    tls = ServerTLS(leaf, tmp_path)
    server = listening.start(tls)
    client = Client()
    hosts = ["a.example", "b.example", "127.0.0.1"]
    for connection in await gatherResults([client.dial(host, server).result for host in hosts]):
        await ended(connection)
    assert sorted(tls.server_names, key=str) == [None, b"a.example", b"b.example"]


def test_a_profile_has_one_context_and_loads_the_trust_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    made: list[SSL.Context] = []
    loaded: list[SSL.Context] = []

    class Counted(SSL.Context):
        def __init__(self, method: int) -> None:
            made.append(self)
            super().__init__(method)

        def set_default_verify_paths(self) -> None:
            loaded.append(self)
            super().set_default_verify_paths()

    monkeypatch.setattr(tls_room.SSL, "Context", Counted)
    route = Route(Origin.of("https", "a.example", 1))
    for profile in (TLSProfile(), TLSProfile(verify=True)):
        dialer = Dialer(Machine(reactor, LOCAL), profile, make_engine=SilentEngine)
        for _ in range(5):
            dialer.dial(route, BOTH, EngineConfig(), timeout=None, setting="").cancel()
    assert len(made) == 2
    assert loaded == [made[1]]


# TLS sessions.


class Sessions:
    """A server in a thread, on the ssl module, which can say whether a TLS session was resumed."""

    def __init__(self, leaf: trustme.LeafCert, version: ssl.TLSVersion) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = self._context.maximum_version = version
        leaf.configure_cert(self._context)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.reused: list[bool | None] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            accepted, _ = self._listening.accept()
            with accepted, contextlib.suppress(OSError):
                accepted.settimeout(10)
                if not accepted.recv(1, socket.MSG_PEEK):
                    return
                with self._context.wrap_socket(accepted, server_side=True) as speaking:
                    self.reused.append(speaking.session_reused)
                    speaking.sendall(b"with this come the tickets of TLS 1.3")
                    # A session that ends without close_notify could not be resumed by anyone.
                    speaking.unwrap()

    def stop(self) -> None:
        with self._listening:
            socket.create_connection(("127.0.0.1", self.port)).close()
            self._thread.join()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLSv1.2", "TLSv1.3"])
def sessions(request: pytest.FixtureRequest, leaf: trustme.LeafCert) -> Iterator[Sessions]:
    started = Sessions(leaf, request.param)
    yield started
    started.stop()


@ensureDeferred
async def test_tls_sessions_are_never_resumed(sessions: Sessions, listening: Listening) -> None:
    client = Client()
    for _ in range(4):
        connection = await client.dial_port("a.example", sessions.port).result
        gone: Deferred[None] = Deferred()
        connection.when_gone = lambda gone=gone: gone.callback(None)  # type: ignore[misc]
        connection.attach(RecordingConnectionOwner())
        await gone
        assert connection.bytes_received > 0
    assert sessions.reused == [False] * 4


# Versions and ciphers.


def limits(low: int | None, high: int | None) -> Any:
    def configure(context: SSL.Context) -> None:
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        if low is not None:
            context.set_min_proto_version(low)
        if high is not None:
            context.set_max_proto_version(high)

    return configure


V10, V11, V12, V13 = SSL.TLS1_VERSION, SSL.TLS1_1_VERSION, SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


@ensureDeferred
@pytest.mark.parametrize(
    ("server_limits", "client_limits", "agreed"),
    [
        ((None, None), (None, None), "TLSv1.3"),
        ((None, V12), (None, None), "TLSv1.2"),
        ((None, None), (None, "TLSv1.2"), "TLSv1.2"),
        ((None, None), ("TLSv1.3", None), "TLSv1.3"),
        ((None, None), ("TLSv1.0", None), "TLSv1.3"),
        ((None, None), ("TLSv1.0", "TLSv1.2"), "TLSv1.2"),
        ((V10, V11), ("TLSv1.0", None), "TLSv1.1"),
        ((V10, V10), ("TLSv1.0", None), "TLSv1"),
        ((None, None), (None, "TLSv1.1"), "TLSv1.1"),
        ((V13, None), (None, "TLSv1.2"), None),
        ((None, V12), ("TLSv1.3", None), None),
        ((V10, V11), ("TLSv1.2", None), None),
        ((V10, V11), (None, None), None),
    ],
)
async def test_versions_are_agreed_on_within_both_sides_limits(
    *,
    server_limits: tuple[int | None, int | None],
    client_limits: tuple[str | None, str | None],
    agreed: str | None,
    listening: Listening,
    leaf: trustme.LeafCert,
    tmp_path: Path,
) -> None:
    server = listening.start(ServerTLS(leaf, tmp_path, configure=limits(*server_limits)))
    low, high = (tls_version(value, "") for value in client_limits)
    client = Client(min_version=low, max_version=high)
    if agreed is None:
        error = await client.refused("a.example", server)
        assert isinstance(error, TLSError)
        assert "version" in str(error) or "protocol" in str(error)
    else:
        assert (await client.connect("a.example", server)).tls_version == agreed


def test_the_names_of_versions_are_those_of_scrapys_settings() -> None:
    assert tls_version(None, "DOWNLOAD_TLS_MIN_VERSION") is None
    assert tls_version("TLSv1.2", "DOWNLOAD_TLS_MIN_VERSION") is TLSVersion.TLS_1_2
    with pytest.raises(ValueError, match=r"^Unknown DOWNLOAD_TLS_MIN_VERSION value: invalid$"):
        tls_version("invalid", "DOWNLOAD_TLS_MIN_VERSION")


@ensureDeferred
async def test_a_cipher_string_is_obeyed(listening: Listening, leaf: trustme.LeafCert, tmp_path: Path) -> None:
    def only_camellia(context: SSL.Context) -> None:
        context.set_options(SSL.OP_NO_TLSv1_3)
        context.set_cipher_list(b"CAMELLIA256-SHA")

    rsa = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("a.example", key_type=trustme.KeyType.RSA)
    server = listening.start(ServerTLS(rsa, tmp_path, alpn=[b"h2"], configure=only_camellia))
    connection = await Client(ciphers="CAMELLIA256-SHA").connect("a.example", server)
    assert (connection.tls_cipher, connection.protocol) == ("CAMELLIA256-SHA", HttpProtocol.HTTP2)
    assert isinstance(await Client().refused("a.example", server), TLSError)


@pytest.mark.parametrize("ciphers", ["NOSUCH", "", "ß"])
def test_a_cipher_string_that_matches_nothing_is_an_error_when_the_dialer_is_made(ciphers: str) -> None:
    with pytest.raises(ValueError, match=f"no cipher of OpenSSL matches '{ciphers}'"):
        Client(ciphers=ciphers)


def test_versions_that_exclude_each_other_are_an_error_when_the_dialer_is_made() -> None:
    with pytest.raises(ValueError, match=r"the minimum TLS version TLSv1\.3 is above the maximum TLSv1\.2"):
        Client(min_version=TLSVersion.TLS_1_3, max_version=TLSVersion.TLS_1_2)


def test_servers_without_secure_renegotiation_are_accepted_by_default() -> None:
    context = tls_room._make_context(TLSProfile())
    assert context.set_options(0) & tls_room.OP_LEGACY_SERVER_CONNECT
    assert not tls_room._make_context(TLSProfile(options=0)).set_options(0) & tls_room.OP_LEGACY_SERVER_CONNECT


# SSLKEYLOGFILE.


@ensureDeferred
@pytest.mark.parametrize("verify", [False, True])
async def test_tls_keys_are_logged_where_the_environment_asks_for_it(
    verify: bool, trusted: None, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    await Client(verify=verify).connect("a.example", server)
    lines = file.read_text().splitlines()
    assert lines
    assert {len(line.split()) for line in lines} == {3}


def test_a_key_log_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "nosuch" / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    Client()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"Cannot write TLS session keys to {file}: [Errno 2] No such file or directory: '{file}'"
    )


@ensureDeferred
async def test_a_key_log_that_goes_away_ends_no_connection(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv("SSLKEYLOGFILE", str(folder / "keys"))
    client = Client()
    (folder / "keys").unlink()
    folder.rmdir()
    connection = await client.connect("a.example", server)
    assert connection.certificate is not None
    assert not folder.exists()


def test_the_key_log_is_ignored_where_python_ignores_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(file))
    monkeypatch.setattr(tls_room, "sys", SimpleNamespace(flags=SimpleNamespace(ignore_environment=1)))
    Client()
    assert not file.exists()


# A user's own policy.


class OwnPolicy:
    """IPolicyForHTTPS that trusts one authority."""

    def __init__(self, authority: trustme.CA) -> None:
        certificate = Certificate.loadPEM(authority.cert_pem.bytes())
        self._root = trustRootFromCertificates([certificate])
        self.asked: list[tuple[bytes, int]] = []

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        self.asked.append((hostname, port))
        return optionsForClientTLS(hostname.decode("ascii"), trustRoot=self._root)


@ensureDeferred
async def test_a_users_own_policy_is_asked_for_each_connection_and_gets_our_alpn(
    authority: trustme.CA, server: Server
) -> None:
    policy = OwnPolicy(authority)
    client = Client(policy=policy)
    for _ in range(2):
        connection = await client.connect("a.example", server)
        assert connection.protocol is HttpProtocol.HTTP2
    assert policy.asked == [(b"a.example", server.port)] * 2


@ensureDeferred
async def test_a_users_own_policy_decides_what_is_trusted(
    authority: trustme.CA, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(await Client(policy=OwnPolicy(authority)).refused("b.example", server), TLSError)
    assert isinstance(await Client(policy=OwnPolicy(trustme.CA())).refused("a.example", server), TLSError)
    assert caplog.records == []


class BadPolicy:
    """Fails, at once or when the connection is made."""

    def __init__(self, *, late: bool) -> None:
        self._late = late

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        if not self._late:
            raise LookupError("odd")
        return self

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        raise LookupError("odd")


@ensureDeferred
@pytest.mark.parametrize("late", [False, True])
async def test_a_users_own_policy_that_fails_is_a_tls_error(late: bool, server: Server) -> None:
    error = await Client(policy=BadPolicy(late=late)).refused("a.example", server)
    assert isinstance(error, TLSError)
    assert "odd" in str(error)
    assert isinstance(error.__cause__, LookupError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SSL.Error([("SSL routines", "", "tlsv1 alert internal error")]), "tlsv1 alert internal error"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "Unexpected EOF"),
        (SSL.Error([]), "Error"),
        (SSL.Error(), "Error"),
        (SSL.ZeroReturnError(), "ZeroReturnError"),
    ],
)
def test_openssls_errors_are_told_in_its_own_words(error: SSL.Error, text: str) -> None:
    assert openssl_text(error) == text


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_a_resumed_tls_session_is_known_as_such(certificate: trustme.LeafCert, version: int) -> None:
    """pyOpenSSL 24.3 and 26.4 were tried."""
    listening, calling = SSL.Context(SSL.TLS_METHOD), SSL.Context(SSL.TLS_METHOD)
    for context in (listening, calling):
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    listening.set_session_id(b"tests")
    certificate.configure_cert(listening)
    known: SSL.Session | None = None
    seen: list[bool] = []
    # A connection that is collected without a goodbye makes its TLS session unfit for resumption.
    alive = []
    for _ in range(2):
        server, client = SSL.Connection(listening, None), SSL.Connection(calling, None)
        alive.append((server, client))
        server.set_accept_state()
        client.set_connect_state()
        if known is not None:
            client.set_session(known)
        for _ in range(6):
            for one, other in ((client, server), (server, client)):
                try:
                    one.do_handshake()
                    one.recv(1)
                except SSL.WantReadError:
                    pass
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(one.bio_read(65_536))
        known = client.get_session()
        seen.append(was_resumed(client))
    assert seen == [False, True]
