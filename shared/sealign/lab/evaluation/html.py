"""A report as one HTML page that needs nothing else: styles and figures are in it, scripts it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import median

from jinja2 import Environment, StrictUndefined

from sealign.lab.evaluation import generation_plots, generation_tables, overview_tables, plots, promise_table, tables
from sealign.lab.evaluation.figures import Plot
from sealign.lab.evaluation.generation_results import GenerationResult
from sealign.lab.evaluation.results import Report
from sealign.lab.evaluation.summary import Summary, percent, share
from sealign.lab.evaluation.table import Table


@dataclass(frozen=True)
class _Section:
    """Figures, then tables, of which some are folded away under a label."""

    id: str
    title: str
    plots: Sequence[Plot | None] = ()
    open: Sequence[Table | None] = ()
    folded: Sequence[Table] = ()
    label: str = "All figures as a table"

    def without_gaps(self) -> _Section:
        found_plots = [plot for plot in self.plots if plot is not None]
        found_tables = [table for table in self.open if table is not None and table.lines]
        return _Section(self.id, self.title, found_plots, found_tables, self.folded, self.label)


def html(report: Report) -> str:
    """The whole page."""
    summary = Summary(report)
    largest = tables.largest_difference(summary)
    closed = [row.closed for row in summary.rows if row.closed is not None]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("sealign.lab.evaluation").joinpath("report.html.j2").read_text("utf-8"))
    sections = [*(_classification(summary) if report.cells else ()), *_generation(report.generation)]
    sections = [section.without_gaps() for section in sections]
    return template.render(
        report=report,
        cells=len(report.cells),
        gap=share(median(closed)) if closed else "",
        difference="" if largest is None else percent(largest),
        sections=[section for section in sections if section.plots or section.open or section.folded],
        left_out=summary.left_out(),
    )


def _generation(pairs: Sequence[GenerationResult]) -> list[_Section]:
    if not pairs:
        return []
    curve, repetition = generation_tables.perplexities(pairs), generation_tables.repetition(pairs)
    return [
        _Section(
            "generation",
            "Generation",
            plots=[generation_plots.perplexity(pairs), generation_plots.perplexity_by_positions(pairs)],
            open=[
                generation_tables.predictions(pairs),
                generation_tables.circumstances(pairs),
                repetition,
                generation_tables.causal_models(pairs),
            ],
            folded=[] if curve is None else [curve],
            label="Perplexity by number of positions, as a table",
        ),
        _Section("samples", "Samples", open=[generation_tables.samples(pair) for pair in pairs]),
    ]


def _classification(summary: Summary) -> list[_Section]:
    pairs = summary.pairs
    curves = tables.curves(summary)
    return [
        _Section("overview", "Overview", open=[overview_tables.closed(summary)]),
        _Section(
            "unshared", "Without shared texts", open=[overview_tables.overview(summary), tables.open_gaps(summary)]
        ),
        _Section("shared", "With shared texts", open=[overview_tables.overview_shared(summary)]),
        _Section("promises", "Promised against measured", open=[promise_table.promises(summary)]),
        _Section("encrypted", "Through ciphertexts", open=[overview_tables.encrypted(summary)]),
        _Section(
            "aligned",
            "Native against aligned",
            plots=[plots.native_and_aligned(summary, pair) for pair in pairs],
            open=[tables.means(summary)],
            folded=tables.all_accuracies(summary),
            label="Every method, as tables",
        ),
        _Section(
            "aligned-shared",
            "Native against aligned, with shared texts",
            open=[tables.means(summary, shared=True)] if summary.report.shared else [],
            folded=tables.all_accuracies(summary, shared=True),
            label="Every method, as tables",
        ),
        _Section(
            "size",
            "Accuracy against public texts",
            plots=[plots.accuracy_by_size(summary, pair) for pair in pairs],
            folded=[] if curves is None else [curves],
        ),
        _Section(
            "outliers",
            "Out-of-distribution detection",
            plots=[plots.roc_curves(summary, pair) for pair in pairs],
            folded=[table for table in (tables.outliers(summary, pair) for pair in pairs) if table.lines],
        ),
        _Section("likeness", "CKA between encoders", plots=[plots.likeness(summary)], open=[tables.likeness(summary)]),
        _Section(
            "errors",
            "Where the map errs",
            plots=[plots.lost_classes(summary, pair) for pair in pairs],
            folded=[table for table in (tables.errors(summary, pair) for pair in pairs) if table.lines],
            label="Classes and what they are taken for",
        ),
    ]
