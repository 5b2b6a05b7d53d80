"""``sealign classify`` over a file, stopped from outside: one line or none, nothing half-written, and it resumes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sealign_client import Client
from tests.support.fakesilo import Address
from tests.support.processes import environment, script
from tests.support.views import PUBLIC, client_encoder, installed_views

ROWS = 4000
_ROOM = 600_000
"""Bytes that are written before the disk is full: half of the rows, and far more than a ciphertext has."""


class Run:
    """The command over a file of texts."""

    def __init__(self, address: Address, directory: Path) -> None:
        with Client(**address.settings(map_directory=directory / "maps"), encoder=client_encoder()) as client:
            client.align(PUBLIC)
        (directory / "views").mkdir()
        self.variables = environment(PYTHONPATH=installed_views(directory / "views"))
        self.input, self.output = directory / "in.txt", directory / "out.jsonl"
        self.input.write_text("".join(f"query {number}\n" for number in range(ROWS)))
        self.arguments = [
            *(script("sealign"), "classify", "--silo", f"localhost:{address.port}", "--encoder", "views:"),
            *("--tls-ca", str(address.authority.certificate), "--map-directory", str(directory / "maps")),
            *("--file", str(self.input)),
        ]

    def start(self, *options: str, largest: int | None = None) -> subprocess.Popen[str]:
        """Start it; files grow to ``largest`` bytes at most, as on a full disk."""
        # Not by preexec_fn: that forks this process, and threads of gRPC in it.
        limit = () if largest is None else ("bash", "-c", f'ulimit -f {largest // 1024}; exec "$@"', "limited")
        return subprocess.Popen(
            [*limit, *self.arguments, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.variables,
        )

    def finish(self) -> None:
        """Run it to its end, and see that every row is there once."""
        process = self.start("--output", str(self.output))
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        rows = [json.loads(line) for line in self.output.read_text().splitlines()]
        assert [row["row"] for row in rows] == [str(number) for number in range(1, ROWS + 1)]
        assert all(row["label"] for row in rows)
        assert not list(self.output.parent.glob("out.jsonl.*"))


@pytest.fixture
def run(address: Address, tmp_path: Path) -> Run:
    return Run(address, tmp_path)


def test_a_full_disk_is_one_line_and_the_run_resumes_when_there_is_room(run: Run) -> None:
    process = run.start("--output", str(run.output), largest=_ROOM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    faults = [line for line in errors.splitlines() if not line.startswith("classifying")]
    assert len(faults) == 1, errors
    assert faults[0].startswith("error: ")
    assert "File too large" in faults[0]
    assert str(run.output) in faults[0]
    assert not run.output.exists()
    run.finish()


def test_ctrl_c_ends_a_run_that_resumes(run: Run) -> None:
    process = run.start("--output", str(run.output))
    partial = run.output.with_name("out.jsonl.partial")
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "error" not in errors
    assert not run.output.exists()
    run.finish()


@pytest.mark.parametrize("options", [(), ("--on-error", "skip")], ids=["texts", "rows"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(run: Run, options: tuple[str, ...]) -> None:
    process = run.start(*options)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline(), process.communicate()[1]
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 1, errors
    assert [line for line in errors.splitlines() if not line.startswith("classifying")] == []
