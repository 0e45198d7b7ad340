"""Sums and maxima of a measurement over time, which follow a growing store and read each row once.

Time is cut into buckets at multiples of their width. SQL adds up the new rows, and its sums are added to the buckets, so a look costs what
came since the last one, at any length of the run. When there are too many buckets, each two become one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policyserver.monitoring.page.selection import NewRows, PageSelection
from policyserver.monitoring.panels.table import IS_SET, TIME, Cell, Columns, Group, Source, Table
from policyserver.monitoring.schema import MEASUREMENTS, Measurement
from policyserver.monitoring.store.reader import StoreReader
from policyserver.monitoring.store.rollups import MERGED, rollup


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
    if expression.endswith(IS_SET):
        return f"{expression.removesuffix(IS_SET)}_count"
    return "points" if expression == "1" else source.merged.get(name, "NULL")


def _summed(source: Source, selects: list[str]) -> str:
    """Return the query that sums up the rows of some queries within each bucket."""
    read = [*source.by, *(f"TOTAL(s{number})" for number in range(len(source.sums)))]
    read += [f"MAX(m{number})" for number in range(len(source.maxima))]
    groups = ", ".join(str(number) for number in range(1, len(source.by) + 2))
    return f"SELECT time_ns / :width, {', '.join(read)} FROM ({' UNION ALL '.join(selects)}) GROUP BY {groups} ORDER BY 1"


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
        self._cells: dict[int, dict[Group, Cell]] = {}
        self._newest: dict[Group, Cell] = {}
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
        cells[group] = self._newest[group] = Cell(sums, maxima, before)

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
