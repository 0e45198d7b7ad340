"""What the account holds, and what it has gained with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from policyserver.pipelines.market.accounts import total_of
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.running_statistics import Statistic, Volatility
from policyserver.pipelines.market.schemes.observers.observer import Observer, View, of_each

_ZERO = np.array(0.0)


@dataclass(frozen=True, slots=True)
class PositionShare(Observer):
    """`position`: value of the position over the equity: -1 short with all of it, 0 none, 1 long with all of it."""

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return of_each(symbols, ("position",))

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        return view.accounts.exposure(rows)


@dataclass(frozen=True, slots=True)
class UnrealisedProfit(Observer):
    """`unrealised_profit`: log-equity gained since the last fill, over the volatility of some bars, the mean one of all symbols."""

    bars: Annotated[int, Ge(1)] = 8
    """Bars of the volatility that it is in units of."""
    volatility_bars: Annotated[int, Ge(1)] = 32
    """Returns that the volatility remembers."""

    def statistics(self) -> tuple[Statistic, ...]:
        """See `Scheme`."""
        return (Volatility(self.volatility_bars),)

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """See `Observer`."""
        return ("unrealised_profit",)

    def bind(self, view: View) -> FloatArray:
        """Return the volatilities, float64 (n, K)."""
        return view.statistics[Volatility(self.volatility_bars)]

    def observe(self, state: FloatArray, view: View, rows: Rows) -> FloatArray:
        """See `Observer`."""
        equity, entry = view.accounts.equity[rows], view.accounts.entry_equity[rows]
        solvent = np.minimum(equity, entry) > _ZERO
        if np.count_nonzero(solvent) < len(solvent):
            equity, entry = np.where(solvent, equity, 1.0), np.where(solvent, entry, 1.0)
        gained = np.log(equity) - np.log(entry)
        volatility = total_of(state[rows])
        if (n_symbols := state.shape[1]) > 1:
            volatility = volatility / n_symbols
        profit: FloatArray = gained / (volatility * self.bars**0.5)
        return profit[:, None]
