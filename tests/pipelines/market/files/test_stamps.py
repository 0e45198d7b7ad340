"""Which end of its bar a time is: a bar of a date is not known before the date is over, unless `stamp` says so."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.reader import Recording, read_file
from policyserver.pipelines.market.files.vendors import DIALECTS

PLAIN = "Date,Open,High,Low,Close,Volume"
DAYS = ("2024-03-07", "2024-03-08", "2024-03-11", "2024-03-12")
OVER = ["2024-03-08", "2024-03-09", "2024-03-12", "2024-03-13"]


def read(folder: Path, times: tuple[str, ...], header: str = PLAIN, dialect: Dialect | str = "auto", row: str = "1,1,1,1,5") -> Recording:
    path = folder / "a.csv"
    separator = ";" if ";" in header else ","
    path.write_text("\n".join([header, *(f"{time}{separator}{row}" for time in times)]) + "\n", encoding="utf-8")
    (recording,) = read_file(path, dialect)
    return recording


def ends(recording: Recording) -> list[str]:
    return [str(np.datetime64(int(end), "ns")).removesuffix(":00.000000000").removesuffix("T00:00") for end in recording.bars.time_ns]


def epochs(days: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(int(np.datetime64(day, "s").astype(int))) for day in days)


WAYS = {
    "dates": DAYS,
    "dates with slashes": tuple(f"{day[5:7]}/{day[8:]}/{day[:4]}" for day in (*DAYS[:3], "2024-03-13")),  # 03/13 can be read in one way
    "dates without separators": tuple(day.replace("-", "") for day in DAYS),
    "midnights": tuple(f"{day} 00:00:00" for day in DAYS),
    "seconds since 1970": epochs(DAYS),
}


@pytest.mark.parametrize("times", WAYS.values(), ids=list(WAYS))
def test_a_bar_of_a_date_ends_when_the_date_is_over(times: tuple[str, ...], tmp_path: Path) -> None:
    recording = read(tmp_path, times)
    assert recording.report.dialect == "plain"
    assert ends(recording)[:3] == OVER[:3]
    assert "times are dates alone: bars are taken to begin with them (set mapping.stamp if they do not)" in recording.report.text()


def test_the_same_days_end_together_whichever_dialect_they_are_of(tmp_path: Path) -> None:
    found = [
        read(tmp_path, DAYS),
        read(tmp_path, DAYS, "Date,Open,High,Low,Close,Adj Close,Volume", row="1,1,1,1,1,5"),
        read(tmp_path, DAYS, "Data,Otwarcie,Najwyzszy,Najnizszy,Zamkniecie,Wolumen"),
        read(tmp_path, tuple(f"{day},00:00" for day in DAYS), "Date,Time,Open,High,Low,Close,Volume"),
        read(
            tmp_path,
            tuple(f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in DAYS),
            "Datum;Kurs;Hoch;Tief;Schluss",
            Dialect(delimiter=";", time=("datum",), open="kurs", high="hoch", low="tief", close="schluss"),
            row="1;1;1;1",
        ),
    ]
    assert [each.report.dialect for each in found] == ["plain", "yahoo", "stooq", "date_time", "own"]
    assert [ends(each) for each in found] == [OVER] * 5


@pytest.mark.parametrize("stamp", ["start", "end"])
def test_a_stamp_that_is_set_is_obeyed(stamp: str, tmp_path: Path) -> None:
    assert ends(read(tmp_path, DAYS, dialect=Dialect(stamp=stamp))) == (OVER if stamp == "start" else list(DAYS))  # type: ignore[arg-type]


def test_times_with_a_clock_are_taken_for_the_ends_and_check_data_says_so(tmp_path: Path) -> None:
    for times in (("2024-03-07 23:00", "2024-03-08 00:00", "2024-03-08 01:00"), ("2024-03-07T16:00-05:00", "2024-03-08T16:00-05:00")):
        recording = read(tmp_path, times)
        assert (recording.bars.time_ns == recording.stamp_ns).all()
        assert "times are taken for the ends of the bars (set mapping.stamp if they are not)" in recording.report.text()


def test_midnight_is_that_of_the_clock_which_the_file_names(tmp_path: Path) -> None:
    """pandas writes the days of an exchange so; they are a day's beginning as dates alone are, over the change of the clocks, too."""
    recording = read(tmp_path, tuple(f"{day} 00:00:00-0{5 - (day > '2024-03-10')}:00" for day in DAYS))
    assert ends(recording) == ["2024-03-08T05:00", "2024-03-09T05:00", "2024-03-12T04:00", "2024-03-13T04:00"]


