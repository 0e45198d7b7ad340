"""The local times of rows that are at times of their own, as arrays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache

import numpy as np

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.intervals import SECOND_NS, WEEK_NS
from policyserver.pipelines.market.zones import zone_of

_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2262, 4, 1, tzinfo=UTC)
"""Times before the first have the offset of the first; later ones can't be counted in nanoseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK_S, _STEP_S = WEEK_NS // SECOND_NS, 60


def local_ns(time_ns: IntArray, zone: str) -> IntArray:
    """Return times as nanoseconds since 1970 by the clocks of a zone, int64 of the same shape.

    Args:
        time_ns: Nanoseconds since 1970, UTC.
        zone: "UTC", an offset such as "-05:00", or a name such as "America/New_York".
    """
    starts, offsets = _offsets(zone)
    if len(offsets) == 1:
        return np.asarray(time_ns + offsets[0], dtype=np.int64)
    return np.asarray(time_ns + offsets[np.maximum(np.searchsorted(starts, time_ns, side="right") - 1, 0)], dtype=np.int64)


@cache
def _offsets(name: str) -> tuple[IntArray, IntArray]:
    """Return since when a zone has had which offset, nanoseconds each."""
    zone = zone_of(name)
    if zone is UTC or isinstance(zone, timezone):
        return np.zeros(1, dtype=np.int64), np.array([_offset_s(0, zone) * SECOND_NS])
    seconds = [int((moment - _EPOCH).total_seconds()) for moment in (_FIRST, _LAST)]
    starts, offsets = [seconds[0]], [_offset_s(seconds[0], zone)]
    for week in range(seconds[0], seconds[1], _WEEK_S):
        offset = _offset_s(week + _WEEK_S, zone)
        if offset != offsets[-1]:
            starts.append(_change_s(week, week + _WEEK_S, zone))
            offsets.append(offset)
    return np.array(starts) * SECOND_NS, np.array(offsets) * SECOND_NS


def _change_s(before: int, after: int, zone: tzinfo) -> int:
    """Return when a zone's offset changes between two times, to the minute."""
    old = _offset_s(before, zone)
    while after - before > _STEP_S:
        middle = (before + after) // 2 // _STEP_S * _STEP_S
        before, after = (middle, after) if _offset_s(middle, zone) == old else (before, middle)
    return after


def _offset_s(second: int, zone: tzinfo) -> int:
    offset = (_EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset() or timedelta()
    return round(offset.total_seconds())
