"""A plain file: columns by name, times as they are written, every fault with its physical line."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.files.reader import read_file, symbol_of
from tests.pipelines.recorded_prices import index_series

HEADER = "Date,Open,High,Low,Close,Volume"
GOOD = ["2024-01-02,10,12,9,11,5", "2024-01-03,11,13,10,12,0"]


def bars_of(folder: Path, *lines: str) -> Bars:
    path = folder / "x.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_file(path, Dialect(stamp="end"))[0].bars


def test_a_real_index_series_is_read_whole() -> None:
    (recording,) = read_file(index_series("sp500"), "plain")
    bars = recording.bars
    assert len(bars) == 5031
    assert bars.open[0] == pytest.approx(1229.22998)
    assert bars.close[0] == pytest.approx(1228.099976)
    assert bars.volume[0] == 877_000_000
    assert recording.stamp_ns[0] == np.datetime64("1999-01-04", "ns").astype(int)
    assert bars.time_ns[0] == np.datetime64("1999-01-05", "ns").astype(int)
    assert np.all(np.diff(bars.time_ns) > 0)


def test_columns_are_found_by_name_in_any_order_and_case_and_others_are_ignored(tmp_path: Path) -> None:
    bars = bars_of(tmp_path, "close , LOW,adj close,time,High,oPEN", "11,9,99,1704153600,12,10", "")
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]) == (10, 12, 9, 11, 0)
    assert bars.time_ns[0] == np.datetime64("2024-01-02", "ns").astype(int)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("2024-01-02", "2024-01-13"), ("2024-01-02", "2024-01-13")),
        (("2024-01-02T10:00:00+02:00", "2024-01-02T10:00:00Z"), ("2024-01-02T08:00", "2024-01-02T10:00")),
        (("2024-01-02T10:00:00.5", "2024-01-02 10:00:00.123456789"), None),
        (("2024-01-02 10:00", "2024-01-02 10:00:00.25-0530"), ("2024-01-02T10:00", "2024-01-02T15:30:00.25")),
        (("1/2/2024", "1/13/2024"), ("2024-01-02", "2024-01-13")),
        (("2/1/2024", "13/1/2024"), ("2024-01-02", "2024-01-13")),
        (("31.12.2023", "1.1.2024 09:30"), ("2023-12-31", "2024-01-01T09:30")),
        (("2024.02.28", "2024.02.29"), ("2024-02-28", "2024-02-29")),
        (("20240102", "20240103 093000"), ("2024-01-02", "2024-01-03T09:30")),
        (("1704153600", "1704153600.25"), ("2024-01-02", "2024-01-02T00:00:00.25")),
        (("1960-02-29", "2000-02-29"), ("1960-02-29", "2000-02-29")),
        ((" 2024-01-02", "2024-01-03 "), ("2024-01-02", "2024-01-03")),
    ],
)
def test_the_format_of_the_times_is_the_one_that_fits_the_whole_column(
    texts: tuple[str, str], expected: tuple[str, str] | None, tmp_path: Path
) -> None:
    lines = ("time,open,high,low,close", *(f"{text},1,1,1,1" for text in texts))
    if expected is None:
        with pytest.raises(FileFaultError, match=r"line 3.*after the row before"):
            bars_of(tmp_path, *lines)
    else:
        assert bars_of(tmp_path, *lines).time_ns.tolist() == [np.datetime64(moment, "ns").astype(int) for moment in expected]


@pytest.mark.long
def test_every_day_of_four_centuries_is_the_calendars(tmp_path: Path) -> None:
    """The arithmetic of dates against numpy's, over a whole cycle of leap years of what can be counted in nanoseconds."""
    days = np.arange("1700-01-01", "2250-01-01", dtype="M8[D]")
    bars = bars_of(tmp_path, "date,open,high,low,close", *(f"{day},1,1,1,1" for day in days))
    np.testing.assert_array_equal(bars.time_ns, days.astype("M8[ns]").astype(np.int64))


