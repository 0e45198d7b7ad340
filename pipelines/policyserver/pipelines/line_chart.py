"""Draws line charts as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9b9a97", "#37352f")
_MARK_COLOUR = "#dcc7e8"
_PANEL_WIDTH, _PANEL_HEIGHT, _GAP = 300, 220, 24
_LEFT, _TOP, _BOTTOM = 52, 40, 64
_LEGEND_WIDTH, _LETTER_WIDTH = 130, 7


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
    """A scale with its ticks."""

    label: str
    """What it shows, with the unit."""
    low: float
    """Value at the left or the lower end."""
    high: float
    """Value at the other end."""
    ticks: tuple[float, ...]
    """Values that are named."""
    is_logarithmic: bool = False
    """Whether equal distances are equal ratios."""
    text: Callable[[float], str] = plain
    """How a tick is written."""

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        if self.is_logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram."""

    title: str
    """What stands above it."""
    curves: tuple[Curve, ...]
    """Its lines."""
    x: Axis
    """The horizontal axis."""
    y: Axis
    """The vertical axis; a panel beside one with the same axis does not name the ticks again."""
    marks: tuple[float, ...] = ()
    """Values of x at which something happened: vertical lines."""


def linear_axis(label: str, values: Iterable[float], text: Callable[[float], str] = plain) -> Axis:
    """Return an axis with round ends, from 0 or from below."""
    found = list(values)
    marks = ticks(min([0.0, *found]), max([0.0, *found]))
    return Axis(label, marks[0], marks[-1], tuple(marks), text=text)


def logarithmic_axis(label: str, values: Iterable[float]) -> Axis:
    """Return an axis from the power of ten below the smallest positive value to the one above the largest."""
    found = [value for value in values if value > 0] or [1.0]
    first = math.floor(math.log10(min(found)))
    last = max(math.ceil(math.log10(max(found))), first + 1)
    marks = tuple(10.0**exponent for exponent in range(first, last + 1))
    return Axis(label, marks[0], marks[-1], marks, is_logarithmic=True)


def draw(panels: Sequence[Panel]) -> str:
    """Return an SVG of the panels side by side, with one legend for all below."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    legend_width = max(_LEGEND_WIDTH, 32 + _LETTER_WIDTH * max(map(len, names), default=0))
    lefts: list[int] = []
    right = 0
    named = [index == 0 or panel.y != panels[index - 1].y for index, panel in enumerate(panels)]
    for has_ticks in named:
        lefts.append(right + (_LEFT if has_ticks else 0))
        right = lefts[-1] + _PANEL_WIDTH + _GAP
    width = max(right, _LEFT + len(names) * legend_width)
    height = _TOP + _PANEL_HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#37352f">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for panel, left, has_ticks in zip(panels, lefts, named, strict=True):
        parts += _panel(panel, left, colours, has_ticks=has_ticks)
    for index, (name, colour) in enumerate(colours.items()):
        x = _LEFT + index * legend_width
        y = height - 16
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, colours: dict[str, str], *, has_ticks: bool) -> list[str]:
    bottom = _TOP + _PANEL_HEIGHT

    def x_of(value: float) -> float:
        return left + panel.x.share(value) * _PANEL_WIDTH

    def y_of(value: float) -> float:
        return _TOP + (1 - panel.y.share(value)) * _PANEL_HEIGHT

    parts = [f'<text x="{left}" y="{_TOP - 14}" font-weight="600">{escape(panel.title)}</text>']
    for mark in panel.marks:
        x = x_of(mark)
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="{_MARK_COLOUR}"/>')
    for tick in panel.y.ticks:
        parts.append(
            f'<line x1="{left}" y1="{y_of(tick):.1f}" x2="{left + _PANEL_WIDTH}" y2="{y_of(tick):.1f}" '
            f'stroke="{"#9b9a97" if tick == 0 else "#ebebea"}"/>'
        )
        if has_ticks:
            parts.append(f'<text x="{left - 8}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{panel.y.text(tick)}</text>')
    for tick in panel.x.ticks:
        parts.append(f'<text x="{x_of(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{panel.x.text(tick)}</text>')
    parts.append(f'<text x="{left + _PANEL_WIDTH}" y="{bottom + 34}" text-anchor="end">{escape(panel.x.label)}</text>')
    if has_ticks:
        parts.append(f'<text x="{left}" y="{bottom + 34}">{escape(panel.y.label)}</text>')
    for curve in panel.curves:
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colours[curve.name]}" stroke-width="1.8" stroke-linejoin="round"/>')
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Return four to ten round numbers, evenly spaced, the first at most `low` and the last at least `high`."""
    span = high - low or 1.0
    raw = span / 6
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * magnitude >= raw)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [index * step for index in range(first, last + 1)]
