"""Baselines: what given actions would have earned on an episode's bars, many episodes at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.account import AccountConfig
from pipelines.bars import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """What each of n episodes earned."""

    rewards: FloatArray
    """Sum of the rewards, float64 (n,)."""
    profits: FloatArray
    """Simple profit, costs taken off, over the initial equity, float64 (n,)."""
    costs: FloatArray
    """Fees and slippage over the initial equity, float64 (n,)."""


def replay(config: AccountConfig, opens: FloatArray, closes: FloatArray, actions: npt.NDArray[np.int64]) -> ReplayResult:
    """Play actions on bars with exactly the arithmetic of `Account`.

    Args:
        config: money and costs.
        opens: opens of the bars after the warm-up, float64 (n, t).
        closes: closes from the bar of the first action on, float64 (n, t + 1).
        actions: the actions, int64 (n, t).
    """
    raise NotImplementedError


def no_trade(config: AccountConfig, episodes: object) -> ReplayResult:
    """Return what holding cash earns."""
    raise NotImplementedError
