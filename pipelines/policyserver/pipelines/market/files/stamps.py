"""Which end of its interval a bar's time is, where a file doesn't say, and when the bar is over."""

from __future__ import annotations

from datetime import tzinfo

import numpy as np

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.sequence import commonest_step
from policyserver.pipelines.market.files.time_formats import BoolArray
from policyserver.pipelines.market.intervals import DAY_NS, parse_interval
from policyserver.pipelines.market.zones import to_local, to_utc

_MOST = 0.9
"""Part of the times that are dates, or midnights, where the times are dates alone: a day that is not over yet may have a clock."""


def are_dates(is_midnight: BoolArray) -> bool:
    """Tell whether times are dates alone, by which of them are dates or midnights on their own clock."""
    return len(is_midnight) > 0 and bool(np.count_nonzero(is_midnight) > _MOST * len(is_midnight))


def is_start(dialect: Dialect, is_midnight: BoolArray) -> bool:
    """Tell whether bars are stamped with their beginning: as the dialect says, else if times are dates alone."""
    return are_dates(is_midnight) if dialect.stamp is None else dialect.stamp == "start"


def interval_of(dialect: Dialect, time_ns: IntArray, is_midnight: BoolArray) -> int:
    """Return the length of a bar, nanoseconds: as the dialect says, else the commonest distance, of dates alone a day at least.

    0 where it is not known.
    """
    if dialect.interval != "auto":
        return parse_interval(dialect.interval, "interval")
    least = DAY_NS if dialect.stamp is None and are_dates(is_midnight) else 0
    return max(commonest_step(time_ns), least)


def ends_of(time_ns: IntArray, interval_ns: int, zone: tzinfo) -> IntArray:
    """Return the ends of bars that are stamped with their beginning: an interval later, or where the next bar begins.

    Args:
        time_ns: Beginnings in UTC, not decreasing.
        interval_ns: Length of a bar; whole days end at midnight of the zone, however long its days are.
        zone: Zone of the file's times.
    """
    ends = time_ns + interval_ns
    if interval_ns and interval_ns % DAY_NS == 0:
        ends = np.maximum(ends, to_utc(to_local(time_ns, zone) + interval_ns, zone).time_ns)
    later = time_ns[np.searchsorted(time_ns, time_ns[:-1], side="right").clip(max=len(time_ns) - 1)]
    ends[:-1] = np.minimum(ends[:-1], np.where(later > time_ns[:-1], later, ends[:-1]))
    return ends


def begins_of_stamps(time_ns: IntArray, interval_ns: int, dialect: Dialect) -> IntArray:
    """Return when bars that are stamped with their beginning began, no later than they did: the date of a week may be its last day."""
    return time_ns - interval_ns if dialect.stamp is None and interval_ns > DAY_NS else time_ns


def stamp_note(dialect: Dialect, is_midnight: BoolArray) -> str:
    """Return what is taken for granted of the times, in words."""
    if dialect.stamp is not None:
        return "bars are stamped with their beginning" if dialect.stamp == "start" else ""
    if are_dates(is_midnight):
        return "times are dates alone: bars are taken to begin with them (set mapping.stamp if they do not)"
    return "times are taken for the ends of the bars (set mapping.stamp if they are not)"
