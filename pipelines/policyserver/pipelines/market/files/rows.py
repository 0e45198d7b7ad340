"""The rows of a block as columns: by pyarrow where all of them are as they should be, else line by line, so that a fault has its line."""

from __future__ import annotations

import csv
import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import Example
from policyserver.pipelines.market.files.layout import Layout
from policyserver.pipelines.market.files.source import Block
from policyserver.pipelines.market.files.time_formats import Cells

ValueT = TypeVar("ValueT", bound=np.generic)

_FEW_LINES = 256
"""A part of a block that has a row at fault, and no more lines than these, is read line by line."""

_POOL = pa.system_memory_pool()
"""Gives back what a block took; pyarrow's default pool keeps it."""

_BLANK = "[ \u00a0]?"
"""A blank that may be there, perhaps one that breaks no line."""

SHOWN_CHARACTERS = 40
"""Most characters of a cell in a message."""

_ACTION = re.compile(
    r"\s*(?P<dividend>\d+(?:\.\d+)?) Dividend\s*|\s*(?P<new>\d+(?:\.\d+)?):(?P<old>\d+(?:\.\d+)?) Stock Splits?\s*", re.IGNORECASE
)


@dataclass(slots=True, eq=False)
class BlockRows:
    """The rows of a block that could be read."""

    times: Cells
    """Texts of the times."""
    numbers: dict[int, FloatArray]
    """Column to numbers, NaN where none is there."""
    symbols: list[str]
    """The distinct symbols."""
    codes: IntArray
    """Which of them each row has; empty without a symbol column."""
    lines: IntArray | range
    """Physical line of each row."""
    malformed: list[Example] = field(default_factory=list)
    """Rows that could not be read."""


