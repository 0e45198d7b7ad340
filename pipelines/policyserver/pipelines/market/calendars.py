"""When a market is open, and how many bars of a length a year has. Imports exchange_calendars (and with it pandas) for an exchange only.

calendar = make_calendar("XNYS")
periods_a_year(calendar, parse_interval("1min", "interval"))     # 98,280 = 252 sessions of 390 minutes
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.intervals import DAY_NS, HOUR_NS, WEEK_NS
from policyserver.pipelines.market.zones import to_utc

_FIRST_YEAR, _YEARS = 2010, 10
"""Years whose sessions are counted for a mean year: the first ten whole ones from 2010 on that are known, whatever day it is today."""

_FIRST_DAY_NS, _LAST_DAY_NS = (int(np.datetime64(date, "ns").astype(np.int64)) for date in ("1678-01-01", "2262-01-01"))
"""The first and the last day that nanoseconds since 1970 count."""

_SHORT_SPAN = {"start": "2024-01-01", "end": "2024-01-20"}
"""Days that all exchanges' sessions are known of: to ask what else is."""

_KEY = "files.calendar"
"""The setting that names an exchange."""


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
    """The sessions of an exchange, with its holidays, early closes and lunch breaks, as the package exchange_calendars has them.

    Of some exchanges the package knows no sessions before one date, or after another.
    """

    name: str
    """Its market identifier code (ISO 10383), such as XNYS, XLON, XTKS."""

    @property
    def sessions_a_year(self) -> int:
        """Mean of ten years, or of as many as are known, rounded: 252 for XNYS."""
        return _mean_year(self.name)[0]

    @property
    def session_ns(self) -> int:
        """Open time of the median session."""
        return _mean_year(self.name)[1]

    def sessions(self, first_ns: int, last_ns: int) -> Sessions:
        """Return the sessions; of the weeks around those that are known.

        Raises:
            SettingsError: The package knows no sessions at one of the times, or none at all.
        """
        days, (first_known, last_known) = _days(first_ns, last_ns), _known_days(self.name)
        if first_ns < first_known - DAY_NS or last_ns >= last_known + 2 * DAY_NS:  # a session may have the date of the day before or after
            known = f"from {_date(first_known)} {'on' if last_known == _LAST_DAY_NS else f'to {_date(last_known)}'}"
            received = f"bars from {_date(first_ns)} to {_date(last_ns)}"
            raise SettingsError(_KEY, "", f'expected bars {known}, where {self.name} is known, or "", received {received}')
        return _exchange_sessions(self.name, max(int(days[0]), first_known), min(int(days[-1]), last_known))


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
    """Return the sessions of a mean year, and the open time of the median session."""
    known = np.array(_known_days(name)).astype("M8[ns]").astype("M8[D]") + np.array([-1, 1])  # outside of what is known
    first_known, after_known = (known.astype("M8[Y]").astype(np.int64) + np.array([1, 0]) + 1970).tolist()
    first = max(_FIRST_YEAR, first_known)
    after = min(first + _YEARS, after_known)
    begin, end = (int(np.datetime64(f"{year}-01-01", "ns").astype(np.int64)) for year in (first, after))
    sessions = _exchange_sessions(name, begin, end - DAY_NS)
    starts = np.flatnonzero(np.diff(sessions.day_ns, prepend=-1))
    lengths = np.add.reduceat(sessions.close_ns - sessions.open_ns, starts)
    return round(len(starts) / (after - first)), int(np.median(lengths))


@cache
def _known_days(name: str) -> tuple[int, int]:
    """Return the first and the last day of which the package knows whether there is a session, nanoseconds since 1970."""
    calendar = _made(name, **_SHORT_SPAN)
    first, last = calendar.bound_min(), calendar.bound_max()
    return _FIRST_DAY_NS if first is None else first.value, _LAST_DAY_NS if last is None else last.value


def _made(name: str, **span: str) -> Any:
    """Return the package's calendar of some days.

    Raises:
        SettingsError: It fails to make it.
    """
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # exchange_calendars 4.13 asks pandas 3 for what pandas 4 will not have
        try:
            return exchange_calendars.get_calendar(name, **span)
        except Exception as error:  # of some exchanges it fails with a pandas that it was not tried with
            packages = " and ".join(f"{package} {version(package)}" for package in ("exchange-calendars", "pandas"))
            problem = f"{name}, which {packages} fail to make: {type(error).__name__}: {str(error)[:80]}"
            raise SettingsError(_KEY, "", f"expected a calendar that can be made (pandas < 3.1 makes more), received {problem}") from error


@cache
def _exchange_sessions(name: str, first_day_ns: int, last_day_ns: int) -> Sessions:
    table = _made(name, start=_date(first_day_ns), end=_date(last_day_ns)).schedule
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


def _date(time_ns: int) -> str:
    return str(np.datetime64(time_ns, "ns").astype("M8[D]"))


def _days(first_ns: int, last_ns: int) -> IntArray:
    """Return every day from a week before a time to a week after another."""
    return np.arange((first_ns - WEEK_NS) // DAY_NS, (last_ns + WEEK_NS) // DAY_NS + 1, dtype=np.int64) * DAY_NS


def _weekdays(days: IntArray) -> IntArray:
    return days[(days // DAY_NS + 3) % 7 < 5]
