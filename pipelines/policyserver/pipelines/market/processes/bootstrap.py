"""Stationary block bootstrap of recorded bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from policyserver.pipelines.market.processes.relative_bars import RelativeBars, relative_bars


@dataclass(frozen=True, slots=True)
class StationaryBootstrap(PriceProcess):
    """Recorded bars in blocks of random length from random places, the last bar followed by the first: what a path of the recorded law is.

    A bar's return, gap, range and volume stay together. Within blocks the order is the recorded one: the autocovariance at lag k is the
    recorded (circular) one times (1 - 1 / mean_block_bars)**k. Blocks of several assets are those of the same times, so that the same holds
    of their covariances, at lag 0 too.
    Source: D. N. Politis, J. P. Romano, The stationary bootstrap, 1994.
    """

    recorded: CatalogConfig
    """Files of the recorded bars, at least 2."""
    symbol: str = ""
    """Symbol of the files whose bars these are; "": all of them."""
    symbols: tuple[str, ...] = ()
    """Several of the symbols, the assets of an episode in this order; none: all in the order of their names, or `symbol` alone."""
    until: str = ""
    """Date before which the bars end that are drawn from, such as "2023-01-01", UTC, so that later ones stay unknown; "": all are."""
    mean_block_bars: Annotated[Prior, Interval(ge=1, le=1e9)] = field(default_factory=lambda: Prior.fixed(20.0))
    """Mean length of a block, geometrically distributed; 1 draws single bars, whose order is lost."""
    start_price: PriceLevel = field(default_factory=lambda: Prior(50.0, 200.0, "log_uniform"))
    """Price before the first bar."""
    _chosen: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _relative: RelativeBars = field(init=False, repr=False, compare=False)

    def _check(self) -> None:
        try:
            until = np.datetime64(self.until, "ns") if self.until else None
        except ValueError as error:
            raise ValueError(f"until: expected a date such as 2023-01-01, received {self.until!r}") from error
        try:
            catalog = Catalog(self.recorded)
            chosen = self._choose(catalog.symbols)
            stamps = tuple(
                (str(path), path.stat().st_mtime_ns, path.stat().st_size) for symbol in chosen for path in catalog.files_of(symbol)
            )
            relative = relative_bars(self.recorded, chosen, None if until is None else int(until.astype(np.int64)), stamps)
        except OSError as error:
            raise ValueError(f"recorded: expected a readable file, received {error.filename}: {error.strerror}") from error
        except SettingsError as error:
            raise SettingsError(f"recorded.{error.key}", "", error.problem) from error
        object.__setattr__(self, "_chosen", chosen)
        object.__setattr__(self, "_relative", relative)

    def _choose(self, there: tuple[str, ...]) -> tuple[str, ...]:
        """Return the symbols of the assets, of those that there are."""
        if self.symbol and self.symbols:
            raise ValueError(f"symbols: expected none beside symbol = {self.symbol!r}, received {', '.join(self.symbols)}")
        for name, wanted in (("symbol", (self.symbol,) if self.symbol else ()), ("symbols", self.symbols)):
            if unknown := [symbol for symbol in wanted if symbol not in there]:
                raise ValueError(f"{name}: expected one of {', '.join(there)}, received {unknown[0]!r}")
            if len(set(wanted)) != len(wanted):
                raise ValueError(f"{name}: expected different ones, received {', '.join(wanted)}")
        return self.symbols or ((self.symbol,) if self.symbol else there)

    @property
    def rows_per_episode(self) -> int:
        """The number of assets."""
        return len(self._chosen)

    @property
    def assets(self) -> tuple[str, ...]:
        """The symbols of the files."""
        return self._chosen

    @property
    def has_sub_steps(self) -> bool:
        """Never: a bar is a recorded one."""
        return False

    @property
    def catalogs(self) -> tuple[CatalogConfig, ...]:
        """The files of the recorded bars."""
        return (self.recorded,)

    def check(self, n_bars: int) -> None:
        """Refuse blocks so long that paths could leave what a price can be."""
        of_assets = np.split(self._relative.log_return, len(self._chosen))

        def reach_of(returns: FloatArray, mean_block_bars: float) -> float:
            variance = float(returns.var()) * max(2.0 * mean_block_bars - 1.0, 0.0)  # per bar in the long run, at most
            far = n_bars * abs(float(returns.mean())) + SIGMAS * math.sqrt(n_bars * variance)
            return min(far, n_bars * float(np.abs(returns).max()))

        def reach(mean_block_bars: float) -> float:
            return furthest(self.start_price) + max(reach_of(returns, mean_block_bars) for returns in of_assets)

        check_reach(n_bars, reach, mean_block_bars=self.mean_block_bars.high)

    def draw_rows(self, generators: Sequence[np.random.Generator]) -> list[dict[str, float]]:
        """Draw the parameters of all rows; the assets of an episode have the blocks of its first one."""
        drawn, n_assets = PriceProcess.draw_rows(self, generators), len(self._chosen)
        for row, own in enumerate(drawn):
            own["mean_block_bars"] = drawn[row - row % n_assets]["mean_block_bars"]
        return drawn

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
        """Return which recorded bar each bar is, int64 (n, n_bars), 0 the first asset's second one recorded; `draws` are whole episodes."""
        n_recorded, n_assets = self._relative.n_bars, len(self._chosen)
        draws, mean_block_bars = draws.take(range(0, len(draws), n_assets)), mean_block_bars[::n_assets]
        begins = draws.uniform(n_bars) * mean_block_bars[:, None] < 1.0
        begins[:, 0] = True
        firsts = (draws.uniform(n_bars) * n_recorded).astype(np.int64)
        bars = np.arange(n_bars)
        begun = np.maximum.accumulate(np.where(begins, bars, 0), axis=1)
        times = (np.take_along_axis(firsts, begun, axis=1) + bars - begun) % n_recorded
        return (times[:, None] + n_recorded * np.arange(n_assets)[:, None]).reshape(-1, n_bars)
