"""The page of a daemon that only generates: tokens as they come, each from a ciphertext."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import SLOW_MS, faultless, opened, serious, wait_for_text
from tests.support.generation import align, loaded, make_silo, model_name
from tests.support.http_daemon import HttpDaemon, http_daemon
from tests.support.processes import Server, serving
from tests.support.silo import Tls

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROMPT = "The film was"


@pytest.fixture(scope="module")
def writer(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A silo of a causal model, aligned with the daemon's."""
    directory = tmp_path_factory.mktemp("writer")
    align(make_silo(directory / "silo"), loaded("one"), tls.client.subject)
    with serving("sealign-server", "serve", directory / "silo", *tls.serve_options, log=directory / "log") as server:
        yield server


@pytest.fixture(scope="module")
def daemon(writer: Server, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpDaemon]:
    """Its daemon, which has a causal model and no encoder."""
    options = ("--model", model_name("one"), "--timeout", 2)
    with http_daemon(tmp_path_factory.mktemp("generates"), tls, writer.port, None, *options) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def page(browser: Browser, daemon: HttpDaemon) -> Iterator[Page]:
    """Its page, ready."""
    with faultless(browser, daemon) as context:
        page = opened(context, daemon)
        page.wait_for_selector("#status[data-state=ready]", timeout=SLOW_MS)
        yield page


def generate(page: Page, tokens: int) -> None:
    page.fill("#prompt", PROMPT)
    page.fill("#max-tokens", str(tokens))
    page.click("#generate-button")


def test_tokens_come_one_by_one_each_from_a_ciphertext(page: Page, shots: Path) -> None:
    assert [page.is_visible(f"#{panel}") for panel in ("classify", "file", "align", "generate")] == [False] * 3 + [True]
    generate(page, 12)
    wait_for_text(page, "#generate-busy", "Done: 12 tokens")
    tokens = page.locator("#written .token")
    assert tokens.count() == 12
    assert "encrypted back" in (tokens.first.get_attribute("title") or "")
    assert page.inner_text("#written").startswith(PROMPT)
    assert "Each of the 12 marked tokens came from a ciphertext" in page.inner_text("#written-source")
    assert page.locator("#token-bars li").count() == 5
    page.screenshot(path=shots / "generate.png", full_page=True)


def test_a_generation_is_stopped_and_what_came_stays(page: Page) -> None:
    generate(page, 200)
    page.locator("#written .token").nth(2).wait_for(timeout=SLOW_MS)
    page.click("#generate-stop")
    wait_for_text(page, "#generate-busy", "Stopped")
    assert 3 <= page.locator("#written .token").count() < 200
    assert page.is_hidden("#notice")
    assert page.is_enabled("#generate-button")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    generate(page, 3)
    wait_for_text(page, "#generate-busy", "Done: 3 tokens")
    assert serious(page) == []


def test_a_silo_that_goes_away_is_said_once(page: Page, writer: Server) -> None:
    generate(page, 200)
    page.locator("#written .token").nth(2).wait_for(timeout=SLOW_MS)
    writer.process.kill()
    wait_for_text(page, "#generate-busy", "Stopped")
    assert "silo" in page.inner_text("#notice")
    assert page.locator("#written .token").count() >= 3
