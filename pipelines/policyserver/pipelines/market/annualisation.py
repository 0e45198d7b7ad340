"""How many bars a year has: what figures of one bar are annualised with, and where that number is from."""

from __future__ import annotations

from dataclasses import dataclass

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.calendars import Calendar, periods_a_year
from policyserver.pipelines.market.intervals import DAY_NS, interval_text

_YEAR_NS = 365.25 * DAY_NS


@dataclass(frozen=True, slots=True)
class Annualisation:
    """Bars of a mean year."""

    periods_a_year: float
    """How many."""
    text: str
    """In words, with where the number is from."""


def by_calendar(calendar: Calendar, interval_ns: int) -> Annualisation:
    """Return the bars of a length that a calendar's year has."""
    count = periods_a_year(calendar, interval_ns)
    return Annualisation(count, f"{count:,.10g} bars of {interval_text(interval_ns)} a year, by the calendar {calendar.name}")


def counted(time_ns: IntArray) -> Annualisation:
    """Return the bars that a year has at the rate of those that are there; at least two."""
    span_ns = int(time_ns[-1] - time_ns[0])
    count = (len(time_ns) - 1) * _YEAR_NS / span_ns
    return Annualisation(
        count, f"{count:,.1f} bars a year, counted in {len(time_ns):,} bars over {span_ns / DAY_NS:,.1f} days, without a calendar"
    )
