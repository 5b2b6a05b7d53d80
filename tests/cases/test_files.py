"""Texts in files as people have them, by the real command: as many answers as rows, or a refusal that names them."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealign_client import Client
from tests.support.fakesilo import FakeSilo, serving_fake, silo_files
from tests.support.processes import command, environment, script
from tests.support.views import PUBLIC, client_encoder, installed_views

LINES = {
    "separators.txt": ("copper\u2028prices rose\nwheat\x0cexports fell\noil\x85fell\n", 3),
    "crlf.txt": ("copper prices rose\r\nwheat exports fell\r\n", 2),
    "bom.txt": ("\ufeffcopper prices rose\nwheat exports fell\n", 2),
    "lines.txt.gz": ("copper prices rose\nwheat exports fell\n", 2),
    "quoted.csv": ('id,text\n1,"copper prices rose\nin london"\n2,"he said ""buy"", then left"\n', 2),
    "semicolon.csv": ("\ufeffid;text\n1;copper prices rose\n", 1),
    "tabs.csv": ("id\ttext\n1\tcopper, and wheat\n", 1),
}
FAULTY = {
    "blank.txt": (b"one\n\nthree\n", "line 2: is empty"),
    "latin1.txt": ("prix élevés\n".encode("latin-1"), "line 1: is not UTF-8"),
    "nul.txt": (b"one\x00two\n", "line 1: contains a NUL character"),
    "ragged.csv": (b"id,text\n1,copper prices rose\n2\n3,wheat,extra\n", "row 2: has 1 columns"),
}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[object, ...]]:
    directory = tmp_path_factory.mktemp("files")
    with serving_fake(FakeSilo(), *silo_files(directory)) as address:
        with Client(**address.settings(map_directory=directory / "maps"), encoder=client_encoder()) as client:
            client.align(PUBLIC)
        where = ("--silo", f"localhost:{address.port}", "--tls-ca", address.authority.certificate)
        yield (*where, "--encoder", "views:", "--map-directory", directory / "maps", "--json", "--no-daemon")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return installed_views(tmp_path_factory.mktemp("views"))


@pytest.mark.parametrize("name", LINES)
def test_as_many_answers_as_rows(name: str, options: tuple[object, ...], path: str, tmp_path: Path) -> None:
    content, rows = LINES[name]
    file = tmp_path / name
    file.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    ran = command("sealign", "classify", *options, "--file", file, PYTHONPATH=path)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["label"] in {"red", "green", "blue"} for line in ran.stdout.splitlines()] == [True] * rows


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_rows_are_named_before_any_work(
    name: str, options: tuple[object, ...], path: str, tmp_path: Path
) -> None:
    content, message = FAULTY[name]
    file = tmp_path / name
    file.write_bytes(content)
    ran = command("sealign", "classify", *options, "--file", file, PYTHONPATH=path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert message in ran.stderr
    if name == "ragged.csv":
        assert "row 3: has 3 columns" in ran.stderr


def test_ctrl_c_keeps_what_was_done(options: tuple[object, ...], path: str, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("".join(f"query {number}\n" for number in range(200_000)))
    arguments = [script("sealign"), "classify", *map(str, options), "--file", str(file)]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(PYTHONPATH=path)
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in errors) == (130, False)
    lines = (first + rest).splitlines()
    assert 0 < len(lines) < 200_000
    assert all("label" in json.loads(line) for line in lines)
