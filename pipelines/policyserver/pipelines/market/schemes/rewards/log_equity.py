"""Log-equity gained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm, View

EQUITY_FLOOR = 1e-3
"""An equity below this fraction of the initial one counts as this fraction in a logarithm."""

_FLOOR = np.array(EQUITY_FLOOR)


@dataclass(frozen=True, slots=True)
class LogEquity(RewardTerm):
    """Log of the equity over the one at the bar before, costs taken off: the sum over an episode is the log of all that was gained."""

    scale: Annotated[float, Interval(gt=0, le=1e6)] = 100.0
    """Reward per unit of log-equity gained: 100 makes a reward of 1 a gain of about one per cent."""

    def compute(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """See `RewardTerm`."""
        return self.scale * log_equity_gained(view, rows)


def log_equity_gained(view: View, rows: Rows) -> FloatArray:
    """Return the log of the equity over the one at the bar before, float64 (m,), finite even if the equity is lost."""
    accounts = view.accounts
    floor = _FLOOR * accounts.initial_equity[rows]
    gained: FloatArray = np.log(np.maximum(accounts.equity[rows], floor) / np.maximum(accounts.marked_equity[rows], floor))
    return gained