class RowReader:
    """Reads the blocks of one file."""

    def __init__(self, layout: Layout, dialect: Dialect) -> None:
        """Read files of this layout."""
        self._layout = layout
        self._dialect = dialect
        self._cells = {column for column in layout.numbers if column < len(layout.names)}
        grouped, point = re.escape(dialect.thousands), re.escape(dialect.decimal)
        whole = rf"\d{{1,3}}(?:{grouped}\d{{3}})+|\d+" if dialect.thousands else r"\d+"
        bare = rf"(?:(?:{whole})(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
        number, sign = rf"[+-]?{bare}", re.escape(dialect.currency)
        if dialect.currency:  # $5, $-5, -$5, $ 5, 5$ and 5 $
            number = rf"(?:{number}(?:{_BLANK}{sign})?|{sign}{_BLANK}{number}|[+-]{sign}{bare})"
        self._number = re.compile(rf"\s*{number}\s*|\s*[+-]?(?:inf|Inf|infinity)\s*", re.ASCII)
        self._has_texts = bool(dialect.thousands or dialect.currency)
        self._options = self._arrow_options()

    def _arrow_options(self) -> dict[str, Any]:
        layout, dialect = self._layout, self._dialect
        number = pa.string() if self._has_texts else pa.float64()
        types = {str(column): number for column in self._cells} | {str(column): pa.string() for column in layout.time}
        if layout.symbol is not None:
            types[str(layout.symbol)] = pa.dictionary(pa.int32(), pa.string())
        convert = arrow_csv.ConvertOptions(
            column_types=types,
            null_values=list(dialect.missing),
            strings_can_be_null=self._has_texts,
            include_columns=list(types),
            decimal_point=dialect.decimal,
            check_utf8=False,
        )
        return {"parse_options": arrow_csv.ParseOptions(delimiter=dialect.delimiter), "convert_options": convert}

    def read(self, block: Block) -> Iterator[BlockRows]:
        """Yield the rows of a block, in parts where some can't be read as columns."""
        rows = self._if_columns(block)
        if rows is not None:
            yield rows
        elif block.n_lines <= _FEW_LINES:
            yield self._line_by_line(block)
        else:
            for half in block.halves():
                yield from self.read(half)

    def _if_columns(self, block: Block) -> BlockRows | None:
        if b'"' in block.data and _has_open_quotes(block.data):
            return None
        try:
            return self._as_columns(block)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None

    def _as_columns(self, block: Block) -> BlockRows | None:
        layout = self._layout
        if not block.data or block.data.isspace():
            return _no_rows(layout)
        names = [str(column) for column in range(len(layout.names))]
        reading = arrow_csv.ReadOptions(use_threads=False, block_size=len(block.data) + 1, column_names=names)
        table = arrow_csv.read_csv(pa.BufferReader(block.data), read_options=reading, memory_pool=_POOL, **self._options).combine_chunks()
        lines = _lines(block, table.num_rows)
        if lines is None:
            return None
        columns = {int(name): table.column(name).chunk(0) for name in table.column_names}
        numbers = {column: self._floats(columns[column]) for column in self._cells}
        times = columns[layout.time[0]]
        if len(layout.time) == 2:
            times = pc.binary_join_element_wise(times, columns[layout.time[1]], " ")
        symbols, codes = _dictionary(columns.get(layout.symbol)) if layout.symbol is not None else ([], np.empty(0, dtype=np.int64))
        return BlockRows(cells_of(times), self._with_actions(numbers, table.num_rows), symbols, codes, lines)

    def _with_actions(self, numbers: dict[int, FloatArray], n_rows: int) -> dict[int, FloatArray]:
        """Add the columns of dividends and splits for which a row has no cell."""
        return numbers | {column: np.zeros(n_rows) for column in self._layout.numbers if column not in numbers}

    def _floats(self, column: Any) -> FloatArray:
        """Return a column as float64, NaN for what is missing; of texts only those that are numbers as the dialect writes them."""
        if self._has_texts:
            if not pc.all(pc.match_substring_regex(column, f"^(?:{self._number.pattern})$")).as_py():
                raise pa.ArrowInvalid("a text is no number")
            bare = column
            for text in filter(None, (self._dialect.currency, self._dialect.thousands)):
                bare = pc.replace_substring(bare, text, "", memory_pool=_POOL)
            bare = pc.replace_substring(bare, ",", ".", memory_pool=_POOL) if self._dialect.decimal == "," else bare
            column = pc.cast(pc.utf8_trim_whitespace(bare, memory_pool=_POOL), pa.float64(), memory_pool=_POOL)
        return as_numpy(pc.fill_null(column, math.nan) if column.null_count else column, np.float64)

    # --- line by line ----------------------------------------------------------------------------------------------------------------

    def _line_by_line(self, block: Block) -> BlockRows:
        layout = self._layout
        times: list[str] = []
        rows: list[list[float]] = []
        symbols: list[str] = []
        lines: list[int] = []
        malformed: list[Example] = []
        for line, raw in enumerate(block.data.split(b"\n"), start=block.first_line):
            text = raw.decode().rstrip("\r")
            if not text:
                continue
            cells, problem = self._split(text)
            numbers, problem = self._numbers(cells) if not problem else ([], problem)
            if problem:
                malformed.append(Example(line, problem))
                continue
            times.append(" ".join(cells[column] for column in layout.time))
            rows.append(numbers)
            lines.append(line)
            if layout.symbol is not None:
                symbols.append(cells[layout.symbol])
        distinct = sorted(set(symbols))
        codes = np.array([distinct.index(symbol) for symbol in symbols], dtype=np.int64)
        columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(layout.numbers)).T
        numbers_by_column = {column: np.ascontiguousarray(columns[i]) for i, column in enumerate(layout.numbers)}
        return BlockRows(Cells.of_texts(times), numbers_by_column, distinct, codes, np.array(lines, dtype=np.int64), malformed)

    def _split(self, text: str) -> tuple[list[str], str]:
        """Return the cells of a line, or what is wrong with it."""
        try:
            cells = next(csv.reader([text], delimiter=self._dialect.delimiter, strict=True))
        except csv.Error as error:
            return [], f": expected cells parted by {self._dialect.delimiter!r} and every quotation mark closed in its line: {error}"
        if len(cells) != len(self._layout.names):
            return [], f": expected {len(self._layout.names)} cells, received {len(cells)}"
        return cells, ""

    def _numbers(self, cells: list[str]) -> tuple[list[float], str]:
        """Return the numbers of a row in the order of the layout, or what is wrong with them."""
        if self._dialect.action_rows and (found := next(filter(None, map(_ACTION.fullmatch, cells)), None)):
            return self._action(found), ""
        numbers = []
        for column in self._layout.numbers:
            text = cells[column] if column in self._cells else "0"
            value = self._value(text)
            if value is None:
                received = f"{text[:SHOWN_CHARACTERS]!r}{_remedy(text)}"
                return [], f", column {self._layout.names[column]}: expected a finite number, received {received}"
            numbers.append(value)
        return numbers, ""

    def _action(self, found: re.Match[str]) -> list[float]:
        fields = next(iter(self._layout.fields.values()))
        given = {"dividend": float(found["dividend"])} if found["dividend"] else {"split": float(found["new"]) / float(found["old"])}
        values = {fields[name]: value for name, value in given.items()}
        return [values.get(column, math.nan if column in self._cells else 0.0) for column in self._layout.numbers]

    def _value(self, text: str) -> float | None:
        """Return a number, NaN where it is missing, None where the cell is no number."""
        if text.strip() in self._dialect.missing:
            return math.nan
        if not self._number.fullmatch(text):
            return None
        bare = text
        for left_out in filter(None, (self._dialect.currency, self._dialect.thousands)):
            bare = bare.replace(left_out, "")
        return float(bare.replace(self._dialect.decimal, "."))


