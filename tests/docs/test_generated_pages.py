"""Generated pages of the reference are those that the code makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.documents import PAGES, REPOSITORY


def test_generated_pages_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "deploy/docs/generate.py", str(tmp_path)], cwd=REPOSITORY, check=True)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["command-line.md", "errors.md", "python.md", "settings.md", "wire.md"]
    for name in made:
        current = (PAGES / "reference" / name).read_text(encoding="utf-8")
        assert current == (tmp_path / name).read_text(encoding="utf-8"), f"{name} is old: run make docs"
