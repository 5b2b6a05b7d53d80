"""The daemon's page in a browser: opened, waited for, and checked for faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.http_daemon import HttpDaemon

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

_AXE = Path(__file__).parents[1] / "browser" / "node_modules" / "axe-core" / "axe.min.js"
SLOW_MS = 180_000
"""Patience with what a model or a silo does."""


@contextmanager
def faultless(browser: Browser, daemon: HttpDaemon) -> Iterator[BrowserContext]:
    """Yield a browser without history; fail if it asks another host, or if anything fails in it."""
    context = browser.new_context(viewport={"width": 1180, "height": 900}, accept_downloads=True)
    faults: list[str] = []
    context.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("request", lambda request: _note_foreign(request.url, daemon.url, faults))
    yield context
    context.close()
    assert not faults


def opened(context: BrowserContext, daemon: HttpDaemon) -> Page:
    """Return a daemon's page, opened with its token."""
    setting = f"sessionStorage.setItem('sealign-token', '{daemon.token}')"
    context.add_init_script(f"if (location.protocol === 'http:') {setting}")  # a blank page has no storage
    page = context.new_page()
    page.goto(daemon.url)
    return page


def wait_for_text(page: Page, selector: str, text: str) -> None:
    """Wait until an element holds a text. The page's policy allows no function made of a string to wait for."""
    page.locator(selector).filter(has_text=text).wait_for(timeout=SLOW_MS)


def serious(page: Page) -> list[tuple[str, list[str]]]:
    """Return what axe finds serious, and where."""
    if not _AXE.exists():
        pytest.skip("needs axe-core: npm install --prefix tests/browser")
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run()")["violations"]
    return [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]])
        for fault in violations
        if fault["impact"] in ("serious", "critical")
    ]


def _note_foreign(url: str, own: str, faults: list[str]) -> None:
    if not url.startswith((own, "blob:", "data:")):
        faults.append(f"asked {url}")
