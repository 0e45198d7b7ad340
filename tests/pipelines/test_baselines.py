"""No trade earns nothing, and what a rule or chance would have earned depends on the rules, the seed and the episode alone."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policyserver.pipelines.baselines import Baselines, actions_rng, play, random_actions
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions import ACTIONS
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.price_paths import SLOTS
from tests.pipelines.market.reference.account import Account, AccountConfig

RULES = Rules.of(RulesConfig())


def episodes(n: int, volatility: float = 0.01, seed: int = 3, bars: int = 80) -> list[Episode]:
    process = {"name": "gbm", "volatility": {"low": volatility, "high": volatility}}
    source = make_source(PricesConfig(process=process, warmup_bars=8, bars_per_episode=bars, steps_per_bar=1), seed)
    return source.episodes(range(n))


def step_by_step(config: AccountConfig, episode: Episode, actions: list[int]) -> tuple[float, float, float]:
    """Return, profit and costs of actions played on one account, bar by bar."""
    bars = episode.bars.bars[episode.bars.warmup_bars - 1 :, 0].tolist()
    account, rewards = Account(config, bars[0][3]), 0.0
    for action, (open_, _, _, close, _) in zip(actions, bars[1:], strict=True):
        order = account.order(action)
        if order is not None:
            account.fill(order, open_)
        rewards += account.mark(close)
        if account.ruined:
            break
    return rewards, account.profit, account.costs / config.initial_equity


@pytest.mark.long
@pytest.mark.parametrize("volatility", [0.01, 0.2])
def test_playing_actions_equals_the_account_step_by_step(volatility: float) -> None:
    choice = {"name": "sell_hold_buy", "unit_fraction": 0.9}
    rules = Rules.of(RulesConfig(actions=choice, instrument=InstrumentConfig(slippage_fraction=0.002)))
    played = episodes(40, volatility)
    actions = np.random.default_rng(2).integers(3, size=(40, 80))
    result = play(rules, SLOTS, played, lambda block, rows, step: actions[rows, step])
    config = AccountConfig(unit_fraction=0.9, slippage_fraction=0.002)
    expected = [step_by_step(config, episode, row.tolist()) for episode, row in zip(played, actions, strict=True)]
    np.testing.assert_allclose(np.transpose([result.returns, result.profits, result.costs]), expected, rtol=1e-10, atol=1e-10)
    if volatility > 0.1:
        assert (result.profits < -0.9).any(), "some account was ruined, so the end of an episode before its last bar was tested too"


@pytest.mark.long
@pytest.mark.parametrize("actions", ["sell_hold_buy", "limit_offsets", {"name": "simplex_weights", "sharpness": 0.5}])
def test_no_trade_earns_exactly_nothing(actions: Any) -> None:
    """Also where no action of the scheme is exactly that: a softmax has a little of each symbol."""
    result, _ = Baselines(Rules.of(RulesConfig(actions=actions)), SLOTS, seed=1).of(episodes(5))
    assert not np.any(result.returns)
    assert not np.any(result.profits)
    assert not np.any(result.costs)


@pytest.mark.long
def test_random_actions_pay_fees_and_are_a_function_of_seed_and_episode() -> None:
    first, played_on = episodes(8), episodes(8)
    feed = BarFeed(8, 1)
    for row, episode in enumerate(played_on):
        feed.begin(row, episode.bars)
    feed.next(np.arange(8))
    baselines = Baselines(RULES, SLOTS, seed=1)
    (_, result), (_, again) = baselines.of(first), baselines.of(played_on[::-1])
    np.testing.assert_array_equal(result.returns, again.returns[::-1])
    assert result.costs.min() > 0.01
    assert not np.array_equal(result.returns, Baselines(RULES, SLOTS, seed=2).of(first)[1].returns)


@pytest.mark.long
def test_episodes_of_different_lengths_are_each_played_to_their_end() -> None:
    mixed = [*episodes(3), *episodes(3, bars=5), *episodes(2, bars=200)]
    baselines = Baselines(RULES, SLOTS, seed=1)
    for together, alone in zip(baselines.of(mixed), zip(*(baselines.of([episode]) for episode in mixed), strict=True), strict=True):
        for name in ("returns", "profits", "costs"):
            np.testing.assert_array_equal(getattr(together, name), np.concatenate([getattr(result, name) for result in alone]))


@pytest.mark.parametrize("scheme", ACTIONS.shipped)
def test_random_actions_are_of_the_schemes_space_and_begin_alike_however_many_are_wanted(scheme: str) -> None:
    actions = Rules.of(RulesConfig(actions=scheme)).actions
    space = actions.space(("AAA", "BBB"))
    (episode,) = episodes(1)
    drawn = random_actions(space, actions_rng(1, episode), 200)
    assert all(space.contains(action) for action in drawn)
    assert len(np.unique(drawn)) >= 3
    np.testing.assert_array_equal(random_actions(space, actions_rng(1, episode), 50), drawn[:50])


def test_a_space_that_has_no_random_actions_is_refused() -> None:
    (episode,) = episodes(1)
    with pytest.raises(ValueError, match="actions: expected a Discrete, MultiDiscrete or Box space, received Text"):
        random_actions(gym.spaces.Text(3), actions_rng(1, episode), 5)
