"""The demo: ``make demo``. A silo and a client, as separate processes over mutual TLS on loopback.

The silo trains a topic classifier for Reuters R8 on Google USE embeddings. The client's model is
all-MiniLM-L6-v2. They align over public text that is not R8 (newswire on other topics, newsgroup posts, movie
reviews). First both do so in small, and the client classifies one document through ciphertexts within a minute. Then
they do it in full: the client classifies R8 test documents, which the silo never sees, and outliers. At last they align
once more under encryption, and the client applies the map itself. Prints a report and writes
``demo-output/report.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from time import perf_counter

from deploy.demo.data import LabelledText, all_minilm, book_excerpts, foreign_newswire, public_texts, reuters_r8
from deploy.demo.report import make_report, print_report
from deploy.demo.silo import TASK, running_silo
from sealign.app.console import run
from sealign.errors import SealignError
from sealign.files import write_atomically

OUTPUT = Path("demo-output")
PUBLIC_TEXTS = 4000
FOREIGN = 500
FIRST_PUBLIC, FIRST_PER_TOPIC, FIRST_WORDS = 300, 30, 60
"""The first, small run: public texts, training documents of each topic, maximum words of a document."""

_BIN = Path(sys.executable).parent
_STARTED = perf_counter()


def main() -> None:
    """Run the demo and write the report."""
    work = OUTPUT / "work"
    rmtree(work, ignore_errors=True)
    test = reuters_r8("test")
    with _stage("texts are read and trial certificates written"):
        _write_inputs(work, test)
        _command("sealign-server", "certificates", work / "tls", "--host", "localhost")
    _first_classification(work, next(row for row in test if len(row.text.split()) <= FIRST_WORDS))
    with _stage("silo: embeds the public texts and trains its head on Reuters R8 with its own model (Google USE)"):
        _make_silo(work / "silo", work / "public.txt", work / "train.tsv")
    with _stage("client: aligns plainly and under encryption, and asks"), running_silo(work, "silo") as address:
        files = [
            *("--public", work / "public.txt"),
            *("--queries", work / "queries.json"),
            *("--outliers", work / "outliers.json"),
            *("--output", work),
        ]
        _checked([sys.executable, "-m", "deploy.demo.client_side", *map(str, files)], _client(work, address, "client"))
    with _stage("report: compares with the silo's own model and with the aligned model in the clear"):
        report = make_report(work, test)
        write_atomically(OUTPUT / "report.json", json.dumps(report, indent=2).encode())
    print_report(report, json.loads((work / "client.json").read_bytes()))
    print(f"wrote {OUTPUT / 'report.json'}; the demo took {perf_counter() - _STARTED:.0f} s")


def _first_classification(work: Path, document: LabelledText) -> None:
    """Make a small silo, align with it, and classify one document with the commands of the README."""
    with _stage("silo, in small: embeds public texts and trains a head"):
        _make_silo(work / "first", work / "first.txt", work / "first.tsv")
    with running_silo(work, "first") as address:
        client = _client(work, address, "first-client")
        with _stage("client, in small: aligns over public texts"):
            _command("sealign", "align", "--public", work / "first.txt", environment=client)
        with _stage(f"client: classifies one document through ciphertexts; its topic is {document.label}"):
            _command("sealign", "classify", document.text, environment=client)
    print(f"first encrypted classification after {perf_counter() - _STARTED:.0f} s")


def _make_silo(directory: Path, public: Path, train: Path) -> None:
    _command("sealign-server", "init", directory, "--encoder", "use?long_texts=truncate", "--public", public)
    described = ["--description", "topics of Reuters newswire"]
    _command("sealign-server", "train", directory, "--task", TASK, "--data", train, *described)


def _client(work: Path, address: str, name: str) -> dict[str, str]:
    """Return the variables of a client with a directory of its own."""
    return {
        "SEALIGN_CLIENT_SILO": address,
        "SEALIGN_CLIENT_ENCODER": f"transformers:{(work / 'all-MiniLM-L6-v2').resolve()}?long_texts=truncate",
        "SEALIGN_CLIENT_TLS_CA": str(work / "tls" / "ca.pem"),
        "SEALIGN_CLIENT_TLS_CERT": str(work / "tls" / "client.pem"),
        "SEALIGN_CLIENT_TLS_KEY": str(work / "tls" / "client.key"),
        "SEALIGN_CLIENT_MAP_DIRECTORY": str(work / name),
    }


def _write_inputs(work: Path, test: Sequence[LabelledText]) -> None:
    train, public = reuters_r8("train"), public_texts(PUBLIC_TEXTS)
    _write_table(work / "train.tsv", train)
    _write_table(work / "first.tsv", _short_documents(train))
    _write_lines(work / "public.txt", public)
    _write_lines(work / "first.txt", public[:FIRST_PUBLIC])
    write_atomically(work / "queries.json", json.dumps([row.text for row in test]).encode())
    outliers = {"newswire": foreign_newswire(FOREIGN), "books": book_excerpts()}
    write_atomically(work / "outliers.json", json.dumps(outliers).encode())
    (work / "all-MiniLM-L6-v2").symlink_to(all_minilm())


def _short_documents(rows: Sequence[LabelledText]) -> list[LabelledText]:
    """Return a few documents of each topic."""
    taken: Counter[str] = Counter()
    chosen = []
    for row in rows:
        if len(row.text.split()) <= FIRST_WORDS and taken[row.label] < FIRST_PER_TOPIC:
            taken[row.label] += 1
            chosen.append(row)
    return chosen


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _write_table(path: Path, rows: Sequence[LabelledText]) -> None:
    _write_lines(path, ["label\ttext", *(f"{row.label}\t{row.text}" for row in rows)])


@contextmanager
def _stage(what: str) -> Iterator[None]:
    """Print one line about a stage when it is done, with the seconds that it took."""
    started = perf_counter()
    yield
    print(f"{perf_counter() - started:6.1f} s  {what}", flush=True)


def _command(program: str, *arguments: object, environment: dict[str, str] | None = None) -> None:
    _checked([str(_BIN / program), *map(str, arguments)], environment or {})


def _checked(command: list[str], environment: dict[str, str]) -> None:
    if subprocess.run(command, env={**os.environ, **environment}, check=False).returncode:
        raise SealignError(f"This step failed, see above: {' '.join(command[:2])}")


if __name__ == "__main__":
    run(main)
