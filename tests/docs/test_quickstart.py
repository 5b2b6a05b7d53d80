"""The README's quickstart runs as printed, with real processes; only port and directory are others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.docs.documents import REPOSITORY, code_blocks

_README = REPOSITORY / "README.md"
_LIBRARIES = [REPOSITORY, *(REPOSITORY / name for name in ("shared", "client", "server"))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(home: Path) -> dict[str, str]:
    """Return an environment without this user's settings and files, and without a network."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SEALIGN_")}
    return inherited | {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, _LIBRARIES)),
    }


@pytest.mark.timeout(600)
def test_the_quickstart_classifies_a_text(tmp_path: Path) -> None:
    port = _free_port()
    blocks = {block.language: block.text.replace("7443", str(port)) for block in code_blocks(_README)}
    (tmp_path / "same.py").write_text(blocks["python"], encoding="utf-8")
    script = f"set -eu\n{blocks['sh']}\npython same.py\n"
    output, errors = tmp_path / "output", tmp_path / "errors"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        run = subprocess.Popen(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=_environment(tmp_path / "home"),
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,  # so that the silo, left in the background, can be ended with it
        )
        try:
            run.wait(timeout=540)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGTERM)
    assert run.returncode == 0, errors.read_text(encoding="utf-8")
    *_, by_shell, by_python = output.read_text(encoding="utf-8").splitlines()
    assert by_shell.split()[0] == by_python.split()[0] == "crude"
