"""Resampling: longer bars equal to those counted by hand, causal, and within days and sessions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.calendars import make_calendar
from policyserver.pipelines.market.intervals import HOUR_NS, MINUTE_NS
from policyserver.pipelines.market.resample import ResampleConfig, resample


def ns(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(int))


def bars_at(ends: np.ndarray, seed: int = 1) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(ends))))
    opened = np.append(100, close[:-1])
    high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
    return Bars(ends.astype(np.int64), opened, high, low, close, rng.integers(1, 9, len(ends)).astype(float))


def minutes(start: str, n: int) -> Bars:
    return bars_at(ns(start) + MINUTE_NS * np.arange(1, n + 1))


def by_hand(bars: Bars, length: int) -> list[tuple[int, float, float, float, float, float]]:
    """One bar after the other, in plain Python."""
    made: dict[int, tuple[int, float, float, float, float, float]] = {}
    for i in range(len(bars)):
        end = math.ceil(int(bars.time_ns[i]) / length) * length
        _, opened, high, low, _, volume = made.get(end, (end, bars.open[i], -math.inf, math.inf, 0.0, 0.0))
        made[end] = (end, opened, max(high, bars.high[i]), min(low, bars.low[i]), bars.close[i], volume + bars.volume[i])
    return list(made.values())


@pytest.mark.parametrize(("unit", "length"), [("5min", 5 * MINUTE_NS), ("1h", HOUR_NS), ("7min", None), ("1d", 24 * HOUR_NS)])
def test_longer_bars_are_those_counted_by_hand(unit: str, length: int | None) -> None:
    bars = bars_at(np.delete(ns("2024-01-02T09:00") + MINUTE_NS * np.arange(1, 4_001), [3, 77, 1_500, 1_501]))
    made = resample(bars, ResampleConfig(unit, partial="keep"))
    if length is None:
        assert made.time_ns[0] == ns("2024-01-02T09:06"), "77 intervals of seven minutes after midnight end at 08:59, 78 at 09:06"
        assert np.all(np.diff(made.time_ns[:10]) == 7 * MINUTE_NS)
        return
    np.testing.assert_allclose(np.column_stack([getattr(made, name) for name in Bars.__slots__]), by_hand(bars, length), rtol=1e-15)


@pytest.mark.parametrize("unit", ["5min", "1h", "1d", "session", "20bars", "week"])
def test_no_bar_is_known_before_its_end_and_no_later_bar_changes_it(unit: str) -> None:
    """The changed future: bars up to a moment, and the same with others after it, make equal bars up to that moment."""
    calendar = make_calendar("24/7") if unit == "session" else None
    bars, other = minutes("2024-01-01", 15_000), minutes("2024-01-01", 15_000)
    for name in ("open", "high", "low", "close", "volume"):
        getattr(other, name)[7_001:] *= 3
    whole, changed = (resample(each, ResampleConfig(unit), calendar) for each in (bars, other))
    known = whole.time_ns <= bars.time_ns[7_000]
    assert known.any() or unit == "week"
    for name in Bars.__slots__:
        np.testing.assert_array_equal(getattr(whole, name)[known], getattr(changed, name)[known])
    cut = resample(bars.slice(0, 7_001), ResampleConfig(unit), calendar)
    assert len(cut) == known.sum(), "a bar that is not over is not there"


def test_a_resample_that_takes_the_bar_after_is_caught_by_that_test() -> None:
    """The wrong variant: intervals that begin with a bar's end instead of ending with it hold a bar of their future."""
    bars = minutes("2024-01-01", 60)
    wrong_ends = bars.time_ns // (5 * MINUTE_NS) * (5 * MINUTE_NS) + 5 * MINUTE_NS
    made = resample(bars, ResampleConfig("5min"))
    assert not np.isin(bars.close[np.flatnonzero(np.diff(wrong_ends))], made.close).any()
    np.testing.assert_array_equal(made.close, bars.close[4::5])


def test_the_last_bar_is_dropped_unless_it_is_whole_or_kept() -> None:
    assert len(resample(minutes("2024-01-02", 12), ResampleConfig("5min"))) == 2
    assert len(resample(minutes("2024-01-02", 15), ResampleConfig("5min"))) == 3
    assert len(resample(minutes("2024-01-02", 12), ResampleConfig("5min", partial="keep"))) == 3
    assert len(resample(minutes("2024-01-02", 12), ResampleConfig("5bars"))) == 2
    assert len(resample(minutes("2024-01-02", 9).slice(0, 0), ResampleConfig("5min"))) == 0


def test_days_begin_at_the_zones_midnight_also_when_the_clocks_change() -> None:
    bars = bars_at(np.arange(ns("2024-03-09T06:00"), ns("2024-03-12T06:00"), HOUR_NS))
    made = resample(bars, ResampleConfig("1d", "America/New_York", partial="keep"))
    assert [str(np.datetime64(int(end), "ns"))[:16] for end in made.time_ns] == [
        "2024-03-10T05:00",
        "2024-03-11T04:00",
        "2024-03-12T04:00",
        "2024-03-13T04:00",
    ]
    assert np.bincount(np.searchsorted(made.time_ns, bars.time_ns)).tolist() == [24, 23, 24, 1]


def test_months_and_weeks_end_where_the_next_begins() -> None:
    days = bars_at(np.arange("2024-01-01", "2024-04-01", dtype="M8[D]").astype("M8[ns]").astype(np.int64) + 24 * HOUR_NS)
    months = resample(days, ResampleConfig("month"))
    assert [str(np.datetime64(int(end), "ns"))[:10] for end in months.time_ns] == ["2024-02-01", "2024-03-01", "2024-04-01"]
    weeks = resample(days, ResampleConfig("week"))
    assert str(np.datetime64(int(weeks.time_ns[0]), "ns"))[:10] == "2024-01-08", "a Monday"
    assert np.all(np.diff(weeks.time_ns) == 7 * 24 * HOUR_NS)


@pytest.mark.long
def test_hours_of_a_session_begin_with_it_and_the_last_is_cut_short() -> None:
    calendar = make_calendar("XNYS")
    days = [np.arange(ns(f"{day}T14:31"), ns(f"{day}T21:01"), MINUTE_NS) for day in ("2024-01-02", "2024-01-03")]
    bars = bars_at(np.concatenate(days))
    hours = resample(bars, ResampleConfig("1h"), calendar)
    assert [str(np.datetime64(int(end), "ns"))[11:16] for end in hours.time_ns] == [
        "15:30",
        "16:30",
        "17:30",
        "18:30",
        "19:30",
        "20:30",
        "21:00",
    ] * 2
    sessions = resample(bars, ResampleConfig("session"), calendar)
    np.testing.assert_array_equal(sessions.time_ns, [ns("2024-01-02T21:00"), ns("2024-01-03T21:00")])
    np.testing.assert_allclose(sessions.volume, [bars.volume[:390].sum(), bars.volume[390:].sum()])


@pytest.mark.parametrize(
    ("unit", "message"), [("soon", "unit: expected a length"), ("36h", "unit: expected whole days"), ("0bars", "unit")]
)
def test_a_unit_that_is_none_is_refused(unit: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResampleConfig(unit)


def test_sessions_need_a_calendar() -> None:
    with pytest.raises(ValueError, match="calendar: expected one of 24/7, 24/5, weekdays or an exchange's code"):
        resample(minutes("2024-01-02", 10), ResampleConfig("session"))
