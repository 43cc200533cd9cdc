"""Bytes: Twisted and h2. Knows nothing of Scrapy nor of the scheduler."""
