"""Line charts for the pages: panels side by side with one legend, drawn by matplotlib as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9b9a97", "#37352f")
_MARK_COLOUR = "#dcc7e8"
_PANEL_INCHES = (3.6, 3.2)
_LEGEND_LINE_INCHES = 0.2
_NAMES_BELOW_PANEL = 2
_STYLE: dict[Any, Any] = {
    "axes.autolimit_mode": "round_numbers",
    "axes.edgecolor": "#9b9a97",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "axes.xmargin": 0.0,
    "axes.ymargin": 0.0,
    "font.size": 9.0,
    "grid.color": "#ebebea",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "charts",  # the same chart is the same file
}


def plain(value: float) -> str:
    """Write a number as briefly as it goes: 0.5, 20, 3k, 1.5M."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Curve:
    """One line."""

    name: str
    """What the legend calls it; curves of one name have one colour."""
    points: tuple[tuple[float, float], ...]
    """Its corners, x and y."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale; a linear one has 0 on it."""

    label: str
    """What it shows, with the unit."""
    is_logarithmic: bool = False
    """Whether equal distances are equal ratios."""
    limits: tuple[float, float] | None = None
    """Its ends; None takes round numbers around the curves."""
    text: Callable[[float], str] = plain
    """How a tick is written."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram."""

    title: str
    """What stands above it."""
    curves: tuple[Curve, ...]
    """Its lines."""
    x: Axis
    """The horizontal axis; panels of one chart with equal axes have the same scale."""
    y: Axis
    """The vertical axis, likewise; a panel beside one with an equal axis does not name the ticks again."""
    marks: tuple[float, ...] = ()
    """Values of x at which something happened: vertical lines."""


def draw(panels: Sequence[Panel]) -> str:
    """Return the SVG of a chart."""
    svg = io.StringIO()
    with rc_context(_STYLE):
        figure_of(panels).savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def figure_of(panels: Sequence[Panel]) -> Figure:
    """Return a chart: the panels side by side, and below them one legend for all."""
    with rc_context(_STYLE):
        names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
        columns = _NAMES_BELOW_PANEL * len(panels)
        width, height = _PANEL_INCHES
        size = width * len(panels), height + _LEGEND_LINE_INCHES * math.ceil(len(names) / columns)
        figure = Figure(figsize=size, layout="constrained")
        colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        with_x: dict[Axis, Axes] = {}
        with_y: dict[Axis, Axes] = {}
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1, sharex=with_x.get(panel.x), sharey=with_y.get(panel.y))
            _fill(axes, panel, colours)
            if number and panels[number - 1].y == panel.y:
                axes.tick_params(axis="y", labelleft=False)
                axes.set_ylabel("")
            with_x.setdefault(panel.x, axes)
            with_y.setdefault(panel.y, axes)
        lines = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
        figure.legend([lines[name] for name in names], names, loc="outside lower left", ncols=columns)
    return figure


def _fill(axes: Axes, panel: Panel, colours: dict[str, str]) -> None:
    axes.set_title(panel.title)
    if panel.x.is_logarithmic:
        axes.set_xscale("log")
    if panel.y.is_logarithmic:
        axes.set_yscale("log")
    for mark in panel.marks:
        axes.axvline(mark, color=_MARK_COLOUR, linewidth=1.0)
    for curve in panel.curves:
        axes.plot([x for x, _ in curve.points], [y for _, y in curve.points], color=colours[curve.name], label=curve.name)
    axes.update_datalim([(0.0, 0.0)], updatex=not panel.x.is_logarithmic, updatey=not panel.y.is_logarithmic)
    axes.autoscale_view()
    axes.set_xlabel(panel.x.label)
    axes.set_ylabel(panel.y.label)
    for axis, drawn in ((panel.x, axes.xaxis), (panel.y, axes.yaxis)):
        drawn.set_major_formatter(FuncFormatter(lambda value, _, text=axis.text: text(value)))
        drawn.set_minor_formatter(NullFormatter())
    if panel.x.limits:
        axes.set_xlim(*panel.x.limits)
    if panel.y.limits:
        axes.set_ylim(*panel.y.limits)
