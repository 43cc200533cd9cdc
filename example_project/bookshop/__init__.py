"""A Scrapy project that brings its own web site, so that it runs offline."""
