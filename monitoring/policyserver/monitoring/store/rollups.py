"""Points merged by the minute: their tables, and how points get into them.

A row stands for the points of one series (one value of every tag) in one minute. It has the count, sum, minimum and maximum of each field
that is a number or a truth value. Two such rows merge into one without loss, so a minute may be merged in any number of pieces.
"""

from __future__ import annotations

import sqlite3
from functools import cache

from policyserver.monitoring.schema import ORDER, ORDER_EVENT, REGRESSOR, STEP, TRAIN, Field, FieldType, Measurement
from policyserver.monitoring.store import tables

MINUTE_NS = 60_000_000_000

MERGED = (STEP, ORDER, ORDER_EVENT, REGRESSOR, TRAIN)
"""Measurements whose old points are merged."""


@cache
def rollup(measurement: Measurement) -> Measurement:
    """Declare the merged points of a measurement, as a measurement of its own."""
    fields = [Field(FieldType.INTEGER, "points", "points", "points that were merged")]
    for field in measurement.fields:
        if field.type is not FieldType.STRING:
            extreme = FieldType.INTEGER if field.type is FieldType.BOOLEAN else field.type
            fields += [
                Field(FieldType.INTEGER, f"{field.name}_count", "points", f"points in which it was set: {field.meaning}"),
                Field(FieldType.FLOAT, f"{field.name}_sum", field.unit, f"sum of: {field.meaning}"),
                Field(extreme, f"{field.name}_min", field.unit, f"smallest of: {field.meaning}"),
                Field(extreme, f"{field.name}_max", field.unit, f"largest of: {field.meaning}"),
            ]
    return Measurement(f"{measurement.name}_1m", f"points of one minute merged: {measurement.meaning}", measurement.tags, tuple(fields))


ROLLUPS = {rollup(measurement).name: rollup(measurement) for measurement in MERGED}
"""The declarations of merged points, by name."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables that are missing, and the columns that an older version did not make."""
    for declared in ROLLUPS.values():
        columns = tables.columns(declared)
        for name in declared.types:
            if not name.endswith(("_min", "_max")):
                columns[name] += " NOT NULL DEFAULT 0"
        tables.create_table(connection, declared.name, columns, f"PRIMARY KEY ({_quoted(_key(declared))})) WITHOUT ROWID")


@cache
def merge_statement(measurement: Measurement) -> str:
    """Return the statement that merges a run's points before a time, up to a row; parameters `run`, `before_ns` and `last_id`."""
    declared = rollup(measurement)
    values = [f"time_ns / {MINUTE_NS} * {MINUTE_NS}", *map(_quote, declared.tags), "COUNT(*)"]
    updates = ["points = points + excluded.points"]
    for name in (name for name, kind in measurement.types.items() if kind is not FieldType.STRING):
        values += [f'{function}("{name}")' for function in ("COUNT", "TOTAL", "MIN", "MAX")]
        updates += [f'"{name}_{sum_}" = "{name}_{sum_}" + excluded."{name}_{sum_}"' for sum_ in ("count", "sum")]
        for extreme in ("min", "max"):
            old, new = f'"{name}_{extreme}"', f'excluded."{name}_{extreme}"'
            updates.append(f"{old} = COALESCE({extreme.upper()}({old}, {new}), {old}, {new})")
    return (
        f'INSERT INTO "{declared.name}" ({_quoted(("time_ns", *declared.tags, *declared.types))}) SELECT {", ".join(values)} '
        f'FROM "{measurement.name}" WHERE run = :run AND time_ns < :before_ns AND id <= :last_id GROUP BY 1, {_quoted(declared.tags)} '
        f"ON CONFLICT ({_quoted(_key(declared))}) DO UPDATE SET {', '.join(updates)}"
    )


def _key(declared: Measurement) -> tuple[str, ...]:
    """Return the primary key, in an order that keeps a run's rows together in time."""
    return ("run", "time_ns", *(tag for tag in declared.tags if tag != "run"))


def _quote(name: str) -> str:
    return f'"{name}"'


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(map(_quote, names))
