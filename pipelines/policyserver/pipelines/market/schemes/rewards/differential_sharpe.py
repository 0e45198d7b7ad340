"""The differential Sharpe ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.rewards.log_equity import log_equity_gained
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm, Shape, View

_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True)
class DifferentialSharpe(RewardTerm):
    """What a return adds to an exponentially weighted Sharpe ratio, per unit of `rate` (Moody and Saffell 2001, equation 14)."""

    rate: Annotated[float, Interval(gt=0, lt=1)] = 0.01
    """Weight of the newest return in the moving averages of returns and their squares."""
    scale: Annotated[float, Interval(gt=0, le=1e6)] = 1.0
    """Reward per unit."""
    limit: Annotated[float, Interval(gt=0, le=1e6)] = 10.0
    """Bound of the term before it is scaled: the first returns of an episode have hardly any variance to be divided by."""

    def new_state(self, shape: Shape) -> FloatArray:
        """Return the moving averages of returns and of squares, float64 (n, 2)."""
        return np.zeros((shape.n_rows, 2))

    def begin(self, state: FloatArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state[rows] = 0.0

    def compute(self, state: FloatArray, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        gained = log_equity_gained(view, rows)
        mean, square = state[rows, 0], state[rows, 1]
        variance = square - mean**2
        known = variance > _SMALLEST_VARIANCE
        numerator = square * (gained - mean) - 0.5 * mean * (gained**2 - square)
        ratio = np.where(known, numerator / np.where(known, variance, 1.0) ** 1.5, 0.0)
        state[rows, 0] = mean + self.rate * (gained - mean)
        state[rows, 1] = square + self.rate * (gained**2 - square)
        return self.scale * np.clip(ratio, -self.limit, self.limit)
