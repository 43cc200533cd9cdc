"""What only newer releases of Scrapy do, whatever the handler."""

from __future__ import annotations

import pytest
from scrapy import version_info


def since_scrapy(*version: int, what: str) -> pytest.MarkDecorator:
    """Skipped with an older one."""
    return pytest.mark.skipif(version_info[:2] < version, reason=f"needs Scrapy {'.'.join(map(str, version))}: {what}")


verbatim_url = since_scrapy(2, 17, what="verbatim_url")
remote_control = since_scrapy(2, 19, what="RemoteControl")
