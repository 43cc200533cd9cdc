"""Marks of the contract tests."""

from __future__ import annotations

import pytest

from .running import H2, HTTP, HTTPS1, Transport


def _only(*transports: Transport) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("transport", transports, ids=lambda one: one.name)


over_tls = _only(HTTPS1, H2)
over_http1 = _only(HTTP, HTTPS1)
over_h2 = _only(H2)
over_cleartext = _only(HTTP)

beyond_stock = pytest.mark.beyond_stock
poolplus_only = pytest.mark.poolplus_only
