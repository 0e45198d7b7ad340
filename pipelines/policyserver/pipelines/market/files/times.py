"""The times of a whole column: one format throughout, and refused where two formats read it differently."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.files.faults import SHOWN_EXAMPLES, FileFaultError
from policyserver.pipelines.market.files.time_formats import AUTOMATIC, BoolArray, Cells, ReadTimes, TimeFormat

_SHOWN_CHARACTERS = 40

_OTHER_NUMBERS = (
    (20_000, 80_000, "days since 1900, as Excel counts them", "excel"),
    (1e11, 1e13, "milliseconds since 1970", "epoch_ms"),
    (1e14, 1e16, "microseconds since 1970", "epoch_us"),
    (1e17, 1e19, "nanoseconds since 1970", "epoch_ns"),
)
"""What numbers of some sizes probably are, and the format that says so."""


@dataclass(slots=True, eq=False)
class _Candidate:
    """A format that may be the column's, and what it made of the column so far."""

    format: TimeFormat
    blocks: list[ReadTimes] = field(default_factory=list)
    n_bad: int = 0
    first_bad: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TimeColumn:
    """A column of times."""

    time_ns: IntArray
    """Nanoseconds since 1970, of UTC where `is_utc`, else of the file's zone."""
    is_utc: BoolArray
    """Whether the cell names its zone, or counts from 1970."""
    is_bad: BoolArray
    """Whether the cell is no time."""
    is_midnight: BoolArray
    """Whether the cell is a date alone, or midnight on its own clock."""
    problems: dict[int, str]
    """Row to what is wrong with it, of the first of the bad ones."""


class TimeReader:
    """Reads a column block by block in every format that it may have."""

    def __init__(self, only: TimeFormat | None) -> None:
        """Read the column in one format, or find out which it has."""
        self._is_named = only is not None
        self._candidates = [_Candidate(each) for each in ([only] if only else AUTOMATIC)]
        self._expected = ", ".join(candidate.format.name for candidate in self._candidates)
        self._texts: list[tuple[int, Cells]] = []
        self._n_rows = 0

    def add(self, cells: Cells) -> None:
        """Read a block; formats that are worse than another are given up."""
        for candidate in self._candidates:
            self._note(candidate, candidate.format.read(cells), cells)
        fewest = min(candidate.n_bad for candidate in self._candidates)
        self._candidates = [candidate for candidate in self._candidates if candidate.n_bad == fewest]
        if len(self._candidates) > 1:
            self._texts.append((self._n_rows, cells))
        self._n_rows += len(cells)

    def add_typed(self, read: ReadTimes, cells: Cells) -> None:
        """Add a block of a column that needs no format."""
        del self._candidates[1:]
        self._note(self._candidates[0], read, cells)
        self._n_rows += len(cells)

    def _note(self, candidate: _Candidate, read: ReadTimes, cells: Cells) -> None:
        candidate.blocks.append(read)
        if read.is_bad.any():
            bad = np.flatnonzero(read.is_bad)
            candidate.n_bad += len(bad)
            for row in bad[: SHOWN_EXAMPLES - len(candidate.first_bad)].tolist():
                candidate.first_bad[self._n_rows + row] = cells.text(row)

    def finish(self, column: str, place: Callable[[int], str], either_order: bool) -> TimeColumn:
        """Return the column.

        Args:
            column: Its name, for messages.
            place: Returns file and line of a row.
            either_order: Whether the column may descend.

        Raises:
            FileFaultError: No format reads half of the cells; or two do, disagree, and the order of the rows doesn't tell which is right.
        """
        candidate = self._candidates[0]
        if candidate.n_bad * 2 > self._n_rows:
            row, text = next(iter(candidate.first_bad.items()))
            raise FileFaultError(f"{place(row)}{self._problem(column, text)}")
        read = [(each.format.name, _joined(each)) for each in self._candidates]
        chosen = self._agreed(read, column, place, either_order) if len(read) > 1 else read[0][1]
        problems = {row: self._problem(column, text) for row, text in candidate.first_bad.items()}
        return TimeColumn(chosen.time_ns, chosen.is_utc, chosen.is_bad, chosen.is_midnight, problems)

    def _agreed(self, read: list[tuple[str, ReadTimes]], column: str, place: Callable[[int], str], either_order: bool) -> ReadTimes:
        """Return the reading that alone has the rows in order, or any where all are equal."""
        (name, first), *others = read
        differing = next(((other, each) for other, each in others if not np.array_equal(each.time_ns, first.time_ns)), None)
        if differing is None:
            return first
        in_order = [each for _, each in read if _is_in_order(each, either_order)]
        if len(in_order) == 1:
            return in_order[0]
        row = int(np.flatnonzero(differing[1].time_ns != first.time_ns)[0])
        text = next(cells.text(row - start) for start, cells in self._texts if start <= row < start + len(cells))
        raise FileFaultError(
            f"{place(row)}, column {column}: expected dates that can be read in one way, received {text!r}, "
            f'{name} or {differing[0]}: set mapping.time_format, such as "DD/MM/YYYY", or write 2024-12-31'
        )

    def _problem(self, column: str, text: str) -> str:
        return f", column {column}: expected {self._expected}, received {text[:_SHOWN_CHARACTERS]!r}{self._remedy(text)}"

    def _remedy(self, text: str) -> str:
        """Return what to set so that a cell is a time, for the end of a message."""
        such_as = "DD-MMM-YYYY" if re.search("[A-Za-z]{3}", text) else "DD-MM-YYYY hh:mm"
        return "" if self._is_named else _probably(text) or f': set mapping.time_format, such as "{such_as}"'


def _joined(candidate: _Candidate) -> ReadTimes:
    columns = zip(*((block.time_ns, block.is_utc, block.is_bad, block.is_midnight) for block in candidate.blocks), strict=True)
    return ReadTimes(*(np.concatenate(column) for column in columns))


def _is_in_order(read: ReadTimes, either_order: bool) -> bool:
    steps = np.diff(read.time_ns[~read.is_bad])
    return bool((steps >= 0).all() or (either_order and (steps <= 0).all()))


def _probably(text: str) -> str:
    """Return what a number that is no time probably is, and what to set then; "" for any other text."""
    try:
        value = float(text)
    except ValueError:
        return ""
    return "".join(
        f', probably {meaning}: set mapping.time_format = "{name}"' for low, high, meaning, name in _OTHER_NUMBERS if low <= value < high
    )
