"""``sealign classify`` over files, as a real command: formats, faulty rows, runs that are killed and go on."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign_client import Client
from tests.support.fakesilo import Address, FakeSilo, clear_labels
from tests.support.processes import command, environment, script
from tests.support.views import PUBLIC, client_encoder, installed_views

ODD = ["plain", 'a "quoted", text', "two\nlines", "Umlaut ä", "form\x0cfeed"]


class Place:
    """A client that is aligned, the labels that it gives, and its command."""

    def __init__(self, address: Address, directory: Path) -> None:
        settings = address.settings(map_directory=directory / "maps")
        self.client = Client(**settings, encoder=client_encoder())
        self.client.align(PUBLIC)
        (directory / "views").mkdir()
        self.path = installed_views(directory / "views")
        server = ("--silo", f"localhost:{address.port}", "--tls-ca", address.authority.certificate)
        self.options = (*server, "--encoder", "views:", "--map-directory", directory / "maps")

    def labels(self, texts: list[str]) -> list[str]:
        return [result.label for result in self.client.classify(texts)]

    def run(self, *arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return command("sealign", "classify", *self.options, *arguments, stdin=stdin, PYTHONPATH=self.path)


@pytest.fixture
def place(address: Address, tmp_path: Path) -> Any:
    made = Place(address, tmp_path)
    yield made
    made.client.close()


def table(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def npy(array: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, array)
    return written.getvalue()


def csv_of(rows: list[list[str]], delimiter: str = ",") -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(("name", "delimiter"), [("in.csv", ","), ("in.tsv", "\t"), ("in.csv.gz", ",")])
def test_a_column_of_a_table(place: Place, tmp_path: Path, name: str, delimiter: str) -> None:
    rows = [["key", "review"], *([f"k{number}", text] for number, text in enumerate(ODD))]
    content = ("\ufeff" + csv_of(rows, delimiter)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    ran = place.run("--file", tmp_path / name, "--column", "review", "--id", "key")
    assert ran.returncode == 0, ran.stderr
    found = table(ran.stdout)
    assert [row["row"] for row in found] == [f"k{number}" for number in range(len(ODD))]
    assert [row["label"] for row in found] == place.labels(ODD)
    assert all(0 <= float(row["probability"]) <= 1 for row in found)


def test_json_lines_in_and_out(place: Place, tmp_path: Path) -> None:
    file, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ODD))
    ran = place.run("--file", file, "--output", output)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["row"], row["label"]) for row in found] == [
        (str(number), label) for number, label in enumerate(place.labels(ODD), 1)
    ]
    assert sorted(found[0]["probabilities"]) == ["blue", "green", "red"]
    assert {path.name for path in tmp_path.glob("out*")} == {"out.jsonl"}
    assert place.run("--file", file, "--output", output).returncode == 2  # it exists


@pytest.mark.parametrize(("name", "kind"), [("in.npy", np.float32), ("in.npy.gz", ">f8")])
def test_embeddings_are_classified_as_their_texts_are(place: Place, tmp_path: Path, name: str, kind: Any) -> None:
    content = npy(client_encoder().encode(ODD * 40).astype(kind))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    ran = place.run("--file", tmp_path / name)
    assert ran.returncode == 0, ran.stderr
    found = table(ran.stdout)
    assert [row["row"] for row in found] == [str(number) for number in range(1, 40 * len(ODD) + 1)]
    assert [row["label"] for row in found] == place.labels(ODD) * 40


def test_an_embedding_that_cannot_be_used_takes_no_other_down(place: Place, tmp_path: Path) -> None:
    rows = client_encoder().encode(ODD)
    rows[1] *= 3
    rows[3, 0] = np.nan
    np.save(tmp_path / "in.npy", rows)
    ran = place.run("--file", tmp_path / "in.npy")
    assert (ran.returncode, "row 2: " in ran.stderr) == (2, True)
    ran = place.run("--file", tmp_path / "in.npy", "--on-error", "label", "--output", tmp_path / "out.csv")
    found = table((tmp_path / "out.csv").read_text())
    assert [bool(row["error"]) for row in found] == [False, True, False, True, False]
    assert [row["label"] for row in found[::2]] == place.labels(ODD)[::2]


FAULTY = 'id,text\n1,fine\n2, \n3,"ragged",more\n4,\udcff\n5,fine too\n'


def test_a_bad_row_takes_no_other_down(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes(FAULTY.encode("utf-8", "surrogateescape"))
    labels = place.labels(["fine", "fine too"])
    ran = place.run("--file", file)
    assert (ran.returncode, "row 2: has an empty text" in ran.stderr) == (2, True)
    ran = place.run("--file", file, "--on-error", "skip")
    assert (ran.returncode, [(row["row"], row["label"]) for row in table(ran.stdout)]) == (
        0,
        [("1", labels[0]), ("5", labels[1])],
    )
    assert "3 rows could not be classified and were skipped" in ran.stderr
    ran = place.run("--file", file, "--on-error", "label", "--id", "id")
    found = table(ran.stdout)
    assert [row["row"] for row in found] == ["1", "2", "3", "4", "5"]
    assert [row["label"] for row in found] == [labels[0], "", "", "", labels[1]]
    assert "3 columns, and the header 2" in found[2]["error"]
    assert "not UTF-8" in found[3]["error"]


def test_a_text_that_the_encoder_refuses_is_found_among_others(place: Place, tmp_path: Path) -> None:
    texts = [f"query {number}" for number in range(40)]
    texts[17] = "a" * 1_000_001
    file = tmp_path / "in.txt"
    file.write_text("\n".join(texts) + "\n")
    ran = place.run("--file", file, "--on-error", "label", "--json")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(found) == 40
    assert [row["row"] for row in found if "error" in row] == ["18"]
    assert [row["label"] for row in found[:17]] == place.labels(texts[:17])


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("in.csv", b"a,b\n1,2\n", (), "0 columns 'text'; its columns are: a, b"),
        ("in.csv", b"text,text\n1,2\n", (), "2 columns 'text'"),
        ("in.csv", b"", (), "its columns are: none"),
        ("in.csv", b'text\n"open\n', (), "is not CSV"),
        ("in.csv.gz", b"text\nplain\n", (), "no gzip file, or damaged"),
        ("in.csv.gz", gzip.compress(b"text\n" + b"plain\n" * 999)[:-9], (), "no gzip file, or damaged"),
        ("in.jsonl", b"{}\n", (), "row 1: has no text under 'text'"),
        ("in.jsonl", b"[1]\n", (), "row 1: is not a JSON object"),
        ("in.jsonl", b"nonsense\n", (), "row 1: is not JSON"),
        ("in.npy", b"text\n", (), "is no .npy file, or damaged"),
        ("in.npy", npy(np.zeros((2, 3), np.int64)), (), "an array of int64 with shape (2, 3)"),
        ("in.npy", npy(np.zeros(3)), (), "shape (3,)"),
        ("in.npy", npy(np.asfortranarray(np.zeros((2, 3)))), (), "in Fortran order"),
        ("in.npy", npy(np.array([[{}]])), (), "an array of object"),
        ("in.npy", npy(np.zeros((3, 4)))[:-33], (), "ends in row 2 of 3"),
        ("in.npy", npy(np.eye(3)), (), "row 1: "),
        ("in.txt", b"text\n", ("--output", "out.txt"), r"must end in .csv, .tsv or .jsonl"),
        ("in.txt", b"text\n", ("--output", "/no/such/out.csv"), "could not write"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    place: Place, tmp_path: Path, name: str, content: bytes, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    ran = place.run("--file", tmp_path / name, *arguments)
    assert ran.returncode in (1, 2)
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_run_that_was_killed_loses_and_repeats_no_row(place: Place, fake: FakeSilo, tmp_path: Path) -> None:
    texts = [f"query {number}" for number in range(12_000)]  # over a second's work, whatever the machine
    file, output = tmp_path / "in.txt", tmp_path / "out.csv"
    file.write_text("\n".join(texts) + "\n")
    arguments = [script("sealign"), "classify", *map(str, place.options), "--file", str(file), "--output", str(output)]
    journal = tmp_path / "out.csv.journal"
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=environment(PYTHONPATH=place.path))
    deadline = time.monotonic() + 60
    while not journal.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < json.loads(journal.read_bytes())["rows"] < len(texts)
    assert not output.exists()
    file.write_text("\n".join(texts) + "\n")  # as it was, and newer: not surely the same
    changed = place.run("--file", file, "--output", output)
    assert (changed.returncode, "another input (changed)" in changed.stderr) == (2, True)
    facts = json.loads(journal.read_bytes())
    journal.write_text(json.dumps(facts | {"about": facts["about"] | {"changed": file.stat().st_mtime_ns}}))
    ran = place.run("--file", file, "--output", output)
    assert ran.returncode == 0, ran.stderr
    assert f"going on after row {facts['rows']}" in ran.stderr
    found = table(output.read_text())
    assert [row["row"] for row in found] == [str(number) for number in range(1, 12_001)]
    clear, certain = clear_labels(fake, place.client, texts)
    assert certain.mean() > 0.98
    assert [
        row["row"] for row, label, sure in zip(found, clear, certain, strict=True) if sure and row["label"] != label
    ] == []
    assert not journal.exists()


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "table"])
def test_results_of_texts_in_every_format(place: Place, kind: str) -> None:
    texts = ["first", 'second, "quoted"', "third"]
    labels = place.labels(texts)
    ran = place.run("--output-format", kind, *texts)
    assert ran.returncode == 0, ran.stderr
    if kind == "jsonl":
        found = [(row["row"], row["label"]) for row in map(json.loads, ran.stdout.splitlines())]
    elif kind == "table":
        head, *lines = ran.stdout.splitlines()
        assert head.split()[0] == "row"
        assert [line.endswith(text) for line, text in zip(lines, texts, strict=True)] == [True] * 3
        assert len({line.index(text) for line, text in zip(lines, texts, strict=True)} | {head.index("text")}) == 1
        found = [(line.split()[0], line.split()[1]) for line in lines]
    else:
        rows = table(ran.stdout, "," if kind == "csv" else "\t")
        found = [(row["row"], row["label"]) for row in rows]
    assert found == [(str(number), label) for number, label in enumerate(labels, 1)]


def test_formats_that_contradict_each_other_are_refused(place: Place) -> None:
    for other in (("--json",), ("--output", "out.csv", "--file", "in.txt")):
        ran = place.run("--output-format", "csv", *other)
        assert (ran.returncode, "--output-format is for standard output" in ran.stderr) == (2, True)


def test_a_terminal_shows_a_table_that_no_text_can_break(place: Place) -> None:
    """What moves a cursor is escaped, lines are as wide as the terminal, and nothing else is printed."""
    texts = ["plain", "\x1b[2J erases " + "and is long " * 50, "two\twords"]
    leader, follower = pty.openpty()
    arguments = [script("sealign"), "classify", *map(str, place.options), *texts]
    variables = environment(PYTHONPATH=place.path, COLUMNS="72", TERM="xterm")
    ran = subprocess.run(arguments, stdout=follower, stderr=subprocess.PIPE, env=variables, check=False)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert ran.returncode == 0, ran.stderr
    head, *lines = shown.splitlines()
    assert head.split() == ["row", "label", "probability", "in", "distr.", "text"]
    assert [line.split()[1] for line in lines] == place.labels(texts)
    assert max(map(len, shown.splitlines())) <= 72
    assert "\x1b" not in shown
    assert "\\x1b[2J erases" in lines[1]
    assert lines[1].endswith("…")
