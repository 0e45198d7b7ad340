"""What a panel is, on the page and in Grafana, and the groups of the page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from policyserver.common.figures import Kind, figures
from policyserver.monitoring.panels.series import Series, largest, level, mean, rate


class Unit(Enum):
    """Unit of a panel's values: the page's format (static/format.js), and Grafana's name."""

    PLAIN = "short", "short"
    PER_S = "short", "cps"
    SECONDS = "duration", "s"
    SHARE = "percent", "percentunit"


Levels = tuple[tuple[float | None, str], ...]
"""Colours of a figure, each with the value from which on it holds; None for the lowest."""

PLAIN: Levels = ((None, "text"),)
"""For a figure that is neither good nor bad."""
NONE_IS_GOOD: Levels = ((None, "green"), (1.0, "orange"))
"""For a count that should be 0."""
ANY_IS_BAD: Levels = ((None, "green"), (1.0, "red"))
"""For a count of errors."""


@dataclass(frozen=True, slots=True)
class ChartPanel:
    """A chart, or in Grafana a row of figures."""

    title: str
    """What it shows, with the unit if it has one; "" if the title of the page's group says it."""
    series: Sequence[Series]
    """Curves. The page draws those of its group's measurement, Grafana those with a `select`."""
    description: str = ""
    """Help for Grafana's readers."""
    dashboard: str = ""
    """Dashboard of Grafana that has it; "": no dashboard."""
    group: str = ""
    """Group of the page that has it; "": not on the page."""
    unit: Unit = Unit.PLAIN
    levels: Levels | None = None
    """Colours of a panel of Grafana that shows a figure for each series; None: it is a chart."""
    width: int = 12
    """Columns of Grafana's grid, of 24."""
    look: Mapping[str, Any] = field(default_factory=dict)
    """How the page draws it: tall, stack (areas on top of each other), axis ("bar" instead of time)."""
    bands: Sequence[tuple[str, str, str]] = ()
    """What the page fills: upper column, lower column, colour."""


@dataclass(frozen=True, slots=True)
class Group:
    """Charts that belong together on the page."""

    name: str
    title: str
    note: str = ""
    """Help for the page's readers."""
    gaps_of: str = "pipeline"
    """Section whose gaps break the lines: `pipeline`, which pipelines record, `serving`, of the serving processes, or "": none."""
    data: str = ""
    """Section that makes the columns itself; "": they are made of `measurement`, and the section has the group's name."""
    measurement: str = ""
    """Measurement that the series read."""
    by: tuple[str, ...] = ()
    """As in `buckets.Source`."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """As in `buckets.Source`."""
    wide: bool = False
    """Whether it is as wide as the page."""


def figure(title: str, series: Series, description: str, *, levels: Levels = PLAIN, width: int = 6, **more: Any) -> ChartPanel:
    """Return a panel of Grafana that shows one figure for each series."""
    return ChartPanel(title, [series], description, levels=levels, width=width, **more)


def charts_of(statistics: type, measurement: str, colors: Sequence[str], place: str) -> Iterator[ChartPanel]:
    """Yield the charts of the figures that are declared to have one, in the group and on the dashboard named `place`."""
    declared = [each for each in figures(statistics).values() if each.chart]
    for each, color in zip(declared, itertools.cycle(colors), strict=False):
        title = f"{each.chart}, {each.unit}" if each.kind is Kind.MEAN and each.unit else each.chart
        unit = Unit.PER_S if each.kind is Kind.COUNTER else Unit.SECONDS if each.unit == "s" else Unit.PLAIN
        yield ChartPanel(title, [_SERIES[each.kind](measurement, each.name, color)], each.meaning, place, place, unit)


_SERIES = {Kind.MEAN: mean, Kind.AMOUNT: mean, Kind.GAUGE: level, Kind.NEWEST: largest, Kind.COUNTER: rate}
