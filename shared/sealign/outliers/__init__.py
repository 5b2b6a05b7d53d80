"""General texts that ship with Sealign: what a task's own texts are told apart from unless a silo gives others.

Public texts are no substitute. Where they are of the task's own kind, a head learns to call its own texts outliers.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files


@lru_cache
def general_texts() -> tuple[str, ...]:
    """Return 344 English sentences of many kinds, 26 KB, written for Sealign under its licence, Apache-2.0."""
    content = files("sealign.outliers").joinpath("general.txt").read_text(encoding="utf-8")
    return tuple(line for line in content.splitlines() if line and not line.startswith("#"))