def test_days_of_a_zone_end_at_its_midnight_when_clocks_change(tmp_path: Path) -> None:
    zone = Dialect(time_zone="America/New_York")
    days = tuple(str(day) for day in np.arange("2024-11-01", "2024-11-06", dtype="M8[D]"))
    assert ends(read(tmp_path, days, dialect=zone))[1:3] == ["2024-11-03T04:00", "2024-11-04T05:00"]
    assert ends(read(tmp_path, ("2024-11-01", "2024-11-02", "2024-11-03"), dialect=zone))[-1] == "2024-11-04T05:00", "25 hours"


def test_a_day_that_is_not_over_and_has_a_clock_changes_nothing(tmp_path: Path) -> None:
    days = tuple(str(day) for day in np.arange("2024-01-01", "2024-02-01", dtype="M8[D]"))
    assert ends(read(tmp_path, (*days, "2024-02-01 15:59")))[:2] == ["2024-01-02", "2024-01-03"]


def test_a_bar_alone_ends_a_day_after_its_date(tmp_path: Path) -> None:
    assert ends(read(tmp_path, DAYS[:1])) == OVER[:1]


def friday(day: datetime.date) -> datetime.date:
    return day + datetime.timedelta(days=4 - day.weekday())


@pytest.mark.parametrize("unit", ["W", "M"])
def test_weeks_and_months_are_over_before_their_bars_whichever_day_their_date_is(unit: str, tmp_path: Path) -> None:
    """A date may be the first or the last day of what the bar is of: the end is never before that."""
    if unit == "W":
        first = [datetime.date(2024, 1, 1) + datetime.timedelta(weeks=week) for week in range(30)]
        last = [friday(day) for day in first]
    else:
        first = [datetime.date(2022 + month // 12, month % 12 + 1, 1) for month in range(30)]
        last = [datetime.date(2022 + (month + 1) // 12, (month + 1) % 12 + 1, 1) - datetime.timedelta(days=1) for month in range(30)]
    over = np.array([day.isoformat() for day in last], dtype="M8[ns]").astype(np.int64) + 86_400 * 10**9
    for dates in (first, last):
        recording = read(tmp_path, tuple(day.isoformat() for day in dates))
        assert (recording.bars.time_ns >= over).all()
        assert (recording.begins_ns <= np.array([day.isoformat() for day in first], dtype="M8[ns]").astype(np.int64)).all()


def test_a_parquet_files_dates_and_midnights_are_dates_too(tmp_path: Path) -> None:
    path, days = tmp_path / "a.parquet", [datetime.date.fromisoformat(day) for day in DAYS]
    zoned = pa.array([datetime.datetime(day.year, day.month, day.day, 5 - (day.day > 10)) for day in days], pa.timestamp("us", "UTC"))
    for times in (
        pa.array(days, pa.date32()),
        pa.array(days, pa.date32()).cast(pa.timestamp("us")),
        zoned.cast(pa.timestamp("us", "America/New_York")),
    ):
        parquet.write_table(pa.table({"date": times, **{name: [1.0] * 4 for name in ("open", "high", "low", "close")}}), path)
        (recording,) = read_file(path)
        assert [end[:10] for end in ends(recording)] == OVER


@pytest.mark.parametrize("dialect", [DIALECTS["plain"], replace(DIALECTS["plain"], time_zone="America/New_York")])
def test_what_changes_rows_is_told_the_ends_that_the_bars_have(dialect: Dialect, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for times in (WAYS["dates"], ("2024-03-07 10:00", "2024-03-07 10:10", "2024-03-07 10:30")):
        path.write_text("\n".join([PLAIN, *(f"{time},1,1,1,1,5" for time in times)]) + "\n", encoding="utf-8")
        told: list[list[int]] = []

        def note(symbol: str, ends_ns: IntArray, columns: dict[str, FloatArray], told: list[list[int]] = told) -> None:
            told.append(ends_ns.tolist())

        (recording,) = read_file(path, dialect, change=note)
        assert told == [recording.bars.time_ns.tolist()]
