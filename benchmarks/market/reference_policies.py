"""What the return of a policy is to be held against: a rule of one line, and the best that somebody who knows the parameters can do.

Both are played on the bars of given episodes, with the account's arithmetic and costs, many episodes at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from policyserver.monitoring.action import Action
from policyserver.pipelines.account import AccountConfig
from policyserver.pipelines.baselines import ReplayResult, no_trade, replay_episodes
from policyserver.pipelines.features import FeatureState
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.prices import EpisodePrices

_LEVELS = 121
"""Points of the grid of deviations; a bar's shock is some four of its steps, which integrates a normal density to nine digits."""
_STATIONARY_DEVIATIONS = 5.0
"""Where the grid ends, in standard deviations of the stationary law."""
_ACTION_OF = {-1: Action.SELL, 0: Action.HOLD, 1: Action.BUY}


def mean_reversion_rule(config: AccountConfig, episodes: Sequence[EpisodePrices]) -> ReplayResult:
    """Return what it earns to be short above the running mean of the log-price by one volatility, and long below it by one.

    In between the position is kept. Mean and volatility are the policy's own features: the mean since the first warm-up bar, the
    exponential root mean square return. See `replay_episodes` for what is returned and raised.
    """
    return replay_episodes(config, episodes, [_rule_actions(prices) for prices in episodes])


def optimum(config: AccountConfig, episodes: Sequence[EpisodePrices]) -> ReplayResult:
    """Return what the best decisions earn of somebody who knows the law of an episode's prices and its parameters.

    Of Ornstein-Uhlenbeck prices they are found by dynamic programming over (deviation from the mean, position, bars left); in a fair game
    nothing beats holding cash. See `replay_episodes` for what is returned.

    Raises:
        ValueError: the prices are neither, or the episodes differ in length.
    """
    if all(_is_fair(prices) for prices in episodes):
        return no_trade(config, episodes)
    if not all(prices.process == "ou" for prices in episodes):
        raise ValueError(f"episodes: expected ou, or gbm without drift, received {sorted({prices.process for prices in episodes})}")
    return replay_episodes(config, episodes, [_optimal_actions(config, prices) for prices in episodes])


def _is_fair(prices: EpisodePrices) -> bool:
    return prices.process == "gbm" and prices.parameters["price_drift"] == 0.0


def _rule_actions(prices: EpisodePrices) -> IntArray:
    state, actions = FeatureState(), np.full(prices.n_steps, Action.HOLD)
    for bar in prices.bars.rows(1 - prices.warmup_bars):
        state.update(bar)
        if 0 <= bar.index < prices.n_steps:
            above = state.regressor_features()["distance_slow"]
            actions[bar.index] = Action.SELL if above > state.volatility else Action.BUY if above < -state.volatility else Action.HOLD
    return actions


def _optimal_actions(config: AccountConfig, prices: EpisodePrices) -> IntArray:
    """Follow the plan of an episode's parameters along its closes."""
    levels, plan = plan_of(config, prices.parameters, prices.n_steps)
    closes = prices.bars.close[prices.warmup_bars - 1 : -1]
    deviations = np.log(closes) - math.log(prices.parameters["mean_price"])
    nearest = np.clip(np.rint((deviations - levels[0]) / (levels[1] - levels[0])), 0, len(levels) - 1).astype(np.int64)
    actions, position = np.empty(prices.n_steps, np.int64), 0
    for step, level in enumerate(nearest):
        target = int(plan[step, level, position + 1])
        actions[step] = Action.HOLD if target == position else _ACTION_OF[target]
        position = target
    return actions


def plan_of(config: AccountConfig, parameters: Mapping[str, float], n_steps: int) -> tuple[FloatArray, IntArray]:
    """Return the best target at each bar of an episode of Ornstein-Uhlenbeck prices, by backward induction.

    The reward is the account's: the log-equity gained, with fee and slippage on what changes hands. The position's share of the equity is
    taken to be what it was ordered as; the account lets it drift with the price.

    Args:
        config: money and costs.
        parameters: reversion and volatility per bar, as `OuConfig.draw_parameters` gives them.
        n_steps: number of actions.

    Returns:
        Deviations of the log-price from the mean, float64 (121,), and the targets -1, 0 and 1 by step, deviation and the position before,
        int64 (n_steps, 121, 3). 0 is there for positions before the first order only: the actions lead to -1 and 1.
    """
    stationary = parameters["volatility"] / math.sqrt(2.0 * parameters["reversion"])
    decay = math.exp(-parameters["reversion"])
    shock = stationary * math.sqrt(1.0 - decay**2)
    levels = stationary * np.linspace(-_STATIONARY_DEVIATIONS, _STATIONARY_DEVIATIONS, _LEVELS)
    chances = np.exp(-0.5 * ((levels[None, :] - decay * levels[:, None]) / shock) ** 2)
    chances /= chances.sum(axis=1, keepdims=True)

    targets = np.array([-1, 0, 1])
    gains = np.expm1(levels[None, :] - levels[:, None])[:, :, None] * (config.unit_fraction * targets)
    rewards = config.reward_scale * np.einsum("ij,ijp->ip", chances, np.log1p(np.maximum(gains, config.ruin_fraction - 1.0)))
    traded = np.abs(targets[:, None] - targets[None, :]) * config.unit_fraction
    costs = -config.reward_scale * np.log1p(-np.minimum(traded * (config.fee_fraction + config.slippage_fraction), 0.999))
    costs[[0, 2], 1] = np.inf  # no action closes a position

    value = np.zeros((_LEVELS, 3))
    plan = np.empty((n_steps, _LEVELS, 3), np.int64)
    for step in reversed(range(n_steps)):
        ahead = rewards + chances @ value
        options = ahead[:, None, :] - costs[None, :, :]  # level, position before, target
        best = options.argmax(axis=2)
        plan[step] = targets[best]
        value = np.take_along_axis(options, best[:, :, None], axis=2)[:, :, 0]
    return levels, plan
