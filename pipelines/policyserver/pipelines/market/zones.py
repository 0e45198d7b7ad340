"""Local times to UTC, whole columns at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.intervals import DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS

_STEP_NS = 15 * MINUTE_NS
"""Zones change their offset at whole quarters of an hour."""


def zone_of(name: str) -> tzinfo:
    """Return the zone of a name, "UTC", or of an offset such as "-05:00".

    Raises:
        ValueError: There is no such zone; the message begins with `time_zone`.
    """
    if name == "UTC":
        return UTC
    if match := re.fullmatch(r"([+-])(\d\d):(\d\d)", name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        if offset < timedelta(hours=24):
            return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        problem = f"time_zone: expected UTC, an offset such as -05:00 or a name such as America/New_York, received {name!r}"
        raise ValueError(problem) from error


@dataclass(frozen=True, slots=True, eq=False)
class UtcTimes:
    """A column of local times as UTC, and the rows where that is not certain."""

    time_ns: IntArray
    """Nanoseconds since the Unix epoch."""
    twice: IntArray
    """Rows whose local time is there twice, and the rows around them don't say which one is meant."""
    never: IntArray
    """Rows whose local time is skipped by the zone's clocks."""


def to_utc(local_ns: IntArray, zone: tzinfo) -> UtcTimes:
    """Convert a column of local times, in ascending order but for faults.

    Where clocks are set back, the rows' order tells the first hour from the second: it does where the rows go back in local time.
    """
    nothing = np.empty(0, dtype=np.int64)
    if zone is UTC or isinstance(zone, timezone):
        offset = zone.utcoffset(None) or timedelta()
        return UtcTimes(local_ns - int(offset.total_seconds()) * SECOND_NS, nothing, nothing)
    steps, inverse = _distinct(local_ns // _STEP_NS)
    earlier, later = (np.array([_offset_ns(step, zone, fold) for step in steps.tolist()], dtype=np.int64) for fold in (0, 1))
    first, second = local_ns - earlier[inverse], local_ns - later[inverse]
    twice, never = np.flatnonzero(second > first), np.flatnonzero(second < first)
    time_ns, doubtful = first, nothing
    if len(twice):
        is_second, is_known = _second_pass(local_ns, twice)
        time_ns[twice] = np.where(is_second, second[twice], first[twice])
        doubtful = twice[~is_known]
    return UtcTimes(time_ns, doubtful, never)


def to_local(time_ns: IntArray, zone: tzinfo) -> IntArray:
    """Convert UTC to local times, nanoseconds as if they were UTC."""
    if zone is UTC:
        return time_ns
    steps, inverse = _distinct(time_ns // _STEP_NS)
    moments = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=step * (_STEP_NS // SECOND_NS)) for step in steps.tolist())
    offsets = [moment.astimezone(zone).utcoffset() or timedelta() for moment in moments]
    shifts: IntArray = np.array([round(offset.total_seconds()) * SECOND_NS for offset in offsets], dtype=np.int64)
    return time_ns + shifts[inverse]


def local_day(time_ns: IntArray, zone: str) -> IntArray:
    """Return the date on which each bar ends in a zone, in days since 1970; midnight ends the day before."""
    days: IntArray = (to_local(time_ns, zone_of(zone)) - 1) // DAY_NS
    return days


def _distinct(steps: IntArray) -> tuple[IntArray, IntArray]:
    """Return the distinct values, and for each row which one it has; ascending runs make that cheap."""
    heads = np.flatnonzero(np.diff(steps, prepend=steps[:1] - 1))
    values, of_heads = np.unique(steps[heads], return_inverse=True)
    return values, np.repeat(of_heads, np.diff(heads, append=len(steps)))


def _offset_ns(step: int, zone: tzinfo, fold: int) -> int:
    local = datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=step * (_STEP_NS // SECOND_NS))
    offset = local.replace(fold=fold).utcoffset() or timedelta()
    return round(offset.total_seconds()) * SECOND_NS


def _second_pass(local_ns: IntArray, twice: IntArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return for each doubtful row whether it is of the second hour, and whether that is known: the clock goes back within its night."""
    nights = np.cumsum(np.diff(local_ns[twice], prepend=local_ns[twice[0]]) > 3 * HOUR_NS)
    back = np.diff(local_ns[twice], prepend=local_ns[twice[0]] - 1) <= 0
    goes_back = np.bincount(nights, weights=back) == 1
    before_night: IntArray = np.cumsum(back) - back
    first_of_night = np.flatnonzero(np.diff(nights, prepend=-1))
    passed: IntArray = np.cumsum(back) - np.repeat(before_night[first_of_night], np.diff(first_of_night, append=len(nights)))
    return np.greater(passed, 0), np.asarray(goes_back)[nights]
