"""The examples, as they are, against a real silo."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from sealign_client import Client
from tests.support.corpus import Corpus
from tests.support.processes import Server
from tests.support.silo import TASK, Tls

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
_LARGEST_NOTEBOOK = 150_000

pytestmark = pytest.mark.usefixtures("client")


@pytest.fixture
def settings(silo: Server, tls: Tls, encoder_name: str, tmp_path: Path) -> Path:
    """A settings file of a client of the silo."""
    given = tls.client_options(silo.port)
    pairs = [*zip(given[::2], given[1::2], strict=True), ("--encoder", encoder_name)]
    file = tmp_path / "sealign.toml"
    file.write_text("".join(f'{str(flag)[2:].replace("-", "_")} = "{value}"\n' for flag, value in pairs))
    return file


@pytest.fixture
def variables(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as variables."""
    for line in settings.read_text().splitlines():
        name, _, value = line.partition(" = ")
        monkeypatch.setenv(f"SEALIGN_CLIENT_{name.upper()}", json.loads(value))


def test_the_pandas_example_adds_columns_and_leaves_empty_cells(
    settings: Path,
    client: Client,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pandas = pytest.importorskip("pandas")
    texts = [item.text for item in corpus.queries[:6]]
    table, output = tmp_path / "in.csv", tmp_path / "out.csv"
    pandas.DataFrame({"id": range(7), "review": [*texts[:3], None, *texts[3:]]}).to_csv(table, index=False)
    arguments = [str(table), str(output), "--config", str(settings), "--column", "review"]
    monkeypatch.setattr(sys, "argv", ["pandas_column.py", *arguments])
    runpy.run_path(str(EXAMPLES / "pandas_column.py"), run_name="__main__")
    frame = pandas.read_csv(output)
    assert list(frame.columns) == ["id", "review", "label", "probability", "in_distribution"]
    assert frame["label"].isna().tolist() == [number == 3 for number in range(7)]
    labels = [result.label for result in client.classify(texts)]
    assert frame["label"].dropna().tolist() == labels
    assert labels[0] in capsys.readouterr().out


@pytest.mark.usefixtures("variables")
def test_the_fastapi_example_sorts_tickets(client: Client, corpus: Corpus) -> None:
    testclient = pytest.importorskip("fastapi.testclient")
    app: Any = runpy.run_path(str(EXAMPLES / "fastapi_service.py"))["app"]
    texts = [item.text for item in corpus.queries[:3]]
    with testclient.TestClient(app) as http:
        for text, expected in zip(texts, client.classify(texts), strict=True):
            answer = http.post("/tickets", json={"text": text})
            assert (answer.status_code, answer.json()["label"]) == (200, expected.label)
            assert answer.json()["in_distribution"] in (True, False)
        refused = http.post("/tickets", json={"text": "   "})
        assert (refused.status_code, "empty" in refused.json()["detail"]) == (422, True)
        assert http.post("/tickets", json={}).status_code == 422
        http.portal.call(app.state.client.close)  # an error that is not the caller's
        answer = http.post("/tickets", json={"text": texts[0]})
        assert (answer.status_code, int(answer.headers["Retry-After"])) == (503, 5)


def test_the_notebook_runs_and_holds_what_it_printed(
    settings: Path, corpus_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    file = EXAMPLES / "tour.ipynb"
    stored = nbformat.read(file, as_version=4)
    nbformat.validate(stored)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "texts.txt").write_bytes(corpus_files[1].read_bytes())
    monkeypatch.setenv("SEALIGN_TOUR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    ran = nbclient.NotebookClient(
        nbformat.from_dict(json.loads(json.dumps(stored))), timeout=240, kernel_name="python3"
    ).execute()
    kinds, printed = _kinds(ran), _printed(ran)
    assert TASK in printed
    assert "bytes up and" in printed
    assert kinds.count("image/png") == 2
    assert kinds == _kinds(stored), "run the notebook and save it again"
    assert file.stat().st_size < _LARGEST_NOTEBOOK
    for private in (os.sep + "work", os.sep + "home", os.sep + "tmp", "localhost"):
        assert private not in _printed(stored)


def _kinds(notebook: Any) -> list[str]:
    """Content types of all outputs, in their order."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [kind for output in outputs for kind in sorted(output.get("data", {"text/stream": ""}))]


def _printed(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.get("text", "") or str(output.get("data", {}).get("text/plain", "")) for output in outputs)
