"""Lengths of time in words: "30s", "1min", "4h", "1d", "1w"."""

from __future__ import annotations

import re

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
WEEK_NS = 7 * DAY_NS

_UNITS = {"w": WEEK_NS, "d": DAY_NS, "h": HOUR_NS, "min": MINUTE_NS, "s": SECOND_NS, "ms": 1_000_000, "us": 1_000, "ns": 1}


def parse_interval(text: str, key: str) -> int:
    """Return the length of time in nanoseconds.

    Raises:
        ValueError: It is no length of time; the message begins with `key`.
    """
    match = re.fullmatch(r"(\d{1,9}) ?([a-z]+)", text)
    if match and match[2] in _UNITS and 0 < (length := int(match[1]) * _UNITS[match[2]]) < 2**62:
        return length
    raise ValueError(f"{key}: expected a length such as 1min, with {', '.join(_UNITS)}, received {text!r}")


def interval_text(length_ns: int) -> str:
    """Return a length of time in the largest unit that it is a whole number of, or in two units."""
    for unit, size in _UNITS.items():
        if length_ns and length_ns % size == 0:
            return f"{length_ns // size}{unit}"
        if length_ns > 2 * size and unit in ("d", "h", "min"):
            return f"{length_ns // size}{unit} {interval_text(length_ns % size)}"
    return "0s"
