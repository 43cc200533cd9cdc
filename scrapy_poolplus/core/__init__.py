"""Pure decisions: no Twisted, no h2, no Scrapy, no clock, no randomness."""
