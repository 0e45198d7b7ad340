"""Log-returns over several spans, in units of the volatility."""

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
class Returns(Observer):
    """`return_b` for each b of `bars`: the log-return of the last b bars over the volatility of b bars."""

    bars: tuple[Annotated[int, Ge(1)], ...] = (1, 5)
    """Spans."""
    volatility_bars: Annotated[int, Ge(1)] = 32
    """Returns that the volatility remembers."""

    def history_bars(self) -> int:
        """See `Scheme`."""
        return max(self.bars) + 1

    def statistics(self) -> tuple[Statistic, ...]:
        """See `Scheme`."""
        return (Volatility(self.volatility_bars),)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, tuple(f"return_{bars}" for bars in self.bars))

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        volatility = view.statistics[Volatility(self.volatility_bars)][rows]
        log_price = view.statistics.prices.log_price[rows]
        return by_symbol(*((log_price - np.log(view.history.closes(rows, bars))) / (volatility * bars**0.5) for bars in self.bars))
