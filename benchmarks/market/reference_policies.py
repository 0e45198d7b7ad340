"""What the return of a policy is to be held against: a rule of one line, and the optimum, which knows the parameters.

Both are played on given episodes, by the rules of the run, many episodes at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.monitoring.action import Action
from policyserver.pipelines.baselines import Results, play
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.history import FIELDS
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.running_statistics import MeanSinceStart, Volatility
from policyserver.pipelines.market.schemes.actions.sell_hold_buy import SellHoldBuy
from policyserver.pipelines.market.schemes.ends.equity_ends import Ruin
from policyserver.pipelines.market.schemes.rewards.log_equity import LogEquity
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.prices.config import make_slots

_LEVELS = 121
"""Points of the grid of deviations; a bar's shock is some four of its steps, which integrates a normal density to nine digits."""
_STATIONARY_DEVIATIONS = 5.0
"""Where the grid ends, in standard deviations of the stationary law."""
_ACTION_OF = {-1: Action.SELL, 0: Action.HOLD, 1: Action.BUY}
_SLOTS = make_slots(PricesConfig())
_CLOSE = FIELDS.index("close")
_MEAN, _VOLATILITY = MeanSinceStart(), Volatility()


@dataclass(frozen=True, slots=True)
class Terms:
    """What the rules of the demo say in numbers."""

    unit_fraction: float
    """Notional of one unit as a fraction of the equity."""
    cost_fraction: float
    """Fee and slippage as a fraction of the notional."""
    ruin_fraction: float
    """Of the initial equity."""
    reward_scale: float
    """Reward per unit of log-equity."""

    @classmethod
    def of(cls, rules: Rules) -> Terms:
        """Read the terms of rules.

        Raises:
            ValueError: They are about other actions, rewards or ends than the demo's.
        """
        match rules.actions, rules.rewards, rules.ends:
            case SellHoldBuy(unit_fraction=unit), (LogEquity(scale=scale),), (Ruin(fraction=ruin),):
                instrument = rules.instrument
                return cls(unit, instrument.fee_fraction + instrument.slippage_fraction, ruin, scale)
        received = ", ".join(type(part).__name__ for part in (rules.actions, *rules.rewards, *rules.ends))
        raise ValueError(f"rules: expected SellHoldBuy, LogEquity, Ruin, received {received}")


def mean_reversion_rule(rules: Rules, episodes: Sequence[Episode]) -> Results:
    """Return what it earns to be short above the running mean of the log-price by one volatility, and long below it by one.

    In between the position is kept. Mean and volatility are those that the policy observes: the mean since the first warm-up bar, the
    exponential root mean square return.
    """
    return play(rules, _SLOTS, episodes, _rule_actions, frozenset({_MEAN, _VOLATILITY}))


def _rule_actions(block: EpisodeBlock, rows: IntArray, step: int) -> npt.NDArray[Any]:
    statistics = block.view.statistics
    above = (statistics.prices.log_price[rows] - statistics[_MEAN][rows])[:, 0]
    volatility = statistics[_VOLATILITY][rows, 0]
    return np.where(above > volatility, Action.SELL, np.where(above < -volatility, Action.BUY, Action.HOLD))


def optimum(rules: Rules, episodes: Sequence[Episode]) -> Results:
    """Return what the best decisions earn if the law of an episode's prices and its parameters are known.

    Of Ornstein-Uhlenbeck prices they are found by dynamic programming over (deviation from the mean, position, bars left); in a fair game
    nothing beats holding cash.

    Raises:
        ValueError: The prices are neither, or the rules are others than the demo's.
    """
    parameters = [episode.bars.parameters for episode in episodes]
    if all(drawn.get("price_drift") == 0.0 for drawn in parameters):
        return play(rules, _SLOTS, episodes, lambda block, rows, step: block.keeping(rows), holds=np.ones(len(episodes), dtype=np.bool_))
    if not all("reversion" in drawn for drawn in parameters):
        raise ValueError(f"episodes: expected ou, or gbm without drift, received {[dict(drawn) for drawn in parameters[:1]]}")
    terms = Terms.of(rules)
    actions = [_optimal_actions(terms, episode) for episode in episodes]
    return play(rules, _SLOTS, episodes, lambda block, rows, step: np.array([actions[row][step] for row in rows.tolist()]))


def _optimal_actions(terms: Terms, episode: Episode) -> IntArray:
    """Follow the plan of an episode's parameters along its closes."""
    bars = episode.bars
    levels, plan = plan_of(terms, bars.parameters, bars.n_steps)
    closes = bars.bars[bars.warmup_bars - 1 : -1, 0, _CLOSE]
    deviations = np.log(closes) - math.log(bars.parameters["mean_price"])
    nearest = np.clip(np.rint((deviations - levels[0]) / (levels[1] - levels[0])), 0, len(levels) - 1).astype(np.int64)
    actions, position = np.empty(bars.n_steps, np.int64), 0
    for step, level in enumerate(nearest):
        target = int(plan[step, level, position + 1])
        actions[step] = Action.HOLD if target == position else _ACTION_OF[target]
        position = target
    return actions


def plan_of(terms: Terms, parameters: Mapping[str, float], n_steps: int) -> tuple[FloatArray, IntArray]:
    """Return the best target at each bar of an episode of Ornstein-Uhlenbeck prices, by backward induction.

    The reward is the account's: the log-equity gained, with fee and slippage on what changes hands. The position's share of the equity is
    taken to be what it was ordered as; the account lets it drift with the price.

    Args:
        terms: Unit and costs.
        parameters: Reversion and volatility per bar, as `OrnsteinUhlenbeck.draw_parameters` gives them.
        n_steps: Number of actions.

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
    gains = np.expm1(levels[None, :] - levels[:, None])[:, :, None] * (terms.unit_fraction * targets)
    rewards = terms.reward_scale * np.einsum("ij,ijp->ip", chances, np.log1p(np.maximum(gains, terms.ruin_fraction - 1.0)))
    traded = np.abs(targets[:, None] - targets[None, :]) * terms.unit_fraction
    costs = -terms.reward_scale * np.log1p(-np.minimum(traded * terms.cost_fraction, 0.999))
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
