"""The shipped dialects, and which of them a file is written in. Sources: tests/pipelines/market/files/samples/README.md."""

from __future__ import annotations

import re

from policyserver.pipelines.market.files.dialect import Dialect

_BAR = ("open", "high", "low", "close", "volume")
_KLINE = (*_BAR, "close_time", "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore")
_BULK = ("ticker", "per", "date", "time", "open", "high", "low", "close", "vol", "openint")
_UNIX = {"symbol": "symbol", "volume": "volume*", "stamp": "start", "order": "either"}

DIALECTS: dict[str, Dialect] = {
    "plain": Dialect(),
    "date_time": Dialect(time=("date", "time")),
    "histdata_ascii": Dialect(delimiter=";", header_lines=0, columns=("time", *_BAR), time=("time",), time_zone="-05:00", stamp="start"),
    "histdata_mt": Dialect(header_lines=0, columns=("date", "time", *_BAR), time=("date", "time"), time_zone="-05:00", stamp="start"),
    "yahoo": Dialect(adjusted_close="adj close|adj_close|adjusted close", stamp="start", order="either", action_rows=True),
    "yfinance": Dialect(header_lines=3, adjusted_close="adj close", dividend="dividends", split="stock splits", stamp="start"),
    "yfinance_history": Dialect(adjusted_close="adj close", dividend="dividends", split="stock splits", stamp="start"),
    "binance": Dialect(header_lines=0, columns=("open_time", *_KLINE), time=("open_time",), time_format="epoch", stamp="start"),
    "binance_with_header": Dialect(time=("open_time",), time_format="epoch", stamp="start"),
    "cryptodatadownload": Dialect(time=("unix|unix timestamp",), time_format="epoch", **_UNIX),  # type: ignore[arg-type]
    "cryptodatadownload_date": Dialect(time=("date",), **_UNIX),  # type: ignore[arg-type]
    "stooq": Dialect(
        time=("data|date",),
        open="otwarcie|open",
        high="najwyzszy|high",
        low="najnizszy|low",
        close="zamkniecie|close",
        volume="wolumen|volume",
        stamp="start",
    ),
    "stooq_bulk": Dialect(time=("date", "time"), time_format="YYYYMMDD hhmmss", symbol="ticker", volume="vol", stamp="start"),
    "metatrader4": Dialect(header_lines=0, columns=("date", "time", *_BAR), time=("date", "time"), stamp="start"),
    "metatrader5": Dialect(delimiter="\t", time=("date", "time"), volume="tickvol", stamp="start"),
    "metatrader5_daily": Dialect(delimiter="\t", time=("date",), volume="tickvol", stamp="start"),
    "tradingview": Dialect(time=("time",), stamp="start"),
}
"""By name. A vendor that stamps the beginning of a bar has a dialect that says so; `plain` and `date_time` leave `stamp` open."""

_SIGNS = (
    ("histdata_ascii", r"\d{8} \d{6};"),
    # Both are made for MetaTrader 4, whose own exports have volumes and a broker's times.
    ("histdata_mt", r"\d{4}\.\d\d\.\d\d,\d\d:\d\d,([^,\n]+,){4}0\r?\n"),
    ("metatrader4", r"\d{4}\.\d\d\.\d\d,\d\d:\d\d,([^,\n]+,){4}[^,\n]+\n"),
    ("binance", r"(\d{13}|\d{16}),([^,\n]+,){10}[^,\n]+\n"),
    ("binance_with_header", r"open_time,open,high,low,close,volume,close_time,"),
    ("cryptodatadownload", r'(https?://[^\n]*\n)?"?unix( timestamp)?"?,.*"?open"?,'),
    ("cryptodatadownload_date", r'https?://[^\n]*cryptodatadownload[^\n]*\n"?date'),
    ("yfinance", r"(price|ticker),[^\n]*\n(ticker|price),[^\n]*\n(date|datetime),"),
    ("yfinance_history", r'"?(date|datetime)"?,[^\n]*dividends,stock splits'),
    ("yahoo", r'"?date"?,[^\n]*adj(usted|_|\s)+close'),
    ("stooq_bulk", r"<ticker>,<per>,<date>,<time>,"),
    ("stooq", r"data,otwarcie,najwyzszy,najnizszy,zamkniecie"),
    ("metatrader5", r"<date>\t<time>\t<open>"),
    ("metatrader5_daily", r"<date>\t<open>"),
    ("tradingview", r"(?-i:time,open,high,low,close,[A-Z])"),
    ("date_time", r'(?=[^\n]*\bopen\b)"?date"?,"?time"?,'),
)

FILE_NAMES = (
    r"DAT_(?:ASCII|MT)_(?P<symbol>[A-Z0-9]+)_M1_\d{4,6}",
    r"(?P<symbol>[A-Z0-9_]+)-\d+(?:s|m|h|d|w|mo)-\d{4}-\d\d(?:-\d\d)?",
)
"""How vendors name files of one symbol and a span of time (HistData, Binance)."""

UNSTATED_ZONES = {
    "metatrader4": "a broker's server time, which the file does not name",
    "metatrader5": "a broker's server time, which the file does not name",
    "metatrader5_daily": "a broker's server time, which the file does not name",
    "stooq_bulk": "a zone that Stooq's files do not name",
    "stooq": "the exchange's days",
    "yahoo": "the exchange's days",
    "yfinance": "the exchange's days or UTC",
}
"""Dialects whose times are of a zone that the file does not name, and what it is; where it matters, set `time_zone`."""


def detect(head: str) -> str:
    """Return the name of the dialect that the first lines of a file are written in; `plain` where no other's signs are there."""
    return next((name for name, sign in _SIGNS if re.match(sign, head.lstrip("\r\n") + "\n", flags=re.IGNORECASE)), "plain")
