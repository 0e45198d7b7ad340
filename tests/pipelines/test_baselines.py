from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.account import Account, AccountConfig
from policyserver.pipelines.baselines import no_trade, random_actions, replay_episodes
from policyserver.pipelines.market.priors import Prior
from policyserver.pipelines.price_processes import GbmConfig
from policyserver.pipelines.prices import EpisodePrices, PricesConfig, make_source


def episodes(n: int, volatility: float = 0.01, seed: int = 3) -> list[EpisodePrices]:
    gbm = GbmConfig(volatility=Prior.fixed(volatility))
    source = make_source(PricesConfig(process="gbm", gbm=gbm, warmup_bars=3, bars_per_episode=80, steps_per_bar=1), seed)
    return [source.episode(source.symbols[index % 4], index) for index in range(n)]


def step_by_step(config: AccountConfig, prices: EpisodePrices, actions: list[int]) -> tuple[float, float, float]:
    """Return, profit and costs of actions played on dripped bars, one after the other."""
    bar = prices.next_bar()
    while bar is not None and bar.index < 0:
        bar = prices.next_bar()
    assert bar is not None
    account, rewards = Account(config, bar.close), 0.0
    for action in actions:
        order = account.order(action)
        bar = prices.next_bar()
        assert bar is not None
        if order is not None:
            account.fill(order, bar.open)
        rewards += account.mark(bar.close)
        if account.ruined:
            break
    return rewards, account.profit, account.costs / config.initial_equity


@pytest.mark.parametrize("volatility", [0.01, 0.2])
def test_replaying_actions_equals_the_account_step_by_step(volatility: float) -> None:
    config = AccountConfig(unit_fraction=0.9, slippage_fraction=0.002)
    played = episodes(40, volatility)
    actions = np.random.default_rng(2).integers(3, size=(40, 80))
    result = replay_episodes(config, played, list(actions))
    expected = [step_by_step(config, prices, row.tolist()) for prices, row in zip(played, actions, strict=True)]
    np.testing.assert_allclose(np.transpose([result.returns, result.profits, result.costs]), expected, rtol=1e-10, atol=1e-10)
    if volatility > 0.1:
        assert (result.profits < -0.9).any(), "some account was ruined, so the end of an episode before its last bar was tested too"


def test_no_trade_earns_exactly_nothing() -> None:
    result = no_trade(AccountConfig(), episodes(5))
    assert not np.any(result.returns)
    assert not np.any(result.profits)
    assert not np.any(result.costs)


def test_random_actions_pay_fees_and_are_a_function_of_seed_and_episode() -> None:
    first, played_on = episodes(8), episodes(8)
    for prices in played_on:
        prices.next_bar()
    result, again = random_actions(AccountConfig(), first, seed=1), random_actions(AccountConfig(), played_on[::-1], seed=1)
    np.testing.assert_array_equal(result.returns, again.returns[::-1])
    assert result.costs.min() > 0.01
    assert not np.array_equal(result.returns, random_actions(AccountConfig(), first, seed=2).returns)


def test_episodes_of_different_lengths_are_refused() -> None:
    short = make_source(PricesConfig(bars_per_episode=5), 1).episode("AAA", 0)
    with pytest.raises(ValueError, match=r"expected one length, received \[5, 80\] actions"):
        no_trade(AccountConfig(), [*episodes(1), short])
