"""Reward terms: what a step was worth, as a sum of named terms. One's own is a `RewardTerm` in a file of one's own.

Imports `pipelines.market` and `pipelines.market.schemes.scheme`.
"""

from policyserver.pipelines.market.registry import Registry
from policyserver.pipelines.market.schemes.rewards.reward_term import RewardTerm

__all__ = ["REWARDS", "RewardTerm"]

_HERE = "policyserver.pipelines.market.schemes.rewards"

REWARDS = Registry(
    "reward term",
    RewardTerm,
    {
        "log_equity": f"{_HERE}.log_equity.LogEquity",
        "realised_profit": f"{_HERE}.realised_profit.RealisedProfit",
        "differential_sharpe": f"{_HERE}.differential_sharpe.DifferentialSharpe",
        "drawdown": f"{_HERE}.penalties.DrawdownPenalty",
        "turnover": f"{_HERE}.penalties.TurnoverPenalty",
        "order_rate": f"{_HERE}.order_rate.OrderRatePenalty",
        "relative_return": f"{_HERE}.relative_return.RelativeReturn",
    },
)
"""The shipped terms."""
