"""Performance as ratios of two times of one run: wall times depend on the machine and are never asserted."""

import pytest

from sealign.lab.bench import SEALIGN, TENSEAL, UNPREPARED, BenchRow, run_bench


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, int], BenchRow]:
    """Rows for d=768 and C=4 by system and batch size."""
    measured = run_bench((768,), (4,), bulk_rows=1024, repetitions=25)
    return {(row.system, row.batch): row for row in measured}


def test_a_sanitised_reply_takes_a_fraction_of_tenseals_map_and_head(rows: dict[tuple[str, int], BenchRow]) -> None:
    ours, theirs = rows[SEALIGN, 1], rows[TENSEAL, 1]

    assert ours.server_ms <= theirs.server_ms / 500
    assert ours.request_bytes + ours.reply_bytes <= (theirs.request_bytes + theirs.reply_bytes) / 10
    assert ours.key_bytes <= theirs.key_bytes / 1000
    assert theirs.max_abs_error < 1e-3, "the comparison must be with a product that is right"


def test_a_row_of_a_bulk_batch_costs_the_server_less_than_a_single_query(
    rows: dict[tuple[str, int], BenchRow],
) -> None:
    bulk, single = rows[UNPREPARED, 1024], rows[UNPREPARED, 1]

    assert bulk.server_ms / bulk.batch <= single.server_ms / 4


def test_zeros_prepared_ahead_save_time_on_the_server(rows: dict[tuple[str, int], BenchRow]) -> None:
    assert rows[SEALIGN, 1].server_ms <= 0.9 * rows[UNPREPARED, 1].server_ms
