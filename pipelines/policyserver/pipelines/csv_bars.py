"""OHLCV bars from a CSV file: columns found by name, every row checked, faults named by file and line."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from policyserver.pipelines.csv_times import times_ns
from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.price_processes import HIGHEST_PRICE, LOWEST_PRICE

TIME_COLUMNS = ("date", "time", "datetime", "timestamp")
"""Names of the time column; the first one present is taken."""

PRICE_COLUMNS = ("open", "high", "low", "close")
"""Columns that must be there; `volume` may be absent and then counts as 0. Case and surrounding blanks do not matter."""

_ENCODING = "utf-8-sig"
"""UTF-8, with the mark that some programs write at the beginning or without it."""

_SHOWN_CHARACTERS = 40
"""Most characters of a cell in a message."""

_SHOWN_HEADER_CHARACTERS = 400
"""Most characters of a file's first line in a message."""


def read_csv_bars(path: Path) -> Bars:
    """Return the bars of a CSV file in UTF-8, plain or gzipped (`.gz`).

    Raises:
        ValueError: the file is cut or in another encoding, a column is missing or a row is malformed; the message names the file and, where
            there is one, line, column and value.
        OSError: the file can't be read.
    """
    try:
        with _open(path) as lines:
            return parse_csv_bars(lines, str(path))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8, received the byte 0x{error.object[error.start]:02x}: is it UTF-16 or Latin-1?"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: expected a whole gzip file, received one that is cut or damaged: {error}") from error


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding=_ENCODING)
    return path.open(newline="", encoding=_ENCODING)


def parse_csv_bars(lines: Iterable[str], name: str) -> Bars:
    """Return the bars in the lines of a CSV file; `name` stands for the file in messages."""
    numbered_rows = _rows(lines, name)
    _, names = next(numbered_rows, (1, []))
    header = [column.strip().lower() for column in names]
    shown = f"{header}"[:_SHOWN_HEADER_CHARACTERS]
    if any("\0" in column for column in header):
        raise ValueError(f"{name}: expected UTF-8, received zero bytes: is it UTF-16?")
    missing = [column for column in PRICE_COLUMNS if column not in header]
    if missing:
        raise ValueError(f"{name}, line 1: expected the columns {', '.join(PRICE_COLUMNS)}, {', '.join(missing)} missing in {shown}")
    time_column = next((column for column in TIME_COLUMNS if column in header), None)
    if time_column is None:
        raise ValueError(f"{name}, line 1: expected a column named {' or '.join(TIME_COLUMNS)}, received {shown}")
    doubled = [column for column in (*PRICE_COLUMNS, time_column, "volume") if header.count(column) > 1]
    if doubled:
        raise ValueError(f"{name}, line 1: expected each column once, received {', '.join(doubled)} more often in {shown}")
    times: list[tuple[str, str]] = []
    rows: list[list[float]] = []
    for line, cells in numbered_rows:
        where = f"{name}, line {line}"
        if len(cells) != len(header):
            raise ValueError(f"{where}: expected {len(header)} cells, received {len(cells)}")
        row = dict(zip(header, cells, strict=True))
        times.append((f"{where}, column {time_column}", row[time_column].strip()))
        rows.append(_checked_row(row, where))
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(PRICE_COLUMNS) + 1)
    return Bars(times_ns(times), *(np.ascontiguousarray(column) for column in columns.T))


def _rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its line.

    Raises:
        ValueError: a quotation mark is not closed in its line: what follows would be taken for a part of the cell.
    """
    reader = csv.reader(lines, strict=True)
    line = 1
    try:
        for cells in reader:
            if reader.line_num > line:
                raise ValueError(f"{name}, line {line}: expected one line a row, received a quotation mark that is not closed in it")
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}, line {line}: expected cells parted by commas, and every quotation mark closed: {error}") from error


def _checked_row(row: dict[str, str], where: str) -> list[float]:
    """Return open, high, low, close and volume as numbers that fit together."""
    prices = [_number(row[column], f"{where}, column {column}") for column in PRICE_COLUMNS]
    for column, price in zip(PRICE_COLUMNS, prices, strict=True):
        if price <= 0:
            raise ValueError(f"{where}, column {column}: expected a positive price, received {price}")
        if not LOWEST_PRICE <= price <= HIGHEST_PRICE:
            raise ValueError(f"{where}, column {column}: expected a price from {LOWEST_PRICE:g} to {HIGHEST_PRICE:g}, received {price:g}")
    open_, high, low, close = prices
    if not low <= min(open_, close) <= max(open_, close) <= high:
        raise ValueError(f"{where}: expected low <= open, close <= high, received open={open_} high={high} low={low} close={close}")
    volume = _number(row["volume"], f"{where}, column volume") if "volume" in row else 0.0
    if volume < 0:
        raise ValueError(f"{where}, column volume: expected at least 0, received {volume}")
    return [*prices, volume]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, received {text[:_SHOWN_CHARACTERS]!r}")
    return value
