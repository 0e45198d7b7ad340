"""Log-returns over several spans, in units of the volatility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.running_statistics import Statistic, Volatility
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, of_each


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

    def bind(self, view: View) -> _State:
        """See `Scheme`."""
        spans = np.array(self.bars, dtype=np.int64)
        roots = np.array([bars**0.5 for bars in self.bars])
        return _State(spans, roots[:, None], view.statistics[Volatility(self.volatility_bars)], view.statistics.prices.log_price)

    def observe(self, state: _State, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        before = np.log(view.history.closes(rows, state.spans))
        values = (state.log_price[rows][:, None] - before) / (state.volatility[rows][:, None] * state.roots)
        return values.swapaxes(1, 2).reshape(len(values), -1)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What does not change, and what is read at each bar."""

    spans: IntArray
    roots: FloatArray
    volatility: FloatArray
    log_price: FloatArray
