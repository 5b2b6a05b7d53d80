"""The figures of a report about pairs of causal models."""

from __future__ import annotations

from collections.abc import Sequence

from sealign.lab.evaluation.figures import BLUE, INK, ORANGE, Plot, lines_of, new_figure, panels, shared_legend, svg_of
from sealign.lab.evaluation.generation_results import GenerationResult
from sealign.lab.evaluation.generation_tables import MAPS


def perplexity(pairs: Sequence[GenerationResult]) -> Plot:
    """Of the tokens that follow, natively and behind each map: one line a pair."""
    with new_figure(height=0.9 + 0.28 * len(pairs)) as figure:
        axes = figure.subplots()
        places = range(len(pairs))
        for place, pair in zip(places, pairs, strict=True):
            ends = [pair.own_perplexity, pair.ridge.perplexity]
            axes.plot(ends, [place, place], color=INK, alpha=0.3, linewidth=1, zorder=1)
        for values, colour, marker, label in (
            ([pair.ridge.perplexity for pair in pairs], ORANGE, "o", "ridge"),
            ([None if pair.refined is None else pair.refined.perplexity for pair in pairs], BLUE, "o", "KL"),
            ([pair.control.perplexity for pair in pairs], INK, "x", "client alone"),
            ([pair.own_perplexity for pair in pairs], INK, "|", "silo's own"),
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
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        svg = svg_of(figure, "perplexity")
    return Plot(
        "Perplexity",
        "Of the tokens that follow in test texts, from the silo's own states and from the client's behind the map of "
        "ridge regression and behind the same map refined by divergence (KL). Client alone is the client's own "
        "prediction rewritten as the silo's tokens, without any silo.",
        svg,
    )


def perplexity_by_positions(pairs: Sequence[GenerationResult]) -> Plot | None:
    """Perplexity against the number of positions, one panel a pair; None if it was not asked for."""
    pairs = [pair for pair in pairs if len(pair.curve["ridge"]) > 1]
    if not pairs:
        return None
    with new_figure(height=0.6 + 2.1 * lines_of(len(pairs))) as figure:
        for pair, axes in zip(pairs, panels(figure, len(pairs), share=False), strict=True):
            for (kind, curve), colour in zip(pair.curve.items(), (ORANGE, BLUE), strict=False):
                axes.plot(list(curve), list(curve.values()), color=colour, marker="o", markersize=2.5, label=MAPS[kind])
            axes.axhline(pair.own_perplexity, color=INK, linewidth=1, alpha=0.6, label="silo's own")
            axes.set_xscale("log")
            axes.set_xticks(list(pair.curve["ridge"]), [f"{size:,}" for size in pair.curve["ridge"]], rotation=45)
            axes.minorticks_off()
            axes.set_title(pair.name)
        shared_legend(figure)
        figure.supxlabel("positions aligned over", fontsize=9)
        figure.supylabel("perplexity", fontsize=9)
        svg = svg_of(figure, "positions")
    return Plot(
        "Perplexity against positions",
        "The first positions of the same public texts; each number has its own maps.",
        svg,
    )
