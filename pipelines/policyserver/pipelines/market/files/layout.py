"""Where in a row of a file each value is: found by the names of the columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from policyserver.pipelines.market.files.dialect import EXTRAS, PRICES, Dialect
from policyserver.pipelines.market.files.faults import FileFaultError

_SHOWN_HEADER_CHARACTERS = 300

_DELIMITERS = (";", "\t", "|", ",")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a row each value is."""

    names: tuple[str, ...]
    """The columns' names, for messages; as many as a row has cells."""
    time: tuple[int, ...]
    """Columns of the time: one, or date and time."""
    symbol: int | None
    """Column of the symbol."""
    fields: dict[str, dict[str, int]]
    """Symbol to field to column of numbers; "" where all columns are of one symbol."""
    n_lines: int
    """Lines before the first row of bars."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """All columns of numbers, those for `action_rows` at the end: they have no cell."""
        return tuple(sorted({column for fields in self.fields.values() for column in fields.values()}))

    @property
    def time_name(self) -> str:
        """Name of the time's columns, for messages."""
        return " and ".join(self.names[column] for column in self.time)


def find_layout(lines: Sequence[str], dialect: Dialect, path: str, columns: Sequence[str] = ()) -> Layout:
    """Find the columns in the first lines of a file; `columns` are names of further ones.

    Raises:
        FileFaultError: A column is missing or there twice.
    """
    n_skipped = dialect.skip_lines
    while n_skipped < len(lines) and re.match(r'\s*$|"?https?://', lines[n_skipped], flags=re.IGNORECASE):
        n_skipped += 1
    header = [_cells(line, dialect, path, n_skipped + 1) for line in lines[n_skipped : n_skipped + dialect.header_lines]]
    where = f"{path}, line {n_skipped + 1}"
    n_lines = n_skipped + dialect.header_lines
    if not dialect.header_lines:
        return layout_of(list(dialect.columns), dialect, where, n_lines, columns)
    if dialect.header_lines == 1:
        return layout_of(header[0] if header else [], dialect, where, n_lines, columns)
    return _of_tickers(header, dialect, where, n_lines, columns)


def _cells(line: str, dialect: Dialect, path: str, number: int) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=dialect.delimiter, strict=True), [])
    except csv.Error as error:
        raise FileFaultError(f"{path}, line {number}: expected the columns' names, every quotation mark closed: {error}") from error
    return [cell.strip().strip("<>").lower() for cell in cells]


def layout_of(names: list[str], dialect: Dialect, where: str, n_lines: int, columns: Sequence[str] = ()) -> Layout:
    """Find the columns by their names, which are in small letters.

    Raises:
        FileFaultError: A column is missing or there twice.
    """
    fields = _fields(dict(enumerate(names)), dialect, where, columns)
    if dialect.action_rows:
        fields = {"dividend": len(names), "split": len(names) + 1} | fields
    symbol = _find(dict(enumerate(names)), dialect.symbol, where) if dialect.symbol else None
    return Layout(tuple(names), _time(names, dialect, where), symbol, {"": fields}, n_lines)


def _of_tickers(header: list[list[str]], dialect: Dialect, where: str, n_lines: int, columns: Sequence[str]) -> Layout:
    """Return the layout of yfinance's header: fields and tickers in two lines, the index in the third."""
    if len(header) < 3 or {header[0][0], header[1][0]} != {"price", "ticker"}:
        raise FileFaultError(
            f"{where}: expected three lines that begin with Price, Ticker and Date, received {header}"[:_SHOWN_HEADER_CHARACTERS]
        )
    prices, tickers = (header[0], header[1]) if header[0][0] == "price" else (header[1], header[0])
    by_ticker: dict[str, dict[int, str]] = {}
    for column, (field, ticker) in enumerate(zip(prices[1:], tickers[1:], strict=False), start=1):
        by_ticker.setdefault(ticker.upper(), {})[column] = field
    fields = {ticker: _fields(names, dialect, where, columns) for ticker, names in by_ticker.items()}
    return Layout((header[2][0], *prices[1:]), (0,), None, fields, n_lines)


def _fields(names: dict[int, str], dialect: Dialect, where: str, columns: Sequence[str]) -> dict[str, int]:
    fields = {field: _find(names, getattr(dialect, field), where) for field in (*PRICES, *EXTRAS)}
    fields |= {column: _find(names, column, where) for column in columns}
    if unknown := [column for column in columns if fields[column] is None]:
        raise FileFaultError(f"{where}: columns: expected {', '.join(unknown)} in the file, received {_shown(names)}")
    if missing := [getattr(dialect, field) for field in PRICES if fields[field] is None]:
        wanted = ", ".join(getattr(dialect, field) for field in PRICES)
        problem = f"expected the columns {wanted}, received {_shown(names)}"
        raise FileFaultError(f"{where}: {problem}: {_remedy(list(names.values()), dialect, missing)}")
    return {field: column for field, column in fields.items() if column is not None}


def _remedy(names: list[str], dialect: Dialect, missing: list[str]) -> str:
    """Return what to set so that the columns are found."""
    line = dialect.delimiter.join(names)
    for other in _DELIMITERS:
        if other != dialect.delimiter and line.count(other) >= len(PRICES):
            return f"set mapping.delimiter = {json.dumps(other)}"
    if sum(name.replace(".", "", 1).isdigit() for name in names) >= len(PRICES):
        return "for a file without header set mapping.header_lines = 0 and mapping.columns"
    return f"set {', '.join(f'mapping.{field}' for field in PRICES if getattr(dialect, field) in missing)}"


def _time(names: list[str], dialect: Dialect, where: str) -> tuple[int, ...]:
    found = [_find(dict(enumerate(names)), pattern, where) for pattern in dialect.time]
    if None in found:
        wanted = " and ".join(pattern.replace("|", " or ") for pattern in dialect.time)
        raise FileFaultError(f"{where}: expected a column named {wanted}, received {_shown(dict(enumerate(names)))}: set mapping.time")
    return tuple(column for column in found if column is not None)


def _find(names: dict[int, str], pattern: str, where: str) -> int | None:
    """Return the column that a pattern of a dialect means."""
    for wanted in pattern.lower().split("|"):
        found = [column for column, name in names.items() if fnmatchcase(name, wanted.strip())] if wanted.strip() else []
        if len(found) > 1 and "*" not in wanted:
            raise FileFaultError(f"{where}: expected each column once, received {wanted} more often in {_shown(names)}")
        if found:
            return found[0]
    return None


def _shown(names: dict[int, str]) -> str:
    return f"{list(names.values())}"[:_SHOWN_HEADER_CHARACTERS]
