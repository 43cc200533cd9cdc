from __future__ import annotations

from importlib.metadata import version as installed_version

project = "scrapy-poolplus"
copyright = "2026, scrapy-poolplus developers"
release = installed_version("scrapy-poolplus")
# For pages whose tables come from scripts: performance.md, reliability.md, rotation.md.
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
nitpicky = True
