"""Draws learning curves: mean returns over steps, the variants side by side on common axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policyserver.pipelines import line_chart
from policyserver.pipelines.line_chart import Axis, Curve, linear_axis, ticks


@dataclass(frozen=True, slots=True)
class VariantPanel:
    """One variant."""

    title: str
    """What stands above it."""
    curves: tuple[Curve, ...]
    """Its lines: steps and mean return."""


def draw(panels: Sequence[VariantPanel]) -> str:
    """Return an SVG of the panels side by side."""
    points = [point for panel in panels for curve in panel.curves for point in curve.points] or [(1.0, 0.0)]
    x_max = max(x for x, _ in points)
    marks = tuple(tick for tick in ticks(0.0, x_max)[1:] if tick <= x_max)
    steps = Axis("steps", 0.0, x_max, marks, text=lambda tick: f"{tick / 1000:g}k")
    returns = linear_axis("mean return of an episode", (y for _, y in points), text="{:g}".format)
    return line_chart.draw([line_chart.Panel(panel.title, panel.curves, steps, returns) for panel in panels])
