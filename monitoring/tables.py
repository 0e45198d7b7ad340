"""The embedded store's tables: one for each measurement, one typed column for each tag and field."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from monitoring.points import Points
from monitoring.schema import MEASUREMENTS, FieldType, Measurement

_SQL_TYPES = {FieldType.FLOAT: "REAL", FieldType.INTEGER: "INTEGER", FieldType.BOOLEAN: "INTEGER", FieldType.STRING: "TEXT"}

_ROWS_PER_STATEMENT = (512, 64, 8, 1)
"""Rows in one INSERT. Many, because sqlite3 gives up the interpreter's lock once a statement and must wait to get it back; few sizes, so
that all statements stay prepared."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a store's file, usable from any one thread at a time, waiting up to 5 s for another process's lock.

    Raises:
        FileNotFoundError: `read_only` and there is no such file.
        sqlite3.Error: the file is no store, or cannot be opened.
    """
    if read_only and not path.is_file():
        raise FileNotFoundError(f"store: expected the file of an embedded store, found nothing at {path}; a run makes it when it starts")
    mode = "ro" if read_only else "rwc"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing, and the columns that an older version of the schema did not have."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    for measurement in MEASUREMENTS.values():
        columns = _columns(measurement)
        connection.execute(
            f'CREATE TABLE IF NOT EXISTS "{measurement.name}" (id INTEGER PRIMARY KEY, {", ".join(columns.values())}, '
            "UNIQUE (run, time_ns, worker))"
        )
        present = {row[1] for row in connection.execute(f'PRAGMA table_info("{measurement.name}")')}
        for name in columns.keys() - present:
            connection.execute(f'ALTER TABLE "{measurement.name}" ADD COLUMN {columns[name]}')
    connection.execute("COMMIT")


def rows_of(points: Points) -> list[tuple[Any, ...]]:
    """Turn a batch into table rows.

    Raises:
        ValueError: a value cannot be one of its field's declared type.
    """
    count = len(points)
    columns: list[Iterable[Any]] = [points.times_ns.tolist()]
    for tag in points.schema.tags:
        values = points.tag_values(tag)
        columns.append([values] * count if isinstance(values, str) else values)
    for name in points.schema.types:
        columns.append(points.field_values(name) if name in points.columns else [None] * count)
    return list(zip(*columns, strict=True))


def insert(connection: sqlite3.Connection, measurement: Measurement, rows: list[tuple[Any, ...]]) -> None:
    """Write rows; one with the run, worker and time of an older one takes its place."""
    start = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - start >= size:
            connection.execute(_insert_statement(measurement.name, size), tuple(chain.from_iterable(rows[start : start + size])))
            start += size


def _columns(measurement: Measurement) -> dict[str, str]:
    """Declare each column of a table, in the order of `rows_of`."""
    columns = {"time_ns": "time_ns INTEGER NOT NULL"}
    columns |= {tag: f"\"{tag}\" TEXT NOT NULL DEFAULT 'none'" for tag in measurement.tags}
    columns |= {name: f'"{name}" {_SQL_TYPES[kind]}' for name, kind in measurement.types.items()}
    return columns


@cache
def _insert_statement(measurement_name: str, rows: int) -> str:
    """Word the INSERT of a number of rows."""
    names = list(_columns(MEASUREMENTS[measurement_name]))
    listed = ", ".join(f'"{name}"' for name in names)
    row = f"({', '.join('?' * len(names))})"
    updates = ", ".join(f'"{name}" = excluded."{name}"' for name in names)
    return (
        f'INSERT INTO "{measurement_name}" ({listed}) VALUES {", ".join([row] * rows)} '
        f"ON CONFLICT (run, time_ns, worker) DO UPDATE SET {updates}"
    )
