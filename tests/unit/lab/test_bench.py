import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from sealign.ckks import DEFAULT_PRECISION
from sealign.lab.bench import (
    SEALIGN,
    TENSEAL,
    UNPREPARED,
    BenchRow,
    TensealBench,
    Workload,
    bench_table,
    sealign_rows,
    write_bench,
)

FIELDS = [
    "system", "dim", "classes", "batch", "encrypt_ms", "server_ms", "decrypt_ms",
    "request_bytes", "reply_bytes", "key_bytes", "max_abs_error",
]  # fmt: skip


def row(system: str, server_ms: float) -> BenchRow:
    return BenchRow(system, 768, 4, 1, 0.5, server_ms, 0.25, 9_280, 11_276, 9_280, 1e-3)


@pytest.mark.parametrize("rows", [1, 1030])
def test_sealign_is_measured_on_the_whole_batch_and_within_its_precision(rows: int) -> None:
    work = Workload.random(rows, 24, 3)

    prepared, unprepared = sealign_rows(work, repetitions=2)

    assert (prepared.system, unprepared.system) == (SEALIGN, UNPREPARED)
    for measured in (prepared, unprepared):
        assert (measured.dim, measured.classes, measured.batch) == (24, 3, rows)
        assert min(measured.encrypt_ms, measured.server_ms, measured.decrypt_ms) > 0
        assert 0 < measured.max_abs_error <= DEFAULT_PRECISION
        assert min(measured.request_bytes, measured.reply_bytes, measured.key_bytes) > 1000


def test_workloads_of_one_dimension_share_query_and_map_and_have_a_typical_norm() -> None:
    two, twenty = Workload.random(1, 32, 2), Workload.random(1, 32, 20)

    assert np.array_equal(two.X, twenty.X)
    assert np.array_equal(two.map, twenty.map)
    assert np.linalg.norm(twenty.X) == pytest.approx(1)
    assert np.linalg.norm(twenty.map @ twenty.head) == pytest.approx(5 * np.sqrt(20))


def test_a_tenseal_map_that_would_take_too_long_is_left_out_and_said_to_be() -> None:
    messages: list[str] = []

    rows = TensealBench(limit_s=0.0).rows([Workload.random(1, 16, 2)], messages.append)

    assert rows == []
    assert len(messages) == 1
    assert "d=16 left out" in messages[0]


def test_the_written_file_is_a_list_of_rows_with_exactly_the_agreed_fields(tmp_path: Path) -> None:
    rows = [row(SEALIGN, 1.0), row(TENSEAL, 4600.0)]

    path = write_bench(rows, tmp_path / "bench-output")

    assert path == tmp_path / "bench-output" / "product.json"
    written = json.loads(path.read_text())
    assert [list(entry) for entry in written] == [FIELDS, FIELDS]
    assert [BenchRow(**entry) for entry in written] == rows
    assert [file.name for file in path.parent.iterdir()] == ["product.json"]


def test_the_table_compares_rows_with_tenseal_on_the_same_work() -> None:
    other = BenchRow(SEALIGN, 768, 4, 4096, 900.0, 500.0, 10.0, 1, 1, 1, 1e-3)
    console = Console(width=120, file=StringIO(), record=True)

    console.print(bench_table([row(SEALIGN, 1.0), row(TENSEAL, 4600.0), other]))

    lines = console.export_text().splitlines()
    assert any(line.rstrip().endswith("4600") for line in lines)
    assert any("4096" in line and line.rstrip().endswith("8192") for line in lines)
