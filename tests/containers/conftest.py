"""One container engine for all tests of containers, and torch's wheel where this machine has it without an index."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.containers import ROOT, Builds, NoEngineError, engine


@pytest.fixture(scope="session", autouse=True)
def builds(request: pytest.FixtureRequest) -> Iterator[Builds]:
    """Builds of the images of all demos that are to be tested."""
    try:
        with engine():
            _provide_torch()
            tests = (item for item in request.session.items if isinstance(item, pytest.Function))
            builds = Builds(dict.fromkeys(test.module.FILE for test in tests))
            yield builds
            builds.close()
    except NoEngineError as error:
        pytest.skip(str(error))


def _provide_torch() -> None:
    if list((ROOT / "deploy" / "wheels").glob("torch-*.whl")):
        return
    options = ["--quiet", "--no-deps", "--no-index", "--python-version", "3.11", "--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", "deploy/wheels"]
    subprocess.run([*command, "--constraint", "constraints.txt", "torch"], capture_output=True, cwd=ROOT)
