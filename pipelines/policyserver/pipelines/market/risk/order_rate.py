"""A limit on how often orders are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.risk.limit import Proposed, RiskLimit, Shape, View
from policyserver.pipelines.market.rows import Rows


@dataclass(frozen=True, slots=True)
class OrderRate(RiskLimit):
    """Orders of an episode in any window of some bars, those of all symbols together; what another limit refuses doesn't count.

    Orders that only reduce a position count and are refused like all others, unless they are exempt.
    """

    orders: Annotated[int, Ge(1)] = 10
    """Most orders in a window."""
    bars: Annotated[int, Interval(ge=1, le=100_000)] = 20
    """Bars of a window, the newest one among them."""
    exempts_reducing: bool = False
    """Whether orders that only reduce a position pass; they count, too."""

    def new_state(self, shape: Shape) -> IntArray:
        """Return the orders of each of the last bars, by bar number modulo `bars`, then their sum, int64 (n, bars + 1)."""
        return np.zeros((shape.n_rows, self.bars + 1), dtype=np.int64)

    def begin(self, state: IntArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state[rows] = 0

    def update(self, state: IntArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        numbers = np.arange(len(state))[rows]
        places = view.clock[rows] % self.bars
        state[numbers, -1] -= state[numbers, places]
        state[numbers, places] = 0

    def refuses(self, state: IntArray, view: View, orders: Proposed) -> npt.NDArray[np.bool_]:
        """See `RiskLimit`."""
        full: npt.NDArray[np.bool_] = state[orders.rows, -1] >= self.orders
        return full & ~orders.reduces if self.exempts_reducing else full

    def passed(self, state: IntArray, view: View, orders: Proposed) -> None:
        """See `RiskLimit`."""
        state[orders.rows, view.clock[orders.rows] % self.bars] += 1
        state[orders.rows, -1] += 1
