"""What a reader should know of a run on recorded prices: its bars, and whether its results are of bars that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_NAMED_SYMBOLS = 4


@dataclass(frozen=True, slots=True)
class RecordedPrices:
    """The recorded bars of one symbol."""

    symbol: str
    """What is traded."""
    trained_on: bool
    """Whether the policy learns from them in this run."""
    bars: int
    """Number of bars."""
    first_bar_s: float
    """Time of the first bar, seconds since 1970."""
    last_bar_s: float
    """Time of the last bar, seconds since 1970."""
    span: str = ""
    """Which part of a split they are: "train" or "test", of several folds with its number; "" without a split."""


def span_of(prices: Sequence[RecordedPrices]) -> tuple[str, str]:
    """Return the times (UTC) of the first and the last of all bars, to the minute unless both begin a day."""
    begin_s, end_s = min(each.first_bar_s for each in prices), max(each.last_bar_s for each in prices)
    ends = [datetime.fromtimestamp(time_s, UTC) for time_s in (begin_s, end_s)]
    form = "%Y-%m-%d" if all(end.hour == end.minute == 0 for end in ends) else "%Y-%m-%d %H:%M"
    first, last = (end.strftime(form) for end in ends)
    return first, last


def note(prices: Sequence[RecordedPrices]) -> str:
    """Return what a reader of the results should know; empty for simulated prices."""
    if not prices:
        return ""
    first, last = span_of(prices)
    symbols = list(dict.fromkeys(each.symbol for each in prices))
    names = ", ".join(symbols[:_NAMED_SYMBOLS])
    more = f" and {len(symbols) - _NAMED_SYMBOLS} more" if len(symbols) > _NAMED_SYMBOLS else ""
    parts = ", ".join(dict.fromkeys(each.span for each in prices if each.span))
    bars = f"{parts + ': ' if parts else ''}{names}{more}, {first} to {last}, {sum(each.bars for each in prices):,} bars"
    if any(each.trained_on for each in prices):
        return f"In-sample: the policy learns from the bars that its returns are of ({bars}), so they say nothing of other bars."
    if parts.startswith("test"):
        learnt = (
            "had learnt, when each began, from the training before it alone" if "," in parts else "has learnt from the training part alone"
        )
        return f"Test part: the policy does not learn ({bars}); out of sample if it {learnt}."
    return f"Recorded prices ({bars}): out of sample only if the policy has not learnt from them in another run."
