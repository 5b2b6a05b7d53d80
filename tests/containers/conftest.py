"""One container engine for all tests of containers, and torch's wheel where this machine has it without an index."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.containers import ROOT, NoEngineError, engine


@pytest.fixture(scope="session", autouse=True)
def _engine() -> Iterator[None]:
    try:
        with engine():
            _provide_torch()
            yield
    except NoEngineError as error:
        pytest.skip(str(error))


def _provide_torch() -> None:
    if list((ROOT / "deploy" / "wheels").glob("torch-*.whl")):
        return
    options = ["--quiet", "--no-deps", "--no-index", "--python-version", "3.11", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", "deploy/wheels"]
    subprocess.run([*command, "--constraint", "constraints.txt", "torch"], capture_output=True, cwd=ROOT)
