"""Profit that has been taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm, View


@dataclass(frozen=True, slots=True)
class RealisedProfit(RewardTerm):
    """Cash gained on units that were sold or bought back in the bar, fees of all fills taken off, over the initial equity."""

    scale: Annotated[float, Interval(gt=0, le=1e6)] = 100.0
    """Reward per unit: 100 makes a reward of 1 a gain of one per cent of the initial equity."""

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        accounts = view.accounts
        profit: FloatArray = accounts.in_bar(rows)[1] / accounts.initial_equity[rows]
        return self.scale * profit
