"""Coverage of a task by several public sets: embedded, measured, and shown to people and programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from sealign.alignment.coverage import Coverage
from sealign.alignment.public_set import PublicSet
from sealign.encoders.encoder import Embeddings

ALL_TOGETHER = "all together"

Encode = Callable[[Sequence[str]], Embeddings]


def measure_coverage(encode: Encode, texts: Sequence[str], public: Mapping[str, PublicSet]) -> dict[str, Coverage]:
    """Of each public set by its name, and of several together.

    Args:
        encode: embeds texts.
        texts: of the task.
        public: at least one.

    Raises:
        InvalidInputError: too few texts, or texts that cannot be embedded.
    """
    task = encode(texts)
    rows = {name: encode(texts.texts) for name, texts in public.items()}
    measured = {name: Coverage.of(task, embedded) for name, embedded in rows.items()}
    if len(rows) > 1:
        measured[ALL_TOGETHER] = Coverage.of(task, np.concatenate(list(rows.values())))
    return measured


def coverage_rows(measured: Mapping[str, Coverage]) -> list[dict[str, Any]]:
    """As JSON-able rows, the best covering set first."""
    return [
        {"public_set": name, **asdict(coverage), "verdict": coverage.verdict} for name, coverage in _ranked(measured)
    ]


def coverage_table(measured: Mapping[str, Coverage]) -> Table:
    """For people, the best covering set first."""
    table = Table(title="Coverage of the task by public texts")
    table.add_column("public set")
    for heading in ("texts", "effective", "variance kept", "distance", "told apart", "nearest cosine"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for name, coverage in _ranked(measured):
        low, median, high = coverage.neighbour_cosines
        table.add_row(
            name,
            f"{coverage.public_texts:,}",
            f"{coverage.effective_texts:,.0f}",
            f"{100 * coverage.retained:.1f} %",
            f"{coverage.mean_distance:.2f}",
            f"{coverage.auroc:.3f}",
            f"{median:.2f} ({low:.2f} to {high:.2f})",
            coverage.verdict,
        )
    return table


def _ranked(measured: Mapping[str, Coverage]) -> list[tuple[str, Coverage]]:
    return sorted(measured.items(), key=lambda item: -item[1].retained)