def _remedy(text: str) -> str:
    """Return what to set so that a cell is a number, for the end of a message."""
    signs = {character for character in text if unicodedata.category(character) == "Sc"}
    if len(signs) == 1:
        return f": set mapping.currency = {json.dumps(*signs, ensure_ascii=False)}"
    return ": set mapping.decimal or mapping.thousands" if re.fullmatch(r"[-+]?\d[\d.,' ]*", text.strip()) else ""


def _no_rows(layout: Layout) -> BlockRows:
    nothing = np.empty(0, dtype=np.int64)
    return BlockRows(Cells.of_texts([]), {column: np.empty(0) for column in layout.numbers}, [], nothing, range(0))


def _has_open_quotes(data: bytes) -> bool:
    """Tell whether a line has an odd number of quotation marks: what follows would be taken for a part of the cell."""
    array = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(array == 10)
    before_end = np.searchsorted(np.flatnonzero(array == ord('"')), np.append(ends, len(array)))
    return bool((np.diff(before_end, prepend=0) % 2).any())


def _lines(block: Block, n_rows: int) -> IntArray | range | None:
    """Return the physical line of each row of a block in which only empty lines are no rows; None where it has others."""
    if block.n_lines == n_rows:
        return range(block.first_line, block.first_line + n_rows)
    filled = [i for i, line in enumerate(block.data.split(b"\n"), start=block.first_line) if line.rstrip(b"\r")]
    return np.array(filled, dtype=np.int64) if len(filled) == n_rows else None


def as_numpy(column: Any, dtype: type[ValueT]) -> npt.NDArray[ValueT]:
    """Return an Arrow column of numbers, none of them missing, as a view: its own `to_numpy` imports pandas."""
    return np.frombuffer(column.buffers()[1] or b"", dtype=dtype)[column.offset : column.offset + len(column)]


def cells_of(column: Any) -> Cells:
    """Return the texts of an Arrow column of strings."""
    _, offsets, data = column.buffers()
    positions = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return Cells(np.frombuffer(data or b"", dtype=np.uint8), positions.astype(np.int64))


def _dictionary(column: Any) -> tuple[list[str], IntArray]:
    return column.dictionary.to_pylist(), as_numpy(column.indices, np.int32).astype(np.int64)
