"""The same project with the handler enabled by its add-on: `SCRAPY_PROJECT=addon scrapy crawl books`."""

from __future__ import annotations

from bookshop.settings import *

# The add-on fills in http and https where the project names no handler of its own.
DOWNLOAD_HANDLERS = {}

ADDONS = {"scrapy_poolplus.Addon": 500}
