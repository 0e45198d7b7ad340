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

_ZERO, _SCALE = np.array(0.0), np.array(10.0)


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
        mean, std = forecast.transpose(2, 0, 1)[:2].copy()  # pieces of their own are computed with at a third of the price
        is_sure = std > _ZERO
        if np.count_nonzero(is_sure) == is_sure.size:
            prediction = _SCALE * mean / std
        else:
            prediction = np.divide(_SCALE * mean, std, out=np.zeros(mean.shape), where=is_sure)
        return by_symbol(prediction, std / state[rows])
