"""A dialect: how a file writes its bars. Shipped ones are in `vendors`; an own one is a table of TOML.

[mapping]
delimiter = ";"
decimal = ","
time = ["Datum", "Uhrzeit"]
time_zone = "Europe/Berlin"
stamp = "start"
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from policyserver.common.settings import Config
from policyserver.pipelines.market.files.time_formats import format_of
from policyserver.pipelines.market.intervals import parse_interval
from policyserver.pipelines.market.zones import zone_of

PRICES = ("open", "high", "low", "close")
"""Columns that must be there."""

EXTRAS = ("volume", "adjusted_close", "dividend", "split")
"""Columns of numbers that may be there."""


@dataclass(frozen=True, slots=True)
class Dialect(Config):
    """How a file writes its bars.

    A column is named as the file's header names it; case, blanks around it and `<>` don't count. `a|b` takes the first that is there,
    `a*` the first that begins so, "" none.
    """

    delimiter: str = ","
    """Character between two cells."""
    skip_lines: Annotated[int, Ge(0)] = 0
    """Lines before the header. Empty lines and URLs there are skipped without it."""
    header_lines: Annotated[int, Interval(ge=0, le=3)] = 1
    """Lines of column names: 1; 3 as yfinance writes them (field, ticker, index); 0 where `columns` names them."""
    columns: tuple[str, ...] = ()
    """Names of the columns in their order, for a file without header."""
    time: tuple[str, ...] = ("date|time|datetime|timestamp",)
    """Column of the time, or the columns of date and time."""
    open: str = "open"
    """Column of the first price."""
    high: str = "high"
    """Column of the highest price."""
    low: str = "low"
    """Column of the lowest price."""
    close: str = "close"
    """Column of the last price."""
    volume: str = "volume"
    """Column of the volume; a file without one has volume 0."""
    adjusted_close: str = ""
    """Column of the close adjusted for splits and dividends."""
    dividend: str = ""
    """Column of the dividend for each share, 0 on other days."""
    split: str = ""
    """Column of the new shares for an old one, 0 on other days."""
    symbol: str = ""
    """Column of the symbol, for a file of several; "" takes the symbol from the file's name."""
    time_format: str = "auto"
    """`auto`: the one of ISO 8601, seconds since 1970, dates with slashes or dots that reads the whole column; `epoch_s`, `epoch_ms`,
    `epoch_us`, `epoch_ns`, or `epoch` for the one that the number's size says; `excel` for days since 1900; else a template such as
    `DD-MM-YYYY hh:mm:ss`. `MMM` is a month by the first three letters of its English name, `MMMM` by all: `MMM DD, YYYY`."""
    time_zone: str = "UTC"
    """Zone of times that name none: "UTC", an offset such as "-05:00", or a name such as "America/New_York"."""
    stamp: Literal["start", "end"] | None = None
    """Which end of its interval a bar is stamped with; none: the start where the times are dates alone, or midnights, so that a day is over
    before its bar is known, else the end."""
    interval: str = "auto"
    """Length of a bar, such as "1min"; `auto`: the commonest distance between two bars."""
    order: Literal["ascending", "descending", "either"] = "ascending"
    """Which bar comes first; `either`: what most of the steps say."""
    encoding: str = "auto"
    """`auto`: UTF-8, and UTF-16 that begins with a byte order mark; else the name of an encoding."""
    decimal: Literal[".", ","] = "."
    """Decimal separator. Where it is the delimiter, too, cells with one stand in quotation marks."""
    thousands: Literal["", ",", ".", " ", "'"] = ""
    """Separator of thousands; "" for none."""
    currency: str = ""
    """Sign or code before or after numbers, such as "$" or "EUR"; numbers without it are read, too."""
    missing: tuple[str, ...] = ("", "null", "NULL", "NaN", "nan", "None", "N/A", "n/a", "-")
    """What stands for a number that is not there."""
    action_rows: bool = False
    """Whether rows such as "0.24 Dividend" and "4:1 Stock Split" stand among the bars."""

    def _check(self) -> None:
        if len(self.delimiter) != 1:
            raise ValueError(f"delimiter: expected one character, received {self.delimiter!r}")
        if not 1 <= len(self.time) <= 2:
            raise ValueError(f"time: expected one column or two (date and time), received {list(self.time)}")
        if not self.header_lines and not self.columns:
            raise ValueError("columns: expected the columns' names, for a file without header, received none")
        if self.thousands and self.thousands == self.decimal:
            raise ValueError(f"thousands: expected another character than decimal has, received {self.thousands!r}")
        if self.delimiter == self.decimal != ",":
            raise ValueError(f"delimiter: expected another character than decimal has, received {self.delimiter!r}")
        if re.search(r"[\d+\-\"]|^\s|\s$", self.currency) or self.delimiter in self.currency:
            expected = "expected a sign or code without digits, signs, quotation marks and the delimiter"
            raise ValueError(f"currency: {expected}, received {self.currency!r}")
        self._check_texts()

    def _check_texts(self) -> None:
        format_of(self.time_format)
        zone_of(self.time_zone)
        if self.interval != "auto":
            parse_interval(self.interval, "interval")
        if self.encoding != "auto":
            try:
                codecs.lookup(self.encoding)
            except LookupError as error:
                raise ValueError(f"encoding: expected auto or the name of an encoding, received {self.encoding!r}") from error
