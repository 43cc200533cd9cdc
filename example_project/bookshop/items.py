"""What the crawl writes to its feed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Book:
    """One product page."""

    url: str
    title: str
    category: str
    price: str
    stock: int
    upc: str
    cover: str
    text_bytes: int
