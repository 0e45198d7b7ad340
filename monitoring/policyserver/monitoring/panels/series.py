"""Declarations of a panel's curves: what each reads, for the page and for Grafana."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyserver.monitoring.panels.table import Table, counters, means
from policyserver.monitoring.panels.table import ratio as divided

_BY = {
    **dict.fromkeys(("server", "result"), ("run", "worker")),
    **dict.fromkeys(("step", "order"), ("run", "symbol")),
    "order_event": ("run", "reason"),
    **{measurement: ("run", "worker", measurement) for measurement in ("node", "sink")},
}
"""Tags that tell Grafana's series apart, by measurement; in others the run alone does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A curve of a chart, or a figure."""

    measurement: str = ""
    """Measurement that it is read from; "" if a section of the page makes its columns itself."""
    column: str = ""
    """Column of the page's data; "" if the page doesn't draw it."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """As in `Source`, like `maxima`."""
    maxima: Mapping[str, str] = field(default_factory=dict)
    values: Callable[[Table], np.ndarray] | None = None
    """Makes the column; None if the section makes it itself."""
    select: str = ""
    """InfluxQL of an interval, such as 'mean("reward")'; "" if Grafana doesn't show it."""
    by: tuple[str, ...] = ()
    """Tags that tell Grafana's series apart; empty: those of the measurement in `_BY`."""
    where: str = ""
    """Further condition for Grafana's points, besides the chosen runs, policies and symbols."""
    label: str = ""
    """Name of the curve among several."""
    color: str = ""
    """Colour on the page, a variable of page.css."""
    style: Mapping[str, Any] = field(default_factory=dict)
    """How the page draws the line: width (pixels), alpha, dash (pixels)."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags that tell Grafana's series apart."""
        return self.by or _BY.get(self.measurement, ("run",))


def _of_a_field(
    read: Callable[[Table, str], np.ndarray], select: str, reads: Callable[[str], dict[str, Any]], column: str = "{}"
) -> Callable[..., Series]:
    """Return what declares a series of a field; `more` takes the place of what is derived from the field's name."""

    def declare(measurement: str, name: str, color: str = "", label: str = "", **more: Any) -> Series:
        derived = {"column": column.format(name), "select": select.format(name), "values": lambda table: read(table, name), **reads(name)}
        return Series(measurement=measurement, color=color, label=label, **(derived | more))

    return declare


mean = _of_a_field(Table.mean, 'mean("{}")', lambda name: {"sums": means(name)})
"""Show the mean of a field over all points."""
level = _of_a_field(Table.level, 'max("{}")', lambda name: {"sums": means(name)})
"""Show what processes have side by side of a gauge."""
largest = _of_a_field(Table.largest, 'max("{}")', lambda name: {"maxima": {name: name}})
"""Show the largest value of a field."""
rate = _of_a_field(Table.rate, 'non_negative_derivative(max("{}"), 1s)', lambda name: {"maxima": counters(name)}, "{}_per_s")
"""Show how fast a counter rises, per second. Where it begins anew, with another process, Grafana leaves the rate out."""
rise = _of_a_field(Table.rise, 'non_negative_difference(max("{}"))', lambda name: {"maxima": counters(name)})
"""Show how far a counter rose."""
total = _of_a_field(Table.sum, 'sum("{}")', lambda name: {"sums": {name: name}})
"""Show the sum of a field over all points; `sums` may give the name an SQL expression instead."""


def ratio(column: str, color: str, above: Series, *below: Series, **more: Any) -> Series:
    """Show a series divided by the sum of others."""
    reads = made_of(lambda top, *bottom: divided(top, np.sum(bottom, axis=0)), above, *below)
    more = {"select": f"{above.select} / {below[0].select}", **reads, **more}
    return Series(measurement=above.measurement, column=column, color=color, **more)


def made_of(make: Callable[..., np.ndarray], *parts: Series) -> dict[str, Any]:
    """Return the arguments of a series that the page makes of others' values."""

    def values(table: Table) -> np.ndarray:
        return make(*(part.values(table) for part in parts if part.values is not None))

    sums = {name: expression for part in parts for name, expression in part.sums.items()}
    maxima = {name: expression for part in parts for name, expression in part.maxima.items()}
    return {"sums": sums, "maxima": maxima, "values": values}


def drawn(column: str, color: str, label: str = "", **style: Any) -> Series:
    """Draw, on the page alone, a column that a section makes itself."""
    return Series(column=column, color=color, label=label, style=style)


def asked(measurement: str, select: str, label: str = "", **more: Any) -> Series:
    """Ask for what only Grafana shows."""
    return Series(measurement=measurement, select=select, label=label, **more)
