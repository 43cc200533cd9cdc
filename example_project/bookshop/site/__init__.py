"""The local bookshop that the spiders crawl: its pages, its server, its log, and a relay that makes it far away."""
