"""How a column of times is written, read as arrays of digits: cells of one shape (digits at the same places) are read together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.intervals import DAY_NS, SECOND_NS

ByteMatrix = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_MOST_SHAPES = 64
"""Shapes of one block that are read together; what is left after them is read row by row."""

_FURTHEST_S = 9_000_000_000
"""Largest distance of a time from 1970: nanoseconds of it are whole numbers of 64 bits."""

_CLOCK = (
    r"(?:[ T]+(?P<h>\d{1,2}):(?P<m>\d\d)(?::(?P<s>\d\d)(?:[.,](?P<f>\d{1,9})\d*)?)?"
    r"(?: ?(?P<z>Z|UTC|(?P<sign>[+-])(?P<zh>\d\d)(?::?(?P<zm>\d\d))?))?)?"
)
_DAY = r"(?P<D>\d{1,2})"
_MONTH = r"(?P<M>\d{1,2})"
_YEAR = r"(?P<Y>\d{4})"
_DD, _MM = r"(?P<D>\d\d)", r"(?P<M>\d\d)"
_EPOCH = r"(?P<e>\d{1,19})(?:\.(?P<f>\d{1,9})\d*)?"


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


class Cells:
    """The texts of a column in one block of a file: bytes and where each begins."""

    def __init__(self, data: ByteMatrix, offsets: IntArray) -> None:
        """Take the bytes of all cells, one after the other, and their n + 1 offsets."""
        self._data = data
        self._offsets = offsets

    @classmethod
    def of_texts(cls, texts: list[str]) -> Cells:
        """Make a column of texts."""
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def text(self, row: int) -> str:
        """Return one cell."""
        return self._data[self._offsets[row] : self._offsets[row + 1]].tobytes().decode(errors="replace")

    def by_width(self) -> Iterator[tuple[IntArray | slice, ByteMatrix]]:
        """Yield rows of one width and their bytes, uint8 (rows, width)."""
        widths = np.diff(self._offsets)
        if len(widths) and (widths == widths[0]).all():
            yield slice(None), self._data[self._offsets[0] : self._offsets[-1]].reshape(len(widths), widths[0])
            return
        for width in np.unique(widths):
            rows = np.flatnonzero(widths == width)
            yield rows, self._data[self._offsets[rows][:, None] + np.arange(width)]


@dataclass(frozen=True, slots=True, eq=False)
class ReadTimes:
    """What a format made of the cells of a block."""

    time_ns: IntArray
    """Nanoseconds since 1970: of UTC where `is_utc`, else of the file's zone; 0 where `is_bad`."""
    is_utc: BoolArray
    """Whether the cell names its zone, or counts from 1970."""
    is_bad: BoolArray
    """Whether the format does not read the cell."""
    is_midnight: BoolArray
    """Whether the cell is a date alone, or midnight on its own clock."""


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """One way to write a time."""

    name: str
    """For messages."""
    pattern: re.Pattern[str]
    """Groups Y, M or b (a month's name), D, h, m, s, f, p (AM or PM), z with sign, zh, zm, or e (a number that counts). It asks for digits,
    never for certain ones."""
    unit_ns: int = 0
    """Of a number that counts: its unit; 0 takes the one of s, ms, us and ns that the number's size says."""
    lowest: float = 0.0
    """Smallest number that is taken for a time."""
    highest: float = 1e19
    """Numbers from here on aren't taken for a time."""
    epoch_s: int = 0
    """What a number counts from, in seconds since 1970."""

    def read(self, cells: Cells) -> ReadTimes:
        """Read a block of cells."""
        n = len(cells)
        no = np.zeros(n, dtype=np.bool_)
        read = ReadTimes(np.zeros(n, dtype=np.int64), no, np.ones(n, dtype=np.bool_), no.copy())
        for rows, matrix in cells.by_width():
            for same, match in _shapes(matrix, self.pattern):
                place = same if isinstance(rows, slice) else rows[same]
                read.time_ns[place], read.is_bad[place] = times, is_bad = self._values(matrix[same], match)
                read.is_midnight[place] = ~is_bad & ((times + _offset_s(matrix[same], match) * SECOND_NS) % DAY_NS == 0)
                read.is_utc[place] = _text(match, "e") is not None or _text(match, "z") is not None
        return read

    def _values(self, matrix: ByteMatrix, match: re.Match[str]) -> tuple[IntArray, BoolArray]:
        if _text(match, "e") is not None:
            return self._counted(matrix, match)
        year, month, day = (_number(matrix, match, name) for name in "YMD")
        if (name := _text(match, "b")) is not None:
            month += 1 + [full[: len(name)].lower() for full in _MONTHS].index(name.lower())
        hour, minute, second = (_number(matrix, match, name) for name in "hms")
        hour = _of_half_day(hour, match)
        is_bad = (month < 1) | (month > 12) | (day < 1) | (day > _month_days(year, month)) | (hour > 23) | (minute > 59) | (second > 59)
        seconds = _days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - _offset_s(matrix, match)
        is_bad |= (np.abs(seconds) > _FURTHEST_S) | (_number(matrix, match, "zh") > 23) | (_number(matrix, match, "zm") > 59)
        return np.where(is_bad, 0, seconds * SECOND_NS + _fraction(matrix, match)), is_bad

    def _counted(self, matrix: ByteMatrix, match: re.Match[str]) -> tuple[IntArray, BoolArray]:
        start, end = match.span("e")
        is_bad = (matrix[:, start] >= ord("9")) & (end - start > 18)  # more than 64 bits hold
        count = np.where(is_bad, 0, _number(matrix, match, "e"))
        unit = np.int64(self.unit_ns) if self.unit_ns else _unit_ns(count)
        is_bad = is_bad | (count < self.lowest) | (count >= self.highest) | (count > _FURTHEST_S * SECOND_NS // unit)
        step = 1 if self.unit_ns <= SECOND_NS else 1_000_000  # nine digits of a day are finer than a millisecond, no finer
        part = np.rint(_fraction(matrix, match) * (unit / (SECOND_NS * step))).astype(np.int64) * step
        return np.where(is_bad, 0, np.where(is_bad, 0, count) * unit + part + self.epoch_s * SECOND_NS), is_bad


def _shapes(matrix: ByteMatrix, pattern: re.Pattern[str]) -> Iterator[tuple[IntArray | slice, re.Match[str]]]:
    """Yield the rows of each shape that the pattern reads, with the match of one of them."""
    shapes = np.where((matrix - np.uint8(48)) < 10, np.uint8(48), matrix)
    if (shapes == shapes[:1]).all():
        if match := _match(matrix, 0, pattern):
            yield slice(None), match
        return
    left = np.arange(len(matrix))
    for n_tried in range(len(matrix)):
        if not len(left):
            return
        is_same = (shapes[left] == shapes[left[0]]).all(axis=1) if n_tried < _MOST_SHAPES else np.arange(len(left)) == 0
        if match := _match(matrix, left[0], pattern):
            yield left[is_same], match
        left = left[~is_same]


def _match(matrix: ByteMatrix, row: int, pattern: re.Pattern[str]) -> re.Match[str] | None:
    return pattern.fullmatch(matrix[row].tobytes().decode("latin-1")) if len(matrix) else None


def _text(match: re.Match[str], name: str) -> str | None:
    return match[name] if name in match.re.groupindex else None


def _span(match: re.Match[str], name: str) -> tuple[int, int]:
    """Return where a group is, an empty span where it is not."""
    return match.span(name) if _text(match, name) is not None else (0, 0)


def _number(matrix: ByteMatrix, match: re.Match[str], name: str) -> IntArray:
    """Return the number that the digits of a group are; 0 where the group is not there."""
    start, end = _span(match, name)
    value = np.zeros(len(matrix), dtype=np.int64)
    for column in range(start, end):
        value *= 10
        value += matrix[:, column] - np.uint8(48)
    return value


def _fraction(matrix: ByteMatrix, match: re.Match[str]) -> IntArray:
    """Return billionths."""
    start, end = _span(match, "f")
    billionths: IntArray = _number(matrix, match, "f") * 10 ** (9 - (end - start))
    return billionths


def _offset_s(matrix: ByteMatrix, match: re.Match[str]) -> IntArray:
    offset = _number(matrix, match, "zh") * 3_600 + _number(matrix, match, "zm") * 60
    return -offset if _text(match, "sign") == "-" else offset


def _of_half_day(hour: IntArray, match: re.Match[str]) -> IntArray:
    """Return the hour of 24; 24 for one that is not of 1 to 12."""
    half = _text(match, "p")
    if half is None:
        return hour
    return np.where((hour < 1) | (hour > 12), 24, hour % 12 + (12 if half.upper() == "PM" else 0))


def _unit_ns(count: IntArray) -> IntArray:
    """Return the unit that a number since 1970 has by its size: for 1973 to 5138 only one is possible."""
    return np.select([count < 10**11, count < 10**14, count < 10**17], [SECOND_NS, 1_000_000, 1_000], 1).astype(np.int64)


def _month_days(year: IntArray, month: IntArray) -> IntArray:
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days: IntArray = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])[np.clip(month, 1, 12) - 1]
    days += (month == 2) & is_leap
    return days


