"""What the regressor expects, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.running_statistics import Statistic, Volatility
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, by_symbol, of_each


@dataclass(frozen=True, slots=True)
class Forecast(Observer):
    """`prediction`: expected log-return over its standard deviation, times 10; `uncertainty`: that deviation over the volatility."""

    volatility_bars: Annotated[int, Ge(1)] = 32
    """Returns that the volatility remembers."""
    shown: bool = True
    """Whether the forecast is observed; else zeros stand in its place."""

    def statistics(self) -> tuple[Statistic, ...]:
        """See `Scheme`."""
        return (Volatility(self.volatility_bars),)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, ("prediction", "uncertainty"))

    def bind(self, view: View) -> FloatArray:
        """Return the volatilities, float64 (n, K)."""
        return view.statistics[Volatility(self.volatility_bars)]

    def observe(self, state: FloatArray, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        forecast = view.forecast[rows]
        if not self.shown:
            return np.zeros((len(forecast), 2 * forecast.shape[1]))
        mean, std = forecast[..., 0], forecast[..., 1]
        is_sure = std > 0
        if np.count_nonzero(is_sure) == is_sure.size:
            prediction = 10.0 * mean / std
        else:
            prediction = np.divide(10.0 * mean, std, out=np.zeros(mean.shape), where=is_sure)
        return by_symbol(prediction, std / state[rows])
