"""What the regressor expects, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

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

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        forecast = view.forecast[rows]
        mean, std = forecast[..., 0], forecast[..., 1]
        if not self.shown:
            return by_symbol(np.zeros_like(mean), np.zeros_like(mean))
        volatility = view.statistics[Volatility(self.volatility_bars)][rows]
        prediction = np.divide(10.0 * mean, std, out=np.zeros_like(mean), where=std > 0)
        return by_symbol(prediction, std / volatility)
