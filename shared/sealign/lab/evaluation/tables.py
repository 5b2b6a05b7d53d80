"""The tables of a report that go into detail, the same in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sealign.lab.evaluation.methods import CEILING, CLIENT_OWN, DEFAULT, NATIVE, PLAIN
from sealign.lab.evaluation.overview_tables import WHERE, where
from sealign.lab.evaluation.results import Measured
from sealign.lab.evaluation.summary import Row, Summary, mean_of, percent, points, share
from sealign.lab.evaluation.table import Table


def open_gaps(summary: Summary) -> Table | None:
    """Where less than half of the gap is closed, and why; None if nowhere."""
    lines = [
        (
            *where(row), points(row.lost), points(row.standard_error), share(row.closed),
            share(row.closed_by(CEILING)), share(row.closed_by(CLIENT_OWN)), why,
        )
        for row, why in summary.open_gaps()
    ]  # fmt: skip
    if not lines:
        return None
    return Table(
        "Where the best method closes less than half of the gap: what it loses against native, and the standard error "
        "of native accuracy, in points; the share of the gap that the best method closes, that the ceiling would (a "
        "map over the task's own training texts), and that a head on the client's own embeddings would.",
        (*WHERE, "loses", "standard error", "best closes", "ceiling closes", "client's own closes", "why"),
        lines,
        texts=3,
    )  # fmt: skip


def means(summary: Summary, *, shared: bool = False) -> Table:
    """Every method over all datasets and public sets of a pair; those that take shared texts, or those that do not."""
    pairs = {pair: summary.of(pair) for pair in summary.pairs}
    names = [name for name in _measured(summary.rows, summary) if (name in summary.report.shared) is shared]
    return Table(
        "Accuracy in percent by pair, mean over datasets, public sets and seeds, of every method that could be applied "
        "in all of them. Numbers of training and test texts are those of the tables above.",
        ("method", *pairs),
        [
            (name, *(percent(mean_of([row.accuracy(name) for row in rows])) for rows in pairs.values()))
            for name in names
        ],
    )


def _measured(rows: Iterable[Row], summary: Summary) -> list[str]:
    """Methods that some of the rows have, in the report's order."""
    known = {name for row in rows for name in row.methods}
    return [name for name in summary.report.methods if name in known]


def accuracies(summary: Summary, pair: str, dataset: str, *, shared: bool = False) -> Table | None:
    """Every method over every public set; those that take shared texts of the task, or those that take none.

    None if there is no such method.
    """
    rows = {row.public: row for row in summary.of(pair, dataset)}
    names = [name for name in _measured(rows.values(), summary) if (name in summary.report.shared) is shared]
    if not names:
        return None
    best = {row.public: row.best_shared if shared else row.best for row in rows.values()}
    lines = []
    for name in names:
        cells = [percent(row.accuracy(name)) + (" *" if best[public] == name else "") for public, row in rows.items()]
        encrypted = [percent(row.encrypted(name, lambda found: found.accuracy)) for row in rows.values()]
        lines.append((name, *cells, *encrypted))
    train, test = next(iter(rows.values())).sizes
    error = max(row.standard_error for row in rows.values())
    return Table(
        f"{pair}, {dataset}: accuracy in percent by public set, in the clear and encrypted, with {train} training and "
        f"{test} test texts, whose number gives native accuracy a standard error of {points(error)}; * marks the best "
        "of these methods, references apart.",
        ("method", *rows, *(f"{public}, encrypted" for public in rows)),
        lines,
    )


def all_accuracies(summary: Summary, *, shared: bool = False) -> list[Table]:
    """The tables of :func:`accuracies` of every pair and dataset."""
    found = (
        accuracies(summary, pair, dataset, shared=shared)
        for pair in summary.pairs
        for dataset in summary.datasets
        if summary.of(pair, dataset)
    )
    return [table for table in found if table is not None]


