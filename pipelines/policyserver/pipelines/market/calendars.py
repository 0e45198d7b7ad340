"""When a market is open, and how many bars of a length a year has. Imports exchange_calendars (and with it pandas) for an exchange only.

calendar = make_calendar("XNYS")
periods_a_year(calendar, parse_interval("1min", "interval"))     # 98,280 = 252 sessions of 390 minutes
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.intervals import DAY_NS, HOUR_NS, WEEK_NS
from policyserver.pipelines.market.zones import to_utc

_FIRST_YEAR, _LAST_YEAR = 2010, 2019
"""Years whose sessions are counted for a mean year: fixed, so that a result does not depend on today."""


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """The sessions of a span of time, as parts without a break, in order."""

    open_ns: IntArray
    """When each part begins, UTC."""
    close_ns: IntArray
    """When it ends."""
    day_ns: IntArray
    """Midnight of the session's date as if it were UTC: what daily bars are stamped with; equal for the parts of one session."""

    def open_time(self, time_ns: IntArray) -> IntArray:
        """Return how long the market was open before each time, nanoseconds since the first session began."""
        before = np.concatenate([[0], np.cumsum(self.close_ns - self.open_ns)])
        part = np.maximum(np.searchsorted(self.open_ns, time_ns, side="right") - 1, 0)
        inside: IntArray = np.clip(time_ns, self.open_ns[part], self.close_ns[part]) - self.open_ns[part]
        return np.asarray(before[part] + inside, dtype=np.int64)

    def session_of(self, time_ns: IntArray) -> IntArray:
        """Return the number of the session in which each time lies, or of the one that follows; a session's end belongs to it."""
        part = np.minimum(np.searchsorted(self.close_ns, time_ns, side="left"), len(self.close_ns) - 1)
        return np.asarray(np.searchsorted(self.days, self.day_ns[part]), dtype=np.int64)

    @property
    def days(self) -> IntArray:
        """`day_ns` of each session."""
        return np.unique(self.day_ns)

    @property
    def ends_ns(self) -> IntArray:
        """When each session ends."""
        last = np.flatnonzero(np.diff(self.day_ns, append=self.day_ns[-1:] + 1))
        return np.asarray(self.close_ns[last], dtype=np.int64)


class Calendar(Protocol):
    """When a market is open."""

    @property
    def name(self) -> str:
        """What it is chosen by."""

    @property
    def sessions_a_year(self) -> int:
        """Sessions of a mean year."""

    @property
    def session_ns(self) -> int:
        """Open time of a usual session."""

    def sessions(self, first_ns: int, last_ns: int) -> Sessions:
        """Return the sessions from a week before a time to a week after another."""


@dataclass(frozen=True, slots=True)
class AlwaysOpen:
    """Every day, all day, as crypto exchanges; days are UTC's."""

    name: str = "24/7"
    """What it is chosen by."""
    sessions_a_year: int = 365
    """Days."""
    session_ns: int = DAY_NS
    """A day."""

    def sessions(self, first_ns: int, last_ns: int) -> Sessions:
        """Return the days."""
        days = _days(first_ns, last_ns)
        return Sessions(days, days + DAY_NS, days)


@dataclass(frozen=True, slots=True)
class Forex:
    """Five days a week from 17:00 to 17:00 in New York, beginning on Sunday; a session has the date on which it ends. Holidays are open."""

    name: str = "24/5"
    """What it is chosen by."""
    sessions_a_year: int = 260
    """Sessions."""
    session_ns: int = DAY_NS
    """A day."""

    def sessions(self, first_ns: int, last_ns: int) -> Sessions:
        """Return the sessions."""
        days = _weekdays(_days(first_ns, last_ns))
        opens, closes = (to_utc(days + shift, ZoneInfo("America/New_York")).time_ns for shift in (-7 * HOUR_NS, 17 * HOUR_NS))
        return Sessions(opens, closes, days)


@dataclass(frozen=True, slots=True)
class Weekdays:
    """Monday to Friday, all day of UTC, holidays too."""

    name: str = "weekdays"
    """What it is chosen by."""
    sessions_a_year: int = 260
    """Days."""
    session_ns: int = DAY_NS
    """A day."""

    def sessions(self, first_ns: int, last_ns: int) -> Sessions:
        """Return the days."""
        days = _weekdays(_days(first_ns, last_ns))
        return Sessions(days, days + DAY_NS, days)


