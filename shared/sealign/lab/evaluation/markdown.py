"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from sealign.lab.evaluation import generation_tables, overview_tables, promise_table, tables
from sealign.lab.evaluation.generation_results import GenerationResult
from sealign.lab.evaluation.results import Report
from sealign.lab.evaluation.summary import Summary, percent
from sealign.lab.evaluation.table import Table


def markdown(report: Report) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    parts = [
        "# What alignment costs, and what wins it back",
        f"Made by `{report.command}` on {report.created[:10]} ({report.machine}; {versions}).",
    ]
    if report.cells:
        parts += _classification(report)
    if report.generation:
        parts += _generation(report.generation)
    return "\n\n".join(filter(None, parts)) + "\n"


def _classification(report: Report) -> list[str]:
    summary = Summary(report)
    parts = [
        f"Seeds: {', '.join(map(str, report.seeds))}; they draw the public texts, the few-shot texts and the heads' "
        f"split. {_differences(summary)}".rstrip(),
        "## Overview",
        _table(overview_tables.closed(summary)),
        "## Without shared texts",
        _table(overview_tables.overview(summary)),
    ]
    for title, found in (
        ("With shared texts", overview_tables.overview_shared(summary)),
        ("Promised against measured", promise_table.promises(summary)),
        ("Through ciphertexts", overview_tables.encrypted(summary)),
    ):
        if found is not None and found.lines:
            parts += [f"## {title}", _table(found)]
    gaps = tables.open_gaps(summary)
    if gaps is not None:
        parts += ["## Where less than half of the gap is closed", _table(gaps)]
    for shared, title in ((False, "without shared texts"), (True, "with shared texts")):
        if report.shared or not shared:
            parts += [f"## Accuracy of every method, {title}", _table(tables.means(summary, shared=shared))]
            parts += map(_table, tables.all_accuracies(summary, shared=shared))
    parts.append("## Out-of-distribution detection")
    parts += [_table(tables.outliers(summary, pair)) for pair in summary.pairs]
    parts += ["## How alike the encoders are", _table(tables.likeness(summary))]
    curves = tables.curves(summary)
    if curves is not None:
        parts += ["## Accuracy by number of public texts", _table(curves)]
    parts.append("## Where the map errs")
    parts += [_table(tables.errors(summary, pair)) for pair in summary.pairs]
    parts += ["## Methods", "\n".join(f"- **{name}**: {text}" for name, text in report.methods.items())]
    left_out = summary.left_out()
    if left_out:
        parts += [
            "## Left out",
            "\n".join(f"- **{method}**: {reason} ({'; '.join(where)})" for method, reason, where in left_out),
        ]
    return [*parts, "## Encoders", _encoders(report)]


def _generation(pairs: Sequence[GenerationResult]) -> list[str]:
    shown = (
        generation_tables.predictions(pairs),
        generation_tables.circumstances(pairs),
        generation_tables.perplexities(pairs),
        generation_tables.repetition(pairs),
    )
    sampled = [table for table in map(generation_tables.samples, pairs) if table is not None]
    return [
        "## Generation",
        *(_table(table) for table in shown if table is not None),
        *(("## Samples", *map(_table, sampled)) if sampled else ()),
        "## Causal models",
        _table(generation_tables.causal_models(pairs)),
    ]


def _differences(summary: Summary) -> str:
    largest = tables.largest_difference(summary)
    return "" if largest is None else f"Encrypted and clear accuracy differ by at most {percent(largest)} points."


def _encoders(report: Report) -> str:
    return _table(
        Table(
            "The encoders; a fingerprint stands for weights, tokenizer and pooling.",
            ("name", "model", "pooling", "dimension", "most tokens", "fingerprint"),
            [
                (name, card.name, card.pooling, f"{card.dimension}", f"{card.max_length}", card.fingerprint[:12])
                for name, card in report.encoders.items()
            ],
            texts=3,
        )
    )


def _table(table: Table) -> str:
    rules = ("---" if column < table.texts else "---:" for column in range(len(table.headings)))
    lines = [table.headings, tuple(rules), *table.lines]
    return table.caption + "\n\n" + "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
