"""Vendors' files: the dialect is found, and first bar, times and length are the vendor's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import FaultPolicies, FileFaultError
from policyserver.pipelines.market.files.reader import Recording, inspect_file, read_file
from policyserver.pipelines.market.files.table import read_table

SAMPLES = Path(__file__).parent / "samples"

# File, dialect, symbol, bars, stamp of the first bar in UTC, length of a bar, first open, last close, first volume.
VENDORS = [
    ("histdata_ascii.csv", "histdata_ascii", "histdata_ascii", 8, "2012-03-09T21:55", 60, 1.3121, 1.31235, 0),
    ("histdata_mt.csv", "histdata_mt", "histdata_mt", 8, "2012-03-09T21:55", 60, 1.3121, 1.31235, 0),
    ("yahoo_actions.csv", "yahoo", "yahoo_actions", 10, "2023-02-06", 86_400, 152.5, 146.335269, 60_000_000),
    ("yfinance.csv", "yfinance", "MSFT", 10, "2023-02-06", 86_400, 254.5, None, 30_000_100),
    ("yfinance_history.csv", "yfinance_history", "yfinance_history", 10, "2023-02-06T05:00", 86_400, 410, None, 41_000_000),
    ("binance_ms.csv", "binance", "binance_ms", 8, "2020-09-30T23:59", 60, 4.152, None, 500.23),
    ("binance_us.csv", "binance", "binance_us", 8, "2025-01-01", 60, 4.152, None, 500.23),
    ("binance_mixed.csv", "binance", "binance_mixed", 16, "2024-12-31T23:52", 60, 4.152, None, 500.23),
    ("binance_futures.csv", "binance_with_header", "binance_futures", 8, "2023-12-01", 60, 4.152, None, 500.23),
    ("cryptodatadownload.csv", "cryptodatadownload", "BTC/USD", 8, "2022-03-01", 3_600, 43_200, 43_045.22, 7.1),
    ("cryptodatadownload_gemini.csv", "cryptodatadownload", "BTC/USD", 8, "2022-03-01", 3_600, 43_200, 43_045.22, 7.1),
    ("cryptodatadownload_date.csv", "cryptodatadownload_date", "BTCUSD", 8, "2022-03-01T08:00", 3_600, 43_200, 43_045.22, 7.1),
    ("stooq.csv", "stooq", "stooq", 10, "2023-02-06", 86_400, 98.2, None, 1_000),
    ("metatrader4.csv", "metatrader4", "metatrader4", 8, "2012-03-09T16:55", 60, 1.3121, 1.31235, 40),
    ("metatrader5.csv", "metatrader5", "metatrader5", 8, "2020-03-27T20:00", 3_600, 1.1212, None, 60),
    ("metatrader5_utf16.csv", "metatrader5", "metatrader5_utf16", 8, "2020-03-27T20:00", 3_600, 1.1212, None, 60),
    ("metatrader5_daily.csv", "metatrader5_daily", "metatrader5_daily", 8, "2023-02-06", 86_400, 1.1212, None, 60_000),
    ("tradingview.csv", "tradingview", "tradingview", 8, "2024-01-08T14:30", 300, 430.25, None, 900),
    ("tradingview_iso.csv", "tradingview", "tradingview_iso", 8, "2024-01-08T14:30", 300, 430.25, None, 900),
]


def ns(moment: str) -> int:
    return int(np.datetime64(moment, "ns").astype(int))


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor[0])
def test_a_vendors_file_is_read_as_the_vendor_means_it(
    vendor: tuple[str, str, str, int, str, int, float, float | None, float],
) -> None:
    name, dialect, symbol, n_bars, first, length_s, first_open, last_close, first_volume = vendor
    (recording,) = read_file(SAMPLES / name)
    report, bars = recording.report, recording.bars
    assert (report.dialect, recording.symbol, len(bars), report.interval_ns) == (dialect, symbol, n_bars, length_s * 10**9)
    assert recording.stamp_ns[0] == ns(first) == report.first_ns
    assert bars.time_ns[0] == ns(first) + length_s * 10**9, "the end of the bar, which the vendor stamps with its beginning"
    assert np.all(np.diff(recording.stamp_ns) > 0)
    assert np.all(bars.time_ns[:-1] <= recording.stamp_ns[1:]), "no bar ends after the next begins"
    assert bars.open[0] == first_open
    assert bars.volume[0] == first_volume
    assert last_close in (None, bars.close[-1])


@pytest.mark.long
def test_every_shipped_sample_is_of_one_dialect_alone_and_all_are_tried() -> None:
    detected = Counter(
        read_table(path, "auto").dialect_name for path in SAMPLES.iterdir() if path.suffix in (".csv", ".txt") and path.stem != "german"
    )
    assert set(detected) == {dialect for _, dialect, *_ in VENDORS} | {"stooq_bulk"}


def only(path: Path, policies: FaultPolicies | None = None) -> Recording:
    (recording,) = inspect_file(path, policies=policies)
    return recording


def test_a_null_row_of_yahoos_is_a_fault_with_its_line_and_can_be_dropped() -> None:
    path = SAMPLES / "yahoo.csv"
    with pytest.raises(FileFaultError, match=r"yahoo\.csv, line 5, column open, high, low, close: expected a finite number, received none"):
        read_file(path)
    (recording,) = read_file(path, policies=FaultPolicies(missing="drop"))
    assert len(recording.bars) == 9
    assert ns("2023-02-09") not in recording.stamp_ns
    assert recording.extras["adjusted_close"][0] == 150.093134


def test_a_dividends_row_is_no_bar_and_its_amount_belongs_to_the_bar_of_its_day() -> None:
    recording = only(SAMPLES / "yahoo_actions.csv")
    assert not recording.report.refusal()
    assert {int(stamp): amount for stamp, amount in zip(recording.stamp_ns, recording.extras["dividend"], strict=True) if amount} == {
        ns("2023-02-13"): 0.24
    }


def test_dividends_and_splits_of_yfinances_history_are_columns() -> None:
    extras = only(SAMPLES / "yfinance_history.csv").extras
    assert extras["dividend"].tolist() == [0, 0, 0, 0, 0.75, 0, 0, 0, 0, 0]
    assert extras["split"].tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 0]


def test_two_tickers_of_one_yfinance_file_are_two_recordings_and_a_day_that_one_lacks_is_no_fault() -> None:
    msft, tsla = read_file(SAMPLES / "yfinance_two.csv")
    assert (msft.symbol, len(msft.bars), tsla.symbol, len(tsla.bars)) == ("MSFT", 10, "TSLA", 9)
    assert (msft.bars.open[0], tsla.bars.open[0]) == (254.5, 171.25)
    assert ns("2023-02-08") in msft.stamp_ns
    assert ns("2023-02-08") not in tsla.stamp_ns


def test_the_symbols_of_a_column_are_recordings_of_their_own() -> None:
    apple, microsoft = read_file(SAMPLES / "stooq_bulk.txt")
    assert (apple.symbol, apple.report.dialect, len(apple.bars), microsoft.symbol, len(microsoft.bars)) == (
        "AAPL.US",
        "stooq_bulk",
        6,
        "MSFT.US",
        6,
    )
    assert apple.stamp_ns[0] == microsoft.stamp_ns[0] == ns("2023-02-06T15:30")
    assert any("Stooq" in note for note in apple.report.notes)


GERMAN = Dialect(
    delimiter=";",
    time=("Datum", "Uhrzeit"),
    open="Eröffnung",
    high="Hoch",
    low="Tief",
    close="Schluss",
    volume="Stück",
    symbol="Wertpapier",
    time_zone="Europe/Berlin",
    stamp="start",
    encoding="cp1252",
    decimal=",",
    thousands=".",
)


def test_an_own_mapping_reads_a_file_that_no_vendor_writes() -> None:
    (recording,) = read_file(SAMPLES / "german.csv", GERMAN)
    assert recording.symbol == "DAX"
    assert recording.bars.open[0] == 15_210.5
    assert recording.bars.volume[0] == 1_200
    assert recording.stamp_ns[0] == ns("2023-10-27T07:00"), "summer time"
    assert recording.stamp_ns[3] == ns("2023-10-30T08:00"), "winter time"


def test_the_same_mapping_without_its_separators_of_thousands_refuses_the_file() -> None:
    from dataclasses import replace

    with pytest.raises(FileFaultError, match=r"line 2, column eröffnung: expected a finite number, received '15.210,50'"):
        read_file(SAMPLES / "german.csv", replace(GERMAN, thousands=""))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delimiter": ""}, "delimiter: expected one character"),
        ({"delimiter": ".", "decimal": "."}, "delimiter: expected another character than decimal"),
        ({"currency": "1$"}, "currency: expected a sign or code without digits"),
        ({"currency": "-"}, "currency: expected a sign or code without digits"),
        ({"currency": " $"}, "currency: expected a sign or code without digits"),
        ({"currency": "a,b"}, "currency: expected a sign or code without digits"),
        ({"time_format": "DD-MMM"}, "time_format: expected auto, epoch"),
        ({"time_format": "DD-MM-MMM-YYYY"}, "time_format: expected auto, epoch"),
        ({"decimal": ",", "thousands": ",", "delimiter": ";"}, "thousands: expected another character"),
        ({"time_zone": "Mars/Base"}, "time_zone: expected UTC, an offset such as -05:00 or a name"),
        ({"time_format": "YYYY-DD"}, "time_format: expected auto, epoch"),
        ({"time_format": "sometimes"}, "time_format: expected auto, epoch"),
        ({"header_lines": 0}, "columns: expected the columns' names"),
        ({"time": ()}, "time: expected one column or two"),
        ({"encoding": "klingon"}, "encoding: expected auto or the name of an encoding"),
        ({"interval": "soon"}, "interval: expected a length such as 1min"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused_by_its_setting(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dialect(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("time_format", "texts"),
    [
        ("epoch_ms", ("1704153600000", "1704153660000")),
        ("epoch_us", ("1704153600000000", "1704153660000000")),
        ("epoch_ns", ("1704153600000000000", "1704153660000000000")),
        ("epoch_s", ("1704153600", "1704153660.0")),
        ("epoch", ("1704153600", "1704153660000")),
        ("excel", ("45293", "45293.00069444444")),
        ("DD-MM-YYYY hh:mm", ("02-01-2024 00:00", "02-01-2024 00:01")),
        ("MM/DD/YYYY hh:mm AM", ("01/02/2024 12:00 AM", "01/02/2024 12:01 AM")),
        ("YYYYMMDDhhmm", ("202401020000", "202401020001")),
        ("DD-MMM-YYYY hh:mm", ("2-Jan-2024 0:00", "02-JAN-2024 00:01")),
        ("DDMMMYYYY hh:mm", ("02JAN2024 00:00", "02Jan2024 00:01")),
        ("MMMM DD YYYY hh:mm AM", ("January 2 2024 12:00 AM", "january 02 2024 12:01 am")),
    ],
)
def test_a_time_format_that_is_named_reads_what_auto_refuses_or_may_mistake(
    time_format: str, texts: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,open,high,low,close\n" + "".join(f"{text},1,1,1,1\n" for text in texts))
    (recording,) = read_file(path, Dialect(time_format=time_format))
    assert np.abs(recording.bars.time_ns - [ns("2024-01-02"), ns("2024-01-02T00:01")]).max() < 1_000


@pytest.mark.long
def test_months_by_name_are_those_of_the_calendar(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    days = np.arange("2023-01-01", "2025-01-01", dtype="datetime64[D]").astype(object)
    for template, written in (("DD-MMM-YYYY", "%d-%b-%Y"), ("MMM DD, YYYY", "%b %d, %Y"), ("MMMM DD, YYYY", "%B %d, %Y")):
        path.write_text("time,open,high,low,close\n" + "".join(f'"{day:{written}}",1,1,1,1\n' for day in days))
        (recording,) = read_file(path, Dialect(time_format=template))
        assert recording.stamp_ns.tolist() == [ns(str(day)) for day in days]


@pytest.mark.parametrize("time", ["02-Okt-2024", "02-January-2024", "31-Feb-2024", "02-Jan-24"])
def test_a_month_of_another_language_or_length_is_refused(time: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"time,open,high,low,close\n{time},1,1,1,1\n")
    with pytest.raises(FileFaultError, match=f"line 2, column time: expected DD-MMM-YYYY, received '{time}'"):
        read_file(path, Dialect(time_format="DD-MMM-YYYY"))


@pytest.mark.parametrize(
    ("currency", "settings", "prices"),
    [
        ("$", {}, ["$1.5", "$2.5", "$ 1.5", "1.5$"]),
        ("$", {"thousands": ","}, ['"$1,001.5"', '"$1,002.5"', '"1,001.5"', '"$1,001.5"']),
        ("€", {"decimal": ",", "thousands": ".", "delimiter": ";"}, ["1.001,5 €", "1.002,5\u00a0€", "€1.001,5", "€ 1.001,5"]),
        ("EUR", {"delimiter": ";"}, ["EUR 1.5", "EUR2.5", "1.5 EUR", "1.5"]),
        ("kr.", {"decimal": ",", "thousands": ".", "delimiter": ";"}, ["kr. 1.001,5", "kr. 1.002,5", "1.001,5 kr.", "1001,5"]),
        ("", {"decimal": ","}, ['"1,5"', '"2,5"', '"1,5"', '"1,5"']),
        ("", {"decimal": ",", "thousands": "."}, ['"1.001,5"', '"1.002,5"', '"1001,5"', '"1.001,5"']),
    ],
)
@pytest.mark.parametrize("with_a_fault", [False, True])
def test_prices_with_a_currency_or_a_comma_in_quotation_marks_are_read(
    currency: str, settings: dict[str, Any], prices: list[str], with_a_fault: bool, tmp_path: Path
) -> None:
    """Whole blocks and, beside a row at fault, line by line."""
    path, delimiter = tmp_path / "a.csv", settings.get("delimiter", ",")
    rows = [["time", "open", "high", "low", "close", "volume"], ["2024-01-02", *prices, "7"], ["2024-01-03", *prices, "8"]]
    rows += [["2024-01-04", "much", *prices[1:], "9"]] * with_a_fault
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows), encoding="utf-8")
    (recording,) = read_file(path, Dialect(currency=currency, **settings), FaultPolicies(malformed="drop"))
    base = 1_000.0 if settings.get("thousands") else 0.0
    assert recording.bars.open.tolist() == recording.bars.low.tolist() == recording.bars.close.tolist() == [base + 1.5] * 2
    assert recording.bars.high.tolist() == [base + 2.5] * 2
    assert recording.bars.volume.tolist() == [7.0, 8.0]


@pytest.mark.parametrize("cell", ["$", "$$1", "1$2", "£1", "- $1", "$1$", "1 USD"])
def test_what_is_no_amount_of_the_currency_is_refused(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"time,open,high,low,close\n2024-01-02,$1,$1,$1,$1\n2024-01-03,{cell},$1,$1,$1\n", encoding="utf-8")
    with pytest.raises(FileFaultError, match=r"line 3, column open: expected a finite number, received"):
        read_file(path, Dialect(currency="$"))


def test_decimal_commas_without_quotation_marks_are_cells_too_many(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,open,high,low,close\n2024-01-02,1,5,2,5,1,5,1,5\n", encoding="utf-8")
    with pytest.raises(FileFaultError, match=r"line 2: expected 5 cells, received 9"):
        read_file(path, Dialect(decimal=","))


def test_an_unknown_dialect_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(
        FileFaultError, match=r"dialect: expected auto, plain, .*tradingview, or a table of an own one, received 'bloomberg'"
    ):
        read_file(SAMPLES / "stooq.csv", "bloomberg")
