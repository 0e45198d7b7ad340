"""Windows of recorded bars are those that every setting allows, looked at one by one, and the counts say what became of the others."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.calendars import make_calendar
from policyserver.pipelines.market.intervals import DAY_NS, HOUR_NS, MINUTE_NS
from policyserver.pipelines.market.windows import WindowLength, WindowsConfig, WindowTable, find_windows

MONDAY = int(np.datetime64("2024-03-04", "ns").astype(np.int64))
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def times_of(minutes: list[int], start: int = MONDAY) -> IntArray:
    """Ends of bars that are so many minutes apart."""
    return start + MINUTE_NS * np.cumsum(minutes)


def bars_length(warmup: int, count: int, minutes: int = 10) -> WindowLength:
    return WindowLength(warmup, count, 0, minutes * MINUTE_NS)


def local(time_ns: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(time_ns) // 1000)).astimezone(ZoneInfo(zone))


def begin_of(times: IntArray, row: int, interval_ns: int) -> int:
    """When a bar begins: its usual length before its end, or where the one before ends."""
    return max(int(times[row - 1]), int(times[row]) - interval_ns)


@st.composite
def cases(draw: st.DrawFn) -> tuple[IntArray, tuple[int, int], WindowLength, WindowsConfig]:
    steps = draw(st.lists(st.sampled_from([10, 10, 10, 10, 20, 60, 600]), min_size=30, max_size=250))
    times = times_of(steps)
    first = draw(st.integers(0, len(times) - 10))
    span = (first, draw(st.integers(first + 1, len(times))))
    time_ns = draw(st.sampled_from([0, 0, 30 * MINUTE_NS, 5 * HOUR_NS]))
    length = WindowLength(draw(st.integers(1, 8)), draw(st.integers(1, 12)), time_ns, 10 * MINUTE_NS)
    start: Literal["any", "day"] = draw(st.sampled_from(["any", "any", "day"]))
    config = WindowsConfig(
        gap_limit=draw(st.sampled_from(["", "15min", "2h"])),
        warmup_gap_limit=draw(st.sampled_from(["", "30min"])),
        start=start,
        weekdays=tuple(draw(st.sets(st.sampled_from(WEEKDAYS)))),
        hours=draw(st.sampled_from(["", "09:30-16:00", "22:00-05:00", "00:00-24:00"])),
        time_zone=draw(st.sampled_from(["UTC", "America/New_York"])),
        stride_bars=draw(st.integers(1, 3)) if start == "any" else 1,
        overlap=draw(st.booleans()),
    )
    return times, span, length, config


def reason_against(times: IntArray, first: int, span: tuple[int, int], length: WindowLength, config: WindowsConfig) -> tuple[str, int]:
    """Look at one start by itself: why it is no window ("" if it is one), and the row after its last."""
    begin = begin_of(times, first, length.interval_ns)
    stop = first + length.n_bars
    if length.time_ns:
        stop = next((row for row in range(first, len(times)) if times[row] > begin + length.time_ns), len(times))
    seen = times[min(span[1], len(times) - 1)]
    if stop > span[1] or stop == first or (length.time_ns and begin + length.time_ns > seen):
        return "end of the span", stop
    zone, played = config.time_zone, range(first, stop)
    if config.weekdays and WEEKDAYS[local(int(times[first]) - 1000, zone).weekday()] not in config.weekdays:
        return "weekday", stop
    if config.hours and not all(in_hours(times[row], length.interval_ns, config) for row in played):
        return "hours", stop
    limits = {"": np.inf, "15min": 15, "30min": 30, "2h": 120}
    gaps = [times[row] - times[row - 1] for row in (played if config.start == "any" else played[1:])]
    if any(gap > limits[config.gap_limit] * MINUTE_NS for gap in gaps):
        return "gap", stop
    warmup = range(first - length.warmup_bars + 1, first)
    if any(times[row] - times[row - 1] > limits[config.warmup_gap_limit] * MINUTE_NS for row in warmup):
        return "gap in the warm-up", stop
    return "", stop


def in_hours(time_ns: int, interval_ns: int, config: WindowsConfig) -> bool:
    """Go through the bar minute by minute: each must be within the hours."""
    opens, closes = ((int(text[:2]) * 60 + int(text[3:])) for text in config.hours.split("-"))
    for minute in range(interval_ns // MINUTE_NS):
        clock = local(int(time_ns) - (minute + 1) * MINUTE_NS, config.time_zone)
        now = clock.hour * 60 + clock.minute
        if not (opens <= now < closes if opens < closes else now >= opens or now < closes):
            return False
    return True


@pytest.mark.long
@settings(deadline=None, max_examples=150)
@given(cases())
def test_the_windows_are_those_that_a_look_at_each_start_allows(
    case: tuple[IntArray, tuple[int, int], WindowLength, WindowsConfig],
) -> None:
    times, span, length, config = case
    found = find_windows(times, span, length, config)
    starts = [row for row in range(span[0], span[1], config.stride_bars) if row >= length.warmup_bars]
    if config.start == "day":
        days = [local(int(time) - 1000, config.time_zone).date() for time in times]
        starts = [row for row in starts if days[row] != days[row - 1]]
    looked_at = [(row, *reason_against(times, row, span, length, config)) for row in starts]
    allowed = [(row, stop) for row, reason, stop in looked_at if not reason]
    if not config.overlap:
        kept: list[tuple[int, int]] = []
        for row, stop in allowed:
            if not kept or row >= kept[-1][1]:
                kept.append((row, stop))
        assert found.left_out["overlap"] == len(allowed) - len(kept)
        allowed = kept
    assert list(zip(found.first.tolist(), found.stop.tolist(), strict=True)) == allowed
    assert found.begin_ns.tolist() == [times[row - 1] for row, _ in allowed]
    assert found.n_starts == len(starts) == len(found) + sum(found.left_out.values())
    for name in ("end of the span", "weekday", "hours", "gap", "gap in the warm-up"):
        assert found.left_out.get(name, 0) == sum(reason == name for _, reason, _ in looked_at)


def test_by_default_every_window_of_the_length_is_one() -> None:
    found = find_windows(times_of([10] * 20), (0, 20), bars_length(3, 5), WindowsConfig())
    assert found.first.tolist() == list(range(3, 16))
    assert found.text == "13 windows, 4 left out: end of the span 4"


def test_a_days_window_has_the_days_bars_whatever_their_number() -> None:
    minutes = [*range(570 + 10, 960 + 1, 10)]
    days = [day * 1440 + minute for day in range(5) for minute in minutes if (day, minute) != (2, 700)]
    times = MONDAY + MINUTE_NS * np.array(days)
    config = WindowsConfig(length="1d", start="day", order="sequential", gap_limit="20min")
    found = find_windows(times, (0, len(times)), WindowLength(5, 0, DAY_NS, 10 * MINUTE_NS), config)
    assert (found.stop - found.first).tolist() == [39, 38, 39], "the first day is warm-up, the last may not be over"
    assert found.left_out["end of the span"] == 1
    strict = find_windows(
        times, (0, len(times)), WindowLength(5, 0, DAY_NS, 10 * MINUTE_NS), WindowsConfig(length="1d", start="day", gap_limit="15min")
    )
    assert (len(strict), strict.left_out["gap"]) == (2, 1)


def test_a_session_begins_where_the_calendar_says_and_not_at_midnight() -> None:
    sunday = int(np.datetime64("2024-03-03T22:00", "ns").astype(np.int64))  # 17:00 in New York: the session of Monday begins
    times = sunday + HOUR_NS * np.arange(1, 72)
    length = WindowLength(2, 4, 0, HOUR_NS)
    by_session = find_windows(times, (0, len(times)), length, WindowsConfig(start="session"), make_calendar("24/5"))
    assert [str(np.datetime64(int(times[row - 1]), "ns"))[5:16] for row in by_session.first] == ["03-04T22:00", "03-05T22:00"]
    by_day = find_windows(times, (0, len(times)), length, WindowsConfig(start="day"))
    assert [str(np.datetime64(int(times[row - 1]), "ns"))[5:16] for row in by_day.first] == ["03-04T00:00", "03-05T00:00", "03-06T00:00"]
    with pytest.raises(ValueError, match="calendar: expected one with windows that start with the session, received none"):
        find_windows(times, (0, len(times)), length, WindowsConfig(start="session"))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "-05:00", "Asia/Tokyo"])
def test_weekday_and_hours_are_those_of_the_zone_on_both_sides_of_a_clock_change(zone: str) -> None:
    times = times_of([30] * (48 * 14))  # New York's clocks change on 2024-03-10
    config = WindowsConfig(hours="09:30-16:00", weekdays=("mon", "fri"), time_zone=zone, overlap=False)
    found = find_windows(times, (0, len(times)), bars_length(4, 13, 30), config)
    name = "Etc/GMT+5" if zone == "-05:00" else zone
    moments = [local(int(time), name) for time in found.begin_ns]
    assert len(moments) == (3 if zone == "Asia/Tokyo" else 4), "the first half past nine in Tokyo is warm-up"
    assert {(moment.strftime("%a"), moment.hour, moment.minute) for moment in moments} == {("Mon", 9, 30), ("Fri", 9, 30)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"time_zone": "New York"},
            "time_zone: expected UTC, an offset such as -05:00 or a name such as America/New_York, received 'New York'",
        ),
        ({"weekdays": ("monday",)}, r"weekdays\[0\]: expected mon\|tue\|wed\|thu\|fri\|sat\|sun, received 'monday'"),
        ({"weekdays": ("mon", "mon")}, r"weekdays: expected each day once, received \('mon', 'mon'\)"),
        ({"hours": "9-16"}, "hours: expected a span of the day such as \"09:30-16:00\", received '9-16'"),
        ({"hours": "09:30-25:00"}, "hours: expected a span of the day"),
        ({"length": "5 hours"}, "length: expected a length such as 1min, with w, d, h, min, s, ms, us, ns, received '5 hours'"),
        ({"gap_limit": "-1h"}, "gap_limit: expected a length"),
        ({"order": "shuffled"}, r"order: expected random\|sequential\|walk_forward, received 'shuffled'"),
        ({"start": "day", "stride_bars": 2}, 'stride_bars: expected 1 with start = "day", received 2'),
    ],
)
def test_what_makes_no_sense_is_refused_by_key_expected_and_received(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        WindowsConfig(**wrong)


def test_a_span_without_room_has_no_window() -> None:
    times = times_of([10] * 20)
    for span in ((0, 0), (20, 20), (5, 7), (0, 2)):
        found = find_windows(times, span, bars_length(3, 5), WindowsConfig())
        assert len(found) == 0
        assert re.fullmatch(r"0 windows(, \d+ left out: end of the span \d+)?", found.text)


def disjoint(table: WindowTable) -> bool:
    return bool((table.stop[:-1] <= table.first[1:]).all())


def test_sequential_windows_have_no_played_bar_in_common_and_random_ones_have() -> None:
    times = times_of([10] * 100)
    sequential = find_windows(times, (0, 100), bars_length(10, 7), WindowsConfig(order="sequential"))
    assert disjoint(sequential)
    assert sequential.first.tolist() == list(range(10, 94, 7))
    assert not disjoint(find_windows(times, (0, 100), bars_length(10, 7), WindowsConfig()))
