"""What policies of reference do, whatever the action scheme of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.pipelines.comparison.measured_play import Steps
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.orders import OrderRequests
from policyserver.pipelines.market.running_statistics import MeanSinceStart, Statistic, Volatility
from policyserver.pipelines.market.schemes.actions import ActionScheme
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions, View, Withdrawal, expected_positions, rebalance
from policyserver.pipelines.market.step_kinds import StepKind

_MEAN, _VOLATILITY = MeanSinceStart(), Volatility()

RULE_STATISTICS: frozenset[Statistic] = frozenset({_MEAN, _VOLATILITY})
"""What `rule` reads."""


@dataclass(frozen=True, slots=True)
class ReferenceWeights(ActionScheme):
    """Parts of the equity to be held of each symbol from the next open on; NaN leaves a position as it is."""

    def space(self, symbols: tuple[str, ...]) -> gym.spaces.Box:
        """See `ActionScheme`."""
        return gym.spaces.Box(-1.0, 1.0, (len(symbols),), np.float64)

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """See `ActionScheme`."""
        accounts = view.accounts
        wanted = actions * np.maximum(accounts.equity[rows], 0.0)[:, None] / accounts.price[rows]
        return rebalance(view, rows, np.where(np.isnan(actions), expected_positions(view, rows), wanted))

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return np.full((len(rows), view.shape.n_symbols), np.nan)

    def closing(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return np.zeros((len(rows), view.shape.n_symbols))


def no_trade(block: EpisodeBlock, rows: IntArray, steps: IntArray) -> Steps:
    """Hold cash."""
    return block.keeping(rows), np.full(len(rows), StepKind.HOLD, dtype=np.int8)


def buy_and_hold(block: EpisodeBlock, rows: IntArray, steps: IntArray) -> Steps:
    """Buy equal parts of all symbols at the first open."""
    kinds = np.where(steps == 0, StepKind.ACT, StepKind.HOLD).astype(np.int8)
    return np.full((len(rows), block.shape.n_symbols), 1.0 / block.shape.n_symbols), kinds


def rule(block: EpisodeBlock, rows: IntArray, steps: IntArray) -> Steps:
    """Be short above the mean log-price since the first warm-up bar by one volatility, and long below it by one; in between keep."""
    statistics = block.view.statistics
    above = (statistics.prices.log_price[rows] - statistics[_MEAN][rows]) / statistics[_VOLATILITY][rows]
    position = block.view.accounts.position[rows]
    wanted = np.where(np.abs(above) < 1.0, np.sign(position), -np.sign(above))
    return np.where(wanted == np.sign(position), np.nan, wanted / block.shape.n_symbols), None
