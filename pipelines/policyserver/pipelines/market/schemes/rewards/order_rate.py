"""A penalty for ordering too often."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm, Shape, View

_FURTHEST_EXPONENT = 50.0


@dataclass(frozen=True, slots=True)
class OrderRatePenalty(RewardTerm):
    """Minus exp(rate * excess) - 1, where excess is how far the orders of the last bars, newer ones weighted more, go over a limit.

    An order of age a bars in a window of w weighs 2 (w - a) / (w + 1), so that orders at an even pace weigh one each: the penalty grows
    with the excess exponentially and is larger the newer the orders are that make it.
    """

    bars: Annotated[int, Interval(ge=1, le=10_000)] = 20
    """Bars of the window."""
    orders: Annotated[int, Ge(0)] = 5
    """Weighted orders in the window that cost nothing."""
    rate: Annotated[float, Interval(gt=0, le=10)] = 0.5
    """Exponential rate per order beyond that."""
    scale: Annotated[float, Interval(gt=0, le=1e6)] = 0.1
    """Penalty per unit."""
    largest: Annotated[float, Interval(gt=0, le=1e9)] = 100.0
    """Bound of the penalty before it is scaled."""

    def new_state(self, shape: Shape) -> IntArray:
        """Return the orders of each of the last bars, int64 (n, bars)."""
        return np.zeros((shape.n_rows, self.bars), dtype=np.int64)

    def begin(self, state: IntArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state[rows] = 0

    def compute(self, state: IntArray, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        before = state[rows]
        orders = np.empty_like(before)
        orders[:, :-1], orders[:, -1] = before[:, 1:], view.accounts.orders_in_bar(rows)
        state[rows] = orders
        excess = np.maximum(orders @ _weights(self.bars) - self.orders, 0.0)
        return -self.scale * np.minimum(np.expm1(np.minimum(self.rate * excess, _FURTHEST_EXPONENT)), self.largest)


@functools.cache
def _weights(bars: int) -> FloatArray:
    """Return the weights of the orders of each bar in a window, the oldest first, float64 (bars,)."""
    weights: FloatArray = 2.0 * np.arange(1, bars + 1) / (bars + 1)
    weights.flags.writeable = False
    return weights
