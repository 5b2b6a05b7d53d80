"""The client's command line: where texts come from, how results and errors look."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealign_client import Client
from sealign_client.cli import main
from tests.support.corpus import Corpus
from tests.support.processes import Server, command
from tests.support.silo import Tls

pytestmark = pytest.mark.usefixtures("still_serves")


@pytest.fixture
def options(silo: Server, tls: Tls, encoder_name: str) -> list[str]:
    return [*map(str, tls.client_options(silo.port)), "--encoder", encoder_name]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run ``sealign`` in this process, where loading the encoder is cheap; returns the exit status."""
    monkeypatch.setattr("sys.argv", ["sealign", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_real_process_reads_standard_input(options: list[str], client: Client, corpus: Corpus) -> None:
    texts = [item.text for item in corpus.queries[:3]]
    ran = command("sealign", "classify", *options, "--json", stdin="\n".join(texts) + "\n")
    assert ran.returncode == 0, ran.stderr
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [result["label"] for result in results] == [result.label for result in client.classify(texts)]
    assert all(len(result["logits"]) == 8 for result in results)


def test_arguments(
    options: list[str],
    client: Client,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [item.text for item in corpus.queries[:2]]
    assert run(monkeypatch, "classify", *options, *texts) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, expected in zip(lines, client.classify(texts), strict=True):
        label, probability, *mark = line.split("\t")
        assert label == expected.label
        assert float(probability) == pytest.approx(expected.probability, abs=0.01)
        assert not mark or mark == ["out of distribution"]


def test_file_and_settings_file(
    options: list[str],
    client: Client,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [item.text for item in corpus.queries[:2]]
    file, settings = tmp_path / "texts.txt", tmp_path / "sealign.toml"
    file.write_text("\n".join(texts), encoding="utf-8")
    pairs = zip(options[::2], options[1::2], strict=True)
    settings.write_text("".join(f'{flag[2:].replace("-", "_")} = "{value}"\n' for flag, value in pairs))
    assert run(monkeypatch, "classify", "--config", str(settings), "--file", str(file)) == 0
    labels = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert labels == [result.label for result in client.classify(texts)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "/nowhere/texts.txt"], "no file /nowhere/texts.txt"),
        (["--file", "x.txt", "text"], "not both"),
        (["--task", "weather", "text"], "no task 'weather'"),
        ([" "], "text 1 is empty"),
    ],
)
def test_one_line_for_one_error(
    options: list[str],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "classify", *options, *arguments) == 2  # wrong input
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "classify", "text") == 2
    assert "silo" in capsys.readouterr().err


def test_tasks_and_maps(
    options: list[str], client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used = client.describe().map
    assert used is not None
    assert run(monkeypatch, "tasks", "--json", *options) == 0
    (task,) = json.loads(capsys.readouterr().out)
    assert (task["task"], task["aligned"]) == ("topics", True)
    assert run(monkeypatch, "maps", "list", "--json") == 0
    (pin,) = json.loads(capsys.readouterr().out)
    assert (pin["card"]["id"], pin["placement"]) == (used.id, "silo")
    assert run(monkeypatch, "maps", "show", used.id[:10]) == 0
    assert json.loads(capsys.readouterr().out) == pin
    assert run(monkeypatch, "maps", "export", used.id, "--output", "x.safetensors") == 2
    capsys.readouterr()
    assert run(monkeypatch, "maps", "delete", "--json", used.id) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": used.id}
    assert run(monkeypatch, "maps", "show", used.id) == 2


def test_align_and_adapt_as_json(
    options: list[str],
    client: Client,
    corpus: Corpus,
    corpus_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "align", "--public", "general:40", *options) == 2
    assert "as many rows of the general set" in capsys.readouterr().err
    assert run(monkeypatch, "align", "--json", "--public", str(corpus_files[1]), *options) == 0
    aligned = json.loads(capsys.readouterr().out)
    assert (aligned["space"], aligned["mode"], aligned["rows"]) == ("embeddings", "plain", len(corpus.public))
    assert aligned["encoder"] == client.encoder.card.fingerprint
    texts, output = tmp_path / "own.txt", tmp_path / "own.safetensors"
    texts.write_text("\n".join(item.text.replace("\n", " ") for item in corpus.train[:50]))
    assert run(monkeypatch, "adapt", "--json", "--texts", str(texts), "--output", str(output), *options) == 0
    facts = {"output": str(output), "texts": 50, "encoder": aligned["encoder"], "thresholds": None}
    assert json.loads(capsys.readouterr().out) == facts


def test_only_line_feeds_end_lines(options: list[str], client: Client, tmp_path: Path) -> None:
    texts = ["oil\u2028prices rose", "the\x0cbank cut rates", "wheat\x85exports"]
    file = tmp_path / "texts.txt"
    file.write_bytes("\r\n".join(texts).encode() + b"\n")
    ran = command("sealign", "classify", *options, "--file", file)
    assert len(ran.stdout.splitlines()) == len(texts), ran.stderr
    labels = [line.split("\t")[0] for line in ran.stdout.splitlines()]
    assert labels == [result.label for result in client.classify(texts)]


def test_stored_keys(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["--key-directory", str(tmp_path / "keys")]
    assert run(monkeypatch, "classify", *options, *keys, "oil prices rose") == 0
    capsys.readouterr()
    assert run(monkeypatch, "keys", "list", "--json", *keys) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["replies"], row["passphrase"]) == (1, "no")
    (file,) = (tmp_path / "keys").iterdir()
    before = file.read_bytes()
    assert run(monkeypatch, "keys", "rotate", "--json", *keys) == 0
    assert json.loads(capsys.readouterr().out) == {"rotated": [row["parameters"]]}
    assert json.loads(file.read_bytes())["key"] != json.loads(before)["key"]
    assert json.loads(file.read_bytes())["replies"] == 0
    assert run(monkeypatch, "classify", *options, *keys, "oil prices rose") == 0
    assert run(monkeypatch, "keys", "delete", *keys) == 0
    assert not list((tmp_path / "keys").iterdir())
    assert run(monkeypatch, "keys", "list") == 2
