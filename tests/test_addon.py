from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from scrapy import Spider
from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.crawler import Crawler
from scrapy.settings import BaseSettings, Settings, default_settings
from scrapy.utils.misc import load_object

import scrapy_poolplus
from scrapy_poolplus.addon import Addon
from scrapy_poolplus.extension import PoolPlusExtension
from scrapy_poolplus.handler import PoolPlusDownloadHandler

OURS = "scrapy_poolplus.PoolPlusDownloadHandler"
STOCK = "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler"
MINE = "shop.handlers.ShopHandler"


class Derived(PoolPlusDownloadHandler):
    pass


def crawler(
    project: dict[str, Any] | None = None, spider: dict[str, Any] | None = None, cmdline: dict[str, Any] | None = None
) -> Crawler:
    """A crawler whose add-ons have had their turn."""
    settings = Settings({"ADDONS": {"scrapy_poolplus.Addon": 500}, **(project or {})})
    settings.setdict(cmdline or {}, priority="cmdline")
    made = Crawler(type("ShopSpider", (Spider,), {"name": "shop", "custom_settings": spider}), settings)
    made.addons.load_settings(made.settings)
    return made


def handlers(made: Crawler) -> dict[str, Any]:
    return dict(made.settings.getwithbase("DOWNLOAD_HANDLERS"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_addon_downloads_http_and_https_and_leaves_the_other_schemes() -> None:
    assert handlers(crawler()) == {**default_settings.DOWNLOAD_HANDLERS_BASE, "http": OURS, "https": OURS}


FTP = {"ftp": "shop.handlers.FTP"}


@pytest.mark.parametrize(
    "where",
    [
        {"project": {"DOWNLOAD_HANDLERS": FTP}},
        {"project": {"DOWNLOAD_HANDLERS": json.dumps(FTP)}},
        {"spider": {"DOWNLOAD_HANDLERS": FTP}},
        {"cmdline": {"DOWNLOAD_HANDLERS": json.dumps(FTP)}},
    ],
    ids=["project", "project JSON", "spider", "command line"],
)
def test_it_fills_in_what_is_missing_wherever_download_handlers_is_set(where: dict[str, Any]) -> None:
    found = handlers(crawler(**where))
    assert (found["http"], found["https"], found["ftp"]) == (OURS, OURS, FTP["ftp"])


@pytest.mark.parametrize("place", ["project", "spider", "cmdline"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_another_handler_that_the_user_names_stays_and_is_warned_of_by_name(
    place: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = handlers(crawler(**{place: {"DOWNLOAD_HANDLERS": {scheme: MINE}}}))
    other = "http" if scheme == "https" else "https"
    assert (found[scheme], found[other]) == (MINE, OURS)
    (warning,) = warnings(caplog)
    assert warning == (
        f"scrapy-poolplus does not download {scheme}: DOWNLOAD_HANDLERS names {MINE} for it. Remove that entry, or set "
        f"it to '{OURS}'."
    )


def test_the_stock_handler_named_by_the_user_stays_too(caplog: pytest.LogCaptureFixture) -> None:
    assert handlers(crawler({"DOWNLOAD_HANDLERS": {"https": HTTP11DownloadHandler}}))["https"] is HTTP11DownloadHandler
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    "handler",
    [OURS, "scrapy_poolplus.handler.PoolPlusDownloadHandler", PoolPlusDownloadHandler, Derived],
)
def test_our_handler_named_by_the_user_is_no_reason_to_warn(handler: object, caplog: pytest.LogCaptureFixture) -> None:
    found = handlers(crawler({"DOWNLOAD_HANDLERS": {"http": handler, "https": handler}}))
    assert found["http"] is found["https"] is handler
    assert warnings(caplog) == []


def test_a_scheme_that_the_user_switched_off_stays_off(caplog: pytest.LogCaptureFixture) -> None:
    found = handlers(crawler({"DOWNLOAD_HANDLERS": {"http": None}}))
    assert (found.get("http"), found["https"]) == (None, OURS)
    assert warnings(caplog) == []


def test_a_later_addon_still_finds_our_handler_and_may_replace_it() -> None:
    settings = crawler().settings
    settings["DOWNLOAD_HANDLERS"].set("https", MINE, "addon")
    assert settings.getwithbase("DOWNLOAD_HANDLERS")["https"] == MINE


def test_the_spiders_class_and_the_projects_settings_are_not_changed() -> None:
    custom = {"DOWNLOAD_HANDLERS": dict(FTP)}
    settings = Settings({"ADDONS": {"scrapy_poolplus.Addon": 500}, "EXTENSIONS": {"shop.Extension": None}})
    made = Crawler(type("ShopSpider", (Spider,), {"name": "shop", "custom_settings": custom}), settings)
    made.settings["EXTENSIONS"].pop("shop.Extension")
    made.addons.load_settings(made.settings)
    assert custom == {"DOWNLOAD_HANDLERS": FTP}
    assert "https" not in settings["DOWNLOAD_HANDLERS"]
    assert dict(settings["EXTENSIONS"]) == {"shop.Extension": None}


@pytest.mark.parametrize("value", [None, {}, dict(FTP), json.dumps(FTP)])
def test_settings_that_are_not_made_from_scrapys_defaults_will_do(value: object) -> None:
    settings = BaseSettings({} if value is None else {"DOWNLOAD_HANDLERS": value})
    Addon().update_settings(settings)  # type: ignore[arg-type]
    found = settings["DOWNLOAD_HANDLERS"]
    assert (found["http"], found["https"]) == (OURS, OURS)
    assert ("ftp" in found) is bool(value)


# ---- the extension


def test_the_addon_adds_the_extension() -> None:
    assert dict(crawler().settings["EXTENSIONS"]) == {PoolPlusExtension: 0}


@pytest.mark.parametrize(
    "key", ["scrapy_poolplus.PoolPlusExtension", "scrapy_poolplus.extension.PoolPlusExtension", PoolPlusExtension]
)
@pytest.mark.parametrize("order", [7, None])
def test_the_extension_as_the_user_lists_it_or_switches_it_off_stays(key: object, order: int | None) -> None:
    extensions = crawler({"EXTENSIONS": {key: order}}).settings["EXTENSIONS"]
    assert dict(extensions) == {key: order}


@pytest.mark.parametrize("place", ["project", "spider", "cmdline"])
def test_the_extension_is_added_wherever_extensions_are_set(place: str) -> None:
    extensions = crawler(**{place: {"EXTENSIONS": {"scrapy.extensions.telnet.TelnetConsole": None}}}).settings[
        "EXTENSIONS"
    ]
    assert dict(extensions) == {"scrapy.extensions.telnet.TelnetConsole": None, PoolPlusExtension: 0}


# ---- switched off


@pytest.mark.parametrize("value", [False, "0", "False", 0])
@pytest.mark.parametrize("place", ["project", "spider", "cmdline"])
def test_switched_off_the_addon_changes_nothing(place: str, value: object) -> None:
    made = crawler(**{place: {"POOLPLUS_ENABLED": value}})
    assert handlers(made) == default_settings.DOWNLOAD_HANDLERS_BASE
    assert dict(made.settings["EXTENSIONS"]) == {}


def test_with_a_wrong_switch_the_extension_is_there_to_tell_of_it() -> None:
    assert PoolPlusExtension in crawler({"POOLPLUS_ENABLED": "maybe"}).settings["EXTENSIONS"]


# ---- loading


@pytest.mark.parametrize("name", ["Addon", "PoolPlusDownloadHandler", "PoolPlusExtension"])
def test_the_package_offers_its_components_by_name(name: str) -> None:
    assert load_object(f"scrapy_poolplus.{name}") is getattr(scrapy_poolplus, name)
    assert getattr(scrapy_poolplus, name).__name__ == name
    assert name in dir(scrapy_poolplus)


def test_the_package_has_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Adon'"):
        scrapy_poolplus.Adon  # noqa: B018


def test_no_component_installs_a_reactor_when_it_is_loaded() -> None:
    # Scrapy installs the reactor of its settings after the add-ons had their turn; a second one is an error.
    code = (
        "import sys\n"
        "from scrapy.settings import Settings\n"
        "from scrapy_poolplus import Addon\n"
        "assert 'scrapy_poolplus.handler' not in sys.modules\n"
        "Addon().update_settings(Settings())\n"
        "from scrapy_poolplus import PoolPlusDownloadHandler, PoolPlusExtension\n"
        "assert 'twisted.internet.reactor' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
