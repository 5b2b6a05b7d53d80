"""The table of a report that compares what cards promise with what is measured, the same in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

from sealign.lab.evaluation.methods import DEFAULT, NATIVE
from sealign.lab.evaluation.overview_tables import WHERE, where
from sealign.lab.evaluation.results import Measured
from sealign.lab.evaluation.summary import Row, Summary, percent, points, with_error
from sealign.lab.evaluation.table import Table


def promises(summary: Summary) -> Table | None:
    """What the card promises of the default, and what is measured; None if nothing is promised."""
    lines: list[Sequence[str]] = []
    unseen: list[tuple[float, bool]] = []
    test: list[tuple[float, bool]] = []
    for row in summary.rows:
        promised = row.over_seeds(DEFAULT, lambda result: result.promised)
        margin = row.over_seeds(DEFAULT, lambda result: result.margin)
        measured = row.over_seeds(DEFAULT, lambda result: result.unseen), row.accuracy(DEFAULT)
        if promised is None:
            continue
        columns: list[str] = []
        for found, accuracy in zip((unseen, test), measured, strict=True):
            if accuracy is None:
                columns.append("–")
                continue
            error = promised.mean - accuracy.mean
            found.append((error, margin is not None and abs(error) <= margin.mean))
            columns.append(f"{100 * error:+.1f}" + ("" if found[-1][1] else " *"))
        lines.append((
            *where(row), *(percent(_plain(figure)) for figure in _native(row)), percent(_plain(promised)),
            "–" if margin is None else points(margin.mean), percent(_plain(measured[0])), columns[0],
            with_error(measured[1], row.standard_error_of(DEFAULT)), columns[1], *_kept(row),
        ))  # fmt: skip
    if not lines:
        return None
    return Table(
        "What the task's card promises before any text is classified, and what is measured on the client's texts, in "
        "percent. A promise is of texts like the silo's own: its measure is unseen, rows of the training file that the "
        "silo did not train on. Test is the test set, which may differ from that file, as native accuracy shows before "
        f"any map. For the default, against unseen rows: {_differences(unseen)}. Against the test set: "
        f"{_differences(test)}. An asterisk marks what is outside the margin, which is for 95 %. Kept is the share of "
        "texts that the card's threshold calls in-distribution, meant to be 95; the card gives the range in which it "
        "was on other tasks. A card without thresholds promises nothing.",
        (
            *WHERE, "native, promised", "native, unseen", "native, test", "promised", "margin", "unseen", "difference",
            "test", "difference", "kept, unseen", "kept, test",
        ),
        lines,
        texts=3,
    )  # fmt: skip


def _native(row: Row) -> tuple[Measured | None, ...]:
    return (
        row.over_seeds(NATIVE, lambda result: result.promised),
        row.over_seeds(NATIVE, lambda result: result.unseen),
        row.accuracy(NATIVE),
    )


def _kept(row: Row) -> tuple[str, str]:
    of_test = row.over_seeds(DEFAULT, lambda result: result.kept)
    if of_test is None:
        return "not promised", "not promised"
    return percent(_plain(row.over_seeds(DEFAULT, lambda result: result.unseen_kept))), percent(_plain(of_test))


def _differences(found: Sequence[tuple[float, bool]]) -> str:
    """Promised less measured, over all lines."""
    if not found:
        return "not measured"
    errors = [error for error, _ in found]
    mean, distance = sum(errors) / len(errors), sum(map(abs, errors)) / len(errors)
    within = sum(inside for _, inside in found)
    return (
        f"mean difference {100 * mean:+.1f} points, mean absolute difference {100 * distance:.1f}, {within} of "
        f"{len(errors)} within the margin"
    )


def _plain(measured: Measured | None) -> Measured | None:
    """Without its deviation."""
    return None if measured is None else Measured(measured.mean, None, measured.count)