def _days(year: IntArray, month: IntArray, day: IntArray) -> IntArray:
    """Return days since 1970-01-01 of dates of the Gregorian calendar; the year is taken to begin in March, so that leap days end it."""
    shifted = year - (month <= 2)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719_468


def _calendar(name: str, date: str, clock: str = _CLOCK) -> TimeFormat:
    return TimeFormat(name, re.compile(rf"\s*{date}{clock}\s*"))


def _counting(name: str, unit_ns: int, lowest: float = 0.0, highest: float = 1e19, epoch_s: int = 0) -> TimeFormat:
    return TimeFormat(name, re.compile(rf"\s*{_EPOCH}\s*"), unit_ns, lowest, highest, epoch_s)


_BASIC_CLOCK = r"(?:[ T]+(?P<h>\d\d):?(?P<m>\d\d)(?::?(?P<s>\d\d))?)?"

# Two digits for month, day and hour where a standard says so: 2024-09-1 may be a cell that lost a digit.
AUTOMATIC = (
    _calendar("ISO 8601", rf"{_YEAR}-{_MM}-{_DD}", _CLOCK.replace(r"\d{1,2}", r"\d\d")),
    _calendar("year month day without separators", rf"{_YEAR}{_MM}{_DD}", _BASIC_CLOCK),
    # From 1973-03 (below are days since 1900 and dates without separators) to 2032-06 (from there on it could be YYYYMMDDhh).
    _counting("seconds since 1970", SECOND_NS, 1e8, 1.97e9),
    _calendar("year.month.day", rf"{_YEAR}\.{_MM}\.{_DD}"),
    _calendar("day.month.year", rf"{_DAY}\.{_MONTH}\.{_YEAR}"),
    _calendar("year/month/day", rf"{_YEAR}/{_MONTH}/{_DAY}"),
    _calendar("month/day/year", rf"{_MONTH}/{_DAY}/{_YEAR}"),
    _calendar("day/month/year", rf"{_DAY}/{_MONTH}/{_YEAR}"),
    _calendar("date and hour with AM or PM", rf"{_YEAR}-{_MM}-{_DD}", r" (?P<h>\d\d)-(?P<p>[AP]M)"),
)
"""Formats that `auto` tries."""

