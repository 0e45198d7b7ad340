"""Bars are read whole from CSV files, plain or gzipped; episodes are windows that the seed chooses, and a malformed line is named."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.csv_bars import parse_csv_bars, read_csv_bars
from policyserver.pipelines.prices import PricesConfig, make_source

HEADER = "Date,Open,High,Low,Close,Volume"
GOOD = ["2024-01-02,10,12,9,11,5", "2024-01-03,11,13,10,12,0"]


def index_series(name: str) -> Path:
    """The file of a real daily index series that comes with the package arch."""
    spec = importlib.util.find_spec(f"arch.data.{name}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name(f"{name}.csv.gz")


def test_a_real_index_series_is_read_whole() -> None:
    bars = read_csv_bars(index_series("sp500"))
    assert len(bars) == 5031
    assert bars.open[0] == pytest.approx(1229.22998)
    assert bars.close[0] == pytest.approx(1228.099976)
    assert bars.volume[0] == 877_000_000
    assert bars.time_ns[0] == np.datetime64("1999-01-04", "ns").astype(int)
    assert np.all(np.diff(bars.time_ns) > 0)


def test_episodes_are_windows_of_the_files_chosen_by_the_seed() -> None:
    files = (index_series("sp500"), index_series("nasdaq"))
    config = PricesConfig(process="csv", csv_files=files, warmup_bars=30, bars_per_episode=50)
    source, again, other = make_source(config, 1), make_source(config, 1), make_source(config, 2)
    assert source.symbols == ("sp500", "nasdaq")
    numbers = range(1, 41, 2)
    starts = []
    for played, repeated in zip(source.episodes(numbers), again.episodes(numbers), strict=True):
        assert played.symbols == ("nasdaq",)
        first = int(played.bars.parameters["first_row"])
        np.testing.assert_array_equal(played.bars.bars, read_csv_bars(files[1]).slice(first, first + 80).columns())
        np.testing.assert_array_equal(played.bars.bars, repeated.bars.bars)
        assert (played.first_row, played.bars.n_steps) == (first, 50)
        history = played.histories["nasdaq"]
        assert (len(history.bars), history.window_bars) == (len(read_csv_bars(files[1])), 80)
        starts.append(first)
    assert len(set(starts)) > 15
    assert starts != [other_episode.first_row for other_episode in other.episodes(numbers)]


def test_a_file_of_exactly_one_episode_has_one_window(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    path.write_text("\n".join([HEADER, *GOOD]))
    source = make_source(PricesConfig(process="csv", csv_files=(path,), warmup_bars=1, bars_per_episode=1), 5)
    assert {played.first_row for played in source.episodes(range(10))} == {0}


def test_columns_are_found_by_name_in_any_order_and_case_and_others_are_ignored() -> None:
    bars = parse_csv_bars(["close , LOW,adj close,time,High,oPEN", "11,9,99,1704153600,12,10", ""], "x.csv")
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0], bars.volume[0]) == (10, 12, 9, 11, 0)
    assert bars.time_ns[0] == np.datetime64("2024-01-02", "ns").astype(int)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("2024-01-02", "2024-01-13"), ("2024-01-02", "2024-01-13")),
        (("2024-01-02T10:00:00+02:00", "2024-01-02T10:00:00Z"), ("2024-01-02T08:00", "2024-01-02T10:00")),
        (("1/2/2024", "1/13/2024"), ("2024-01-02", "2024-01-13")),
        (("2/1/2024", "13/1/2024"), ("2024-01-02", "2024-01-13")),
    ],
)
def test_the_format_of_the_times_is_the_one_that_fits_the_whole_column(texts: tuple[str, str], expected: tuple[str, str]) -> None:
    bars = parse_csv_bars(["time,open,high,low,close", *(f"{text},1,1,1,1" for text in texts)], "x.csv")
    assert bars.time_ns.tolist() == [np.datetime64(moment, "ns").astype(int) for moment in expected]


def test_a_gzipped_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    text = "\n".join([HEADER, *GOOD])
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    plain, zipped = read_csv_bars(tmp_path / "a.csv"), read_csv_bars(tmp_path / "a.csv.gz")
    np.testing.assert_array_equal(plain.close, zipped.close)
    np.testing.assert_array_equal(plain.time_ns, zipped.time_ns)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: expected the columns open, high, low, close"),
        (["Date,Open,High,Low"], "line 1: .*close missing"),
        (["Open,High,Low,Close"], "line 1: expected a column named date"),
        ([HEADER, GOOD[0], "2024-01-03,11,x,10,12,0"], "line 3, column high: expected a finite number, received 'x'"),
        ([HEADER, "2024-01-03,11,nan,10,12,0"], "line 2, column high: expected a finite number"),
        ([HEADER, "2024-01-03,11,13,-1,12,0"], "line 2, column low: expected a positive price"),
        ([HEADER, "2024-01-03,11,11.5,10,12,0"], "line 2: expected low <= open, close <= high"),
        ([HEADER, "2024-01-03,11,13,10,12,-4"], "line 2, column volume: expected at least 0"),
        ([HEADER, "2024-01-03,11,13,10,12"], "line 2: expected 6 cells, received 5"),
        ([HEADER, GOOD[1], GOOD[0]], "line 3, column date: expected a time after the row before"),
        ([HEADER, GOOD[0], GOOD[0]], "line 3, column date: expected a time after the row before"),
        ([HEADER, "yesterday,11,13,10,12,0"], "line 2, column date: expected ISO 8601, seconds since 1970, .*, received 'yesterday'"),
        ([HEADER, GOOD[0], "yesterday,11,13,10,12,0"], "line 3, column date: expected ISO 8601"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^x\.csv, {message}"):
        parse_csv_bars(lines, "x.csv")


def test_a_file_shorter_than_an_episode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.csv"
    path.write_text("\n".join([HEADER, *GOOD]))
    with pytest.raises(ValueError, match=r"short\.csv: expected at least warmup_bars \+ bars_per_episode = 3 bars, received 2"):
        make_source(PricesConfig(process="csv", csv_files=(path,), warmup_bars=1, bars_per_episode=2), 1)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for one, other in (("x/a.csv", "y/a.csv"), ("a.csv", "a.csv.gz"), ("BRK.A.txt", "BRK.A")):
        with pytest.raises(ValueError, match=rf"csv_files: expected files of different symbols, received {one} and {other}, both"):
            PricesConfig(process="csv", csv_files=(Path(one), Path(other)))


def test_a_dot_in_a_symbol_belongs_to_it(tmp_path: Path) -> None:
    names = ("BRK.A.csv", "BRK.B.csv", "spy.us.txt", "RDS.A.CSV", "bars", "BF.B")
    for name in names:
        (tmp_path / name).write_text("\n".join([HEADER, *GOOD]))
    paths = tuple(tmp_path / name for name in names)
    source = make_source(PricesConfig(process="csv", csv_files=paths, warmup_bars=1, bars_per_episode=1), 1)
    assert source.symbols == ("BRK.A", "BRK.B", "spy.us", "RDS.A", "bars", "BF.B")
    assert [played.symbols for played in source.episodes([1, 7])] == [("BRK.B",), ("BRK.B",)]
