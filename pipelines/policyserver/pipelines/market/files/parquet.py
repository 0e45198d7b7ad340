"""Bars in a Parquet file: the same columns by the same names; a timestamp is taken as it is typed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.files.layout import Layout, layout_of
from policyserver.pipelines.market.files.rows import BlockRows, as_numpy, cells_of
from policyserver.pipelines.market.files.table import FileColumns, Gathering, choose
from policyserver.pipelines.market.files.time_formats import Cells, ReadTimes, format_of
from policyserver.pipelines.market.files.times import TimeReader
from policyserver.pipelines.market.intervals import DAY_NS

_BATCH_ROWS = 1 << 16

_PANDAS_INDEX = "__index_level_0__"
"""Name of an index that has none."""


def read_parquet(path: Path, chosen: Dialect | str, columns: Sequence[str] = ()) -> FileColumns:
    """Read a Parquet file; `lines` are its rows, from 1; `columns` are names of further columns of numbers.

    Raises:
        FileFaultError: It is no Parquet file, or lacks a column.
        OSError: It can't be read.
    """
    try:
        with parquet.ParquetFile(path) as file:
            return _read(file, path, chosen, columns)
    except pa.ArrowInvalid as error:
        raise FileFaultError(f"{path}: expected a whole Parquet file: {' '.join(str(error).split())}") from error


def _read(file: Any, path: Path, chosen: Dialect | str, further: Sequence[str]) -> FileColumns:
    stored = file.schema_arrow.names
    names = ["date" if name == _PANDAS_INDEX else name.strip().lower() for name in stored]
    dialect, name = choose(chosen, [",".join(names)])
    layout = layout_of(names, replace(dialect, action_rows=False), str(path), 0, further)
    wanted = [stored[column] for column in {*layout.time, *layout.numbers, *([] if layout.symbol is None else [layout.symbol])}]
    times, gathering, start = TimeReader(format_of(dialect.time_format)), Gathering(), 1
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
        columns = {column: batch.column(stored[column]) for column in range(len(stored)) if stored[column] in wanted}
        _add_times([columns[column] for column in layout.time], times)
        gathering.add(_rows(columns, layout, range(start, start + batch.num_rows)))
        start += batch.num_rows
    return gathering.table(str(path), dialect, name, layout, times)


def _rows(columns: dict[int, Any], layout: Layout, lines: range) -> BlockRows:
    numbers = {column: _floats(columns[column]) for column in layout.numbers}
    symbols: list[str] = []
    codes = np.empty(0, dtype=np.int64)
    if layout.symbol is not None:
        encoded = pc.dictionary_encode(pc.cast(columns[layout.symbol], pa.string()))
        symbols, codes = encoded.dictionary.to_pylist(), as_numpy(encoded.indices, np.int32).astype(np.int64)
    return BlockRows(Cells.of_texts([]), numbers, symbols, codes, lines)


def _floats(column: Any) -> FloatArray:
    floats = pc.cast(column, pa.float64())
    return as_numpy(pc.fill_null(floats, math.nan) if floats.null_count else floats, np.float64)


def _add_times(columns: list[Any], times: TimeReader) -> None:
    first = columns[0]
    if len(columns) == 1 and (pa.types.is_timestamp(first.type) or pa.types.is_date(first.type)):
        typed = first if pa.types.is_timestamp(first.type) else pc.cast(first, pa.timestamp("s"))
        is_utc = typed.type.tz is not None
        moments = pc.cast(pc.cast(typed, pa.timestamp("ns", typed.type.tz)), pa.int64())
        is_bad = as_numpy(pc.cast(moments.is_null(), pa.uint8()), np.uint8).astype(np.bool_)
        local = pc.cast(pc.cast(pc.local_timestamp(typed) if is_utc else typed, pa.timestamp("ns")), pa.int64())
        is_midnight = ~is_bad & (as_numpy(pc.fill_null(local, 0), np.int64) % DAY_NS == 0)
        read = ReadTimes(as_numpy(pc.fill_null(moments, 0), np.int64), np.full(len(first), is_utc), is_bad, is_midnight)
        times.add_typed(read, Cells.of_texts([""] * len(first)))
        return
    texts = [pc.fill_null(pc.cast(column, pa.string()), "") for column in columns]
    times.add(cells_of(texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, " ")))
