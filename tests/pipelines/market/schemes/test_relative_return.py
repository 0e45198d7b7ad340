"""What `relative_return` compares with: a portfolio of all symbols in equal parts, made equal anew at each bar."""

from __future__ import annotations

import numpy as np

from policyserver.pipelines.market.bars import BarRows
from policyserver.pipelines.market.block import EpisodeBlock, WarmUp
from policyserver.pipelines.market.execution.account_config import AccountConfig
from policyserver.pipelines.market.instruments import InstrumentConfig
from policyserver.pipelines.market.rows import ALL
from policyserver.pipelines.market.rules import Rules, RulesConfig

FREE = InstrumentConfig(fee_fraction=0.0, slippage_fraction=0.0)


def test_who_holds_the_market_gets_nothing_for_it_whatever_the_symbols_do() -> None:
    """Prices open where they closed, so the portfolio is equal at each bar's beginning; two symbols that part are no gain."""
    actions = {"name": "target_weight", "tolerance": 0.0}
    rules = Rules.of(
        RulesConfig(
            actions=actions,
            observers=("position",),
            ends=(),
            rewards=("relative_return",),
            instrument=FREE,
            account=AccountConfig(max_leverage=None),
        )
    )
    block, rng = EpisodeBlock(1, ("A", "B"), rules), np.random.default_rng(1)
    warm_up = np.full((1, 300, 2, 5), 100.0)
    block.begin(np.array([0]), WarmUp(warm_up, np.zeros(1, dtype=np.int64), np.array([100])))
    close, rewards = np.full((1, 2), 100.0), []
    for _ in range(50):
        block.act(np.array([0]), np.ones((1, 2), np.float32))
        opened, close = close, close * np.exp(rng.normal(0, 0.05, (1, 2)))
        high, low = np.maximum(opened, close), np.minimum(opened, close)
        block.fill(ALL, BarRows.of(np.zeros(1, dtype=np.int64), opened, high, low, close, np.ones((1, 2))))
        rewards.append(block.mark(ALL).rewards[0])
    np.testing.assert_allclose(rewards, 0.0, atol=1e-9)
