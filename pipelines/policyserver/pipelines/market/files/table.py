"""A whole file as columns: read block by block, its dialect found in the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import SHOWN_EXAMPLES, Example, FileFaultError
from policyserver.pipelines.market.files.layout import Layout, find_layout
from policyserver.pipelines.market.files.rows import BlockRows, RowReader
from policyserver.pipelines.market.files.source import Block, read_blocks
from policyserver.pipelines.market.files.time_formats import BoolArray, format_of
from policyserver.pipelines.market.files.times import TimeReader
from policyserver.pipelines.market.files.vendors import DIALECTS, detect

_HEAD_LINES = 50
"""Lines in which header and dialect are looked for."""

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class FileColumns:
    """The rows of a file that could be read, as columns."""

    path: str
    """The file."""
    dialect: Dialect
    """How it is written."""
    dialect_name: str
    """Name of the shipped dialect, or "own"."""
    layout: Layout
    """Where in a row each value is."""
    lines: IntArray
    """Physical line of each row."""
    time_ns: IntArray
    """Times, of UTC where `is_utc`, else of the dialect's zone."""
    is_utc: BoolArray
    """Whether the row names its zone, or counts from 1970."""
    is_midnight: BoolArray
    """Whether the row's time is a date alone, or midnight on its own clock."""
    numbers: dict[int, FloatArray]
    """Column to numbers, NaN where none is there."""
    codes: IntArray | None
    """Which of `symbols` each row is of; None: a row is of each of them."""
    symbols: tuple[str, ...]
    """The symbols; "" for one that the file does not name."""
    malformed: tuple[int, tuple[Example, ...]]
    """How many rows could not be read, and the first of them."""


@dataclass(slots=True, eq=False)
class Gathering:
    """What was read of a file so far."""

    lines: list[IntArray] = field(default_factory=list)
    numbers: dict[int, list[FloatArray]] = field(default_factory=dict)
    codes: list[IntArray] = field(default_factory=list)
    symbols: dict[str, int] = field(default_factory=dict)
    n_malformed: int = 0
    malformed: list[Example] = field(default_factory=list)

    def add(self, rows: BlockRows) -> None:
        """Add a block."""
        lines = rows.lines
        self.lines.append(np.arange(lines.start, lines.stop, dtype=np.int64) if isinstance(lines, range) else lines)
        for column, values in rows.numbers.items():
            self.numbers.setdefault(column, []).append(values)
        if rows.symbols:
            known = np.array([self.symbols.setdefault(symbol, len(self.symbols)) for symbol in rows.symbols], dtype=np.int64)
            self.codes.append(known[rows.codes])
        self.add_malformed(len(rows.malformed), rows.malformed)

    def add_malformed(self, count: int, examples: list[Example]) -> None:
        """Add rows that could not be read."""
        self.n_malformed += count
        self.malformed = sorted([*self.malformed, *examples], key=lambda example: example.line)[:SHOWN_EXAMPLES]

    def table(self, path: str, dialect: Dialect, name: str, layout: Layout, times: TimeReader) -> FileColumns:
        """Return the whole.

        Raises:
            FileFaultError: Nothing could be read, or the times can't be.
        """
        lines = np.concatenate([np.empty(0, dtype=np.int64), *self.lines])
        if not len(lines):
            if self.malformed:
                raise FileFaultError(f"{path}, line {self.malformed[0].line}{self.malformed[0].text}")
            raise FileFaultError(f"{path}, line {layout.n_lines + 1}: expected rows of bars, received none")
        column = times.finish(layout.time_name, lambda row: f"{path}, line {lines[row]}", dialect.order == "either")
        self.add_malformed(int(column.is_bad.sum()), [Example(int(lines[row]), text) for row, text in column.problems.items()])
        # A column's blocks are given up as soon as it is whole, so that a file is in memory once.
        numbers = {index: np.concatenate(self.numbers.pop(index)) for index in list(self.numbers)}
        codes = np.concatenate(self.codes) if self.codes else None
        symbols = tuple(self.symbols) or tuple(layout.fields)
        malformed = (self.n_malformed, tuple(self.malformed))
        times_of_rows = column.time_ns, column.is_utc, column.is_midnight
        table = FileColumns(path, dialect, name, layout, lines, *times_of_rows, numbers, codes, symbols, malformed)
        return _rows_of(table, ~column.is_bad) if column.is_bad.any() else table


def _rows_of(table: FileColumns, rows: BoolArray) -> FileColumns:
    numbers = {index: values[rows] for index, values in table.numbers.items()}
    codes = None if table.codes is None else table.codes[rows]
    columns = (table.lines[rows], table.time_ns[rows], table.is_utc[rows], table.is_midnight[rows], numbers, codes)
    return FileColumns(table.path, table.dialect, table.dialect_name, table.layout, *columns, table.symbols, table.malformed)


def read_table(path: Path, chosen: Dialect | str, columns: Sequence[str] = ()) -> FileColumns:
    """Read a file.

    Args:
        path: The file.
        chosen: Its dialect, the name of a shipped one, or `auto`.
        columns: Names of further columns of numbers.

    Raises:
        FileFaultError: The file isn't what the dialect says.
        OSError: It can't be read.
    """
    blocks = read_blocks(path, chosen.encoding if isinstance(chosen, Dialect) else "auto")
    first = next(blocks, Block(b"", 1, 0))
    dialect, name, layout = _read_head(path, first, chosen, columns)
    reader, times, gathering = RowReader(layout, dialect), TimeReader(format_of(dialect.time_format)), Gathering()
    for block in chain([_without_header(first, layout.n_lines)], blocks):
        for rows in reader.read(block):
            times.add(rows.times)
            gathering.add(rows)
    return gathering.table(str(path), dialect, name, layout, times)


def read_symbols(path: Path, chosen: Dialect | str) -> tuple[str, ...]:
    """Return the symbols that a file names, "" for one that it doesn't; only a file with a column of symbols is read to its end."""
    blocks = read_blocks(path, chosen.encoding if isinstance(chosen, Dialect) else "auto")
    _, _, layout = _read_head(path, next(blocks, Block(b"", 1, 0)), chosen)
    return tuple(layout.fields) if layout.symbol is None else read_table(path, chosen).symbols


def _read_head(path: Path, first: Block, chosen: Dialect | str, columns: Sequence[str] = ()) -> tuple[Dialect, str, Layout]:
    head = first.data[:_HEAD_BYTES].decode(errors="replace").splitlines()[:_HEAD_LINES]
    dialect, name = choose(chosen, head)
    return dialect, name, find_layout(head, dialect, str(path), columns)


def choose(chosen: Dialect | str, head: list[str]) -> tuple[Dialect, str]:
    """Return the dialect and its name.

    Raises:
        FileFaultError: There is no dialect of this name.
    """
    if isinstance(chosen, Dialect):
        return chosen, "own"
    name = detect("\n".join(head)) if chosen == "auto" else chosen
    if name not in DIALECTS:
        raise FileFaultError(f"dialect: expected auto, {', '.join(DIALECTS)}, or a table of an own one, received {name!r}")
    return DIALECTS[name], name


def _without_header(block: Block, n_lines: int) -> Block:
    start = 0
    for _ in range(n_lines):
        start = (block.data.find(b"\n", start) + 1) or len(block.data)
    return Block(block.data[start:], block.first_line + n_lines, max(block.n_lines - n_lines, 0))
