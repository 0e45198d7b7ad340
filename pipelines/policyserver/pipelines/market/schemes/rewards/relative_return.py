"""Return relative to the market."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.rewards.log_equity import log_equity_gained
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm, View


@dataclass(frozen=True, slots=True)
class RelativeReturn(RewardTerm):
    """Log-equity gained, less the log-return over the same bar of all symbols in equal parts, which are made equal again at each bar."""

    scale: Annotated[float, Interval(gt=0, le=1e6)] = 100.0
    """Reward per unit of log-return: 100 makes a reward of 1 about one per cent more than the market."""

    def compute(self, state: None, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        returns = view.statistics.prices.last_return[rows]
        market: FloatArray = returns[:, 0] if returns.shape[1] == 1 else np.log(np.exp(returns).mean(axis=1))
        return self.scale * (log_equity_gained(view, rows) - market)
