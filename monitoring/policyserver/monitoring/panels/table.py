"""What the curves of panels are made of: sums and maxima of a measurement in buckets of time, as columns.

A series declares what it reads as a `Source`; `policyserver.monitoring.page.buckets` reads it, and hands a `Table` to the series.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

TIME = "time_ns"
"""Column of the points' times."""
_LEAST_SHARE = 0.4
"""Share of a bucket that must be known for a rate. A bucket holds two points of what is recorded once a second; one may be late."""
IS_SET = " IS NOT NULL"
"""Ends an SQL expression that counts the rows which have a value."""
Group = tuple[str, ...]
"""Values of the tags that tell groups apart."""
Columns = dict[str, np.ndarray]
"""Columns of the page's data by name."""


@dataclass(frozen=True)
class Source:
    """What a section of the page reads of a measurement, and the columns that it makes of it."""

    name: str
    """Name of the section."""
    measurement: str
    """Name of the measurement."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """SQL expressions of which a bucket keeps the sum, by name."""
    maxima: Mapping[str, str] = field(default_factory=dict)
    """SQL expressions of which a bucket keeps the largest value, by name; `rise` tells how far it rose."""
    by: tuple[str, ...] = ()
    """Columns that tell apart groups with counters of their own, such as processes."""
    merged: Mapping[str, str] = field(default_factory=dict)
    """SQL expressions of merged points for sums, by name. Sums of fields, and numbers of fields or points, need none; others that have none
    are unknown where points are merged."""
    columns: Mapping[str, Callable[[Table], np.ndarray]] = field(default_factory=dict)
    """Makes each column of buckets, by name."""


@dataclass(slots=True)
class Cell:
    """One group within one bucket: its sums and maxima, and its maxima when the bucket began; NaN where there is no value."""

    sums: np.ndarray
    maxima: np.ndarray
    before: np.ndarray

    def add(self, sums: np.ndarray, maxima: np.ndarray) -> None:
        """Add later rows."""
        self.sums, self.maxima = self.sums + sums, np.fmax(self.maxima, maxima)


class Table:
    """Some buckets as columns of n values, one for each bucket; NaN where there is no value."""

    def __init__(self, source: Source, rows: list[dict[Group, Cell]], buckets: np.ndarray, width_ns: int) -> None:
        """Cut n buckets out of `Buckets`."""
        self.groups = sorted({group for row in rows for group in row})
        """The groups that have rows in these buckets."""
        self.time_s: np.ndarray = (buckets + 0.5) * width_ns * 1e-9
        """Middle of each bucket, seconds since 1970."""
        self._begins_ns, self._width_ns = buckets * width_ns, width_ns
        places = {group: place for place, group in enumerate(self.groups)}
        sums, maxima, before = (
            np.full((len(names), len(rows), len(places)), np.nan) for names in (source.sums, source.maxima, source.maxima)
        )
        for number, row in enumerate(rows):
            for group, cell in row.items():
                place = slice(None), number, places[group]
                sums[place], maxima[place], before[place] = cell.sums, cell.maxima, cell.before
        self._sums = dict(zip(source.sums, sums, strict=True))
        self._maxima = dict(zip(source.maxima, maxima, strict=True))
        self._before = dict(zip(source.maxima, before, strict=True))
        self._rises = dict(zip(source.maxima, np.maximum(0.0, maxima - before), strict=True))

    def sum(self, name: str) -> np.ndarray:
        """Return a sum over all groups."""
        return _added(self._sums[name])

    def mean(self, name: str) -> np.ndarray:
        """Return the mean of a field, of which `means` made the sums, over all rows."""
        return ratio(self.sum(name), self.sum(f"{name}_count"))

    def level(self, name: str, groups: Sequence[Group] | None = None) -> np.ndarray:
        """Return what groups have side by side of a field of `means`: the sum of each one's mean."""
        chosen = [groups is None or group in groups for group in self.groups]
        return _added(ratio(self._sums[name], self._sums[f"{name}_count"])[:, chosen])

    def largest(self, name: str) -> np.ndarray:
        """Return the largest of a maximum over all groups."""
        largest: np.ndarray = np.fmax.reduce(self._maxima[name], axis=1, initial=np.nan)
        return largest

    def rise(self, counter: str) -> np.ndarray:
        """Return how far a counter of `maxima` rose within each bucket, all groups together."""
        return _added(self._rises[counter])

    def rate(self, counter: str) -> np.ndarray:
        """Return how fast a counter rose, per second, all groups together; the source's maxima are of `counters`.

        Groups side by side add up, and groups after one another share the time. NaN where too little of a bucket is known: two points of
        one moment make no rate.
        """
        spans = np.stack([self._before[TIME], self._maxima[TIME], self._rises[counter]], axis=-1)
        known = ~np.isnan(spans).any(axis=-1)
        buckets = zip(spans, known, self._begins_ns.tolist(), strict=True)
        return np.array([self._rate(of_bucket[there].tolist(), begin) for of_bucket, there, begin in buckets], float)

    def _rate(self, spans: list[tuple[float, float, float]], begin_ns: int) -> float:
        """Return the rate in one bucket, of (begin, end, rise) of each group."""
        covered = _covered([(max(since, begin_ns), until) for since, until, _ in spans])
        longest = max((until - since for since, until, _ in spans), default=0.0)
        if max(covered, longest) < _LEAST_SHARE * self._width_ns:
            return np.nan
        return sum(rise * 1e9 / max(until - since, covered) for since, until, rise in spans)


def means(*fields: str) -> dict[str, str]:
    """Return the sums that `Table.mean` and `Table.level` need of fields."""
    return {name: expression for each in fields for name, expression in ((each, each), (f"{each}_count", f"{each}{IS_SET}"))}


def counters(*fields: str) -> dict[str, str]:
    """Return the maxima that `Table.rise` and `Table.rate` need of counters."""
    return {each: each for each in (TIME, *fields)}


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where the divisor isn't above 0."""
    quotient: np.ndarray = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return quotient


def _added(values: np.ndarray) -> np.ndarray:
    """Add up the groups of each bucket; NaN only where no group has a value."""
    added: np.ndarray = np.where(np.isnan(values).all(axis=1), np.nan, np.nansum(values, axis=1))
    return added


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of time that spans, which may overlap, cover."""
    total, end = 0.0, 0.0
    for since, until in sorted(spans):
        total += max(0.0, until - max(since, end))
        end = max(end, until)
    return total
