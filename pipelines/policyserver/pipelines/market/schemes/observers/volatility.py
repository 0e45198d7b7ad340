"""How much the price moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.running_statistics import Statistic, Volatility
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, of_each


@dataclass(frozen=True, slots=True)
class LogVolatility(Observer):
    """`volatility`: natural log of the exponential root mean square return over a usual one."""

    bars: Annotated[int, Ge(1)] = 32
    """Returns that it remembers."""
    usual: Annotated[float, Gt(0)] = 0.01
    """The volatility per bar that is 0 in the observation."""

    def statistics(self) -> tuple[Statistic, ...]:
        """See `Scheme`."""
        return (Volatility(self.bars),)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, ("volatility",))

    def bind(self, view: View) -> FloatArray:
        """Return the volatilities, float64 (n, K)."""
        return view.statistics[Volatility(self.bars)]

    def observe(self, state: FloatArray, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        return np.log(state[rows] / self.usual)
