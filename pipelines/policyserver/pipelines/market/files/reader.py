"""Reads a file of bars: dialect, rows, times, checks, and what is left of each symbol.

for recording in read_file(Path("EURUSD.csv"), "histdata_ascii"):
    recording.symbol, recording.bars, recording.report
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import numpy as np

from policyserver.pipelines.market.bars import Bars, FloatArray, IntArray
from policyserver.pipelines.market.calendars import Calendar
from policyserver.pipelines.market.files.changed_rows import RowChange, change_rows
from policyserver.pipelines.market.files.checks import FileRows, check_rows, in_order, note
from policyserver.pipelines.market.files.dialect import EXTRAS, PRICES, Dialect
from policyserver.pipelines.market.files.faults import FaultPolicies, FileFaultError, FileReport, Findings
from policyserver.pipelines.market.files.sequence import check_sequence
from policyserver.pipelines.market.files.stamps import begins_of_stamps, ends_of, interval_of, is_start, stamp_note
from policyserver.pipelines.market.files.table import FileColumns, read_symbols, read_table
from policyserver.pipelines.market.files.time_formats import BoolArray
from policyserver.pipelines.market.files.vendors import FILE_NAMES, UNSTATED_ZONES
from policyserver.pipelines.market.windows import begins_of
from policyserver.pipelines.market.zones import to_utc, zone_of


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What a file holds of one symbol."""

    symbol: str
    """The symbol."""
    bars: Bars
    """The bars; `time_ns` is the end of each."""
    stamp_ns: IntArray
    """The bars' own times, as the file has them, in UTC."""
    extras: dict[str, FloatArray]
    """`adjusted_close`, `dividend`, `split`: those that the file has; and the further columns that were asked for, NaN where a row
    has no number."""
    report: FileReport
    """What was found."""
    begins_ns: IntArray
    """When each bar began, nanoseconds since the Unix epoch; no later than it did."""


def read_file(
    path: Path,
    dialect: Dialect | str = "auto",
    policies: FaultPolicies | None = None,
    calendar: Calendar | None = None,
    columns: Sequence[str] = (),
    change: RowChange | None = None,
) -> list[Recording]:
    """Return what a file holds of each of its symbols.

    Args:
        path: CSV, also gzipped or zipped, or Parquet.
        dialect: A dialect, the name of a shipped one, or `auto` for the one that the file's first lines show.
        policies: What is done about faults; None refuses what `FaultPolicies` refuses by default.
        calendar: When the symbols are traded: then gaps are bars that are not there while it is open.
        columns: Names of further columns of numbers.
        change: Changes the rows before anything is made of them.

    Raises:
        FileFaultError: The file isn't what the dialect says, or has a fault that is to be refused; the message names file and line.
        OSError: It can't be read.
    """
    recordings = list(inspect_file(path, dialect, policies, calendar, columns, change))
    for recording in recordings:
        if problem := recording.report.refusal():
            raise FileFaultError(problem)
    return recordings


def inspect_file(
    path: Path,
    dialect: Dialect | str = "auto",
    policies: FaultPolicies | None = None,
    calendar: Calendar | None = None,
    columns: Sequence[str] = (),
    change: RowChange | None = None,
) -> Iterator[Recording]:
    """Yield what `read_file` returns, faults that are to be refused in the reports alone: their rows are left out.

    Raises:
        FileFaultError: The file isn't what the dialect says, so that nothing can be read.
        OSError: It can't be read.
    """
    table = _read(path, dialect, columns)
    if change is not None:
        table = change_rows(table, change)
    for symbol in table.symbols:
        yield _recording(table, symbol, policies or FaultPolicies(), calendar, columns)


def symbol_of(path: Path) -> str:
    """Return the symbol that a file of bars is named after: BRK.A for BRK.A.csv.gz, BTCUSDT for BTCUSDT-1m-2024-01.zip."""
    name = re.sub(r"(?<=.)(\.(csv|txt|tsv|dat|parquet|pq))?(\.(gz|zip))?$", "", path.name, flags=re.IGNORECASE)
    matches = (re.fullmatch(pattern, name) for pattern in FILE_NAMES)
    return next((match["symbol"] for match in matches if match), name)


def symbols_in(path: Path, dialect: Dialect | str) -> tuple[str, ...]:
    """Return the symbols that a file names, "" for one that it doesn't; of most files only the first lines are read.

    Raises:
        FileFaultError: The file isn't what the dialect says.
        OSError: It can't be read.
    """
    return _read(path, dialect).symbols if _is_parquet(path) else read_symbols(path, dialect)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def _read(path: Path, dialect: Dialect | str, columns: Sequence[str] = ()) -> FileColumns:
    if _is_parquet(path):
        from policyserver.pipelines.market.files.parquet import read_parquet  # where there is such a file alone: it takes memory

        return read_parquet(path, dialect, columns)
    return read_table(path, dialect, columns)


