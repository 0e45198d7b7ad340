"""What a file of bars could be mistaken for is refused, in one line with the file's name."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.market.files.dialect import Dialect
from policyserver.pipelines.market.files.faults import FileFaultError
from policyserver.pipelines.market.files.reader import read_file

HEADER = "name,date,open,high,low,close"


def text_of(*times: str) -> str:
    return "\n".join([HEADER, *(f"x,{time},1,1,1,1" for time in times)]) + "\n"


def written(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(Exception, match=r".") as caught:
        read_file(path)
    assert isinstance(caught.value, FileFaultError), f"what a wrong setting is made of, not {caught.value!r}"
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 500
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
        (("2040010215", "2040010216"), "expected ISO 8601, .*seconds since 1970"),
        (("0", "60"), "expected ISO 8601, .*seconds since 1970"),
        (("1024-01-02", "1024-01-03"), "expected ISO 8601"),
        (("2024-09-1", "2024-09-12"), "line 2, column date: expected ISO 8601"),
        (("2024-09-11 0:00", "2024-09-12 00:00"), "line 2, column date: expected ISO 8601"),
        (("2024-09-11 00:00+01:60", "2024-09-12 00:00+01:00"), "line 2, column date: expected ISO 8601"),
        (("2024-02-30", "2024-03-01"), "line 2, column date: expected ISO 8601"),
        (("2023-02-29", "2023-03-01"), "line 2, column date: expected ISO 8601"),
        (("2024-01-02 24:00", "2024-01-03 00:00"), "line 2, column date: expected ISO 8601"),
        (("2024-13-02", "2024-14-03"), "line 2, column date: expected ISO 8601"),
        (("99999999999999999999", "99999999999999999999"), "expected ISO 8601"),
        (("9999999999999999999", "9999999999999999999"), "expected ISO 8601"),
    ],
)
def test_times_that_could_be_something_else_are_refused(times: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text_of(*times))
    with pytest.raises(FileFaultError, match=message):
        read_file(path)
    refusal(path)


def test_dates_that_only_one_order_of_day_and_month_puts_in_order_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, text_of("11/01/2024", "12/01/2024", "01/02/2024"))
    days = [np.datetime64(day, "ns").astype(int) for day in ("2024-01-11", "2024-01-12", "2024-02-01")]
    assert read_file(path)[0].stamp_ns.tolist() == days


def test_where_either_order_of_rows_is_possible_it_does_not_tell_day_and_month_apart(tmp_path: Path) -> None:
    """2 January then 1 February, or descending: 1 February is read as 2 January and comes after it."""
    path = written(tmp_path, "Date,Open,High,Low,Close,Adj Close\n02/01/2024,1,1,1,1,1\n01/02/2024,1,1,1,1,1\n")
    assert "month/day/year or day/month/year" in refusal(path)


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
    assert "quot" in refusal(written(tmp_path, "\n".join([HEADER, *rows])))


def test_utf16_without_a_byte_order_mark_is_refused_with_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for encoding in ("utf-16-be", "utf-16-le"):
        path.write_text(text_of("2024-01-02"), encoding=encoding)
        assert "UTF-16" in refusal(path)


def test_bytes_of_another_encoding_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text_of("2024-01-02").encode() + "Börse,2024-01-03,1,1,1,1\n".encode("latin-1"))
    assert "line 3: expected UTF-8, received the byte 0xf6" in refusal(path)


def test_the_mark_at_the_beginning_of_utf8_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,open,high,low,close\n2024-01-02,1,1,1,1\n", encoding="utf-8-sig")
    assert len(read_file(path)[0].bars) == 1


def test_a_gzip_file_that_is_cut_or_damaged_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    rng = np.random.default_rng(1)
    whole = gzip.compress(text_of(*(f"2024-01-{day:02},{rng.random()}"[:10] for day in range(1, 29))).encode())
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (whole[:-12], whole[: len(whole) // 2], bytes(damaged), b"no gzip at all"):
        path.write_bytes(content)
        assert "gzip" in refusal(path)


def test_a_zip_archive_has_one_file_and_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 no archive")
    assert "zip" in refusal(path)


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "date,open,high,low,close,Close\n2024-01-02,1,1,1,1,9\n")
    assert "line 1: expected each column once, received close more often" in refusal(path)


@pytest.mark.parametrize("price", ["1e308", "1e16", "1e-16", "5e-324", "inf"])
def test_a_price_no_account_could_reckon_with_is_refused_by_its_row(price: str, tmp_path: Path) -> None:
    path = written(tmp_path, text_of("2024-01-02") + f"x,2024-01-03,{price},{price},{price},{price}\n")
    assert "line 3, column open: expected a price from 1e-15 to 1e+15" in refusal(path)


@pytest.mark.parametrize("number", ["1_000", "0x10", "1,5", "1.234,5", "12 %", "--1", "1e", "\u22121", "\u0663"])
def test_what_is_no_number_is_not_made_one(number: str, tmp_path: Path) -> None:
    path = written(tmp_path, text_of("2024-01-02") + f'x,2024-01-03,"{number}",1,1,1\n')
    assert "line 3, column open: expected a finite number, received" in refusal(path)


def test_a_thousands_separator_out_of_its_place_is_refused(tmp_path: Path) -> None:
    """1,23 with a comma for thousands is 1.23 written by somebody else, not 123."""
    path = written(
        tmp_path, 'date,open,high,low,close\n2024-01-02,"1,234.5","1,234.5","1,234.5","1,234.5"\n2024-01-03,"1,23","1,23","1,23","1,23"\n'
    )
    with pytest.raises(FileFaultError, match=r"line 3, column open: expected a finite number, received '1,23'"):
        read_file(path, Dialect(thousands=","))


def test_a_file_of_another_delimiter_is_refused_by_its_header(tmp_path: Path) -> None:
    assert "line 1: expected the columns open, high, low, close" in refusal(written(tmp_path, text_of("2024-01-02").replace(",", ";")))


BAR = "1,2,1,2"


@pytest.mark.parametrize(
    ("lines", "remedy", "setting"),
    [
        (["date;open;high;low;close", "2024-01-02;1;2;1;2"], 'set mapping.delimiter = ";"', {"delimiter": ";"}),
        (["date\topen\thigh\tlow\tclose", "2024-01-02\t1\t2\t1\t2"], 'set mapping.delimiter = "\\t"', {"delimiter": "\t"}),
        (["date|open|high|low|close", "2024-01-02|1|2|1|2"], 'set mapping.delimiter = "|"', {"delimiter": "|"}),
        (["date,open,high,low,last", f"2024-01-02,{BAR}"], "set mapping.close", {"close": "last"}),
        (
            ["date,o,h,l,c", f"2024-01-02,{BAR}"],
            "set mapping.open, mapping.high, mapping.low, mapping.close",
            {"open": "o", "high": "h", "low": "l", "close": "c"},
        ),
        (
            [f"2024-01-02,{BAR}"],
            "for a file without header set mapping.header_lines = 0 and mapping.columns",
            {"header_lines": 0, "columns": ("date", "open", "high", "low", "close")},
        ),
        (["gmt,open,high,low,close", f"2024-01-02,{BAR}"], "set mapping.time", {"time": ("gmt",)}),
        (["date,open,high,low,close", f"02-01-2024,{BAR}"], "set mapping.time_format, such as", {"time_format": "DD-MM-YYYY"}),
        (["date,open,high,low,close", f"03/04/2024,{BAR}"], "set mapping.time_format, such as", {"time_format": "DD/MM/YYYY"}),
        (["date,open,high,low,close", f"02-Jan-2024,{BAR}"], 'such as "DD-MMM-YYYY"', {"time_format": "DD-MMM-YYYY"}),
        (["date,open,high,low,close", "2024-01-02,$1,$2,$1,$2"], 'set mapping.currency = "$"', {"currency": "$"}),
        (["date,open,high,low,close", "2024-01-02,1 €,2 €,1 €,2 €"], 'set mapping.currency = "€"', {"currency": "€"}),
        (["date,open,high,low,close", f"45292,{BAR}"], 'set mapping.time_format = "excel"', {"time_format": "excel"}),
        (["date,open,high,low,close", f"1704153600000,{BAR}"], 'set mapping.time_format = "epoch_ms"', {"time_format": "epoch_ms"}),
        (
            ["date,open,high,low,close", '2024-01-02,"1,500","2,500","1,500","2,500"'],
            "set mapping.decimal or mapping.thousands",
            {"thousands": ","},
        ),
        (
            ["date,open,high,low,close", f"2024-01-03,{BAR}", f"2024-01-02,{BAR}"],
            'faults.disorder = "keep" sorts such rows into their place',
            {"order": "descending"},
        ),
    ],
)
def test_a_refusal_says_what_to_set_and_that_is_enough(lines: list[str], remedy: str, setting: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join(lines))
    assert remedy in refusal(path)
    (recording,) = read_file(path, Dialect(**setting))
    assert len(recording.bars) == len(lines) - ("header_lines" not in setting)


def test_a_decimal_comma_is_told_of_once_the_delimiter_is_set(tmp_path: Path) -> None:
    path = written(tmp_path, "date;open;high;low;close\n2024-01-02;1,5;2,5;1,5;2,5\n")
    with pytest.raises(FileFaultError, match=r"column open: expected a finite number, received '1,5': set mapping\.decimal"):
        read_file(path, Dialect(delimiter=";"))
    assert read_file(path, Dialect(delimiter=";", decimal=","))[0].bars.close.tolist() == [2.5]