_NAMED = {
    "epoch": _counting("seconds, milli-, micro- or nanoseconds since 1970", 0, 1e8),
    "epoch_s": _counting("seconds since 1970", SECOND_NS),
    "epoch_ms": _counting("milliseconds since 1970", 1_000_000),
    "epoch_us": _counting("microseconds since 1970", 1_000),
    "epoch_ns": _counting("nanoseconds since 1970", 1),
    "excel": _counting("days since 1900, as Excel counts them", 86_400 * SECOND_NS, 1.0, 1e6, -25_569 * 86_400),
}

_PARTS = {
    "YYYY": _YEAR,
    "MMMM": f"(?P<b>(?i:{'|'.join(_MONTHS)}))",
    "MMM": f"(?P<b>(?i:{'|'.join(name[:3] for name in _MONTHS)}))",
    "MM": _MONTH,
    "DD": _DAY,
    "hh": r"(?P<h>\d{1,2})",
    "mm": r"(?P<m>\d\d)",
    "ss": r"(?P<s>\d\d)",
    "f": r"(?P<f>\d{1,9})",
    "AM": r"(?P<p>[AP]M|[ap]m)",
}


def format_of(text: str) -> TimeFormat | None:
    """Return the format of a name or a template, None for `auto`.

    Raises:
        ValueError: It is neither; the message begins with `time_format`.
    """
    if text == "auto" or text in _NAMED:
        return _NAMED.get(text)
    parts = re.findall("|".join(_PARTS), text)
    months = [part for part in parts if part.startswith("MM")]
    if len(set(parts)) != len(parts) or len(months) != 1 or not {"YYYY", "DD"} <= set(parts):
        names, month = ", ".join(("auto", *_NAMED)), "MM (or MMM or MMMM)"
        raise ValueError(f"time_format: expected {names} or a template with YYYY, {month} and DD, each part once, received {text!r}")
    split = re.split(f"({'|'.join(_PARTS)})", text)
    fixed = {"MM": _MM, "DD": _DD} if re.search(r"YYYYMM|MMDD|DDMM|MMYYYY", text) else {}
    body = "".join({**_PARTS, **fixed}.get(piece) or re.escape(piece) for piece in split)
    return TimeFormat(text, re.compile(rf"\s*{body}\s*"))
