"""A real browser, a real daemon and a real silo, on loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import faultless, opened
from tests.support.http_daemon import HttpDaemon, http_daemon
from tests.support.processes import Server
from tests.support.silo import Tls

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ARTEFACTS = Path(__file__).parent / "artefacts"
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium: that of the system, or the one that CHROMIUM names."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra `dev`)")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium, or name one in CHROMIUM")
    rules = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", rules])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def daemon(silo: Server, tls: Tls, encoder_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpDaemon]:
    """A daemon of the session's silo; the page aligns it."""
    with http_daemon(tmp_path_factory.mktemp("browser"), tls, silo.port, encoder_name) as daemon:
        yield daemon


@pytest.fixture
def context(browser: Browser, daemon: HttpDaemon) -> Iterator[BrowserContext]:
    """A browser without history, whose every request is of the daemon, and in which nothing fails."""
    with faultless(browser, daemon) as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, daemon: HttpDaemon) -> Page:
    """The page, opened with the daemon's token."""
    return opened(context, daemon)


@pytest.fixture(scope="session")
def shots() -> Path:
    """The folder of screenshots."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS
