"""The bars of a year are a calendar's, or are counted, and it is said which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.market.annualisation import by_calendar, counted
from policyserver.pipelines.market.calendars import make_calendar
from policyserver.pipelines.market.intervals import DAY_NS, MINUTE_NS
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.recorded_market import minutes, recorded, write_symbol


@pytest.mark.long
def test_a_calendar_has_as_many_bars_a_year_as_its_sessions_have() -> None:
    year = by_calendar(make_calendar("XNYS"), MINUTE_NS)
    assert (year.periods_a_year, year.text) == (98_280, "98,280 bars of 1min a year, by the calendar XNYS")


def test_without_calendar_the_bars_are_counted() -> None:
    weekdays = DAY_NS * np.array([day for day in range(1, 3_000) if day % 7 < 5])
    year = counted(weekdays)
    assert year.periods_a_year == pytest.approx(365.25 * 5 / 7, rel=2e-3)
    assert year.text.startswith(f"{year.periods_a_year:,.1f} bars a year, counted in {len(weekdays):,} bars over ")
    assert year.text.endswith(" days, without a calendar")


@pytest.mark.parametrize(("calendar", "expected"), [("24/7", 365 * 144), ("weekdays", 260 * 144), ("", 365.25 * 144)])
def test_recorded_prices_say_with_what_they_are_annualised(tmp_path: Path, calendar: str, expected: float) -> None:
    write_symbol(tmp_path / "A.csv", minutes(5))
    source = make_source(PricesConfig(recorded=recorded(tmp_path, calendar=calendar)), 1)
    assert source.annualisations["A"].periods_a_year == pytest.approx(expected)


def test_simulated_markets_are_always_open() -> None:
    years = make_source(PricesConfig(bar_interval_s=3600.0, symbols=("A", "B", "C"), symbols_per_episode=2), 1).annualisations
    assert set(years) == {"A+B", "C+A", "B+C"}
    assert {year.periods_a_year for year in years.values()} == {365 * 24}
