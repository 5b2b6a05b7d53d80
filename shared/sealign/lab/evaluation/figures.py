"""What the figures of a report share: colours, style, panels, and SVG that takes its text colour from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito's colours, which all eyes tell apart, on light and on dark ground.
BLUE, ORANGE, GREEN, PINK = "#0f80c1", "#e07b1a", "#1a9f77", "#c4679e"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#a08c00", "#7a7f87")
INK = "#010203"
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
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
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


def lines_of(count: int, columns: int = _COLUMNS) -> int:
    return -(-count // columns)


def panels(figure: Figure, count: int, columns: int = _COLUMNS, *, share: bool = True) -> Sequence[Any]:
    """So many axes in lines of ``columns``; places left over stay empty."""
    axes = figure.subplots(lines_of(count, columns), columns, squeeze=False, sharex=share).flatten()
    for unused in axes[count:]:
        unused.set_visible(False)
    for lowest in axes[max(0, count - columns) : count]:
        lowest.tick_params(labelbottom=True)
    return list(axes[:count])


def shared_legend(figure: Figure) -> None:
    """One legend for all panels."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=4)


@contextmanager
def new_figure(height: float) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def svg_of(figure: Figure, name: str) -> str:
    """The figure as an SVG element whose ids are its own in the page and whose ink is the page's."""
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": name})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    prefix = re.sub(r"[^a-z0-9-]", "-", name.lower())
    return re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
