"""Calendars: sessions, open time and the number of bars a year, against days that are known."""

from __future__ import annotations

import exchange_calendars
import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.calendars import Sessions, make_calendar, periods_a_year
from policyserver.pipelines.market.intervals import DAY_NS, HOUR_NS, MINUTE_NS, WEEK_NS, interval_text, parse_interval


def ns(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(int))


def on(sessions: Sessions, day: str) -> list[tuple[str, str]]:
    rows = np.flatnonzero(sessions.day_ns == ns(day))
    return [
        (str(np.datetime64(int(sessions.open_ns[i]), "ns"))[11:16], str(np.datetime64(int(sessions.close_ns[i]), "ns"))[11:16])
        for i in rows
    ]


@pytest.mark.long
def test_new_york_has_holidays_early_closes_and_summer_time() -> None:
    sessions = make_calendar("XNYS").sessions(ns("2024-06-15"), ns("2024-12-31"))
    assert on(sessions, "2024-07-02") == [("13:30", "20:00")]
    assert on(sessions, "2024-07-03") == [("13:30", "17:00")]
    assert on(sessions, "2024-07-04") == []
    assert on(sessions, "2024-07-06") == []
    assert on(sessions, "2024-12-20") == [("14:30", "21:00")]


@pytest.mark.long
def test_tokyos_lunch_is_no_open_time_and_both_halves_are_one_session() -> None:
    sessions = make_calendar("XTKS").sessions(ns("2024-01-04"), ns("2024-01-31"))
    assert on(sessions, "2024-01-15") == [("00:00", "02:30"), ("03:30", "06:00")]
    morning, lunch, afternoon = (ns(f"2024-01-15T{clock}") for clock in ("02:30", "03:00", "03:31"))
    opened = sessions.open_time(np.array([morning, lunch, afternoon]))
    assert np.diff(opened).tolist() == [0, MINUTE_NS]
    assert len(set(sessions.session_of(np.array([morning, lunch, afternoon])).tolist())) == 1


def test_currencies_are_traded_from_sunday_to_friday_in_new_york() -> None:
    sessions = make_calendar("24/5").sessions(ns("2024-03-04"), ns("2024-03-15"))
    assert on(sessions, "2024-03-08") == [("22:00", "22:00")]
    assert on(sessions, "2024-03-11") == [("21:00", "21:00")], "Sunday in summer time"
    assert on(sessions, "2024-03-09") == []
    week = sessions.open_time(np.array([ns("2024-03-08T22:00"), ns("2024-03-10T20:59")]))
    assert week[0] == week[1], "closed over the weekend"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "length", "periods"),
    [
        ("24/7", MINUTE_NS, 525_600),
        ("24/7", DAY_NS, 365),
        ("24/5", HOUR_NS, 6_240),
        ("XNYS", MINUTE_NS, 98_280),
        ("XNYS", 5 * MINUTE_NS, 19_656),
        ("XNYS", HOUR_NS, 252 * 7),
        ("XNYS", DAY_NS, 252),
        ("XNYS", WEEK_NS, 365.25 / 7),
        ("XTKS", MINUTE_NS, 245 * 300),
        ("weekdays", DAY_NS, 260),
    ],
)
def test_the_periods_of_a_year_follow_from_calendar_and_length(name: str, length: int, periods: float) -> None:
    assert periods_a_year(make_calendar(name), length) == pytest.approx(periods)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "first", "last", "sessions"),
    [("XSAU", "2021-01-05", "2021-02-01", 250), ("AIXK", "2026-01-05", "2026-02-01", 245), ("XSHG", "2026-12-01", "2026-12-30", 243)],
)
def test_a_calendar_known_for_some_years_alone_has_a_mean_year_and_its_first_and_last_weeks(
    name: str, first: str, last: str, sessions: int
) -> None:
    calendar = make_calendar(name)
    assert calendar.sessions_a_year == pytest.approx(sessions, abs=2)
    assert calendar.sessions(ns(first), ns(last)).days[-1] >= ns(last) - DAY_NS


@pytest.mark.long
@pytest.mark.parametrize(("first", "last"), [("2020-11-01", "2021-02-01"), ("2029-11-01", "2030-02-01")])
def test_bars_of_times_at_which_a_calendar_is_not_known_are_refused(first: str, last: str) -> None:
    expected = f'expected bars from 2021-01-01 to 2029-12-31, where XSAU is known, or "", received bars from {first} to {last}'
    with pytest.raises(SettingsError) as refused:
        make_calendar("XSAU").sessions(ns(first), ns(last))
    assert str(refused.value) == f"files.calendar: {expected}"


@pytest.mark.slow
@pytest.mark.parametrize("name", exchange_calendars.get_calendar_names(include_aliases=False))
def test_every_calendar_there_is_can_be_used(name: str) -> None:
    calendar = make_calendar(name)
    assert 225 <= calendar.sessions_a_year <= 365
    assert 0 < calendar.session_ns <= DAY_NS
    assert periods_a_year(calendar, MINUTE_NS) == calendar.sessions_a_year * -(-calendar.session_ns // MINUTE_NS)
    for begin, end in (("2022-06-01", "2022-12-30"), ("2026-06-01", "2026-12-30")):
        sessions = calendar.sessions(ns(begin), ns(end))
        assert 130 <= len(sessions.days) <= 230, (begin, len(sessions.days))
        assert (np.diff(sessions.open_ns) > 0).all()
        assert (sessions.close_ns > sessions.open_ns).all()
        assert sessions.days[0] <= ns(begin) + 7 * DAY_NS
        assert sessions.days[-1] >= ns(end) - 2 * DAY_NS


def test_an_unknown_calendar_is_refused_by_its_setting() -> None:
    with pytest.raises(
        ValueError, match=r"^instruments\.calendar: expected 24/7, 24/5, weekdays, or the code of an exchange such as XNYS, received 'MOON'"
    ):
        make_calendar("MOON", "instruments.calendar")


@pytest.mark.parametrize(
    ("text", "length"), [("1min", MINUTE_NS), ("90 s", 90 * 10**9), ("4h", 4 * HOUR_NS), ("1w", WEEK_NS), ("250ms", 250_000_000)]
)
def test_a_length_of_time_is_read_and_written(text: str, length: int) -> None:
    assert parse_interval(text, "interval") == length
    assert interval_text(length) == text.replace(" ", "")


@pytest.mark.parametrize("text", ["", "min", "0s", "-1h", "1.5h", "1 month", "999999999w", "1M"])
def test_what_is_no_length_is_refused_by_its_setting(text: str) -> None:
    with pytest.raises(ValueError, match=r"^unit: expected a length such as 1min"):
        parse_interval(text, "unit")


def test_a_length_of_no_single_unit_is_written_in_two() -> None:
    assert interval_text(2 * DAY_NS + 17 * HOUR_NS) == "2d 17h"
    assert interval_text(0) == "0s"
