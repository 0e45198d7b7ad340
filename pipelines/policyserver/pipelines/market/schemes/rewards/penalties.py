"""Penalties for drawdown and turnover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm, View


@dataclass(frozen=True, slots=True)
class DrawdownPenalty(RewardTerm):
    """Minus the fall of the equity below its highest so far, as a fraction of that, at each bar."""

    scale: Annotated[float, Interval(gt=0, le=1e6)] = 1.0
    """Penalty per unit: 1 makes it 0.1 at each bar while the equity is ten per cent below its highest."""

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        equity = view.accounts.equity[rows]
        highest = np.maximum(view.accounts.highest_equity[rows], equity)
        return self.scale * (equity / highest - 1.0)


@dataclass(frozen=True, slots=True)
class TurnoverPenalty(RewardTerm):
    """Minus the notional traded in the bar, over the equity at the bar before."""

    scale: Annotated[float, Interval(gt=0, le=1e6)] = 1.0
    """Penalty per unit: 0.1 makes it 0.1 for trading all of the equity once."""

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        traded = view.accounts.in_bar(rows)[0]
        equity = view.accounts.marked_equity[rows]
        turned: FloatArray = np.divide(traded, equity, out=np.zeros_like(traded), where=equity > 0)
        return -self.scale * turned
