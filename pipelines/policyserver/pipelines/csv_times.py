"""The times of a CSV column: one format throughout, and refused where two formats would read it differently."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from policyserver.pipelines.market.bars import IntArray

_EARLIEST_EPOCH_S = 1e8
"""Smallest number taken for seconds since 1970 (1973-03-03): below are days since 1900 and dates written without separators."""

_DAY_S = 86_400.0

_FURTHEST_S = 9e9
"""Largest distance of a time from 1970: nanoseconds of it are whole numbers of 64 bits."""

_SHOWN_CHARACTERS = 40

_OTHER_NUMBERS = (
    (20_000, 80_000, "days since 1900, as Excel counts them"),
    (1e11, 1e13, "milliseconds since 1970"),
    (1e14, 1e16, "microseconds since 1970"),
    (1e17, 1e19, "nanoseconds since 1970"),
)
"""What numbers of some sizes probably are."""


def times_ns(cells: Sequence[tuple[str, str]]) -> IntArray:
    """Return nanoseconds since the Unix epoch, by the one format that reads the whole column in increasing order.

    Args:
        cells: place (for messages) and text of each time.

    Raises:
        ValueError: no format fits, and the message is that of the format that came furthest; or two do, and disagree.
    """
    fitting: dict[str, IntArray] = {}
    furthest, message = -1, ""
    for name in TIME_FORMATS:
        times, row, fault = _read(cells, name)
        if not fault:
            fitting[name] = times
        elif row > furthest:
            furthest, message = row, fault
    if not fitting:
        raise ValueError(message)
    _require_agreement(cells, fitting)
    return next(iter(fitting.values()))


def _read(cells: Sequence[tuple[str, str]], name: str) -> tuple[IntArray, int, str]:
    """Read the column in a format: the times; else the first row that does not fit, and what is wrong with it."""
    read, times = TIME_FORMATS[name], np.zeros(len(cells), dtype=np.int64)
    for row, (where, text) in enumerate(cells):
        shown = repr(text[:_SHOWN_CHARACTERS])
        try:
            times[row] = read(text) * 1e9
        except (ValueError, OverflowError):
            return times, row, f"{where}: expected {', '.join(TIME_FORMATS)}, received {shown}{_probably(text)}"
        if row and times[row] <= times[row - 1]:
            return times, row, f"{where}: expected a time after the row before, received {shown}"
    return times, len(cells), ""


def _require_agreement(cells: Sequence[tuple[str, str]], fitting: dict[str, IntArray]) -> None:
    """Refuse a column that formats read differently."""
    (name, times), *others = fitting.items()
    for other, other_times in others:
        if len(differing := np.flatnonzero(times != other_times)):
            where, text = cells[differing[0]]
            raise ValueError(f"{where}: expected dates that can be read in one way, received {text!r}, {name} or {other}: write 2024-12-31")


def _probably(text: str) -> str:
    """Return what a number that is no time probably is, for the end of a message."""
    try:
        value = float(text)
    except ValueError:
        return ""
    return "".join(f", probably {meaning}" for low, high, meaning in _OTHER_NUMBERS if low <= value < high)


def _seconds(text: str) -> float:
    """Return seconds since the Unix epoch, of which only plausible ones are: bars of the past, and not from its first years."""
    value = float(text)
    if not _EARLIEST_EPOCH_S <= value <= time.time() + _DAY_S:
        raise ValueError(f"{value} are no seconds since 1970")
    return value


def _utc(moment: datetime) -> float:
    """Return seconds since the Unix epoch; a moment without a zone is UTC."""
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if abs(seconds) > _FURTHEST_S:
        raise ValueError(f"{moment} is too far from 1970")
    return seconds


TIME_FORMATS: dict[str, Callable[[str], float]] = {
    "ISO 8601": lambda text: _utc(datetime.fromisoformat(text)),
    "seconds since 1970": _seconds,
    "month/day/year": lambda text: _utc(datetime.strptime(text, "%m/%d/%Y")),
    "day/month/year": lambda text: _utc(datetime.strptime(text, "%d/%m/%Y")),
}
"""Ways to write a time, each as a function to seconds since the Unix epoch; a column has one of them throughout."""
