"""The figures of a report about classification."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

from sealign.lab.evaluation.figures import (
    BLUE,
    COLOURS,
    GREEN,
    INK,
    ORANGE,
    PINK,
    Plot,
    lines_of,
    new_figure,
    panels,
    shared_legend,
    svg_of,
)
from sealign.lab.evaluation.methods import NATIVE, PLAIN
from sealign.lab.evaluation.results import ROC_POINTS, Measured
from sealign.lab.evaluation.summary import Row, Summary


def native_and_aligned(summary: Summary, pair: str) -> Plot:
    """Accuracies of one pair: one line for each dataset and public set."""
    rows = summary.of(pair)
    with new_figure(height=0.9 + 0.24 * len(rows)) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            marks = [_of(row.accuracy(name)) for name in (PLAIN, row.best or PLAIN, NATIVE)]
            known = [mark for mark in marks if mark is not None]
            axes.plot(known, [place] * len(known), color=INK, alpha=0.3, linewidth=1, zorder=1)
        for name, colour, marker, label in (
            (PLAIN, ORANGE, "o", "plain map"),
            (None, BLUE, "o", "best method"),
            (NATIVE, INK, "|", "native"),
            ("client-own", GREEN, "d", "client's own, with labels"),
        ):
            points = [(_of(row.accuracy(name or row.best or PLAIN)), place) for place, row in enumerate(rows)]
            known_points = [(value, place) for value, place in points if value is not None]
            axes.scatter(
                [value for value, _ in known_points],
                [place for _, place in known_points],
                s=90 if marker == "|" else 26,
                marker=marker,
                color=colour,
                label=label,
                zorder=2,
            )
        axes.set_yticks(range(len(rows)), [f"{row.dataset} · {row.public}" for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("accuracy, %")
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        svg = svg_of(figure, f"aligned-{pair}")
    return Plot(
        pair,
        "Native accuracy, the plain map's, the best private method's, and for comparison that of a head trained on the "
        "client's own embeddings, which takes the silo's labels. Means over seeds.",
        svg,
    )


def accuracy_by_size(summary: Summary, pair: str) -> Plot | None:
    """Accuracy against the number of public texts, one panel a dataset; None if it was not asked for."""
    datasets = [name for name in summary.datasets if any(_curves(row) for row in summary.of(pair, name))]
    if not datasets:
        return None
    with new_figure(height=0.6 + 2.1 * lines_of(len(datasets))) as figure:
        for dataset, axes in zip(datasets, panels(figure, len(datasets)), strict=True):
            sizes: set[int] = set()
            for index, row in enumerate(summary.of(pair, dataset)):
                for style, (name, curve) in enumerate(_curves(row)):
                    _line(
                        axes,
                        curve,
                        COLOURS[index % len(COLOURS)],
                        ("-", "--", ":", "-.")[style % 4],
                        f"{row.public}, {name}",
                    )
                    sizes |= set(curve)
            native = _of(summary.of(pair, dataset)[0].accuracy(NATIVE))
            if native is not None:
                axes.axhline(native, color=INK, linewidth=1, alpha=0.6, label="native")
            axes.set_xscale("log")
            axes.set_xticks(sorted(sizes), [f"{size}" for size in sorted(sizes)], rotation=45)
            axes.minorticks_off()
            axes.set_title(dataset)
        shared_legend(figure)
        figure.supxlabel("public texts", fontsize=9)
        figure.supylabel("accuracy, %", fontsize=9)
        svg = svg_of(figure, f"size-{pair}")
    return Plot(
        pair,
        "Accuracy against the number of public texts, which are nested. Colours are public sets, line styles methods; "
        "bands are one standard deviation over seeds.",
        svg,
    )


def roc_curves(summary: Summary, pair: str) -> Plot | None:
    """Outliers against test texts, one panel a dataset; None without outliers."""
    rows = [row for row in summary.favourable(pair) if any(row.scores(name) for name in row.methods)]
    if not rows:
        return None
    with new_figure(height=0.6 + 2.6 * lines_of(len(rows))) as figure:
        for row, axes in zip(rows, panels(figure, len(rows)), strict=True):
            best = row.best or PLAIN
            for name, sent, colour, style, label in (
                (NATIVE, False, INK, "-", "native"),
                (PLAIN, False, ORANGE, "-", "plain map"),
                (best, False, BLUE, "-", "best method"),
                (best, True, PINK, ":", "best method, encrypted"),
            ):
                score = row.best_score(name)
                curve = row.roc(name, score, encrypted=sent) if score is not None else []
                if curve:
                    axes.plot(ROC_POINTS, curve, style, color=colour, linewidth=2 if sent else 1.3, label=label)
            axes.set(xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
            axes.set_title(f"{row.dataset} · {row.public}")
        shared_legend(figure)
        figure.supxlabel("share of outliers accepted", fontsize=9)
        figure.supylabel("share of test texts accepted", fontsize=9)
        svg = svg_of(figure, f"roc-{pair}")
    return Plot(
        pair,
        "Test texts against outliers of another source, each method with the score that separates best. For each "
        "dataset over the public set that serves it best. Means over seeds.",
        svg,
    )


def likeness(summary: Summary) -> Plot:
    """Linear CKA of each pair over each public set."""
    measured = {(row.pair, row.public): row.cell_mean(lambda cell: cell.cka) for row in summary.rows}
    grid = [[measured.get((pair, public)) for public in summary.publics] for pair in summary.pairs]
    with new_figure(height=0.8 + 0.45 * len(summary.pairs)) as figure:
        axes = figure.subplots()
        shades = [[float("nan") if value is None else value for value in line] for line in grid]
        axes.imshow(
            shades,
            cmap=mpl.colors.LinearSegmentedColormap.from_list("likeness", ["#0f80c122", BLUE]),
            vmin=0,
            vmax=1,
            aspect="auto",
        )
        for line, values in enumerate(grid):
            for column, value in enumerate(values):
                axes.text(column, line, "–" if value is None else f"{value:.2f}", ha="center", va="center")
        axes.set_xticks(range(len(summary.publics)), summary.publics)
        axes.set_yticks(range(len(summary.pairs)), summary.pairs)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        svg = svg_of(figure, "likeness")
    return Plot(
        "CKA between encoders",
        "Linear centred kernel alignment of the client's and the silo's embeddings over each public set: 1 if one is a "
        "rotation and scaling of the other, 0 if they have nothing in common.",
        svg,
    )


def lost_classes(summary: Summary, pair: str) -> Plot | None:
    """Classes that the best method recognises less often than the silo does natively, one panel a dataset."""
    found = [(row, row.lost_classes(row.best or PLAIN)) for row in summary.favourable(pair)]
    found = [(row, lost) for row, lost in found if lost]
    if not found:
        return None
    with new_figure(height=0.6 + 1.7 * lines_of(len(found), 2)) as figure:
        for (row, lost), axes in zip(found, panels(figure, len(found), 2, share=False), strict=True):
            places = range(len(lost))
            axes.hlines(
                places,
                [100 * entry.aligned for entry in lost],
                [100 * entry.native for entry in lost],
                color=INK,
                alpha=0.3,
            )
            axes.scatter(
                [100 * entry.aligned for entry in lost], places, s=24, color=BLUE, label="best method", zorder=2
            )
            axes.scatter(
                [100 * entry.native for entry in lost], places, s=70, marker="|", color=INK, label="native", zorder=2
            )
            axes.set_yticks(places, [_shortened(entry.label) for entry in lost])
            axes.set(xlim=(-3, 103), ylim=(len(lost) - 0.4, -0.6))
            axes.grid(axis="y", visible=False)
            axes.set_title(f"{row.dataset} · {row.public} · {row.best}")
        shared_legend(figure)
        figure.supxlabel("recognised test texts of the class, %", fontsize=9)
        svg = svg_of(figure, f"errors-{pair}")
    return Plot(
        pair,
        "The classes that lose most between native and the best private method: share of their test texts that get the "
        "right answer. Means over seeds.",
        svg,
    )


def _curves(row: Row) -> list[tuple[str, dict[int, Measured]]]:
    return [(name, row.curve(name)) for name in row.methods if len(row.curve(name)) > 1]


def _line(axes: Any, curve: dict[int, Measured], colour: str, style: str, label: str) -> None:
    sizes = list(curve)
    means = [100 * value.mean for value in curve.values()]
    spreads = [100 * (value.std or 0.0) for value in curve.values()]
    axes.plot(sizes, means, style, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=label)
    lower, upper = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
    axes.fill_between(sizes, lower, upper, color=colour, alpha=0.15, linewidth=0)


def _of(measured: Measured | None) -> float | None:
    return None if measured is None else 100 * measured.mean


def _shortened(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"
