"""The figures of a report, as SVG that takes its text colour from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from sealign.lab.methods import NATIVE, PLAIN
from sealign.lab.results import ROC_POINTS, GenerationResult, Measured
from sealign.lab.summary import Row, Summary
from sealign.lab.tables import MAPS

# Okabe and Ito's colours, which all eyes tell apart, on light and on dark ground.
_BLUE, _ORANGE, _GREEN, _PINK = "#0f80c1", "#e07b1a", "#1a9f77", "#c4679e"
_COLOURS = (_BLUE, _ORANGE, _GREEN, _PINK, "#a08c00", "#7a7f87")
_INK = "#010203"
"""Stands for the page's text colour until the SVG is made."""

_COLUMNS = 3
_WIDTH = 9.2

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@dataclass(frozen=True)
class Plot:
    """A figure and what it shows."""

    title: str
    caption: str
    svg: str


def native_and_aligned(summary: Summary, pair: str) -> Plot:
    """Accuracies of one pair: one line for each dataset and public set."""
    rows = summary.of(pair)
    with _figure(height=0.9 + 0.24 * len(rows)) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            marks = [_of(row.accuracy(name)) for name in (PLAIN, row.best or PLAIN, NATIVE)]
            known = [mark for mark in marks if mark is not None]
            axes.plot([min(known), max(known)], [place, place], color=_INK, alpha=0.3, linewidth=1, zorder=1)
        for name, colour, marker, label in (
            (PLAIN, _ORANGE, "o", "plain map"),
            (None, _BLUE, "o", "best method"),
            (NATIVE, _INK, "|", "native"),
            ("client-own", _GREEN, "d", "client's own, with labels"),
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
        svg = _svg(figure, f"aligned-{pair}")
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
    with _figure(height=0.6 + 2.1 * _lines(len(datasets))) as figure:
        for dataset, axes in zip(datasets, _panels(figure, len(datasets)), strict=True):
            sizes: set[int] = set()
            for index, row in enumerate(summary.of(pair, dataset)):
                for style, (name, curve) in enumerate(_curves(row)):
                    _line(
                        axes,
                        curve,
                        _COLOURS[index % len(_COLOURS)],
                        ("-", "--", ":", "-.")[style % 4],
                        f"{row.public}, {name}",
                    )
                    sizes |= set(curve)
            native = _of(summary.of(pair, dataset)[0].accuracy(NATIVE))
            if native is not None:
                axes.axhline(native, color=_INK, linewidth=1, alpha=0.6, label="native")
            axes.set_xscale("log")
            axes.set_xticks(sorted(sizes), [f"{size}" for size in sorted(sizes)], rotation=45)
            axes.minorticks_off()
            axes.set_title(dataset)
        _shared_legend(figure)
        figure.supxlabel("public texts", fontsize=9)
        figure.supylabel("accuracy, %", fontsize=9)
        svg = _svg(figure, f"size-{pair}")
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
    with _figure(height=0.6 + 2.6 * _lines(len(rows))) as figure:
        for row, axes in zip(rows, _panels(figure, len(rows)), strict=True):
            best = row.best or PLAIN
            for name, sent, colour, style, label in (
                (NATIVE, False, _INK, "-", "native"),
                (PLAIN, False, _ORANGE, "-", "plain map"),
                (best, False, _BLUE, "-", "best method"),
                (best, True, _PINK, ":", "best method, encrypted"),
            ):
                score = row.best_score(name)
                curve = row.roc(name, score, encrypted=sent) if score is not None else []
                if curve:
                    axes.plot(ROC_POINTS, curve, style, color=colour, linewidth=2 if sent else 1.3, label=label)
            axes.set(xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
            axes.set_title(f"{row.dataset} · {row.public}")
        _shared_legend(figure)
        figure.supxlabel("share of outliers accepted", fontsize=9)
        figure.supylabel("share of test texts accepted", fontsize=9)
        svg = _svg(figure, f"roc-{pair}")
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
    with _figure(height=0.8 + 0.45 * len(summary.pairs)) as figure:
        axes = figure.subplots()
        shades = [[float("nan") if value is None else value for value in line] for line in grid]
        axes.imshow(
            shades,
            cmap=mpl.colors.LinearSegmentedColormap.from_list("likeness", ["#0f80c122", _BLUE]),
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
        svg = _svg(figure, "likeness")
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
    with _figure(height=0.6 + 1.7 * _lines(len(found), 2)) as figure:
        for (row, lost), axes in zip(found, _panels(figure, len(found), 2, share=False), strict=True):
            places = range(len(lost))
            axes.hlines(
                places,
                [100 * entry.aligned for entry in lost],
                [100 * entry.native for entry in lost],
                color=_INK,
                alpha=0.3,
            )
            axes.scatter(
                [100 * entry.aligned for entry in lost], places, s=24, color=_BLUE, label="best method", zorder=2
            )
            axes.scatter(
                [100 * entry.native for entry in lost], places, s=70, marker="|", color=_INK, label="native", zorder=2
            )
            axes.set_yticks(places, [_shortened(entry.label) for entry in lost])
            axes.set(xlim=(-3, 103), ylim=(len(lost) - 0.4, -0.6))
            axes.grid(axis="y", visible=False)
            axes.set_title(f"{row.dataset} · {row.public} · {row.best}")
        _shared_legend(figure)
        figure.supxlabel("recognised test texts of the class, %", fontsize=9)
        svg = _svg(figure, f"errors-{pair}")
    return Plot(
        pair,
        "The classes that lose most between native and the best private method: share of their test texts that get the "
        "right answer. Means over seeds.",
        svg,
    )


def perplexity(pairs: Sequence[GenerationResult]) -> Plot:
    """Of the tokens that follow, natively and behind each map: one line a pair."""
    with _figure(height=0.9 + 0.28 * len(pairs)) as figure:
        axes = figure.subplots()
        places = range(len(pairs))
        for place, pair in zip(places, pairs, strict=True):
            ends = [pair.own_perplexity, pair.ridge.perplexity]
            axes.plot(ends, [place, place], color=_INK, alpha=0.3, linewidth=1, zorder=1)
        for values, colour, marker, label in (
            ([pair.ridge.perplexity for pair in pairs], _ORANGE, "o", "ridge"),
            ([None if pair.refined is None else pair.refined.perplexity for pair in pairs], _BLUE, "o", "KL"),
            ([pair.own_perplexity for pair in pairs], _INK, "|", "silo's own"),
        ):
            known = {place: value for place, value in zip(places, values, strict=True) if value is not None}
            size = 90 if marker == "|" else 26
            axes.scatter(list(known.values()), list(known), s=size, marker=marker, color=colour, label=label, zorder=2)
        axes.set_yticks(places, [pair.name for pair in pairs])
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_formatter("{x:.0f}")
        axes.set_xlabel("perplexity")
        axes.grid(axis="y", visible=False)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        svg = _svg(figure, "perplexity")
    return Plot(
        "Perplexity",
        "Of the tokens that follow in test texts, from the silo's own states and from the client's behind the map of "
        "ridge regression and behind the same map refined by divergence (KL).",
        svg,
    )


def perplexity_by_positions(pairs: Sequence[GenerationResult]) -> Plot | None:
    """Perplexity against the number of positions, one panel a pair; None if it was not asked for."""
    pairs = [pair for pair in pairs if len(pair.curve["ridge"]) > 1]
    if not pairs:
        return None
    with _figure(height=0.6 + 2.1 * _lines(len(pairs))) as figure:
        for pair, axes in zip(pairs, _panels(figure, len(pairs), share=False), strict=True):
            for (kind, curve), colour in zip(pair.curve.items(), (_ORANGE, _BLUE), strict=False):
                axes.plot(list(curve), list(curve.values()), color=colour, marker="o", markersize=2.5, label=MAPS[kind])
            axes.axhline(pair.own_perplexity, color=_INK, linewidth=1, alpha=0.6, label="silo's own")
            axes.set_xscale("log")
            axes.set_xticks(list(pair.curve["ridge"]), [f"{size:,}" for size in pair.curve["ridge"]], rotation=45)
            axes.minorticks_off()
            axes.set_title(pair.name)
        _shared_legend(figure)
        figure.supxlabel("positions aligned over", fontsize=9)
        figure.supylabel("perplexity", fontsize=9)
        svg = _svg(figure, "positions")
    return Plot(
        "Perplexity against positions",
        "The first positions of the same public texts; each number has its own maps.",
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


def _lines(count: int, columns: int = _COLUMNS) -> int:
    return -(-count // columns)


def _panels(figure: Figure, count: int, columns: int = _COLUMNS, *, share: bool = True) -> Sequence[Any]:
    """So many axes in lines of ``columns``; places left over stay empty."""
    axes = figure.subplots(_lines(count, columns), columns, squeeze=False, sharex=share).flatten()
    for unused in axes[count:]:
        unused.set_visible(False)
    for lowest in axes[max(0, count - columns) : count]:
        lowest.tick_params(labelbottom=True)
    return list(axes[:count])


def _shared_legend(figure: Figure) -> None:
    """One legend for all panels."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=4)


@contextmanager
def _figure(height: float) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def _svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element whose ids are its own in the page and whose ink is the page's."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": name})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    prefix = re.sub(r"[^a-z0-9-]", "-", name.lower())
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
