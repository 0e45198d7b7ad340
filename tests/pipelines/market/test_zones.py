"""Local times to UTC and back: equal to what the standard library says of every hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from policyserver.pipelines.market.zones import to_local, to_utc, zone_of

HOUR_NS = 3_600 * 10**9


def ns(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(int))


@pytest.mark.long
@pytest.mark.parametrize("name", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC", "-05:00", "+05:45"])
def test_a_year_of_half_hours_goes_there_and_back(name: str) -> None:
    """Lord Howe moves its clocks by half an hour. Each half hour is there in order, so the hour that is there twice is told by the rows."""
    times = np.arange(ns("2023-01-01"), ns("2024-01-01"), HOUR_NS // 2, dtype=np.int64)
    zone = zone_of(name)
    local = to_local(times, zone)
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(time) // 10**9) for time in times[::97]]
    expected = [ns(moment.astimezone(zone).replace(tzinfo=None).isoformat()) for moment in moments]
    assert local[::97].tolist() == expected
    back = to_utc(local, zone)
    np.testing.assert_array_equal(back.time_ns, times)
    assert not len(back.never)
    assert not len(back.twice)


def test_a_single_time_of_the_doubled_hour_is_not_certain() -> None:
    zone = ZoneInfo("America/New_York")
    utc = to_utc(np.array([ns("2023-11-05T00:59"), ns("2023-11-05T01:30"), ns("2023-11-05T02:00")]), zone)
    assert utc.twice.tolist() == [1]
    utc = to_utc(np.array([ns("2023-03-12T01:59"), ns("2023-03-12T02:30"), ns("2023-03-12T03:00")]), zone)
    assert utc.never.tolist() == [1]


def test_two_autumns_of_one_column_are_told_apart() -> None:
    zone = ZoneInfo("America/New_York")
    times = np.concatenate([np.arange(ns(f"{day}T04:00"), ns(f"{day}T08:00"), HOUR_NS // 4) for day in ("2022-11-06", "2023-11-05")])
    np.testing.assert_array_equal(to_utc(to_local(times, zone), zone).time_ns, times)


@pytest.mark.parametrize("name", ["Mars", "", "+25:00", "5", "../etc/passwd"])
def test_a_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^time_zone: expected UTC, an offset such as -05:00 or a name"):
        zone_of(name)
