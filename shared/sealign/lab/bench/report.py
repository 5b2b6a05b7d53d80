"""One run of the benchmark, its file and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from sealign.files import PUBLIC, write_atomically
from sealign.lab.bench.sealign_product import SEALIGN, sealign_rows
from sealign.lab.bench.tenseal_mm import TENSEAL, TensealBench
from sealign.lab.bench.workload import BenchRow, Progress, Workload
from sealign.lab.plan_table import short


def run_bench(
    dims: Sequence[int] = (384, 768, 1024, 4096),
    classes: Sequence[int] = (2, 4, 20, 150),
    bulk_rows: int = 4096,
    *,
    repetitions: int = 51,
    quick: bool = False,
    progress: Progress = lambda _: None,
) -> list[BenchRow]:
    """Single queries of every dimension and number of classes, and one bulk batch of d=768, C=4.

    TenSEAL's `mm` takes seconds a row and is not measured in bulk.

    Args:
        dims, classes, bulk_rows: embedding dimensions d, numbers of classes C, rows of the bulk batch.
        repetitions: of a single query through Sealign; one in 17 for the bulk batch.
        quick: single queries of d=768 and C=4 only, and the bulk batch: under a minute.
        progress: told what is measured next, and what is left out and why.
    """
    if quick:
        dims, classes = (768,), (4,)
    rows = []
    for dim in dims:
        for count in classes:
            progress(f"{SEALIGN}: d={dim} C={count}")
            rows += sealign_rows(Workload.random(1, dim, count), repetitions)
    progress(f"{SEALIGN}: {bulk_rows} rows, d=768 C=4")
    rows += sealign_rows(Workload.random(bulk_rows, 768, 4), max(1, repetitions // 17))
    tenseal_bench = TensealBench()
    for dim in dims:
        rows += tenseal_bench.rows([Workload.random(1, dim, count) for count in classes], progress)
    return sorted(rows, key=lambda row: (row.batch, row.dim, row.classes))


def write_bench(rows: Sequence[BenchRow], directory: Path) -> Path:
    """Write ``product.json``, a list of objects with the fields of `BenchRow`, and return its path.

    Raises:
        StorageError: the file could not be written; an earlier one is intact.
    """
    path = directory / "product.json"
    write_atomically(path, (json.dumps([asdict(row) for row in rows], indent=2) + "\n").encode(), mode=PUBLIC)
    return path


def bench_table(rows: Sequence[BenchRow]) -> Table:
    """The measurements for a terminal, with the ratio of TenSEAL's server time to each row's."""
    reference = {(row.dim, row.classes, row.batch): row.server_ms for row in rows if row.system == TENSEAL}
    table = Table(title="Encrypted product: one thread, medians, whole batches", box=None, pad_edge=False)
    table.add_column("system", no_wrap=True)
    headings = (
        "d", "C", "rows", "encrypt\nms", "server\nms", "decrypt\nms", "up\nKB", "down\nKB", "key\nKB",
        "largest\nerror", "server\nrows/s", "TenSEAL/\nthis",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        tenseal_ms = reference.get((row.dim, row.classes, row.batch))
        table.add_row(
            row.system,
            *map(str, (row.dim, row.classes, row.batch)),
            *map(short, (row.encrypt_ms, row.server_ms, row.decrypt_ms)),
            *(short(size / 1000) for size in (row.request_bytes, row.reply_bytes, row.key_bytes)),
            f"{row.max_abs_error:.1e}",
            short(row.batch / row.server_ms * 1e3),
            short(tenseal_ms / row.server_ms) if tenseal_ms else "",
        )
    return table
