"""``scrapy poolplus``: a command of Scrapy's, found by its entry point."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError

from scrapy_poolplus.report import read_har, report_page

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


class PoolPlusCommand(ScrapyCommand):
    """``scrapy poolplus report crawl.har`` writes crawl.html beside it, or to ``-o``."""

    requires_project = False
    requires_crawler_process = False
    default_settings = {"LOG_ENABLED": False}  # noqa: RUF012 - Scrapy's own interface

    def syntax(self) -> str:
        """What follows ``scrapy poolplus``."""
        return "report <file.har> [-o <page.html>]"

    def short_desc(self) -> str:
        """One line for ``scrapy -h``."""
        return "Show what the connections of a crawl did"

    def long_desc(self) -> str:
        """For ``scrapy poolplus -h``."""
        return (
            "report: one self-contained page from a file that POOLPLUS_HAR wrote: connections over time with their "
            "requests, budgets and reasons of closing, the cost of handshakes, and what each server could tie together. "
            "The crawl may still be running."
        )

    def add_options(self, parser: ArgumentParser) -> None:
        """Ours beside Scrapy's."""
        super().add_options(parser)
        parser.add_argument(
            "-o", "--output", metavar="FILE", help="the page to write (default: the file's name, .html)"
        )

    def run(self, args: list[str], opts: Namespace) -> None:
        """Write the report, and say where."""
        if len(args) != 2 or args[0] != "report":
            raise UsageError('say what: "scrapy poolplus report crawl.har"', print_help=False)
        source = Path(args[1])
        target = source.with_suffix(".html") if opts.output is None else Path(opts.output)
        try:
            crawl = read_har(source)
            target.write_text(report_page(crawl, source.stem), encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(str(error), print_help=False) from error
        print(f"{len(crawl.entries)} requests, shown in {target}")  # noqa: T201 - the command's answer
