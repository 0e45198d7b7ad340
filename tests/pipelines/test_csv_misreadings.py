"""What a file of bars could be mistaken for is refused, in one line with the file's name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from policyserver.pipelines.csv_bars import read_csv_bars

HEADER = "name,date,open,high,low,close"


def text_of(*times: str) -> str:
    return "\n".join([HEADER, *(f"x,{time},1,1,1,1" for time in times)]) + "\n"


def refusal(path: Path) -> str:
    with pytest.raises(Exception, match=r".") as caught:
        read_csv_bars(path)
    assert isinstance(caught.value, ValueError), f"what a wrong setting is made of, not {caught.value!r}"
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 400
    return message


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (("03/04/2024", "04/04/2024", "05/04/2024"), "line 2, column date: .* received '03/04/2024', month/day/year or day/month/year"),
        (("01/01/2024", "02/01/2024"), "line 3, column date: expected dates that can be read in one way"),
        (("45292", "45293"), "line 2, column date: .* received '45292', probably days since 1900, as Excel counts them"),
        (("45292.5", "45292.75"), "probably days since 1900"),
        (("1704153600000", "1704153660000"), "received '1704153600000', probably milliseconds since 1970"),
        (("1704153600000000", "1704153660000000"), "probably microseconds since 1970"),
        (("1704153600000000000", "1704153660000000000"), "probably nanoseconds since 1970"),
        (("2040010215", "2040010216"), "expected ISO 8601, seconds since 1970"),
        (("0", "60"), "expected ISO 8601, seconds since 1970"),
        (("1024-01-02", "1024-01-03"), "expected ISO 8601"),
    ],
)
def test_times_that_could_be_something_else_are_refused(times: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of(*times), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_csv_bars(path)
    refusal(path)


def test_dates_that_only_one_order_of_day_and_month_puts_in_order_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of("11/01/2024", "12/01/2024", "01/02/2024"), encoding="utf-8")
    days = [np.datetime64(day, "ns").astype(int) for day in ("2024-01-11", "2024-01-12", "2024-02-01")]
    assert read_csv_bars(path).time_ns.tolist() == days


@pytest.mark.parametrize(
    "rows",
    [
        ['"x,2024-01-02,1,1,1,1', "x,2024-01-03,1,1,1,1", "x,2024-01-04,1,1,1,1"],
        ['"x,2024-01-02,1,1,1,1', "x,2024-01-03,1,1,1,1", 'x",2024-01-04,1,1,1,1'],
        ["x,2024-01-02,1,1,1,1", '"x,2024-01-03,1,1,1,1', *["x,2024-01-03,1,1,1,1"] * 10_000],
    ],
    ids=["open to the end", "closed two lines later", "longer than a cell may be"],
)
def test_an_unbalanced_quotation_mark_swallows_no_row(rows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    assert "quot" in refusal(path)


def test_bytes_that_are_not_utf8_are_refused_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for encoding in ("utf-16", "utf-16-le"):
        path.write_text(text_of("2024-01-02"), encoding=encoding)
        assert "UTF-16" in refusal(path)


def test_the_mark_at_the_beginning_of_utf8_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,open,high,low,close\n2024-01-02,1,1,1,1\n", encoding="utf-8-sig")
    assert len(read_csv_bars(path)) == 1


def test_a_gzip_file_that_is_cut_or_damaged_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    rng = np.random.default_rng(1)
    whole = gzip.compress(text_of(*(f"2024-01-{day:02},{rng.random()}"[:10] for day in range(1, 29))).encode())
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (whole[:-12], whole[: len(whole) // 2], bytes(damaged), b"no gzip at all"):
        path.write_bytes(content)
        assert "gzip" in refusal(path)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,open,high,low,close,Close\n2024-01-02,1,1,1,1,9\n", encoding="utf-8")
    assert "line 1: expected each column once, received close more often" in refusal(path)


@pytest.mark.parametrize("price", ["1e308", "1e16", "1e-16", "5e-324"])
def test_a_price_no_account_could_reckon_with_is_refused_by_its_row(price: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text_of("2024-01-02") + f"x,2024-01-03,{price},{price},{price},{price}\n", encoding="utf-8")
    assert "line 3, column open: expected a price from 1e-15 to 1e+15" in refusal(path)