@dataclass(frozen=True, slots=True)
class ExchangeCalendar:
    """The sessions of an exchange, with its holidays, early closes and lunch breaks, as the package exchange_calendars has them."""

    name: str
    """Its market identifier code (ISO 10383), such as XNYS, XLON, XTKS."""

    @property
    def sessions_a_year(self) -> int:
        """Mean of ten years, rounded: 252 for XNYS."""
        return _mean_year(self.name)[0]

    @property
    def session_ns(self) -> int:
        """Open time of the median session."""
        return _mean_year(self.name)[1]

    def sessions(self, first_ns: int, last_ns: int) -> Sessions:
        """Return the sessions."""
        days = _days(first_ns, last_ns)
        return _exchange_sessions(self.name, int(days[0]), int(days[-1]))


BUILT_IN: dict[str, Calendar] = {"24/7": AlwaysOpen(), "24/5": Forex(), "weekdays": Weekdays()}
"""Calendars that need no package."""


def make_calendar(name: str, key: str = "calendar") -> Calendar:
    """Return the calendar of a name.

    Raises:
        ValueError: There is no such calendar; the message begins with `key`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    import exchange_calendars  # a quarter of a second and pandas: only where an exchange is named

    if name not in exchange_calendars.get_calendar_names():
        raise ValueError(f"{key}: expected {', '.join(BUILT_IN)}, or the code of an exchange such as XNYS, received {name!r}")
    return ExchangeCalendar(name)


def periods_a_year(calendar: Calendar, interval_ns: int) -> float:
    """Return how many bars of a length a mean year has: what a figure of one bar is annualised with.

    Below a day, every session has as many bars as it has intervals, the last one cut short; from a day on, sessions or days are counted.
    """
    if interval_ns < min(DAY_NS, calendar.session_ns):
        return float(calendar.sessions_a_year * -(-calendar.session_ns // interval_ns))
    if interval_ns <= DAY_NS:
        return float(calendar.sessions_a_year)
    return 365.25 * DAY_NS / interval_ns


@cache
def _mean_year(name: str) -> tuple[int, int]:
    first, last = (int(np.datetime64(date, "ns").astype(np.int64)) for date in (f"{_FIRST_YEAR}-01-01", f"{_LAST_YEAR}-12-31"))
    sessions = _exchange_sessions(name, first, last)
    starts = np.flatnonzero(np.diff(sessions.day_ns, prepend=-1))
    lengths = np.add.reduceat(sessions.close_ns - sessions.open_ns, starts)
    return round(len(starts) / (_LAST_YEAR - _FIRST_YEAR + 1)), int(np.median(lengths))


@cache
def _exchange_sessions(name: str, first_day_ns: int, last_day_ns: int) -> Sessions:
    import exchange_calendars

    start, end = (str(np.datetime64(day, "ns").astype("M8[D]")) for day in (first_day_ns, last_day_ns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # exchange_calendars 4.13 asks pandas 3 for what pandas 4 will not have
        table = exchange_calendars.get_calendar(name, start=start, end=end).schedule
    columns = {
        column: table[column].dt.tz_convert(None).to_numpy().astype("M8[ns]") for column in ("open", "break_start", "break_end", "close")
    }
    days = table.index.to_numpy().astype("M8[ns]").astype(np.int64)
    has_break = ~np.isnat(columns["break_start"])
    first_close = np.where(has_break, columns["break_start"], columns["close"])
    opens = np.concatenate([columns["open"], columns["break_end"][has_break]]).astype(np.int64)
    closes = np.concatenate([first_close, columns["close"][has_break]]).astype(np.int64)
    order = np.argsort(opens, kind="stable")
    return Sessions(opens[order], closes[order], np.concatenate([days, days[has_break]])[order])


def _days(first_ns: int, last_ns: int) -> IntArray:
    """Return every day from a week before a time to a week after another."""
    return np.arange((first_ns - WEEK_NS) // DAY_NS, (last_ns + WEEK_NS) // DAY_NS + 1, dtype=np.int64) * DAY_NS


def _weekdays(days: IntArray) -> IntArray:
    return days[(days // DAY_NS + 3) % 7 < 5]
