"""What a proxy may repeat of the credentials that it was told, kept out of the texts of errors."""

from __future__ import annotations

from scrapy_poolplus.core.origin import basic_login

TELLING = 4
"""Bytes of a user name, or of the beginning of a secret, from which on they are kept out of texts."""


def without_credentials(data: bytes, authorization: bytes | None) -> bytes:
    """`data` for an error's text, with no form in which the credentials might be repeated, nor the beginning of one
    where `data` ends in it."""
    secrets = [secret for secret in _forms(authorization) if secret]
    for secret in secrets:
        data = data.replace(secret, b"***")
    for secret in secrets:
        for length in range(len(secret) - 1, TELLING - 1, -1):
            if data.endswith(secret[:length]):
                data = data[:-length] + b"***"
                break
    return data


def _forms(authorization: bytes | None) -> list[bytes]:
    """The credentials as they were sent, and all in them that tells who asks; the longer ones first."""
    decoded = basic_login(authorization or b"") or b""
    user, _, password = decoded.partition(b":")
    _, _, encoded = (authorization or b"").partition(b" ")
    # Nearly every text has a name of a letter or two in it.
    return [authorization or b"", encoded, decoded, password, user if len(user) >= TELLING else b""]
