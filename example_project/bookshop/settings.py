"""The project's settings, with the handler enabled by DOWNLOAD_HANDLERS. See settings_addon.py for the other way."""

from __future__ import annotations

import os

from bookshop.places import OUT

# Scrapy's cookies need the list of public suffixes: the copy that tldextract brings, so that nothing is fetched from afar.
os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")

BOT_NAME = "bookshop"
SPIDER_MODULES = ["bookshop.spiders"]

DOWNLOAD_HANDLERS = {
    "http": "scrapy_poolplus.PoolPlusDownloadHandler",
    "https": "scrapy_poolplus.PoolPlusDownloadHandler",
}

ROBOTSTXT_OBEY = True

# The shop is ours and on this machine; somebody else's site is asked far less at a time, with a delay.
CONCURRENT_REQUESTS_PER_DOMAIN = 16
DOWNLOAD_DELAY = 0
DOWNLOAD_TIMEOUT = 30

FEEDS = {
    str(OUT / "%(name)s.jsonl"): {
        "format": "jsonlines",
        "overwrite": True,
        "store_empty": False,
    },
}

# The progress and the summary say what goes on; `scrapy crawl books -L INFO` says more.
LOG_LEVEL = "WARNING"
TELNETCONSOLE_ENABLED = False
