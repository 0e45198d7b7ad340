"""Baselines: what doing nothing and acting at random would have earned on the same bars, with the same costs; many episodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policyserver.monitoring.action import Action
from policyserver.pipelines.account import EQUITY_FLOOR, AccountConfig
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.prices import EpisodePrices, episode_rng


@dataclass(frozen=True, slots=True, eq=False)
class ReplayResult:
    """What each of n episodes earned."""

    returns: FloatArray
    """Sum of the rewards, float64 (n,)."""
    profits: FloatArray
    """Simple profit, costs taken off, over the initial equity, float64 (n,)."""
    costs: FloatArray
    """Fees and slippage over the initial equity, float64 (n,)."""


def no_trade(config: AccountConfig, episodes: Sequence[EpisodePrices]) -> ReplayResult:
    """Return what holding cash earns; see `replay_episodes`."""
    return replay_episodes(config, episodes, [np.full(prices.n_steps, Action.HOLD) for prices in episodes])


def random_actions(config: AccountConfig, episodes: Sequence[EpisodePrices], seed: int) -> ReplayResult:
    """Return what uniformly random actions earn, a function of the seed and the episodes alone; see `replay_episodes`."""
    actions = [
        episode_rng(seed, prices.symbol, prices.episode_index, purpose="random actions").integers(len(Action), size=prices.n_steps)
        for prices in episodes
    ]
    return replay_episodes(config, episodes, actions)


def replay_episodes(config: AccountConfig, episodes: Sequence[EpisodePrices], actions: Sequence[IntArray]) -> ReplayResult:
    """Play given actions on episodes of one length, from their first action on, whatever was dripped already.

    Raises:
        ValueError: the episodes differ in length.
    """
    if len({prices.n_steps for prices in episodes}) > 1:
        raise ValueError(f"episodes: expected one length, received {sorted({prices.n_steps for prices in episodes})} actions")
    opens = np.array([prices.bars.open[prices.warmup_bars :] for prices in episodes])
    closes = np.array([prices.bars.close[prices.warmup_bars - 1 :] for prices in episodes])
    return replay(config, opens, closes, np.array(actions))


def replay(config: AccountConfig, opens: FloatArray, closes: FloatArray, actions: npt.NDArray[np.integer]) -> ReplayResult:
    """Play actions on bars with the arithmetic of `Account`, step by step, all episodes at once.

    Args:
        config: money and costs.
        opens: opens of the bars after the warm-up, float64 (n, t).
        closes: closes from the bar of the first action on, float64 (n, t + 1).
        actions: the actions, integers (n, t).
    """
    n, n_steps = actions.shape
    cash = np.full(n, config.initial_equity)
    equity, marked = cash.copy(), cash.copy()
    position, costs, returns = np.zeros(n), np.zeros(n), np.zeros(n)
    target = np.zeros(n, dtype=np.int64)
    alive = np.ones(n, dtype=bool)
    floor = EQUITY_FLOOR * config.initial_equity
    for step in range(n_steps):
        action = actions[:, step]
        wanted = np.where(alive & (action != Action.HOLD), np.where(action == Action.BUY, 1, -1), target)
        units = wanted * config.unit_fraction * equity / closes[:, step]
        quantity = np.where(wanted != target, units - position, 0.0)
        target = wanted

        slip = opens[:, step] * config.slippage_fraction
        price = np.where(quantity > 0, opens[:, step] + slip, opens[:, step] - slip)
        fee = np.abs(quantity) * price * config.fee_fraction
        cash -= quantity * price + fee
        position += quantity
        costs += fee + np.abs(quantity) * slip

        equity = np.where(alive, cash + position * closes[:, step + 1], equity)
        returns += config.reward_scale * np.log(np.maximum(equity, floor) / np.maximum(marked, floor))
        marked = equity
        alive &= equity > config.ruin_fraction * config.initial_equity
    return ReplayResult(returns, equity / config.initial_equity - 1.0, costs / config.initial_equity)
