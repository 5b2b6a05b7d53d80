"""Processes that count, record and keep, killed at any moment: nothing is granted twice, nothing answered is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.killed_writers import killed

KILLS = 12


@pytest.mark.parametrize(("kind", "limit"), [("budget", 3000), ("budget", 10**6), ("map", 10**6), ("release", 60)])
def test_what_was_written_survives_every_death(tmp_path: Path, kind: str, limit: int) -> None:
    print(killed(kind, tmp_path, KILLS, limit))
