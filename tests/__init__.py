"""Tests, from values that need no double to crawls of real servers."""

import os

# Read when Scrapy's cookies middleware is imported: tests ask no server beyond this machine for the public suffix list,
# of which tldextract carries a copy.
os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
