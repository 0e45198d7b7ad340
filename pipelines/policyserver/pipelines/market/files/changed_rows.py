"""The rows of a file with other numbers in them, put there before anything is made of them: checked, adjusted, resampled or split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.files.dialect import PRICES
from policyserver.pipelines.market.files.stamps import ends_of, interval_of, is_start
from policyserver.pipelines.market.files.table import FileColumns
from policyserver.pipelines.market.files.time_formats import BoolArray
from policyserver.pipelines.market.zones import to_utc, zone_of

RowChange = Callable[[str, IntArray, dict[str, FloatArray]], None]
"""Changes the columns of a symbol in place: gets its name, the ends of its bars, int64 nanoseconds (n,), increasing, and the columns of its
numbers, float64 (n,), its open, high, low, close and volume among them; only rows whose prices are all above 0."""


def change_rows(table: FileColumns, change: RowChange) -> FileColumns:
    """Return the rows of a file, those of each symbol changed."""
    numbers = {column: np.array(values) for column, values in table.numbers.items()}
    zone = zone_of(table.dialect.time_zone)
    utc = np.where(table.is_utc, table.time_ns, to_utc(table.time_ns, zone).time_ns)
    for number, symbol in enumerate(table.symbols):
        rows = np.arange(len(utc)) if table.codes is None or len(table.symbols) == 1 else np.flatnonzero(table.codes == number)
        fields = table.layout.fields[symbol if symbol in table.layout.fields else ""]
        prices = np.stack([numbers[fields[name]][rows] for name in PRICES])
        rows = rows[((prices > 0) & np.isfinite(prices)).all(axis=0)]
        rows = rows[np.argsort(utc[rows], kind="stable")]
        if not len(rows):
            continue
        columns = {name: numbers[column][rows] for name, column in fields.items()}
        columns.setdefault("volume", np.zeros(len(rows)))
        change(symbol, _ends(utc[rows], table, table.is_midnight[rows]), columns)
        for name, column in fields.items():
            numbers[column][rows] = columns[name]
    return replace(table, numbers=numbers)


def _ends(time_ns: IntArray, table: FileColumns, is_midnight: BoolArray) -> IntArray:
    if not is_start(table.dialect, is_midnight):
        return time_ns
    return ends_of(time_ns, interval_of(table.dialect, time_ns, is_midnight), zone_of(table.dialect.time_zone))
