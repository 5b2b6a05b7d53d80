"""Run an evaluation: embed, fit every method in every cell, measure, keep each cell's and each pair's result."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from sealign.app.progress import progress
from sealign.encoders import EncoderSettings
from sealign.lab.evaluation.embedded import EmbeddedCorpus
from sealign.lab.evaluation.generation import GenerationRunner
from sealign.lab.evaluation.generation_results import GenerationResult
from sealign.lab.evaluation.results import Cell, EncoderResult, Report, load_result, save
from sealign.lab.evaluation.runner import Runner
from sealign.lab.evaluation.selection import Selection
from sealign.lab.evaluation.spec import EvaluationSpec
from sealign.lab.evaluation.synthetic import SyntheticTexts
from sealign.lab.evaluation.texts import Corpus

_PACKAGES = ("sealign", "numpy", "scikit-learn", "tenseal", "torch", "transformers")


def run_evaluation(
    spec: EvaluationSpec, output: Path, cache: Path, only: Sequence[str] = (), command: str = "sealign-lab evaluate"
) -> Report:
    """Measure what is not measured yet, and report all of it.

    Results of cells and of pairs for generation are kept below ``output``, embeddings and states below ``cache``: an
    interrupted run resumes. What is kept is measured again when its texts, models, methods or code have changed.

    Args:
        spec: what to evaluate.
        output: directory for results.
        cache: directory for embeddings and states.
        only: parts to run, as `Selection` says.
        command: for the report.

    Raises:
        NotFoundError, StorageError: a file is missing, or cannot be read or written.
        InvalidInputError: bad texts, names or encoders; before anything is embedded, but for encoders that do not load.
    """
    selection = Selection(spec, only)
    for given in spec.encoders.values():
        EncoderSettings.parse(given)
    work = list(selection)
    corpus = Corpus(spec) if work else None
    generating = GenerationRunner(spec, selection.generation, cache / "states")
    encoders, cells = ({}, ()) if corpus is None else _cells(spec, selection, corpus, output, cache)
    methods = selection.methods if work else ()
    return Report(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command,
        machine=_machine(),
        versions={package: version(package) for package in _PACKAGES},
        n=spec.n,
        seeds=tuple(dict.fromkeys(item.seed for item in work)),
        encoders=encoders,
        methods={method.name: method.description for method in methods},
        references=tuple(method.name for method in methods if method.kind == "reference"),
        shared=tuple(method.name for method in methods if method.kind == "shared"),
        cells=cells,
        generation=tuple(_generation(generating, pair.name, output) for pair in selection.generation),
    )


def _cells(
    spec: EvaluationSpec, selection: Selection, corpus: Corpus, output: Path, cache: Path
) -> tuple[dict[str, EncoderResult], tuple[Cell, ...]]:
    """The encoders and cells of classification."""
    work = list(selection)
    embedded = EmbeddedCorpus(spec, corpus, cache)
    embedded.embed(work)
    needed = any(method.name.startswith("synthetic-") for method in selection.methods)
    synthetic = SyntheticTexts(spec, cache / "synthetic") if needed else None
    runner = Runner(spec, corpus, embedded, selection.methods, synthetic)
    cells = []
    with progress("measuring", len(work)) as advance:
        for item in work:
            path = output / "cells" / f"{runner.digest(item)[:32]}.json"
            cell = load_result(Cell, path)
            if cell is None:
                cell = runner.cell(item)
                save(cell, path)
            cells.append(cell)
            advance(1)
    return embedded.encoders, tuple(cells)


def _generation(runner: GenerationRunner, name: str, output: Path) -> GenerationResult:
    path = output / "generation" / f"{runner.digest(name)[:32]}.json"
    result = load_result(GenerationResult, path)
    if result is None:
        result = runner.result(name)
        save(result, path)
    return result


def _machine() -> str:
    """Processor and number of cores."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(named, platform.processor())
    return f"{os.cpu_count()} cores, {model or platform.machine()}"
