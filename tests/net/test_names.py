"""A verdict on a certificate's names holds for that certificate and that host, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import trustme
from OpenSSL.crypto import FILETYPE_PEM, X509, load_certificate

from scrapy_poolplus.net import names as room
from scrapy_poolplus.net.names import CertificateNames


class Peer:
    """Of an OpenSSL connection, what is asked for names."""

    def __init__(self, certificate: X509 | None) -> None:
        self._certificate = certificate

    def get_peer_certificate(self) -> X509 | None:
        return self._certificate


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def peer(authority: trustme.CA, *names: str) -> Any:
    leaf = authority.issue_cert(*names)
    return Peer(load_certificate(FILETYPE_PEM, leaf.cert_chain_pems[0].bytes()))


@pytest.fixture
def taken_apart(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts for which a certificate was taken apart."""
    hosts: list[str] = []

    def counted(real: Any) -> Any:
        def verify(connection: Any, host: str) -> None:
            hosts.append(host)
            real(connection, host)

        return verify

    for name in ("verify_hostname", "verify_ip_address"):
        monkeypatch.setattr(room, name, counted(getattr(room, name)))
    return hosts


def test_each_certificate_is_taken_apart_once_for_a_host(authority: trustme.CA, taken_apart: list[str]) -> None:
    names, server = CertificateNames(), peer(authority, "a.example", "127.0.0.7")
    for _ in range(3):
        assert names.objection(server, "a.example") is None
        assert names.objection(server, "127.0.0.7") is None
        assert names.objection(server, "b.example") is not None
    assert taken_apart == ["a.example", "127.0.0.7", "b.example"]


def test_another_certificate_for_the_host_is_judged_for_itself(authority: trustme.CA) -> None:
    names = CertificateNames()
    right, wrong = peer(authority, "a.example"), peer(authority, "b.example")
    for _ in range(2):
        assert names.objection(right, "a.example") is None
        assert names.objection(wrong, "a.example") is not None
        assert names.objection(peer(authority, "a.example"), "a.example") is None
        assert names.objection(Peer(None), "a.example") == "the server has none"  # type: ignore[arg-type]


def test_a_certificate_of_the_same_names_by_another_authority_is_another(taken_apart: list[str]) -> None:
    names = CertificateNames()
    for _ in range(2):
        assert names.objection(peer(trustme.CA(), "a.example"), "a.example") is None
    assert taken_apart == ["a.example"] * 2


def test_so_many_verdicts_are_remembered_the_latest_used(
    authority: trustme.CA, taken_apart: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_KNOWN", 2)
    names, server = CertificateNames(), peer(authority, "*.shop.example")
    for host in (
        "a.shop.example",
        "b.shop.example",
        "a.shop.example",
        "c.shop.example",
        "a.shop.example",
        "b.shop.example",
    ):
        assert names.objection(server, host) is None
    assert taken_apart == ["a.shop.example", "b.shop.example", "c.shop.example", "b.shop.example"]


def test_a_verdict_is_short_whatever_the_certificate_says(authority: trustme.CA) -> None:
    names = CertificateNames()
    said = names.objection(peer(authority, *(f"{'x' * 60}{number}.example" for number in range(500))), "a.example")
    assert said is not None
    assert 0 < len(said) <= room.MAX_TEXT


@pytest.mark.parametrize("trouble", [MemoryError(), RecursionError("deep"), OverflowError("odd extension")])
def test_what_need_not_be_the_certificate_s_fault_is_not_remembered(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def failing(_connection: Any, _host: str) -> None:
        raise trouble

    names, server = CertificateNames(), peer(authority, "a.example")
    with monkeypatch.context() as patched:
        patched.setattr(room, "verify_hostname", failing)
        assert names.objection(server, "a.example") == str(trouble)
    assert names.objection(server, "a.example") is None
