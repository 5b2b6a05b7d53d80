"""Run an evaluation: embed, fit every method in every cell, measure, keep each cell's result."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from sealign.console import progress
from sealign.encoders import EncoderSettings
from sealign.evaluation.embedded import EmbeddedCorpus
from sealign.evaluation.results import Report, load_cell, save
from sealign.evaluation.runner import Runner
from sealign.evaluation.selection import Selection
from sealign.evaluation.spec import EvaluationSpec
from sealign.evaluation.texts import Corpus

_PACKAGES = ("sealign", "numpy", "scikit-learn", "tenseal", "torch", "transformers")


def run_evaluation(
    spec: EvaluationSpec, output: Path, cache: Path, only: Sequence[str] = (), command: str = "sealign evaluate"
) -> Report:
    """Measure what is not measured yet, and report all of it.

    Results of cells are kept below ``output``, embeddings below ``cache``: an interrupted run goes on. A cell is
    measured again when its texts, its encoders, the methods or the code have changed.

    Args:
        spec: what to evaluate.
        output: directory for results.
        cache: directory for embeddings.
        only: parts to run, as `Selection` says.
        command: for the report.

    Raises:
        NotFoundError, StorageError: a file is missing, or cannot be read or written.
        InvalidInputError: bad texts, names or encoders; before anything is embedded, but for models that do not load.
    """
    selection = Selection(spec, only)
    corpus = Corpus(spec)
    for given in spec.encoders.values():
        EncoderSettings.parse(given)
    work = list(selection)
    embedded = EmbeddedCorpus(spec, corpus, cache)
    embedded.embed(work)
    runner = Runner(spec, corpus, embedded, selection.methods)
    cells = []
    with progress("measuring", len(work)) as advance:
        for item in work:
            path = output / "cells" / f"{runner.digest(item)[:32]}.json"
            cell = load_cell(path)
            if cell is None:
                cell = runner.cell(item)
                save(cell, path)
            cells.append(cell)
            advance(1)
    return Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        machine=_machine(),
        versions={package: version(package) for package in _PACKAGES},
        n=spec.n,
        seeds=tuple(dict.fromkeys(item.seed for item in work)),
        encoders=embedded.encoders,
        methods={method.name: method.description for method in selection.methods},
        references=tuple(method.name for method in selection.methods if method.kind == "reference"),
        cells=tuple(cells),
    )


def _machine() -> str:
    """Processor and number of cores."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(named, platform.processor())
    return f"{os.cpu_count()} cores, {model or platform.machine()}"
