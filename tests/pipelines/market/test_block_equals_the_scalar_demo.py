"""A block plays the demo's episodes as one account and one set of features at a time did: the same observations, rewards, fills, ends."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines.forecast.regressor import Prediction
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.block import DATA_END, GOES_ON, EpisodeBlock
from policyserver.pipelines.market.execution.account_config import AccountConfig as BlockAccountConfig
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.reference.account import Account, AccountConfig
from tests.pipelines.market.reference.features import FeatureState

STEPS = 60
CREDIT = BlockAccountConfig(max_leverage=None)
"""As in the demo, where a fee may be on credit."""


class Scalar:
    """One episode of the demo as it was before blocks: plain numbers, one after the other."""

    def __init__(self, bars: FloatArray, warmup_bars: int) -> None:
        self.bars = bars
        self.bar = warmup_bars - 1
        self.warmup_bars = warmup_bars
        self.features = FeatureState()
        for close in bars[:warmup_bars, 3]:
            self.features.update(float(close))
        self.account = Account(AccountConfig(), float(bars[warmup_bars - 1, 3]))

    def step(self, action: int) -> tuple[float, bool]:
        order = self.account.order(action)
        self.bar += 1
        if order is not None:
            self.account.fill(order, float(self.bars[self.bar, 0]))
        close = float(self.bars[self.bar, 3])
        reward = self.account.mark(close)
        self.features.update(close)
        return reward, self.account.ruined or self.bar == len(self.bars) - 1

    def observation(self, mean: float, std: float) -> np.ndarray:
        left = 1.0 - (self.bar - self.warmup_bars + 1) / (len(self.bars) - self.warmup_bars)
        return self.features.observation(Prediction(mean, std), self.account, left)


@pytest.mark.long
@pytest.mark.parametrize("volatility", [0.01, 0.2])
def test_a_block_plays_what_the_scalar_demo_played(volatility: float) -> None:
    process = {"name": "gbm", "volatility": {"low": volatility, "high": volatility}}
    source = make_source(PricesConfig(process=process, bars_per_episode=STEPS, warmup_bars=80), seed=4)
    episodes = source.episodes(range(48))
    rng = np.random.default_rng(1)
    block, feed = EpisodeBlock(48, source.slots, Rules.of(RulesConfig(account=CREDIT))), BarFeed(48, 1)
    begin_episodes(block, feed, np.arange(48), episodes)
    scalars = [Scalar(episode.bars.bars[:, 0, :], 80) for episode in episodes]
    going, ruined = np.arange(48), 0
    for step in range(STEPS):
        block.view.forecast[:, 0, 0] = 0.001 * rng.standard_normal(48)
        block.view.forecast[:, 0, 1] = rng.choice([0.0, 0.01], 48)
        forecast = block.view.forecast[going, 0]
        expected = [scalars[row].observation(*forecast[place, :2]) for place, row in enumerate(going)]
        np.testing.assert_allclose(block.observe(going), expected, rtol=2e-6, atol=2e-6)
        actions = rng.integers(3, size=len(going))
        block.act(going, actions)
        block.fill(going, feed.next(going))
        marked = block.mark(going)
        results = [scalars[row].step(int(action)) for row, action in zip(going, actions, strict=True)]
        np.testing.assert_allclose(marked.rewards, [reward for reward, _ in results], atol=1e-9)
        over = marked.ends != GOES_ON
        assert over.tolist() == [ended for _, ended in results]
        assert (step == STEPS - 1) or DATA_END not in marked.ends
        ruined += int((marked.ends > 0).sum())
        going = going[~over]
    assert len(going) == 0
    accounts = block.view.accounts
    for name in ("cash", "equity", "fees", "slippage", "turnover", "fills", "drawdown", "entry_equity"):
        expected = [getattr(scalar.account, name) for scalar in scalars]
        np.testing.assert_allclose(getattr(accounts, name), expected, rtol=1e-9, atol=1e-7, err_msg=name)
    assert (ruined > 0) == (volatility > 0.1), "the end by ruin was compared, too"
