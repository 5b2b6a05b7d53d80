"""The page's choice of public texts: what the silo holds of the general set, or a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import SLOW_MS, serious
from tests.support.http_daemon import HttpDaemon, http_daemon
from tests.support.processes import command, serving
from tests.support.silo import Tls

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROWS = 60


@pytest.fixture(scope="module")
def daemon(
    corpus_files: tuple[Path, Path], tls: Tls, encoder_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpDaemon]:
    """A daemon of a silo that holds a part of the general set, and a file."""
    directory = tmp_path_factory.mktemp("general")
    train, public = corpus_files
    silo = directory / "silo"
    named = ("--public", f"general:{ROWS}", "--public", public)
    for made in (("init", silo, "--encoder", "use", *named), ("train", silo, "--task", "topics", "--data", train)):
        ran = command("sealign-server", *made)
        assert ran.returncode == 0, ran.stderr
    with (
        serving("sealign-server", "serve", silo, *tls.serve_options, log=directory / "silo.log") as server,
        http_daemon(directory / "daemon", tls, server.port, encoder_name) as daemon,
    ):
        yield daemon


def aligned(page: Page, rows: int) -> None:
    page.click("#align-start")
    page.wait_for_selector("#align-work", state="visible")
    page.wait_for_selector("#align-work", state="hidden", timeout=SLOW_MS)
    newest = page.locator("#quality-rows tr").filter(has_text="in use")
    newest.filter(has=page.get_by_role("cell", name=str(rows), exact=True)).wait_for(timeout=SLOW_MS)


def test_the_general_set_is_offered_first_and_a_file_too(
    page: Page, corpus_files: tuple[Path, Path], shots: Path
) -> None:
    page.wait_for_selector("#status[data-state=partly]", timeout=SLOW_MS)
    page.wait_for_selector(f"#align-public option[value='general:{ROWS}']", state="attached", timeout=SLOW_MS)
    assert page.locator("#align-public option").all_inner_texts() == [
        f"{ROWS} general texts that ship with Sealign",
        "A file that the silo holds too",
    ]
    assert page.is_hidden("#align-file")
    page.locator("#align").screenshot(path=shots / "public-texts.png")
    aligned(page, ROWS)
    assert page.is_hidden("#notice")

    page.select_option("#align-public", "")
    page.click("#align-start")  # without a file nothing starts
    assert page.is_hidden("#align-work")
    page.set_input_files("#align-file", corpus_files[1])
    aligned(page, 300)
    page.reload()
    page.wait_for_selector("#status[data-state=ready]", timeout=SLOW_MS)


def test_a_call_is_searched_in_the_general_set(page: Page) -> None:
    """The button needs no file. An alignment brings texts along, so the form is shown by hand."""
    page.wait_for_selector(f"#align-public option[value='general:{ROWS}']", state="attached", timeout=SLOW_MS)
    aligned(page, ROWS)
    page.evaluate("for (const id of ['silo-seen', 'no-public']) document.getElementById(id).hidden = false")
    with page.expect_response("**/page/public-texts?public=general") as answer:
        page.click("#public-form button")
    assert answer.value.json() == {"texts": 1000}


def test_the_choice_is_accessible(page: Page) -> None:
    page.wait_for_selector(f"#align-public option[value='general:{ROWS}']", state="attached", timeout=SLOW_MS)
    assert serious(page) == []
