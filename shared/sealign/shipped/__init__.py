"""Texts that ship with Sealign: a general public set, and what a task's own texts are told apart from by default."""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib.resources import files

GENERAL = "general"
"""The name of the general public set, wherever public texts are asked for."""

_FILES = files("sealign.shipped")


@lru_cache
def general_texts() -> tuple[str, ...]:
    """Return 20,000 English definitions, sentences, questions and requests, made from WordNet 3.1.

    They are of all fields, and in a random order: the first of them are a sample of all. WordNet's licence, which
    permits all use, is in ``LICENSE.WordNet``. The file is made by ``python -m deploy.texts.general``.
    """
    content = gzip.decompress(_FILES.joinpath("general.txt.gz").read_bytes()).decode("utf-8")
    return tuple(content.splitlines())


@lru_cache
def outlier_texts() -> tuple[str, ...]:
    """Return 344 English sentences of many kinds, 26 KB, written for Sealign under its licence, Apache-2.0.

    Public texts are no substitute. Where they are of the task's own kind, a head learns to call its own texts outliers.
    """
    content = _FILES.joinpath("outliers.txt").read_text(encoding="utf-8")
    return tuple(line for line in content.splitlines() if line and not line.startswith("#"))
