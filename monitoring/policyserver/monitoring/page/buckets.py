"""Sums and maxima of a measurement over time, which follow a growing store and read each row once.

Time is cut into buckets at multiples of their width. SQL adds up the new rows, and its sums are added to the buckets, so a look costs what
came since the last one, at any length of the run. When there are too many buckets, each two become one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from policyserver.monitoring.page.selection import NewRows, PageSelection
from policyserver.monitoring.schema import MEASUREMENTS, Measurement
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.rollups import MERGED, rollup

TIME = "time_ns"
_LEAST_SHARE = 0.4
"""Share of a bucket that must be known for a rate. A bucket holds two points of what is recorded once a second; one may be late."""
_IS_SET = " IS NOT NULL"
Group = tuple[str, ...]
Columns = dict[str, np.ndarray]


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


def _statements(source: Source, new: NewRows) -> tuple[str, str]:
    """Return two queries: the first reads merged points, too, the later ones new rows alone."""
    measurement = MEASUREMENTS[source.measurement]
    # New rows in the order of their ids, which is very nearly that of time: faster than through the index, also for a part of the run.
    where = f"{new.condition} AND time_ns >= :begin"
    fresh = f'SELECT {_named(source, source.sums, source.maxima)} FROM "{measurement.name}" WHERE {where}'
    if measurement not in MERGED:
        return _summed(source, [fresh]), _summed(source, [fresh])
    sums = {name: _merged_sum(source, name) for name in source.sums}
    maxima = {name: each if each == TIME else f"{each}_max" for name, each in source.maxima.items()}
    where = f"run = :run AND time_ns >= :begin{new.tags}"
    merged = f'SELECT {_named(source, sums, maxima)} FROM "{rollup(measurement).name}" WHERE {where}'
    return _summed(source, [merged, fresh]), _summed(source, [fresh])  # in one statement, for rows move from one table to the other


def _named(source: Source, sums: Mapping[str, str], maxima: Mapping[str, str]) -> str:
    """List what is read of a row, with names."""
    values = [f"{expression} AS s{number}" for number, expression in enumerate(sums.values())]
    values += [f"{expression} AS m{number}" for number, expression in enumerate(maxima.values())]
    return ", ".join(["time_ns", *source.by, *values])


def _merged_sum(source: Source, name: str) -> str:
    """Return the expression of a sum in a row of merged points."""
    expression = source.sums[name]
    if expression in MEASUREMENTS[source.measurement].types:
        return f"{expression}_sum"
    if expression.endswith(_IS_SET):
        return f"{expression.removesuffix(_IS_SET)}_count"
    return "points" if expression == "1" else source.merged.get(name, "NULL")


def _summed(source: Source, selects: list[str]) -> str:
    """Return the query that sums up the rows of some queries within each bucket."""
    read = [*source.by, *(f"TOTAL(s{number})" for number in range(len(source.sums)))]
    read += [f"MAX(m{number})" for number in range(len(source.maxima))]
    groups = ", ".join(str(number) for number in range(1, len(source.by) + 2))
    return f"SELECT time_ns / :width, {', '.join(read)} FROM ({' UNION ALL '.join(selects)}) GROUP BY {groups} ORDER BY 1"


@dataclass(slots=True)
class _Cell:
    """One group within one bucket: its sums and maxima, and its maxima when the bucket began; NaN where there is no value."""

    sums: np.ndarray
    maxima: np.ndarray
    before: np.ndarray

    def add(self, sums: np.ndarray, maxima: np.ndarray) -> None:
        """Add later rows."""
        self.sums, self.maxima = self.sums + sums, np.fmax(self.maxima, maxima)


class Buckets:
    """The buckets of one source for one selection."""

    def __init__(self, source: Source, selection: PageSelection, run: str, width_ns: int, begin_ns: int) -> None:
        """Cover the time from `begin_ns` on, without reading."""
        self.name = source.name
        self.measurement: Measurement = MEASUREMENTS[source.measurement]
        self._source = source
        self._width_ns = width_ns
        # A whole run's counters began at 0, at an unknown time. Before a part of a run their values are unknown, too.
        self._beginning = np.array([0.0 if selection.range_s is None and name != TIME else np.nan for name in source.maxima])
        self._cells: dict[int, dict[Group, _Cell]] = {}
        self._newest: dict[Group, _Cell] = {}
        self._new = NewRows(selection, run, self.measurement, begin=begin_ns)
        self._first_statement, self._statement = _statements(source, self._new)

    def read(self, reader: StoreReader, upto: int) -> int | None:
        """Add the new rows up to an id; return the first bucket that changed, None if none did."""
        statement, after = self._statement, 0
        if self._new.after is None:
            statement = self._first_statement
            after = reader.id_before(self.measurement.name, self._new.parameters["run"], self._new.parameters["begin"])
        rows = reader.select(statement, self._new.upto(upto, after) | {"width": self._width_ns})
        groups, sums = len(self._source.by) + 1, len(self._source.sums)
        for row, values in zip(rows, np.array([row[groups:] for row in rows], float), strict=True):
            self._add(row[0], row[1:groups], values[:sums], values[sums:])
        return rows[0][0] if rows else None

    def _add(self, bucket: int, group: Group, sums: np.ndarray, maxima: np.ndarray) -> None:
        cells = self._cells.setdefault(bucket, {})
        if (cell := cells.get(group)) is not None:
            cell.add(sums, maxima)
            return
        previous = self._newest.get(group)
        before = self._beginning if previous is None else np.fmax(previous.before, previous.maxima)
        cells[group] = self._newest[group] = _Cell(sums, maxima, before)

    def coarsen(self) -> None:
        """Let each two buckets become one."""
        self._width_ns *= 2
        fine, self._cells = self._cells, {}
        for bucket in sorted(fine):
            for group, cell in fine[bucket].items():
                merged = self._cells.setdefault(bucket // 2, {}).setdefault(group, cell)
                if merged is not cell:
                    merged.add(cell.sums, cell.maxima)
                self._newest[group] = merged

    def forget(self, before: int) -> None:
        """Drop the buckets before one."""
        self._cells = {bucket: cells for bucket, cells in self._cells.items() if bucket >= before}

    @property
    def newest(self) -> int | None:
        """Number of the newest bucket; None without buckets."""
        return max(self._cells, default=None)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the buckets, in order."""
        return sorted(self._cells)

    def columns(self, first: int) -> Columns:
        """Return the section's columns from a bucket on, with the time of each bucket."""
        table = self.since(first)
        return {"time_s": table.time_s} | {name: make(table) for name, make in self._source.columns.items()}

    def since(self, first: int) -> Table:
        """Return the buckets from one on."""
        buckets = sorted(bucket for bucket in self._cells if bucket >= first)
        return Table(self._source, [self._cells[bucket] for bucket in buckets], np.array(buckets, np.int64), self._width_ns)


class Table:
    """Some buckets as columns of n values, one for each bucket; NaN where there is no value."""

    def __init__(self, source: Source, rows: list[dict[Group, _Cell]], buckets: np.ndarray, width_ns: int) -> None:
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
    return {name: expression for each in fields for name, expression in ((each, each), (f"{each}_count", f"{each}{_IS_SET}"))}


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
