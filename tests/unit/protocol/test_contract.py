"""The wire contract: linted, documented field by field, and compatible with what was agreed.

`proto/agreed.binpb` holds the descriptors of the contract as it was last agreed. ``make agreed`` writes it anew, which
is a decision to break other implementations.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).resolve().parents[3] / "proto"
BUF = shutil.which("buf", path=f"{Path(sys.prefix) / 'node_modules' / '.bin'}{os.pathsep}{os.environ.get('PATH', '')}")
needs_buf = pytest.mark.skipif(BUF is None, reason="needs buf: npm install --prefix .venv @bufbuild/buf")


def buf(*arguments: str, directory: Path = PROTO) -> subprocess.CompletedProcess[str]:
    assert BUF is not None
    return subprocess.run([BUF, *arguments], cwd=directory, capture_output=True, text=True, timeout=120, check=False)


@needs_buf
def test_the_contract_is_linted_and_every_field_is_documented() -> None:
    done = buf("lint")
    assert done.returncode == 0, done.stdout


@needs_buf
def test_the_contract_does_not_break_what_was_agreed() -> None:
    done = buf("breaking", "--against", "agreed.binpb")
    assert done.returncode == 0, done.stdout


@needs_buf
def test_a_changed_field_would_be_noticed(tmp_path: Path) -> None:
    shutil.copytree(PROTO, tmp_path / "proto")
    contract = tmp_path / "proto" / "sealign" / "v1" / "types.proto"
    contract.write_text(contract.read_text().replace("uint32 rows = 3;", "string rows = 3;", 1))
    done = buf("breaking", "--against", "agreed.binpb", directory=tmp_path / "proto")
    assert done.returncode != 0
    assert "rows" in done.stdout
