"""Stationary block bootstrap of recorded bars."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Interval

from policyserver.common.settings import SettingsError
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.catalog import Catalog, CatalogConfig
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.market.processes.draws import Draws
from policyserver.pipelines.market.processes.path_bars import RowBars
from policyserver.pipelines.market.processes.price_range import SIGMAS, PriceLevel, check_reach, furthest
from policyserver.pipelines.market.processes.process import PriceProcess, log_prices


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """Recorded bars but the first, each relative to the close before it; float64 (n,)."""

    log_return: FloatArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    volume: FloatArray


@dataclass(frozen=True, slots=True)
class StationaryBootstrap(PriceProcess):
    """Recorded bars in blocks of random length from random places, the last bar followed by the first: what a path of the recorded law is.

    A bar's return, gap, range and volume stay together. Within blocks the order is the recorded one: the autocovariance at lag k is the
    recorded (circular) one times (1 - 1 / mean_block_bars)**k.
    Source: D. N. Politis, J. P. Romano, The stationary bootstrap, 1994.
    """

    recorded: CatalogConfig
    """Files of the recorded bars, at least 2."""
    symbol: str = ""
    """Symbol of the files whose bars these are; "": the only one."""
    until: str = ""
    """Date before which the bars end that are drawn from, such as "2023-01-01", UTC, so that later ones stay unknown; "": all are."""
    mean_block_bars: Annotated[Prior, Interval(ge=1, le=1e9)] = field(default_factory=lambda: Prior.fixed(20.0))
    """Mean length of a block, geometrically distributed; 1 draws single bars, whose order is lost."""
    start_price: PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """Price before the first bar."""
    _relative: _Recorded = field(init=False, repr=False, compare=False)

    def _check(self) -> None:
        try:
            until = np.datetime64(self.until, "ns") if self.until else None
        except ValueError as error:
            raise ValueError(f"until: expected a date such as 2023-01-01, received {self.until!r}") from error
        try:
            catalog = Catalog(self.recorded)
            chosen = catalog.symbols[0] if not self.symbol and len(catalog.symbols) == 1 else self.symbol
            if chosen not in catalog.symbols:
                raise ValueError(f"symbol: expected one of {', '.join(catalog.symbols)}, received {self.symbol!r}")
            stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in catalog.files_of(chosen))
            relative = _relative(self.recorded, chosen, None if until is None else int(until.astype(np.int64)), stamps)
        except OSError as error:
            raise ValueError(f"recorded: expected a readable file, received {error.filename}: {error.strerror}") from error
        except SettingsError as error:
            raise SettingsError(f"recorded.{error.key}", "", error.problem) from error
        object.__setattr__(self, "_relative", relative)

    @property
    def catalogs(self) -> tuple[CatalogConfig, ...]:
        """The files of the recorded bars."""
        return (self.recorded,)

    def check(self, n_bars: int) -> None:
        """Refuse blocks so long that paths could leave what a price can be."""
        returns = self._relative.log_return

        def reach(mean_block_bars: float) -> float:
            variance = float(returns.var()) * max(2.0 * mean_block_bars - 1.0, 0.0)  # per bar in the long run, at most
            far = n_bars * abs(float(returns.mean())) + SIGMAS * math.sqrt(n_bars * variance)
            return furthest(self.start_price) + min(far, n_bars * float(np.abs(returns).max()))

        check_reach(n_bars, reach, mean_block_bars=self.mean_block_bars.high)

    def bars(self, draws: Draws, parameters: Mapping[str, FloatArray], n_bars: int, steps_per_bar: int) -> RowBars:
        """Return the bars of each row; a bar opens as far from the close before it as it did when it was recorded."""
        recorded, places = self._relative, self.places(draws, parameters["mean_block_bars"], n_bars)
        prices = np.exp(log_prices(parameters["start_price"], recorded.log_return[places]))
        before, closes = prices[:, :-1], prices[:, 1:]
        opens = before * recorded.open[places]
        highs = np.maximum(before * recorded.high[places], np.maximum(opens, closes))
        lows = np.minimum(before * recorded.low[places], np.minimum(opens, closes))
        return RowBars(opens, highs, lows, closes, recorded.volume[places])

    def places(self, draws: Draws, mean_block_bars: FloatArray, n_bars: int) -> IntArray:
        """Return which recorded bar each bar is, int64 (n, n_bars), 0 the second one recorded."""
        n_recorded = len(self._relative.volume)
        begins = draws.uniform(n_bars) * mean_block_bars[:, None] < 1.0
        begins[:, 0] = True
        firsts = (draws.uniform(n_bars) * n_recorded).astype(np.int64)
        bars = np.arange(n_bars)
        begun = np.maximum.accumulate(np.where(begins, bars, 0), axis=1)
        return (np.take_along_axis(firsts, begun, axis=1) + bars - begun) % n_recorded


@functools.lru_cache(maxsize=4)
def _relative(config: CatalogConfig, symbol: str, until_ns: int | None, stamps: tuple[tuple[str, int, int], ...]) -> _Recorded:
    """Return recorded bars relative to each other; settings are checked often, and files are read once.

    Args:
        config: The files.
        symbol: Whose bars.
        until_ns: Time before which they end; None: all.
        stamps: Path, time of change and size of each file, which make changed files others.

    Raises:
        ValueError: A file is malformed, or has too few bars, or bars from which no returns follow.
    """
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
    before_each = bars.close[:-1]
    opens, highs, lows = bars.open[1:] / before_each, bars.high[1:] / before_each, bars.low[1:] / before_each
    return _Recorded(np.log(bars.close[1:] / before_each), opens, highs, lows, bars.volume[1:])
