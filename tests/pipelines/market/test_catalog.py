"""The catalog: which symbol is in which files, and its bars out of all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig, file_hash
from policyserver.pipelines.market.files.faults import FileFaultError

SAMPLES = Path(__file__).parent / "files" / "samples"
HEADER = "date,open,high,low,close,volume\n"


def month(folder: Path, name: str, first_day: int, n: int = 5, close: float = 10.0) -> Path:
    path = folder / name
    path.write_text(HEADER + "".join(f"2024-01-{day:02},10,12,9,{close},{day}\n" for day in range(first_day, first_day + n)))
    return path


def test_files_of_one_symbol_are_one_series_whatever_their_names_order(tmp_path: Path) -> None:
    for name, first in (("BTCUSDT-1d-2024-02.csv", 6), ("BTCUSDT-1d-2024-01.csv", 1), ("ETHUSDT-1d-2024-01.csv", 1)):
        month(tmp_path, name, first)
    catalog = Catalog(CatalogConfig((str(tmp_path),)))
    assert catalog.symbols == ("BTCUSDT", "ETHUSDT")
    assert [path.name for path in catalog.files_of("BTCUSDT")] == ["BTCUSDT-1d-2024-01.csv", "BTCUSDT-1d-2024-02.csv"]
    recording = catalog.load("BTCUSDT")
    assert recording.bars.volume.tolist() == list(range(1, 11))
    assert (recording.symbol, recording.report.n_bars) == ("BTCUSDT", 10)
    assert len(catalog.load("ETHUSDT").bars) == 5


def test_bars_that_two_files_have_alike_are_taken_once_and_others_refused(tmp_path: Path) -> None:
    config = CatalogConfig((str(tmp_path / "*.csv"),), symbol_pattern="(?P<symbol>[A-Z]+)_.*")
    month(tmp_path, "A_1.csv", 1)
    month(tmp_path, "A_2.csv", 4)
    assert Catalog(config).load("A").bars.volume.tolist() == list(range(1, 9))
    month(tmp_path, "A_2.csv", 4, close=11)
    with pytest.raises(FileFaultError, match=r"A_2\.csv: expected the bar of 2024-01-04T.* as in .*A_1\.csv, received other values"):
        Catalog(config).load("A")


def test_bars_of_two_lengths_are_no_series(tmp_path: Path) -> None:
    month(tmp_path, "A-1d-2024-01.csv", 1)
    (tmp_path / "A-1h-2024-02.csv").write_text(HEADER + "".join(f"2024-02-01 {hour:02}:00,10,12,9,10,1\n" for hour in range(5)))
    with pytest.raises(FileFaultError, match=r"A-1h-2024-02\.csv: expected bars of 1d as in .*A-1d-2024-01\.csv, received 1h"):
        Catalog(CatalogConfig((str(tmp_path),))).load("A")


def test_a_file_of_several_symbols_is_listed_under_each() -> None:
    catalog = Catalog(CatalogConfig((str(SAMPLES / "yfinance_two.csv"), str(SAMPLES / "stooq_bulk.txt"), str(SAMPLES / "yfinance.csv"))))
    assert catalog.symbols == ("AAPL.US", "MSFT", "MSFT.US", "TSLA")
    assert [path.name for path in catalog.files_of("MSFT")] == ["yfinance.csv", "yfinance_two.csv"]
    assert len(catalog.load("TSLA").bars) == 9
    np.testing.assert_array_equal(catalog.load("MSFT.US").bars.volume, np.arange(1_000, 1_006))


def test_a_path_without_a_file_and_a_name_without_a_symbol_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"paths: expected files of bars, received .*nothing"):
        Catalog(CatalogConfig((str(tmp_path / "nothing*"),)))
    month(tmp_path, "a.csv", 1)
    with pytest.raises(FileFaultError, match=r"a\.csv: expected a name like"):
        Catalog(CatalogConfig((str(tmp_path),), symbol_pattern="(?P<symbol>[A-Z]+)"))
    for pattern in ("(", "[A-Z]+"):
        with pytest.raises(ValueError, match="symbol_pattern: expected a "):
            CatalogConfig(("x",), symbol_pattern=pattern)


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
