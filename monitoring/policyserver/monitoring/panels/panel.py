"""What a panel is, on the page and in Grafana, and the groups of the page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from policyserver.common.figures import Figure, Kind, figures
from policyserver.monitoring.panels.series import Series, largest, level, mean, rate


class Unit(Enum):
    """Unit of a panel's values: the page's format (static/format.js) and Grafana's name."""

    PLAIN = "short", "short"
    PER_S = "short", "cps"
    SECONDS = "duration", "s"
    SHARE = "percent", "percentunit"


Levels = tuple[tuple[float | None, str], ...]
"""Colours of a figure: from which value on each holds, None for the lowest."""

PLAIN: Levels = ((None, "text"),)
"""Of a figure that is neither good nor bad."""
NONE_IS_GOOD: Levels = ((None, "green"), (1.0, "orange"))
"""Of a count that should be 0."""
ANY_IS_BAD: Levels = ((None, "green"), (1.0, "red"))
"""Of a count of errors."""


@dataclass(frozen=True, slots=True)
class ChartPanel:
    """One chart, or in Grafana one row of figures."""

    title: str
    """What it shows, with the unit where there is one; "" where the page's group says it."""
    series: Sequence[Series]
    """Its curves. The page draws those of its group's measurement, Grafana those with a `select`."""
    description: str = ""
    """What a reader of Grafana should know to read it."""
    dashboard: str = ""
    """Grafana's dashboard that has it; "": none."""
    group: str = ""
    """Group of the page that has it; "": none."""
    unit: Unit = Unit.PLAIN
    levels: Levels | None = None
    """Colours of a panel that shows one figure for each series, in Grafana; None: it shows a chart."""
    width: int = 12
    """Columns of Grafana's grid, of 24."""
    look: Mapping[str, Any] = field(default_factory=dict)
    """How the page draws it: tall, stack (areas on top of each other), axis ("bar" instead of time)."""
    bands: Sequence[tuple[str, str, str]] = ()
    """What the page fills: upper column, lower column, colour."""


@dataclass(frozen=True, slots=True)
class Group:
    """Charts that stand together on the page."""

    name: str
    title: str
    note: str = ""
    """What a reader should know."""
    gaps_of: str = ""
    """Section whose absence breaks the lines: `pipeline` what pipelines record, `serving` what serving processes do."""
    data: str = ""
    """Section that makes the columns itself; "": they are made of `measurement`, and the section is named like the group."""
    measurement: str = ""
    """What the group's series read."""
    by: tuple[str, ...] = ()
    """Columns that tell apart what counts for itself, as in `buckets.Source`."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """What stands for a sum where old points were merged by the minute, as in `buckets.Source`."""
    wide: bool = False
    """Whether it takes the page's whole width."""


def figure(title: str, series: Series, description: str, *, levels: Levels = PLAIN, width: int = 6, **more: Any) -> ChartPanel:
    """Return a panel of Grafana's that shows one figure for each series."""
    return ChartPanel(title, [series], description, levels=levels, width=width, **more)


def charts_of(statistics: type, measurement: str, colors: Sequence[str], place: str) -> Iterator[ChartPanel]:
    """Yield a chart for each figure that is declared to have one of its own, in the group and on the dashboard of that name."""
    declared = [each for each in figures(statistics).values() if each.chart]
    for each, color in zip(declared, itertools.cycle(colors), strict=False):
        series = _SERIES[each.kind](measurement, each.name, color)
        yield ChartPanel(_title(each), [series], each.meaning, place, place, _unit(each))


_SERIES = {Kind.MEAN: mean, Kind.AMOUNT: mean, Kind.GAUGE: level, Kind.NEWEST: largest, Kind.COUNTER: rate}


def _unit(declared: Figure) -> Unit:
    return Unit.PER_S if declared.kind is Kind.COUNTER else Unit.SECONDS if declared.unit == "s" else Unit.PLAIN


def _title(declared: Figure) -> str:
    """Return the title, with the unit of a mean."""
    return f"{declared.chart}, {declared.unit}" if declared.kind is Kind.MEAN and declared.unit else declared.chart
