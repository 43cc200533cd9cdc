"""Whether a certificate is for a host: service_identity's verdict (RFC 9525), remembered.

The connections to a server bring the same certificate each time, and to take its names apart costs more than all else that is
done for a new connection in Python. The chain is OpenSSL's to judge and is judged anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from scrapy_poolplus.net.resolve import ip_version

MAX_KNOWN = 1_000
"""Verdicts that are remembered, each at most some 500 bytes."""
MAX_TEXT = 200
"""Characters of a verdict: service_identity repeats the names of the certificate, which a server may make very long."""


class CertificateNames:
    """Verdicts by host and by the SHA-256 of the whole certificate: what was said of one holds for no other."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, bytes], str | None] = OrderedDict()

    def objection(self, connection: SSL.Connection, host: str) -> str | None:
        """Why the peer's certificate is not valid for `host`, a name in ASCII or an IP address; None where it is."""
        certificate = connection.get_peer_certificate()
        if certificate is None:
            return "the server has none"
        key = (host, sha256(dump_certificate(FILETYPE_ASN1, certificate)).digest())
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        verdict: str | None = None
        try:
            _verify(connection, host)
        except (VerificationError, CertificateError) as error:
            verdict = str(error)[:MAX_TEXT]
        except Exception as error:  # noqa: BLE001 (what cannot be parsed in a certificate raises anything)
            # Not remembered: it need not be the certificate's fault.
            return str(error)[:MAX_TEXT]
        self._known[key] = verdict
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return verdict


def _verify(connection: SSL.Connection, host: str) -> None:
    if ip_version(host) is None:
        verify_hostname(connection, host.removesuffix("."))
    else:
        verify_ip_address(connection, host.partition("%")[0])