def test_packed_files_read_like_a_plain_one(tmp_path: Path) -> None:
    text = "\n".join([HEADER, *GOOD])
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", text)
    plain, *packed = [read_file(tmp_path / name)[0] for name in ("a.csv", "a.csv.gz", "a.zip")]
    for other in packed:
        assert other.symbol == plain.symbol == "a"
        np.testing.assert_array_equal(plain.bars.close, other.bars.close)
        np.testing.assert_array_equal(plain.bars.time_ns, other.bars.time_ns)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: expected the columns open, high, low, close"),
        (["Date,Open,High,Low"], "line 1: expected the columns open, high, low, close, received .*: set mapping.close"),
        (["Open,High,Low,Close"], "line 1: expected a column named date"),
        ([HEADER], "line 2: expected rows of bars, received none"),
        ([HEADER, GOOD[0], "2024-01-03,11,x,10,12,0"], "line 3, column high: expected a finite number, received 'x'"),
        ([HEADER, "2024-01-03,11,nan,10,12,0"], "line 2, column high: expected a finite number"),
        ([HEADER, "2024-01-03,11,13,-1,12,0"], "line 2, column low: expected a positive price"),
        ([HEADER, "2024-01-03,11,11.5,10,12,0"], "line 2: expected low <= open, close <= high"),
        ([HEADER, "2024-01-03,11,13,10,12,-4"], "line 2, column volume: expected at least 0"),
        ([HEADER, "2024-01-03,11,13,10,12"], "line 2: expected 6 cells, received 5"),
        ([HEADER, GOOD[1], GOOD[0]], "line 3: expected a time after the row before"),
        ([HEADER, GOOD[0], GOOD[0]], "line 3: expected a time after the row before"),
        ([HEADER, "yesterday,11,13,10,12,0"], "line 2, column date: expected ISO 8601, .*seconds since 1970, .*, received 'yesterday'"),
        ([HEADER, *GOOD, "yesterday,11,13,10,12,0"], "line 4, column date: expected ISO 8601"),
        ([HEADER, "", GOOD[0], "", "", "2024-01-03,11,x,10,12,0"], "line 6, column high: expected a finite number"),
        (["", HEADER, GOOD[0], "2024-01-03,11,x,10,12,0"], "line 4, column high: expected a finite number"),
        ([HEADER, "", GOOD[0], "", "", "2024-01-03,11,11.5,10,12,0"], "line 6: expected low <= open"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(FileFaultError, match=rf"x\.csv, {message}"):
        bars_of(tmp_path, *lines)


@pytest.mark.long
def test_lines_are_the_files_own_beyond_the_first_block_and_with_carriage_returns(tmp_path: Path) -> None:
    rows = [f"{1_600_000_000 + 60 * i},10,12,9,11,5" for i in range(120_000)]
    rows[100_000] = "1606000000,10,12,9,x,5"
    path = tmp_path / "x.csv"
    path.write_text("\r\n".join(["time,open,high,low,close,volume", "", *rows]), encoding="utf-8", newline="")
    with pytest.raises(FileFaultError, match=r"line 100003, column close: expected a finite number, received 'x'"):
        read_file(path)
    rows[100_000] = rows[99_999]
    path.write_text("\r\n".join(["time,open,high,low,close,volume", "", *rows]), encoding="utf-8", newline="")
    with pytest.raises(FileFaultError, match=r"line 100003: .*which line 100002 has"):
        read_file(path)


def test_a_dot_in_a_symbol_belongs_to_it_and_vendors_names_hold_one() -> None:
    names = {
        "BRK.A.csv": "BRK.A",
        "spy.us.txt": "spy.us",
        "RDS.A.CSV.gz": "RDS.A",
        "bars": "bars",
        "BF.B": "BF.B",
        "BTCUSDT-1m-2024-01.zip": "BTCUSDT",
        "ETHUSDT-1d-2024-01-31.csv": "ETHUSDT",
        "DAT_ASCII_EURUSD_M1_2012.csv": "EURUSD",
        "DAT_MT_EURUSD_M1_201202.csv.gz": "EURUSD",
        "BTC-USD.parquet": "BTC-USD",
    }
    assert {name: symbol_of(Path(name)) for name in names} == names