def outliers(summary: Summary, pair: str) -> Table:
    """Every score: native, with the plain map, the default and the best method, and encrypted."""
    lines = [line for row in summary.of(pair) for line in _outlier_lines(row)]
    return Table(
        f"{pair}: outliers told from test texts, AUROC / FPR@95 in percent; in brackets the share of test texts above "
        "the threshold that a silo serves, which is meant to be 95. A column is empty where the method does not have "
        "the score.",
        (
            *WHERE[1:],
            "outliers",
            "score",
            "native",
            "plain map",
            "plain map, encrypted",
            "default",
            "default, encrypted",
            "best",
            "best, encrypted",
        ),
        lines,
        texts=2,
    )


def _outlier_lines(row: Row) -> Iterator[Sequence[str]]:
    best = row.best or ""
    scores = dict.fromkeys(score for method in (NATIVE, PLAIN, DEFAULT, best) for score in row.scores(method))
    for score in scores:
        columns = [(NATIVE, False), *((method, sent) for method in (PLAIN, DEFAULT, best) for sent in (False, True))]
        yield (
            *where(row)[1:],
            f"{row.cells[0].outliers}",
            score,
            *(_separation(row, method, score, sent) for method, sent in columns),
        )


def _separation(row: Row, method: str, score: str, encrypted: bool) -> str:
    auroc = row.ood(method, score, lambda ood: ood.auroc, encrypted=encrypted)
    fpr95 = row.ood(method, score, lambda ood: ood.fpr95, encrypted=encrypted)
    if auroc is None or fpr95 is None:
        return "–"
    kept = row.ood(method, score, lambda ood: ood.kept, encrypted=encrypted)
    return f"{100 * auroc.mean:.1f} / {100 * fpr95.mean:.1f}" + ("" if kept is None else f" ({100 * kept.mean:.0f})")


def likeness(summary: Summary) -> Table:
    """How alike the encoders are over each public set."""
    lines = [
        (
            pair, public, f"{row.cells[0].n}", f"{row.cell_mean(lambda cell: cell.cka):.3f}",
            f"{row.cell_mean(lambda cell: cell.explained_variance):.3f}",
        )
        for pair in summary.pairs
        for public in summary.publics
        for row in [row for row in summary.of(pair) if row.public == public][:1]
    ]  # fmt: skip
    return Table(
        "Linear CKA between client's and silo's embeddings of the public texts, and the share of the silo's variance "
        "that the plain map explains of held-out public texts.",
        ("pair", "public texts", "n", "linear CKA", "explained variance"),
        lines,
        texts=2,
    )


def curves(summary: Summary) -> Table | None:
    """Accuracy by number of public texts; None if it was not asked for."""
    found = [(row, name, row.curve(name)) for row in summary.rows for name in row.methods if row.curve(name)]
    sizes = sorted({size for _, _, curve in found for size in curve})
    if not found:
        return None
    return Table(
        "Accuracy in percent by number of public texts.",
        (*WHERE, "method", *map(str, sizes)),
        [(*where(row), name, *(percent(curve.get(size)) for size in sizes)) for row, name, curve in found],
        texts=3,
    )


def errors(summary: Summary, pair: str) -> Table:
    """The classes that lose most."""
    lines = [
        (*where(row)[1:], method, lost.label, share(lost.native), share(lost.aligned), lost.taken_for or "–")
        for row in summary.favourable(pair)
        for method in dict.fromkeys((PLAIN, row.best or PLAIN))
        for lost in row.lost_classes(method)
    ]
    return Table(
        f"{pair}: the classes that lose most between native and aligned: share of their test texts that are "
        "recognised, and what they are most often taken for. For each dataset over the public set that serves it best.",
        (*WHERE[1:], "method", "class", "native", "aligned", "taken for"),
        lines,
        texts=2,
    )


def largest_difference(summary: Summary) -> Measured | None:
    """Between encrypted accuracy and that of the same texts in the clear, over all that was encrypted."""
    differences = [
        abs(result.encrypted.accuracy - result.encrypted.clear_accuracy)
        for cell in summary.report.cells
        for result in cell.methods.values()
        if result.encrypted is not None
    ]
    return Measured.of([max(differences)]) if differences else None
