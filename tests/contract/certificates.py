"""Certificates for the servers of these tests, made when needed."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import tempfile
from dataclasses import dataclass

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A key and a certificate with its chain, as PEM."""

    key: bytes
    chain: tuple[bytes, ...]

    def context(
        self,
        *,
        alpn: tuple[bytes, ...] = (),
        ciphers: str | None = None,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> SSL.Context:
        """A server's context. `alpn`: what it takes, most wanted first; without one in common it goes on without ALPN."""
        context = SSL.Context(SSL.TLS_METHOD)
        if ciphers is not None:
            context.set_cipher_list(ciphers.encode())
        if minimum is not None:
            context.set_min_proto_version(minimum)
        if maximum is not None:
            context.set_max_proto_version(maximum)
        # By a file: which key objects pyOpenSSL takes without a warning differs between its versions.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.key + b"\n" + b"\n".join(self.chain))
            file.flush()
            context.use_privatekey_file(file.name)
            context.use_certificate_chain_file(file.name)
        if alpn:

            def select(_connection: SSL.Connection, offered: list[bytes]) -> object:
                return next((mine for mine in alpn if mine in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

            context.set_alpn_select_callback(select)
        return context


@functools.cache
def authority() -> trustme.CA:
    """The certificate authority of this test process."""
    return trustme.CA()


@functools.cache
def issued(*names: str) -> ServerCertificate:
    """A certificate for `names` by the authority."""
    leaf = authority().issue_cert(*names, common_name=names[0])
    return ServerCertificate(leaf.private_key_pem.bytes(), tuple(pem.bytes() for pem in leaf.cert_chain_pems))


@functools.cache
def self_signed(common_name: str, *, dns: tuple[str, ...] = (), ip: tuple[str, ...] = ()) -> ServerCertificate:
    """A certificate that signs itself: ``CN=<common_name>,O=Scrapy,C=IE``, RSA (old ciphers need it)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "IE"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Scrapy"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
    names: list[x509.GeneralName] = [x509.DNSName(one) for one in dns]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in ip]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return ServerCertificate(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        (certificate.public_bytes(serialization.Encoding.PEM),),
    )
