"""Draws learning curves as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9b9a97", "#37352f")
_PANEL_WIDTH, _PANEL_HEIGHT, _GAP = 300, 220, 24
_LEFT, _TOP, _BOTTOM = 52, 40, 64


@dataclass(frozen=True, slots=True)
class Curve:
    """One line."""

    name: str
    """What the legend calls it."""
    points: tuple[tuple[float, float], ...]
    """Steps and mean return."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram."""

    title: str
    """What stands above it."""
    curves: tuple[Curve, ...]
    """Its lines, each in the colour of its place."""


def draw(panels: Sequence[Panel]) -> str:
    """Return an SVG of the panels side by side, on common axes, with the legend of the first below."""
    points = [point for panel in panels for curve in panel.curves for point in curve.points] or [(1.0, 0.0)]
    x_max = max(x for x, _ in points)
    y_ticks = ticks(min(0.0, min(y for _, y in points)), max(0.0, max(y for _, y in points)))
    width = _LEFT + len(panels) * (_PANEL_WIDTH + _GAP)
    height = _TOP + _PANEL_HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#37352f">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, _LEFT + index * (_PANEL_WIDTH + _GAP), x_max, y_ticks, first=index == 0)
    for index, curve in enumerate(panels[0].curves if panels else ()):
        x = _LEFT + index * 130
        y = height - 16
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, x_max: float, y_ticks: Sequence[float], *, first: bool) -> list[str]:
    low, high = y_ticks[0], y_ticks[-1]

    def x_of(value: float) -> float:
        return left + value / x_max * _PANEL_WIDTH

    def y_of(value: float) -> float:
        return _TOP + (high - value) / (high - low) * _PANEL_HEIGHT

    parts = [f'<text x="{left}" y="{_TOP - 14}" font-weight="600">{escape(panel.title)}</text>']
    for tick in y_ticks:
        parts.append(
            f'<line x1="{left}" y1="{y_of(tick):.1f}" x2="{left + _PANEL_WIDTH}" y2="{y_of(tick):.1f}" '
            f'stroke="{"#9b9a97" if tick == 0 else "#ebebea"}"/>'
        )
        if first:
            parts.append(f'<text x="{left - 8}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(0.0, x_max)[1:]:
        if tick <= x_max:
            parts.append(f'<text x="{x_of(tick):.1f}" y="{_TOP + _PANEL_HEIGHT + 18}" text-anchor="middle">{tick / 1000:g}k</text>')
    parts.append(f'<text x="{left + _PANEL_WIDTH}" y="{_TOP + _PANEL_HEIGHT + 34}" text-anchor="end">steps</text>')
    if first:
        parts.append(f'<text x="{left}" y="{_TOP + _PANEL_HEIGHT + 34}">mean return of an episode</text>')
    for index, curve in enumerate(panel.curves):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in curve.points)
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"/>')
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
