"""OHLCV bars from a CSV file: columns found by name, every row checked, faults named by line."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pipelines.bars import Bars, IntArray

TIME_COLUMNS = ("date", "time", "datetime", "timestamp")
"""Names of the time column; the first one present is taken."""

PRICE_COLUMNS = ("open", "high", "low", "close")
"""Columns that must be there; `volume` may be absent and then counts as 0. Case and surrounding blanks do not matter."""


def read_csv_bars(path: Path) -> Bars:
    """Return the bars of a CSV file, plain or gzipped (`.gz`).

    Raises:
        ValueError: a column is missing or a row is malformed; the message names file, line, column and value.
        OSError: the file can't be read.
    """
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as lines:
        return parse_csv_bars(lines, str(path))


def parse_csv_bars(lines: Iterable[str], name: str) -> Bars:
    """Return the bars in the lines of a CSV file; `name` stands for the file in messages."""
    reader = csv.reader(lines)
    header = [column.strip().lower() for column in next(reader, [])]
    missing = [column for column in PRICE_COLUMNS if column not in header]
    if missing:
        raise ValueError(f"{name}, line 1: expected the columns {', '.join(PRICE_COLUMNS)}, {', '.join(missing)} missing in {header}")
    time_column = next((column for column in TIME_COLUMNS if column in header), None)
    if time_column is None:
        raise ValueError(f"{name}, line 1: expected a column named {' or '.join(TIME_COLUMNS)}, found {header}")
    times: list[tuple[str, str]] = []
    rows: list[list[float]] = []
    for cells in reader:
        where = f"{name}, line {reader.line_num}"
        if not cells:
            continue
        if len(cells) != len(header):
            raise ValueError(f"{where}: expected {len(header)} cells, found {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        times.append((f"{where}, column {time_column}", row[time_column].strip()))
        rows.append(_checked_row(row, where))
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(PRICE_COLUMNS) + 1)
    return Bars(_times_ns(times), *(np.ascontiguousarray(column) for column in columns.T))


def _checked_row(row: dict[str, str], where: str) -> list[float]:
    """Return open, high, low, close and volume as numbers that fit together."""
    prices = [_number(row[column], f"{where}, column {column}") for column in PRICE_COLUMNS]
    for column, price in zip(PRICE_COLUMNS, prices, strict=True):
        if price <= 0:
            raise ValueError(f"{where}, column {column}: expected a positive price, found {price}")
    open_, high, low, close = prices
    if not low <= min(open_, close) <= max(open_, close) <= high:
        raise ValueError(f"{where}: expected low <= open, close <= high, found open={open_} high={high} low={low} close={close}")
    volume = _number(row["volume"], f"{where}, column volume") if "volume" in row else 0.0
    if volume < 0:
        raise ValueError(f"{where}, column volume: expected at least 0, found {volume}")
    return [*prices, volume]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, found {text!r}")
    return value


def _times_ns(cells: list[tuple[str, str]]) -> IntArray:
    """Return nanoseconds since the Unix epoch, by the first format that reads the whole column in increasing order.

    Args:
        cells: place (for messages) and text of each time.

    Raises:
        ValueError: no format fits; the message is that of the format that came furthest.
    """
    furthest, message = -1, ""
    for read in TIME_FORMATS.values():
        times = np.zeros(len(cells), dtype=np.int64)
        for row, (where, text) in enumerate(cells):
            try:
                times[row] = read(text) * 1e9
            except (ValueError, OverflowError):
                fault = f"{where}: expected {', '.join(TIME_FORMATS)}, found {text!r}"
            else:
                fault = "" if row == 0 or times[row] > times[row - 1] else f"{where}: expected a time after the row before, found {text!r}"
            if fault:
                if row > furthest:
                    furthest, message = row, fault
                break
        else:
            return times
    raise ValueError(message)


def _utc(moment: datetime) -> float:
    """Return seconds since the Unix epoch; a moment without a zone is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


TIME_FORMATS: dict[str, Callable[[str], float]] = {
    "ISO 8601": lambda text: _utc(datetime.fromisoformat(text)),
    "seconds since 1970": float,
    "month/day/year": lambda text: _utc(datetime.strptime(text, "%m/%d/%Y")),
    "day/month/year": lambda text: _utc(datetime.strptime(text, "%d/%m/%Y")),
}
"""Ways to write a time, each as a function to seconds since the Unix epoch; a column has one of them throughout."""
