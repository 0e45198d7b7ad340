"""The words in which a panel's curves are declared: what each reads, for the page and for Grafana alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyserver.monitoring.page.buckets import Table, counters, means
from policyserver.monitoring.page.buckets import ratio as divided

_BY = {
    **dict.fromkeys(("server", "result"), ("run", "worker")),
    **dict.fromkeys(("step", "order"), ("run", "symbol")),
    **{measurement: ("run", "worker", measurement) for measurement in ("node", "sink")},
}
"""Tags that tell Grafana's series apart, by the measurement; of the others the run alone does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One curve of a chart, or one figure."""

    measurement: str = ""
    """Measurement that it is read from; "" where a section of the page makes its columns itself."""
    column: str = ""
    """Column of the page's data; "" when the page does not draw it."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """What the page adds up for it, as in `buckets.Source`."""
    maxima: Mapping[str, str] = field(default_factory=dict)
    """What the page keeps the largest of for it, as in `buckets.Source`."""
    values: Callable[[Table], np.ndarray] | None = None
    """Makes the column; None where the section makes it itself."""
    select: str = ""
    """InfluxQL of an interval, such as 'mean("reward")'; "" when Grafana does not show it."""
    by: tuple[str, ...] = ()
    """Tags that tell Grafana's series apart; empty: the usual ones of the measurement."""
    where: str = ""
    """Which points Grafana takes, besides those of the chosen runs, policies and symbols."""
    label: str = ""
    """Name of the curve where there are several."""
    color: str = ""
    """Colour on the page, a variable of page.css."""
    style: Mapping[str, Any] = field(default_factory=dict)
    """How the page draws the line: width (pixels), alpha, dash (pixels)."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags that tell Grafana's series apart."""
        return self.by or _BY.get(self.measurement, ("run",))


def mean(measurement: str, name: str, color: str = "", label: str = "", **more: Any) -> Series:
    """Show the mean of a field over all points."""
    return _read(Table.mean, measurement, name, color, label, {"select": f'mean("{name}")', "sums": means(name), **more})


def level(measurement: str, name: str, color: str = "", label: str = "", **more: Any) -> Series:
    """Show what processes have side by side of a gauge."""
    return _read(Table.level, measurement, name, color, label, {"select": f'max("{name}")', "sums": means(name), **more})


def largest(measurement: str, name: str, color: str = "", label: str = "", **more: Any) -> Series:
    """Show the largest value of a field."""
    return _read(Table.largest, measurement, name, color, label, {"select": f'max("{name}")', "maxima": {name: name}, **more})


def rate(measurement: str, name: str, color: str = "", label: str = "", **more: Any) -> Series:
    """Show how fast a counter rises, per second; where it begins anew, with another process, Grafana leaves the rate out."""
    more = {"column": f"{name}_per_s", "select": f'non_negative_derivative(max("{name}"), 1s)', **more}
    return _read(Table.rate, measurement, name, color, label, {"maxima": counters(name), **more})


def rise(measurement: str, name: str, color: str = "", label: str = "", **more: Any) -> Series:
    """Show how far a counter rose."""
    more = {"select": f'non_negative_difference(max("{name}"))', **more}
    return _read(Table.rise, measurement, name, color, label, {"maxima": counters(name), **more})


def total(measurement: str, name: str, expression: str = "") -> Series:
    """Show the sum of a field, or of an SQL expression that is given a name, over all points."""
    return _read(Table.sum, measurement, name, "", "", {"select": f'sum("{name}")', "sums": {name: expression or name}})


def ratio(column: str, color: str, above: Series, *below: Series, **more: Any) -> Series:
    """Show a series divided by the sum of others."""
    reads = made_of(lambda top, *bottom: divided(top, np.sum(bottom, axis=0)), above, *below)
    more = {"select": f"{above.select} / {below[0].select}", **reads, **more}
    return Series(measurement=above.measurement, column=column, color=color, **more)


def made_of(make: Callable[..., np.ndarray], *parts: Series) -> dict[str, Any]:
    """Return the arguments of a series that the page makes of the values of others."""

    def values(table: Table) -> np.ndarray:
        return make(*(part.values(table) for part in parts if part.values is not None))

    sums = {name: expression for part in parts for name, expression in part.sums.items()}
    maxima = {name: expression for part in parts for name, expression in part.maxima.items()}
    return {"sums": sums, "maxima": maxima, "values": values}


def drawn(column: str, color: str, label: str = "", **style: Any) -> Series:
    """Draw, on the page alone, a column that a section makes itself."""
    return Series(column=column, color=color, label=label, style=style)


def asked(measurement: str, select: str, label: str = "", **more: Any) -> Series:
    """Ask for something that Grafana alone shows."""
    return Series(measurement=measurement, select=select, label=label, **more)


def _read(values: Callable[[Table, str], np.ndarray], measurement: str, name: str, color: str, label: str, more: dict[str, Any]) -> Series:
    more = {"column": name, "values": lambda table: values(table, name), **more}
    return Series(measurement=measurement, color=color, label=label, **more)
