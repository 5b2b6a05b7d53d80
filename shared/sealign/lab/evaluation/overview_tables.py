"""The tables of a report that say what alignment costs and what wins it back, the same in Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence

from sealign.lab.evaluation.methods import CLIENT_OWN, DEFAULT, FITTED, NATIVE, PLAIN
from sealign.lab.evaluation.summary import Row, Summary, mean_of, percent, share, with_error
from sealign.lab.evaluation.table import Table

WHERE = ("pair", "dataset", "public texts", "train", "test")
"""Headings of columns that say what a line is of: sizes are numbers of texts."""


def where(row: Row) -> tuple[str, ...]:
    return row.pair, row.dataset, row.public, *row.sizes


def _figures(row: Row, method: str) -> tuple[str, str]:
    """A method's accuracy and the share of the gap that it closes."""
    return with_error(row.accuracy(method), row.standard_error_of(method)), share(row.closed_by(method))


def overview(summary: Summary) -> Table:
    """What alignment costs, what the default wins back, and what the best method would."""
    lines = [
        (
            *where(row), with_error(row.accuracy(NATIVE), row.standard_error), percent(row.accuracy(CLIENT_OWN)),
            percent(row.accuracy(PLAIN)), *_figures(row, DEFAULT), *_figures(row, row.best or ""), row.best or "–",
        )
        for row in summary.rows
    ]  # fmt: skip
    return Table(
        "Accuracy in percent, mean over seeds. In brackets the standard error for the number of test texts; train and "
        f"test are numbers of texts. Default is the one fixed configuration ({DEFAULT}) that a silo serves if neither "
        "side asks for more. Best is the method with the largest mean over the test texts, so it is chosen with their "
        "labels. Gap closed is the share of what the plain map loses against native. No text of the task is shared.",
        (*WHERE, "native", "client's own", "plain map", "default", "gap closed", "best", "gap closed", "best method"),
        lines,
        texts=3,
    )


def overview_shared(summary: Summary) -> Table | None:
    """The same with texts of the task that the silo shares; None if no method takes some."""
    lines = [
        (
            *where(row), with_error(row.accuracy(NATIVE), row.standard_error), percent(row.accuracy(DEFAULT)),
            *_figures(row, row.default_shared), *_figures(row, row.best_shared), row.best_shared,
        )
        for row in summary.rows
        if row.best_shared is not None
    ]  # fmt: skip
    if not lines:
        return None
    return Table(
        "The same where the silo shares unlabelled texts of the task; their number is in the method's name. Default "
        f"with them is the largest number with {DEFAULT}.",
        (*WHERE, "native", "default without", "default with", "gap closed", "best", "gap closed", "best method"),
        lines,
        texts=3,
    )


def encrypted(summary: Summary) -> Table:
    """The encrypted path against the same in the clear."""
    lines = [
        (
            *where(row), row.sent, percent(row.encrypted(row.sent, lambda found: found.accuracy)),
            percent(row.encrypted(row.sent, lambda found: found.clear_accuracy)),
            percent(row.encrypted(row.sent, lambda found: found.agreement)),
            f"{row.examples(row.sent)}",
        )
        for row in summary.rows
        if row.encrypted(row.sent, lambda found: found.accuracy) is not None
    ]  # fmt: skip
    return Table(
        "Through the encrypted path: the best method where all seeds sent it, else the default. Accuracy in percent of "
        "the texts that were sent, that of the same texts in the clear, and how often both give the same answer.",
        (*WHERE, "method", "encrypted", "in the clear", "agreement", "sent"),
        lines,
        texts=3,
    )


def closed(summary: Summary) -> Table:
    """How much of the plain map's loss is won back on average, by pair."""
    lines = [line for pair in summary.pairs if (line := _closed_line(pair, summary.of(pair))) is not None]
    return Table(
        "Share of the plain map's loss that is won back, by pair: means over datasets and public sets, then the share. "
        f"The last column counts lines in which the default is more than a point under {PLAIN} or {FITTED}, the silo's "
        "trained head and the fitted one behind the map over the public texts alone.",
        ("pair", "native", "plain map", "default", "closed", "best", "closed", "default, shared texts", "closed",
         "under another head"),
        lines,
    )  # fmt: skip


def _closed_line(pair: str, rows: Sequence[Row]) -> Sequence[str] | None:
    native, plain = (mean_of([row.accuracy(name) for row in rows]) for name in (NATIVE, PLAIN))
    if native is None or plain is None:
        return None
    columns = [pair, percent(native), percent(plain)]
    for measured in (
        mean_of([row.accuracy(DEFAULT) for row in rows]),
        mean_of([row.accuracy(row.best or "") for row in rows]),
        mean_of([row.accuracy(row.default_shared) for row in rows]),
    ):
        gap = native.mean - plain.mean
        columns += [percent(measured), share((measured.mean - plain.mean) / gap if measured and gap > 0 else None)]
    short = [row.falls_short(DEFAULT, (PLAIN, FITTED)) for row in rows]
    return *columns, "–" if None in short else f"{sum(filter(None, short))} of {len(rows)}"
