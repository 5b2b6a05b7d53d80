"""The daemon's page in a real browser: all four panels, with the keyboard, in both colour schemes, on a phone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import SLOW_MS, serious, wait_for_text
from tests.support.corpus import Corpus
from tests.support.http_daemon import HttpDaemon

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page


@pytest.fixture
def aligned(page: Page, corpus_files: tuple[Path, Path]) -> Page:
    """The page of a daemon that has been aligned, once, by its panel Align."""
    page.wait_for_selector("#status[data-state=ready], #status[data-state=partly]", timeout=SLOW_MS)
    if page.get_attribute("#status", "data-state") == "partly":
        align(page, corpus_files[1])
    return page


def align(page: Page, public: Path) -> None:
    page.set_input_files("#align-file", public)
    page.click("#align-start")
    page.wait_for_selector("#align-work", state="visible")
    page.wait_for_selector("#align-work", state="hidden", timeout=SLOW_MS)
    page.wait_for_selector("#status[data-state=ready]", timeout=SLOW_MS)


def classify(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.click("#classify-button")
    wait_for_text(page, "#classify-busy", "Done")


def test_the_printed_address_opens_the_page_once(context: BrowserContext, daemon: HttpDaemon) -> None:
    page = context.new_page()
    page.goto(daemon.page_url)
    page.wait_for_selector("#status:not([data-state=waiting])", timeout=SLOW_MS)
    assert "ticket" not in page.url
    assert page.is_hidden("#unlock")
    page.reload()
    page.wait_for_selector("#status:not([data-state=waiting])", timeout=SLOW_MS)
    assert page.is_hidden("#unlock")
    assert page.evaluate("sessionStorage.length") == 1
    assert page.evaluate("localStorage.length + document.cookie.length") == 0


def test_alignment_is_followed_and_its_quality_plotted(
    page: Page, corpus_files: tuple[Path, Path], shots: Path
) -> None:
    page.wait_for_selector("#status:not([data-state=waiting])", timeout=SLOW_MS)
    align(page, corpus_files[1])
    assert page.locator("#quality-plot circle.variance").count() >= 2  # the legend's, and a map's
    row = page.locator("#quality-rows tr").first.inner_text()
    assert "in use" in row
    assert "300" in row
    assert page.locator("#accuracy li").count() == 2
    page.locator("#align").screenshot(path=shots / "align.png")


def test_a_text_shows_both_sides_of_its_call(aligned: Page, corpus: Corpus, shots: Path) -> None:
    public = corpus.public.texts[7]
    classify(aligned, public[: len(public) * 9 // 10])
    assert aligned.locator("#bars li").count() == 8
    assert aligned.inner_text("#winner") == aligned.locator("#bars .name").first.inner_text()
    assert "distribution" in aligned.inner_text("#verdict")
    assert aligned.locator("#stage-list li").count() == 6
    assert "384" in aligned.inner_text("#dimension")
    assert "KB" in aligned.inner_text("#query-size")
    record = json.loads(aligned.inner_text("#record"))
    assert (record["task"], record["rows"], record["code"]) == ("topics", 1, "OK")
    found = {kind: aligned.locator(f".found[data-kind={kind}] li").first.inner_text() for kind in ("bare", "rotated")}
    assert public[:60] in found["bare"]
    assert found["bare"] == found["rotated"]
    assert public[:60] not in aligned.locator(".found[data-kind=encrypted] li").first.inner_text()
    aligned.screenshot(path=shots / "classify.png", full_page=True)
    before = aligned.inner_text("#hex")
    classify(aligned, public[: len(public) * 9 // 10])
    assert aligned.inner_text("#hex") != before


def test_a_dropped_csv_is_classified_and_downloaded(aligned: Page, corpus: Corpus, tmp_path: Path, shots: Path) -> None:
    texts = [item.text for item in corpus.queries] * 4
    texts[3] = 'two "lines",\nin one cell'
    rows = [{"id": number, "body": text, "label": "mine"} for number, text in enumerate(texts)]
    rows[5]["body"] = "  "
    source = tmp_path / "documents.csv"
    with source.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.DictWriter(stream, ["id", "body", "label"])
        writer.writeheader()
        writer.writerows(rows)
    aligned.set_input_files("#file-input", source)
    aligned.wait_for_selector("#file-options", state="visible")
    assert aligned.input_value("#column") == "body"
    aligned.click("#file-start")
    aligned.wait_for_selector("#file-done", state="visible", timeout=SLOW_MS)
    assert f"{len(rows)} rows" in aligned.inner_text("#file-summary")
    assert "1 with an error" in aligned.inner_text("#file-summary")
    aligned.locator("#file").screenshot(path=shots / "file.png")
    with aligned.expect_download() as download:
        aligned.click("#download-csv")
    assert download.value.suggested_filename == "documents.classified.csv"
    with Path(download.value.path()).open(newline="", encoding="utf-8") as stream:
        got = list(csv.DictReader(stream))
    assert [row["id"] for row in got] == [str(row["id"]) for row in rows]
    assert [row["body"] for row in got] == [row["body"] for row in rows]
    assert all(row["label"] == "mine" for row in got)
    assert [number for number, row in enumerate(got) if row["error"]] == [5]
    labels = {row["sealign_label"] for row in got} - {""}
    assert labels <= {"acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"}
    with aligned.expect_download() as download:
        aligned.click("#download-jsonl")
    lines = Path(download.value.path()).read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["sealign_label"] or "" for line in lines] == [row["sealign_label"] for row in got]


def test_a_dropped_jsonl_and_bad_files(aligned: Page, tmp_path: Path) -> None:
    good = tmp_path / "rows.jsonl"
    good.write_text('{"text": "wheat\\u2028exports fell"}\n\n{"text": 7}\n', encoding="utf-8")
    aligned.set_input_files("#file-input", good)
    aligned.wait_for_selector("#file-options", state="visible")
    aligned.click("#file-start")
    aligned.wait_for_selector("#file-done", state="visible", timeout=SLOW_MS)
    assert "2 rows" in aligned.inner_text("#file-summary")
    for name, content, message in (
        ("ragged.csv", b"a,text\n1,x\n2\n", "2 cells"),
        ("latin.csv", "text\ncaf\u00e9\n".encode("latin-1"), "not UTF-8"),
        ("empty.csv", b"", "no rows"),
        ("list.jsonl", b"[1]\n", "not a JSON object"),
    ):
        bad = tmp_path / name
        bad.write_bytes(content)
        aligned.set_input_files("#file-input", bad)
        if name == "ragged.csv":  # its first row is good
            wait_for_text(aligned, "#file-start", name)
            aligned.click("#file-start")
            message = "has 1 cells and the header has 2"
        wait_for_text(aligned, "#notice", message)


def test_the_page_works_with_the_keyboard_alone(aligned: Page) -> None:
    aligned.keyboard.press("Tab")
    assert aligned.evaluate("document.activeElement.className") == "skip"
    for _ in range(20):
        if aligned.evaluate("document.activeElement.id") == "text":
            break
        aligned.keyboard.press("Tab")
    aligned.keyboard.type("wheat exports fell")
    aligned.keyboard.press("Control+Enter")
    wait_for_text(aligned, "#classify-busy", "Done")


def test_a_phone_needs_no_sideways_scrolling(aligned: Page, shots: Path) -> None:
    aligned.set_viewport_size({"width": 360, "height": 780})
    classify(aligned, "wheat exports fell")
    width = aligned.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    aligned.screenshot(path=shots / "phone.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(aligned: Page, daemon: HttpDaemon, shots: Path, scheme: Any) -> None:
    aligned.emulate_media(color_scheme=scheme)
    classify(aligned, "wheat exports fell")
    aligned.screenshot(path=shots / f"{scheme}.png", full_page=True)
    assert serious(aligned) == []
    aligned.goto(f"{daemon.url}/docs")
    aligned.wait_for_selector(".operation")
    aligned.screenshot(path=shots / f"docs-{scheme}.png")
    assert serious(aligned) == []
