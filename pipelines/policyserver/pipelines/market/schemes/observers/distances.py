"""How far the price is above its means, in units of the volatility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.running_statistics import ExponentialMean, MeanSinceStart, Statistic, Volatility
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, by_symbol, of_each


@dataclass(frozen=True, slots=True)
class Distances(Observer):
    """`distance_fast`: log-price above its exponential mean; `distance_slow`: above its mean since the first warm-up bar."""

    fast_bars: Annotated[int, Ge(1)] = 8
    """Bars that the exponential mean remembers."""
    volatility_bars: Annotated[int, Ge(1)] = 32
    """Returns that the volatility remembers; `distance_slow` is in units of the volatility of as many bars."""

    def statistics(self) -> tuple[Statistic, ...]:
        """See `Scheme`."""
        return ExponentialMean(self.fast_bars), MeanSinceStart(), Volatility(self.volatility_bars)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, ("distance_fast", "distance_slow"))

    def bind(self, view: View) -> tuple[FloatArray, ...]:
        """Return the log-prices, both means and the volatility, float64 (n, K) each."""
        return view.statistics.prices.log_price, *(view.statistics[statistic] for statistic in self.statistics())

    def observe(self, state: tuple[FloatArray, ...], view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        log_price, fast, slow, volatility = state[0][rows], state[1][rows], state[2][rows], state[3][rows]
        return by_symbol(
            (log_price - fast) / (volatility * self.fast_bars**0.5), (log_price - slow) / (volatility * self.volatility_bars**0.5)
        )
