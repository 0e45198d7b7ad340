"""What is wrong with bars that could be read: each row for itself, and their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.files.dialect import PRICES
from policyserver.pipelines.market.files.faults import SHOWN_EXAMPLES, Example, Findings
from policyserver.pipelines.market.files.time_formats import BoolArray

LOWEST_PRICE, HIGHEST_PRICE = 1e-15, 1e15
"""Bounds of a price: an account's arithmetic stays far from what a float can hold."""


@dataclass(slots=True, eq=False)
class FileRows:
    """Rows of one symbol in the order of time, with the place of each."""

    time_ns: IntArray
    """Stamps, UTC."""
    lines: IntArray
    """Physical lines."""
    columns: dict[str, FloatArray]
    """Field to values."""

    def __len__(self) -> int:
        return len(self.time_ns)

    def take(self, rows: IntArray | BoolArray | slice) -> FileRows:
        """Return some of the rows; the series itself where a mask leaves all."""
        if isinstance(rows, np.ndarray) and rows.dtype == np.bool_ and rows.all():
            return self
        return FileRows(self.time_ns[rows], self.lines[rows], {name: values[rows] for name, values in self.columns.items()})


def check_rows(series: FileRows, findings: Findings) -> BoolArray:
    """Note what is wrong with single rows; return which rows are left. A row with two faults counts for the first."""
    kept = np.ones(len(series), dtype=np.bool_)
    for kind, is_wrong, text in _row_faults(series):
        note(findings, kind, series, np.flatnonzero(is_wrong & kept), text)
        if getattr(findings.policies, kind) != "keep":
            kept &= ~is_wrong
    return kept


def _row_faults(series: FileRows) -> list[tuple[str, BoolArray, Callable[[int], str]]]:
    columns = series.columns
    prices = [columns[name] for name in PRICES]
    open_, high, low, close = prices
    lowest = np.minimum(np.minimum(open_, close), np.minimum(high, low))
    highest = np.maximum(np.maximum(open_, close), np.maximum(high, low))
    is_missing = np.isnan(lowest)
    is_outside = ~is_missing & ~((lowest >= LOWEST_PRICE) & (highest <= HIGHEST_PRICE))
    is_inconsistent = ~is_missing & ((low > lowest) | (high < highest))
    faults: list[tuple[str, BoolArray, Callable[[int], str]]] = [
        ("missing", is_missing, lambda row: _missing(series, row)),
        ("price", is_outside, lambda row: _outside(series, row)),
        ("inconsistent", is_inconsistent, lambda row: _inconsistent(series, row)),
    ]
    if "volume" in columns and not np.isnan(columns["volume"]).all():
        volume = columns["volume"]
        faults.append(
            ("volume", ~((volume >= 0) & (volume < np.inf)), lambda row: f", column volume: expected at least 0, received {volume[row]:g}")
        )
        if volume.any():
            faults.append(("zero_volume", volume == 0, lambda row: ", column volume: received 0"))
    return faults


def _missing(series: FileRows, row: int) -> str:
    names = [name for name in PRICES if np.isnan(series.columns[name][row])]
    return f", column {', '.join(names)}: expected a finite number, received none"


def _outside(series: FileRows, row: int) -> str:
    for name in PRICES:
        if not LOWEST_PRICE <= (price := float(series.columns[name][row])) <= HIGHEST_PRICE:
            if price <= 0:
                return f", column {name}: expected a positive price, received {price:g}"
            return f", column {name}: expected a price from {LOWEST_PRICE:g} to {HIGHEST_PRICE:g}, received {price:g}"
    return ""


def _inconsistent(series: FileRows, row: int) -> str:
    received = " ".join(f"{name}={series.columns[name][row]:.10g}" for name in PRICES)
    return f": expected low <= open, close <= high, received {received}"


def in_order(series: FileRows, findings: Findings) -> FileRows:
    """Note rows out of order and rows of one time; return the series with increasing times."""
    highest = np.maximum.accumulate(series.time_ns) if len(series) else series.time_ns
    is_late = series.time_ns < highest
    note(findings, "disorder", series, np.flatnonzero(is_late), lambda row: _out_of_order(series, row))
    if is_late.any():
        keeps = findings.policies.disorder == "keep"
        series = series.take(np.argsort(series.time_ns, kind="stable") if keeps else ~is_late)
    is_again = np.diff(series.time_ns, prepend=series.time_ns[:1] - 1) == 0
    if not is_again.any():
        return series
    first = np.maximum.accumulate(np.where(is_again, 0, np.arange(len(series))))
    is_equal = is_again.copy()
    for values in series.columns.values():
        is_equal &= (values == values[first]) | (np.isnan(values) & np.isnan(values[first]))
    received = _text_of_again(series, first)
    note(findings, "duplicate", series, np.flatnonzero(is_equal), received)
    note(findings, "conflict", series, np.flatnonzero(is_again & ~is_equal), received)
    return series.take(~is_again)


def _text_of_again(series: FileRows, first: IntArray) -> Callable[[int], str]:
    def text(row: int) -> str:
        return f": expected a time after the row before, received {moment(series.time_ns[row])}, which line {series.lines[first[row]]} has"

    return text


def _out_of_order(series: FileRows, row: int) -> str:
    latest = int(np.argmax(series.time_ns[:row]))
    before = f"line {series.lines[latest]} has {moment(series.time_ns[latest])}"
    return f": expected a time after the row before, received {moment(series.time_ns[row])} where {before}"


def note(findings: Findings, kind: str, series: FileRows, rows: IntArray, text: Callable[[int], str]) -> None:
    """Add rows to the findings, with examples of the first lines."""
    first = rows[np.argsort(series.lines[rows], kind="stable")[:SHOWN_EXAMPLES]] if len(rows) else rows
    findings.add(kind, len(rows), [Example(int(series.lines[row]), text(int(row))) for row in first])


def moment(time_ns: int) -> str:
    """Return a time in words."""
    return str(np.datetime_as_string(np.datetime64(int(time_ns), "ns"), unit="auto"))
