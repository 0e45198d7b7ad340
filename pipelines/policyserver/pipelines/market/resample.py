"""Longer bars of shorter ones: of any length of time, of sessions, of weeks and months, or of a number of bars."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from policyserver.common.settings import Config
from policyserver.pipelines.market.bars import Bars, FloatArray, IntArray
from policyserver.pipelines.market.calendars import BUILT_IN, Calendar
from policyserver.pipelines.market.intervals import DAY_NS, parse_interval
from policyserver.pipelines.market.unread import refuse_unread
from policyserver.pipelines.market.zones import local_day, to_utc, zone_of

_COUNT = re.compile(r"([1-9]\d{0,8}) ?bars")


@dataclass(frozen=True, slots=True)
class ResampleConfig(Config):
    """The bars that a file's bars are made to."""

    unit: str
    """A length such as "5min", "4h", "1d"; "session", "week", "month"; or a number of bars, "20bars"."""
    time_zone: str = "UTC"
    """Zone in which days, weeks and months begin; lengths of time are counted from its midnight."""
    partial: Literal["drop", "keep"] = "drop"
    """What becomes of the last bar if the data end before it does. The first is kept: it lacks its beginning, not its end."""

    def _check(self) -> None:
        zone_of(self.time_zone)
        if self.unit == "session" or _COUNT.fullmatch(self.unit):
            refuse_unread(self, ("time_zone",), f"with the unit {self.unit}, which no midnight bounds")
        if self.unit not in ("session", "week", "month") and not _COUNT.fullmatch(self.unit):
            length = parse_interval(self.unit, "unit")
            if length > DAY_NS and length % DAY_NS:
                raise ValueError(f"unit: expected whole days beyond one day, received {self.unit!r}")


def resample(bars: Bars, config: ResampleConfig, calendar: Calendar | None = None) -> Bars:
    """Return longer bars: first open, highest high, lowest low, last close, sum of the volumes; times without a bar make none.

    A bar belongs to the interval in which it ends, and the new bar's `time_ns` is the end of that interval: what it says was not known
    before. With a calendar, lengths below a day begin with the session and never span two.

    Args:
        bars: Bars whose `time_ns` is the end of each.
        config: What to make.
        calendar: When the market is open; needed for "session" alone.

    Raises:
        ValueError: `unit` is "session" and there is no calendar.
    """
    if not len(bars):
        return bars
    ends = _interval_ends(bars.time_ns, config, calendar)
    first = np.flatnonzero(np.diff(ends, prepend=ends[0] - 1))
    last = np.append(first[1:], len(bars)) - 1
    made = Bars(
        ends[first],
        bars.open[first],
        np.maximum.reduceat(bars.high, first),
        np.minimum.reduceat(bars.low, first),
        bars.close[last],
        np.add.reduceat(bars.volume, first),
    )
    is_whole = ends[-1] == bars.time_ns[-1] or config.partial == "keep"
    return made if is_whole else made.slice(0, len(made) - 1)


def newest(time_ns: IntArray, values: FloatArray, moments_ns: IntArray) -> FloatArray:
    """Return at each moment the newest of a column's values, float64; `time_ns` are theirs, increasing, the first at or before it."""
    newest_values: FloatArray = values[np.maximum(np.searchsorted(time_ns, moments_ns, side="right") - 1, 0)]
    return newest_values


def _interval_ends(time_ns: IntArray, config: ResampleConfig, calendar: Calendar | None) -> IntArray:
    """Return for each bar the end of the interval that it ends in."""
    if count := _COUNT.fullmatch(config.unit):
        size = int(count[1])
        last = np.minimum(np.arange(len(time_ns)) // size * size + size - 1, len(time_ns) - 1)
        ends = time_ns[last].copy()
        if len(time_ns) % size:
            ends[last == len(time_ns) - 1] += 1  # not whole: its end is not known
        return ends
    if config.unit == "session":
        if calendar is None:
            raise ValueError(f"calendar: expected one of {', '.join(BUILT_IN)} or an exchange's code, with the unit session, received none")
        sessions = calendar.sessions(int(time_ns[0]), int(time_ns[-1]))
        return sessions.ends_ns[sessions.session_of(time_ns)]
    length = DAY_NS if config.unit in ("week", "month") else parse_interval(config.unit, "unit")
    if length >= DAY_NS:
        return _whole_days(time_ns, config)
    if calendar is not None:
        sessions = calendar.sessions(int(time_ns[0]), int(time_ns[-1]))
        part = np.minimum(np.searchsorted(sessions.close_ns, time_ns, side="left"), len(sessions.close_ns) - 1)
        return _within(time_ns, length, sessions.open_ns[part], sessions.close_ns[part])
    day = local_day(time_ns, config.time_zone)
    return _within(time_ns, length, _midnight(day, config.time_zone), _midnight(day + 1, config.time_zone))


def _within(time_ns: IntArray, length: int, opens: IntArray, closes: IntArray) -> IntArray:
    """Return ends of intervals that begin with their session or day and end with it at the latest; between sessions the next counts."""
    passed = np.maximum(time_ns - opens, 1)
    ends: IntArray = np.minimum(opens + -(-passed // length) * length, closes)
    return ends


def _whole_days(time_ns: IntArray, config: ResampleConfig) -> IntArray:
    day = local_day(time_ns, config.time_zone)
    if config.unit == "month":
        months = day.astype("M8[D]").astype("M8[M]") + 1
        return _midnight(months.astype("M8[D]").astype(np.int64), config.time_zone)
    n_days, shift = (7, 3) if config.unit == "week" else (parse_interval(config.unit, "unit") // DAY_NS, 0)
    return _midnight(((day + shift) // n_days + 1) * n_days - shift, config.time_zone)  # 1970-01-01 was a Thursday: weeks begin on Monday


def _midnight(day: IntArray, zone: str) -> IntArray:
    distinct, inverse = np.unique(day, return_inverse=True)
    return to_utc(distinct * DAY_NS, zone_of(zone)).time_ns[inverse]
