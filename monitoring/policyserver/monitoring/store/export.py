"""Writes what an embedded store holds as line protocol or CSV, a part at a time.

Merged points are tables of their own (`step_1m`, ...), for they have other fields, and were not written as such.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from policyserver.monitoring.line_protocol import encode
from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS, Measurement
from policyserver.monitoring.store import tables
from policyserver.monitoring.store.rollups import ROLLUPS

EXPORTED = MEASUREMENTS | ROLLUPS
"""Everything that can be exported, by name."""

_PART_ROWS = 4096

_DERIVED = {("episode", "cut"): "no_trade_return IS NULL"}
"""The value of a field that points of an older version lack, by measurement and field."""


@dataclass(frozen=True)
class ExportSelection:
    """What is exported."""

    measurements: tuple[str, ...] = tuple(EXPORTED)
    """Names of measurements, merged ones such as `step_1m` among them."""
    runs: tuple[str, ...] = ()
    """Names of runs; empty: all runs."""
    from_ns: int = 0
    """Time of the first point, nanoseconds since 1970 (UTC)."""
    before_ns: int = 2**63 - 1
    """Time before which all points are, nanoseconds since 1970 (UTC)."""

    def __post_init__(self) -> None:
        for name in self.measurements:
            if name not in EXPORTED:
                raise ValueError(f"measurement: expected one of {', '.join(EXPORTED)}, received {name!r}")
        if not self.from_ns < self.before_ns:
            raise ValueError(f"from: expected a time before the end of the range, received {self.from_ns} and {self.before_ns} ns")


class Exporter:
    """One state of a store, whatever others write meanwhile; while it is open, their writes stay in the store's write-ahead log."""

    def __init__(self, connection: sqlite3.Connection, selection: ExportSelection) -> None:
        """Read with a connection that is inside a transaction; use `opened`."""
        self._connection = connection
        self._selection = selection

    @classmethod
    @contextmanager
    def opened(cls, store: Path, selection: ExportSelection) -> Iterator[Exporter]:
        """Open a store's file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A selected run is not in it.
            sqlite3.Error: It is no store.
        """
        connection = tables.connect(store, read_only=True)
        try:
            connection.execute("BEGIN")
            exporter = cls(connection, selection)
            exporter._check_runs()
            yield exporter
        finally:
            connection.close()

    def line_protocol(self, write: Callable[[bytes], object], more_tags: str = "") -> int:
        """Write all that is selected as lines with further tags of `tag_suffix`; return their number.

        InfluxDB may take them any number of times, for series and time identify a point.
        """
        lines = 0
        for name in self._selection.measurements:
            for columns in self._parts(EXPORTED[name]):
                times_ns = np.array(columns["time_ns"], dtype=np.int64)
                tags = {tag: ["" if value is None else value for value in columns[tag]] for tag in EXPORTED[name].tags}
                fields = {field: columns[field] for field in EXPORTED[name].types}
                data = encode(Points(EXPORTED[name], {}, fields, times_ns, tags), more_tags)
                write(data)
                lines += data.count(b"\n")
        return lines

    def csv(self, measurement: str, out: BinaryIO) -> int:
        """Write one measurement in UTF-8 below a line of column names; return the number of points.

        Unset fields are empty, truth values 0 or 1. `time_ns` is in nanoseconds since 1970 (UTC).
        """
        declared, points = EXPORTED[measurement], 0
        text = io.TextIOWrapper(out, encoding="utf-8", newline="")
        try:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(_column_names(declared))
            for columns in self._parts(declared):
                writer.writerows(zip(*columns.values(), strict=True))
                points += len(columns["time_ns"])
        finally:
            text.detach()
        return points

    def _parts(self, declared: Measurement) -> Iterator[dict[str, tuple[Any, ...]]]:
        """Read the selected points of one measurement, run after run in order of time, as columns of some thousand points."""
        stored = tables.stored_columns(self._connection, declared.name)
        names = _column_names(declared)
        shown = ", ".join(_shown(declared.name, name, stored) for name in names)
        statement = f'SELECT {shown} FROM "{declared.name}" WHERE run = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns'
        for run in self._runs_of(declared.name):
            cursor = self._connection.execute(statement, (run, self._selection.from_ns, self._selection.before_ns))
            while rows := cursor.fetchmany(_PART_ROWS):
                yield dict(zip(names, zip(*rows, strict=True), strict=True))

    def _runs_of(self, table: str) -> list[str]:
        """List the selected runs that have points in a table."""
        if not tables.stored_columns(self._connection, table):  # an older version did not make it
            return []
        return [run for run in tables.runs(self._connection, table) if not self._selection.runs or run in self._selection.runs]

    def _check_runs(self) -> None:
        """Refuse a run that isn't in the store; its name was probably misspelt."""
        missing = set(self._selection.runs) - {run for name in EXPORTED for run in self._runs_of(name)}
        if missing:
            present = sorted({run for name in MEASUREMENTS for run in tables.runs(self._connection, name)})
            raise ValueError(f"run: expected one of {', '.join(present)}, received {', '.join(sorted(missing))}")


def _shown(measurement: str, name: str, stored: set[str]) -> str:
    """Return the SQL expression of a column."""
    column = f'"{name}"' if name in stored else "NULL"
    derived = _DERIVED.get((measurement, name))
    return f"COALESCE({column}, {derived})" if derived else column


def _column_names(declared: Measurement) -> tuple[str, ...]:
    return ("time_ns", *declared.tags, *declared.types)
