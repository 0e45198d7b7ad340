"""The embedded store's tables: one for each measurement, one typed column for each tag and field."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from policyserver.monitoring.points import Points
from policyserver.monitoring.schema import MEASUREMENTS, FieldType, Measurement

_SQL_TYPES = {FieldType.FLOAT: "REAL", FieldType.INTEGER: "INTEGER", FieldType.BOOLEAN: "INTEGER", FieldType.STRING: "TEXT"}

BUSY_S = 5.0
"""How long a statement waits for another process's lock, seconds."""

_ROWS_PER_STATEMENT = (512, 64, 8, 1)
"""Rows in one INSERT. Many, because sqlite3 releases the interpreter's lock once a statement and must wait to get it back; few sizes, so
that all statements stay prepared."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a store's file for any one thread at a time; each statement waits up to 5 s for another process's lock.

    Nothing but SQLite may open this file or those beside it, not even to look: POSIX drops a process's locks on a file as soon as the
    process closes any descriptor of it, and the next process that closes the store then removes the log that this one still writes to.

    Raises:
        FileNotFoundError: `read_only` and there is no such file.
        ValueError: `read_only` and the file is no database.
        sqlite3.Error: The file can't be opened.
    """
    if read_only and not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"store: expected the file of an embedded store, as a run makes it, received {found} at {path}")
    mode = "ro" if read_only else "rwc"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    if read_only:
        _refuse_other_files(connection, path)
    return connection


def _refuse_other_files(connection: sqlite3.Connection, path: Path) -> None:
    """Let SQLite read the beginning of the file, or close the connection if it is no database."""
    try:
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise ValueError(f"store: expected the file of an embedded store, {path} is no SQLite database") from error
        raise


def create(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing, and the columns that an older version did not make."""
    for measurement in MEASUREMENTS.values():
        declared = {"id": "id INTEGER PRIMARY KEY"} | columns(measurement)
        create_table(connection, measurement.name, declared, "UNIQUE (run, time_ns, worker))")


def create_table(connection: sqlite3.Connection, name: str, declared: dict[str, str], end: str) -> None:
    """Make a table of columns and the end of its declaration, or add the columns that it lacks."""
    connection.execute(f'CREATE TABLE IF NOT EXISTS "{name}" ({", ".join(declared.values())}, {end}')
    for column in declared.keys() - stored_columns(connection, name):
        connection.execute(f'ALTER TABLE "{name}" ADD COLUMN {declared[column]}')


def stored_columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """Return the columns of a table in the file; empty without the table."""
    return {row[1] for row in connection.execute(f'PRAGMA main.table_info("{table}")')}


def runs(connection: sqlite3.Connection, table: str) -> list[str]:
    """List the runs that have rows in a table, without reading them all."""
    rows = connection.execute(
        f'WITH RECURSIVE runs(run) AS (SELECT MIN(run) FROM "{table}" UNION ALL '
        f'SELECT (SELECT MIN(run) FROM "{table}" WHERE run > runs.run) FROM runs WHERE run IS NOT NULL) '
        "SELECT run FROM runs WHERE run IS NOT NULL"
    )
    return [run for (run,) in rows]


def rows_of(points: Points) -> list[tuple[Any, ...]]:
    """Turn a batch into table rows; ValueError if a value can't be one of its field's declared type."""
    count = len(points)
    values: list[Iterable[Any]] = [points.times_ns.tolist()]
    for tag in points.schema.tags:
        of_tag = points.tag_values(tag)
        values.append([of_tag] * count if isinstance(of_tag, str) else of_tag)
    for name in points.schema.types:
        values.append(points.field_values(name) if name in points.columns else [None] * count)
    return list(zip(*values, strict=True))


def insert(connection: sqlite3.Connection, measurement: Measurement, rows: list[tuple[Any, ...]]) -> None:
    """Write rows; a row replaces an older one of its run, worker and time."""
    start = 0
    for size in _ROWS_PER_STATEMENT:
        while len(rows) - start >= size:
            connection.execute(_insert_statement(measurement.name, size), tuple(chain.from_iterable(rows[start : start + size])))
            start += size


def columns(measurement: Measurement) -> dict[str, str]:
    """Declare the columns of a table but its id, in the order of `rows_of`."""
    declared = {"time_ns": "time_ns INTEGER NOT NULL"}
    declared |= {tag: f"\"{tag}\" TEXT NOT NULL DEFAULT 'none'" for tag in measurement.tags}
    declared |= {name: f'"{name}" {_SQL_TYPES[kind]}' for name, kind in measurement.types.items()}
    return declared


@cache
def _insert_statement(measurement_name: str, rows: int) -> str:
    """Return the INSERT of a number of rows."""
    names = list(columns(MEASUREMENTS[measurement_name]))
    listed = ", ".join(f'"{name}"' for name in names)
    row = f"({', '.join('?' * len(names))})"
    updates = ", ".join(f'"{name}" = excluded."{name}"' for name in names)
    return (
        f'INSERT INTO "{measurement_name}" ({listed}) VALUES {", ".join([row] * rows)} '
        f"ON CONFLICT (run, time_ns, worker) DO UPDATE SET {updates}"
    )