def _recording(table: FileColumns, symbol: str, policies: FaultPolicies, calendar: Calendar | None, columns: Sequence[str]) -> Recording:
    dialect, findings = table.dialect, Findings(policies)
    findings.add("malformed", *table.malformed)
    series, is_midnight, notes = _series(table, symbol, findings)
    n_rows = len(series) + table.malformed[0]
    series = in_order(series.take(check_rows(series, findings)), findings)
    interval_ns = interval_of(dialect, series.time_ns, is_midnight)
    begins = is_start(dialect, is_midnight)
    series = series.take(check_sequence(series, interval_ns, begins, findings, calendar))
    first, last = (int(series.time_ns[0]), int(series.time_ns[-1])) if len(series) else (0, 0)
    name = symbol or symbol_of(Path(table.path))
    report = FileReport(table.path, table.dialect_name, name, n_rows, len(series), first, last, interval_ns, notes, findings.result())
    extras = {field: np.nan_to_num(series.columns[field]) for field in EXTRAS[1:] if field in series.columns}
    extras |= {column: series.columns[column] for column in columns}
    ends = ends_of(series.time_ns, interval_ns, zone_of(dialect.time_zone)) if begins and len(series) else series.time_ns
    bar_begins = begins_of(ends) if not begins else begins_of_stamps(series.time_ns, interval_ns, dialect)
    return Recording(name, _bars(series, ends), series.time_ns, extras, report, bar_begins)


def _series(table: FileColumns, symbol: str, findings: Findings) -> tuple[FileRows, BoolArray, tuple[str, ...]]:
    """Return a symbol's rows in UTC and in the order of time but for faults, which times are midnights, and what was taken for granted."""
    rows: IntArray | slice = slice(None)
    if table.codes is not None and len(table.symbols) > 1:
        rows = np.flatnonzero(table.codes == table.symbols.index(symbol))
    fields = table.layout.fields[symbol if symbol in table.layout.fields else ""]
    series = FileRows(table.time_ns[rows], table.lines[rows], {name: table.numbers[column][rows] for name, column in fields.items()})
    is_utc, is_midnight = table.is_utc[rows], table.is_midnight[rows]
    notes = []
    if _descends(series.time_ns, table.dialect.order):
        series, is_utc = series.take(slice(None, None, -1)), is_utc[::-1]
        notes.append("the latest bar comes first in the file")
    series = _in_utc(series, is_utc, table, findings)
    notes += _zone_note(table, is_utc) + _other_notes(series, table.dialect, is_midnight)
    if len(table.layout.fields) > 1:
        series = _own_rows(series)
    if {"dividend", "split"} & series.columns.keys():
        series = _with_actions_on_bars(series)
    return series, is_midnight, tuple(notes)


def _descends(time_ns: IntArray, order: str) -> bool:
    if order != "either":
        return order == "descending"
    steps = np.diff(time_ns)
    return int((steps < 0).sum()) > int((steps > 0).sum())


def _in_utc(series: FileRows, is_utc: BoolArray, table: FileColumns, findings: Findings) -> FileRows:
    """Convert local times; rows whose time is not certain are left out."""
    zone = zone_of(table.dialect.time_zone)
    if zone is UTC or is_utc.all():
        return series
    if is_utc.any():
        line = series.lines[int(np.flatnonzero(is_utc)[0])]
        raise FileFaultError(
            f"{table.path}, line {line}: expected times that all name their zone, or none of them where time_zone is "
            f"{table.dialect.time_zone}, received both"
        )
    utc = to_utc(series.time_ns, zone)
    note(findings, "time", series, utc.never, lambda row: f": expected a time of {zone}, received one that its clocks skip")
    note(findings, "time", series, utc.twice, lambda row: f": expected a time of {zone} that is there once, received one of two")
    series = FileRows(utc.time_ns, series.lines, series.columns)
    doubtful = np.concatenate([utc.never, utc.twice])
    return series.take(np.delete(np.arange(len(series)), doubtful)) if len(doubtful) else series


def _zone_note(table: FileColumns, is_utc: BoolArray) -> list[str]:
    if is_utc.all() or table.dialect.time_zone != "UTC":
        return []
    return [f"times are taken for UTC: they are of {UNSTATED_ZONES.get(table.dialect_name, 'a zone that the file does not name')}"]


def _other_notes(series: FileRows, dialect: Dialect, is_midnight: BoolArray) -> list[str]:
    notes = [note for note in [stamp_note(dialect, is_midnight)] if note]
    if "volume" not in series.columns or np.isnan(series.columns["volume"]).all():
        notes.append("no volumes: they are 0")
    return notes


def _own_rows(series: FileRows) -> FileRows:
    """Leave out rows in which the symbol has nothing: other symbols of the file have a bar then."""
    is_empty = np.all([np.isnan(values) for values in series.columns.values()], axis=0)
    return series.take(~is_empty)


def _with_actions_on_bars(series: FileRows) -> FileRows:
    """Put dividends and splits that stand in rows without prices to the bar of their time, or else to the one that follows."""
    given = {name: np.nan_to_num(series.columns[name]) for name in ("dividend", "split") if name in series.columns}
    has_price = ~np.all([np.isnan(series.columns[name]) for name in PRICES], axis=0)
    is_action = ~has_price & (sum(given.values()) > 0)
    if not is_action.any():
        return series
    bars = series.take(~is_action)
    columns = dict(bars.columns)
    order = np.argsort(bars.time_ns, kind="stable")
    for name, values in given.items():
        rows = np.flatnonzero(is_action & (values > 0))
        places = np.searchsorted(bars.time_ns[order], series.time_ns[rows])
        is_there = places < len(bars)
        columns[name] = np.nan_to_num(columns[name])
        columns[name][order[places[is_there]]] = values[rows[is_there]]
    return FileRows(bars.time_ns, bars.lines, columns)


def _bars(series: FileRows, ends: IntArray) -> Bars:
    volume = series.columns.get("volume")
    if volume is None or np.isnan(volume).all():
        volume = np.zeros(len(ends))
    opens, highs, lows, closes = (np.ascontiguousarray(series.columns[name]) for name in PRICES)
    return Bars(ends, opens, highs, lows, closes, volume)
