"""The outcome of one crawl as a file, for `compare` and for the check that ends `make example`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bookshop.site.log import SiteSummary


@dataclass(frozen=True, slots=True)
class CrawlResult:
    """What the client says it got; `site` is what the shop saw, None where another process keeps the shop's log."""

    finished: str
    pages_expected: int
    pages_right: int
    pages_wrong: int
    items: int
    errors: int
    concurrency: int
    site: SiteSummary | None = None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> CrawlResult:
        fields = json.loads(path.read_text(encoding="utf-8"))
        site = fields.pop("site")
        return cls(**fields, site=SiteSummary(**site) if site is not None else None)
