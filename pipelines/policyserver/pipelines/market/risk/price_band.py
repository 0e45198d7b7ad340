"""A limit on prices that are far from the market's, and on markets that jump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.orders import KIND_FACTS
from policyserver.pipelines.market.risk.limit import Proposed, RiskLimit, Shape, View
from policyserver.pipelines.market.rows import Rows


@dataclass(slots=True, eq=False)
class _Jumps:
    """How the prices of n rows and K symbols moved."""

    close: FloatArray
    """Last prices, float64 (n, K)."""
    jumped: npt.NDArray[np.bool_]
    """Whether the last bar left the band, bool (n, K)."""


@dataclass(frozen=True, slots=True)
class PriceBand(RiskLimit):
    """Refuses a limit or stop price outside a band around the last price, and an order without one after a bar that left its band.

    A bar leaves its band when its high or low is outside the one around the close before it: a crash, a gap, a spike that is over by now.
    """

    fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Width of the band on each side, as a fraction of the price in its middle."""
    exempts_reducing: bool = True
    """Whether orders that only reduce a position pass."""

    def new_state(self, shape: Shape) -> _Jumps:
        """Return that nothing has moved."""
        size = (shape.n_rows, shape.n_symbols)
        return _Jumps(np.ones(size), np.zeros(size, dtype=np.bool_))

    def begin(self, state: _Jumps, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state.close[rows] = view.accounts.price[rows]
        state.jumped[rows] = False

    def update(self, state: _Jumps, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        before, now, bar = state.close[rows], view.accounts.price[rows], view.bar
        has_bar = bar.close[rows] == now
        high, low = np.where(has_bar, bar.high[rows], now), np.where(has_bar, bar.low[rows], now)
        state.jumped[rows] = (high > before * (1 + self.fraction)) | (low < before * (1 - self.fraction))
        state.close[rows] = now

    def refuses(self, state: _Jumps, view: View, orders: Proposed) -> npt.NDArray[np.bool_]:
        """See `RiskLimit`."""
        price = view.accounts.price[orders.rows, orders.symbol]
        priced = KIND_FACTS.has_price[orders.kind]
        far = np.abs(orders.price - price) > self.fraction * price
        refused: npt.NDArray[np.bool_] = np.where(priced, far, state.jumped[orders.rows, orders.symbol])
        return refused & ~orders.reduces if self.exempts_reducing else refused
