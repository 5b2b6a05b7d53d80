"""Every way in which a command line ends: one line of error, an exit status for scripts, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from sealign import errors
from sealign.app.console import exit_status

_PROGRAM = [sys.executable, "-m", "tests.unit.app.invented_program"]


def _run(*arguments: str, variables: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **(variables or {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*_PROGRAM, *arguments], text=True, env=environment, timeout=60, check=False, **options)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("InvalidInputError", 2),
        ("NotFoundError", 2),
        ("UnavailableError", 75),
        ("OverloadedError", 75),
        ("NotPermittedError", 77),
        ("ReleaseRefusedError", 77),
        ("AuthenticationError", 77),
        ("NoMapError", 1),
        ("StorageError", 1),
    ],
)
def test_an_error_is_one_line_and_a_status(name: str, status: int) -> None:
    assert exit_status(getattr(errors, name)("x")) == status
    if name in ("InvalidInputError", "OverloadedError"):  # one process each is enough
        ran = _run("fail", name)
        assert (ran.returncode, ran.stdout) == (status, "")
        assert ran.stderr == "error: what the other side \\x1b[31msays\\nand more\n"


def test_an_error_that_says_when_to_ask_again_is_temporary() -> None:
    assert exit_status(errors.BudgetExhaustedError("x", retry_after=60)) == 75
    assert exit_status(errors.BudgetExhaustedError("x")) == 1


def test_an_error_that_nobody_foresaw_is_one_line_too() -> None:
    ran = _run("fail", "Bug")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "KeyError" in ran.stderr
    assert "Traceback" in _run("fail", "Bug", variables={"SEALIGN_TRACEBACK": "1"}).stderr


def test_wrong_usage_has_the_status_of_wrong_input() -> None:
    for arguments in (["nonsense"], ["lines"], ["lines", "many"], ["lines", "1", "--no-such-option"]):
        ran = _run(*arguments)
        assert ran.returncode == 2
        assert "Error: " in ran.stderr


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    ran = subprocess.run(
        ["bash", "-c", f"{' '.join(_PROGRAM)} lines 100000 | head -1"], capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("0 копейка\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [("lines", "1"), ("lines", "100000"), ("table",)])
def test_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ran = _run(*arguments, stdout=full)
    assert ran.returncode == 1
    assert ran.stderr == "error: Could not read or write the output: No space left on device.\n"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_an_encoding_lacks_is_escaped(encoding: str) -> None:
    ran = _run("table", variables={"PYTHONIOENCODING": encoding, "LC_ALL": "C"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "f" * 200 in ran.stdout
    lines = _run("lines", "1", variables={"PYTHONIOENCODING": "latin-1"})
    assert (lines.returncode, lines.stderr) == (0, "")
    assert lines.stdout.startswith("0 \\u043a")


def test_closed_streams() -> None:
    ran = subprocess.run(["bash", "-c", f"{' '.join(_PROGRAM)} read <&-"], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "error: Standard input is closed. Give a file, or send the texts through a pipe.\n"
    for closed in (">&-", "2>&-"):
        ran = subprocess.run(
            ["bash", "-c", f"{' '.join(_PROGRAM)} lines 3 {closed}"], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("how", ["thread", "loop", "stuck"])
def test_ctrl_c_ends_the_program_whatever_its_threads_do(how: str) -> None:
    program = subprocess.Popen([*_PROGRAM, "compute", how], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stderr is not None
    assert program.stderr.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    output, error = program.communicate(timeout=20)  # the work itself takes a minute
    assert program.returncode == 130
    assert (output, error) == ("first answer\n", "")


def test_ctrl_c_twice_ends_the_program_at_once() -> None:
    program = subprocess.Popen([*_PROGRAM, "compute", "stuck"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert program.stderr is not None
    program.stderr.readline()
    program.send_signal(signal.SIGINT)
    time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    assert program.wait(timeout=20) == 130


def test_progress_without_a_terminal_is_lines() -> None:
    error = _run("slow", "0.3").stderr
    assert error.count("embedding: 25 of 100 (25%), ") >= 2
    assert error.count("sent: 2 of 8 MB (25%), ") >= 2
    assert "\x1b" not in error
    assert "done: " not in error
    assert "never" not in error
