"""Recorded bars of one symbol or of several as what each is relative to the close before it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policyserver.pipelines.market.bars import Bars, FloatArray, IntArray
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig


@dataclass(frozen=True, slots=True, eq=False)
class RelativeBars:
    """Recorded bars of K symbols but the first ones, each relative to the close before it; float64 (K * n,), symbol by symbol."""

    n_bars: int
    """n, bars of each symbol; of several, bar i of all ends at the same time."""
    log_return: FloatArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    volume: FloatArray


@functools.lru_cache(maxsize=4)
def relative_bars(
    config: CatalogConfig, symbols: tuple[str, ...], until_ns: int | None, stamps: tuple[tuple[str, int, int], ...]
) -> RelativeBars:
    """Return recorded bars relative to each other; settings are checked often, and files are read once.

    Args:
        config: The files.
        symbols: Whose bars. Of several, the times at which all have one count: bars between two of them are made one.
        until_ns: Time before which they end; None: all.
        stamps: Path, time of change and size of each file, which make changed files others.

    Raises:
        ValueError: A file is malformed, or has too few bars, or bars from which no returns follow.
    """
    recorded = [_checked(config, symbol, until_ns) for symbol in symbols]
    if len(symbols) > 1:
        recorded = _at_common_times(symbols, recorded)
    each = []
    for bars in recorded:
        before = bars.close[:-1]
        relative = (np.log(bars.close[1:] / before), bars.open[1:] / before, bars.high[1:] / before, bars.low[1:] / before, bars.volume[1:])
        each.append(relative)
    return RelativeBars(len(recorded[0]) - 1, *(np.concatenate(column) for column in zip(*each, strict=True)))


def _checked(config: CatalogConfig, symbol: str, until_ns: int | None) -> Bars:
    """Return a symbol's bars up to a time."""
    try:
        bars = Catalog(config).load(symbol).bars
    except ValueError as error:
        raise ValueError(f"recorded.files: {error}") from error
    if until_ns is not None:
        bars = bars.slice(0, int(np.searchsorted(bars.time_ns, until_ns)))
    if len(bars) < 2:
        before = "" if until_ns is None else f" before {np.datetime64(until_ns, 'ns').astype('datetime64[s]')}"
        raise ValueError(f"recorded: expected at least 2 bars of {symbol}{before}, received {len(bars)}")
    prices = np.stack((bars.low, np.minimum(bars.open, bars.close), np.maximum(bars.open, bars.close), bars.high))
    ordered = (prices[0] > 0) & np.all(np.diff(prices, axis=0) >= 0, axis=0) & np.isfinite(prices[3]) & (bars.volume >= 0)
    if not ordered.all():
        row = int(np.argmin(ordered))
        found = {name: float(getattr(bars, name)[row]) for name in ("open", "high", "low", "close", "volume")}
        raise ValueError(f"recorded: expected 0 < low <= open, close <= high and volume >= 0 in bar {row} of {symbol}, received {found}")
    return bars


def _at_common_times(symbols: Sequence[str], recorded: Sequence[Bars]) -> list[Bars]:
    """Return bars of several symbols that end when all of them have a bar."""
    common = functools.reduce(np.intersect1d, (bars.time_ns for bars in recorded))
    if len(common) < 2:
        raise ValueError(f"recorded: expected at least 2 times at which {', '.join(symbols)} all have a bar, received {len(common)}")
    return [_longer(bars, common) for bars in recorded]


def _longer(bars: Bars, ends_ns: IntArray) -> Bars:
    """Return the bars from each end to the next as one; of the first end its own bar."""
    rows = np.searchsorted(bars.time_ns, ends_ns)
    part = bars.slice(int(rows[0]), int(rows[-1]) + 1)
    firsts = np.concatenate(([0], rows[:-1] - rows[0] + 1))
    return Bars(
        ends_ns,
        part.open[firsts],
        np.maximum.reduceat(part.high, firsts),
        np.minimum.reduceat(part.low, firsts),
        bars.close[rows],
        np.add.reduceat(part.volume, firsts),
    )
