"""Parquet: the same bars as the same data in a CSV file, and faults by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from policyserver.pipelines.market.bars import Bars
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.files.reader import read_file

TIMES = np.arange("2024-01-02T10:00", "2024-01-02T10:30", dtype="M8[m]")


def columns() -> dict[str, Any]:
    close = 100 + np.arange(30) / 8
    return {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": np.arange(1, 31)}


def write(path: Path, **times: Any) -> Path:
    parquet.write_table(pa.table({**times, **columns()}), path)
    return path


@pytest.mark.parametrize(
    "times",
    [
        {"Date": pa.array(TIMES.astype("M8[us]"))},
        {"timestamp": pa.array(TIMES.astype("M8[ns]"), pa.timestamp("ns", "America/New_York"))},
        {"time": pa.array(TIMES.astype("M8[s]").astype(np.int64))},
        {"time": pa.array([str(moment) for moment in TIMES])},
        {"__index_level_0__": pa.array(TIMES.astype("M8[ms]"))},
        {"date": pa.array([str(moment)[:10] for moment in TIMES]), "time": pa.array([str(moment)[11:] for moment in TIMES])},
    ],
    ids=["timestamp", "of a zone", "seconds", "texts", "pandas' index", "date and time"],
)
def test_a_parquet_file_has_the_bars_of_the_csv_file(times: dict[str, Any], tmp_path: Path) -> None:
    table = columns()
    text = "\n".join(f"{moment},{','.join(str(values[i]) for values in table.values())}" for i, moment in enumerate(TIMES))
    (tmp_path / "b.csv").write_text("time,open,high,low,close,volume\n" + text)
    (one,), (other,) = read_file(write(tmp_path / "b.parquet", **times)), read_file(tmp_path / "b.csv")
    assert one.symbol == other.symbol == "b"
    for name in Bars.__slots__:
        np.testing.assert_array_equal(getattr(one.bars, name), getattr(other.bars, name))


def test_a_fault_has_its_row(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    table = columns() | {"date": TIMES.astype("M8[us]")}
    table["high"] = np.where(np.arange(30) == 6, 1.0, table["high"])
    parquet.write_table(pa.table(table), path)
    with pytest.raises(FileFaultError, match=r"b\.parquet, line 7: expected low <= open"):
        read_file(path)


def test_what_is_no_parquet_or_lacks_a_column_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(FileFaultError, match=r"b\.parquet: expected a whole Parquet file"):
        read_file(path)
    parquet.write_table(pa.table({"date": TIMES.astype("M8[us]"), "close": np.ones(30)}), path)
    with pytest.raises(FileFaultError, match=r"b\.parquet: expected the columns open, high, low, close, received .*: set mapping.open, "):
        read_file(path)
