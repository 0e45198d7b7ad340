"""Between two actions positions are kept, accounts are marked at each bar and rewards are summed, as one account at a time does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserver.common.settings import SettingsError
from policyserver.pipelines.baselines import play
from policyserver.pipelines.market.episode_source import Episode, EpisodeSource
from policyserver.pipelines.market.execution.account_config import AccountConfig as BlockAccountConfig
from policyserver.pipelines.market.frames import FrameSums, asked
from policyserver.pipelines.market.intervals import MINUTE_NS
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.vector_env import TradingVectorEnv
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.reference.account import Account, AccountConfig

RULES = Rules.of(RulesConfig(account=BlockAccountConfig(max_leverage=None)))
STEPS, WARMUP, N = 47, 40, 24


class ScalarFrames:
    """One account that is asked at each n-th bar: the reference."""

    def __init__(self, episode: Episode, skip_frame: int) -> None:
        bars = episode.bars.bars[episode.bars.warmup_bars - 1 :, 0].tolist()
        self.account, self._bars, self._skip = Account(AccountConfig(), bars[0][3]), bars[1:], skip_frame

    def step(self, action: int) -> tuple[float, bool]:
        """Take an action; play bars until the next one is due. Returns the sum of the rewards, and whether the episode is over."""
        order, total = self.account.order(action), 0.0
        for _ in range(self._skip):
            open_, _, _, close, _ = self._bars.pop(0)
            if order is not None:
                self.account.fill(order, open_)
                order = None
            total += self.account.mark(close)
            if self.account.ruined or not self._bars:
                return total, True
        return total, False


def source(volatility: float = 0.01, **prices: Any) -> EpisodeSource:
    process = {"name": "gbm", "volatility": {"low": volatility, "high": volatility}}
    return make_source(PricesConfig(process=process, bars_per_episode=STEPS, warmup_bars=WARMUP, **prices), seed=4)


@pytest.mark.long
@pytest.mark.parametrize(("skip_frame", "volatility"), [(1, 0.01), (2, 0.01), (5, 0.01), (100, 0.01), (4, 0.3)])
def test_skipped_frames_equal_an_account_that_is_asked_at_each_nth_bar(skip_frame: int, volatility: float) -> None:
    env = TradingVectorEnv(source(volatility, skip_frame=skip_frame), RULES, N)
    env.reset(seed=0)
    scalars = [ScalarFrames(episode, skip_frame) for episode in source(volatility).episodes(range(N))]
    rng, going, n_steps, ruined = np.random.default_rng(1), np.ones(N, dtype=np.bool_), 0, 0
    while going.any():
        actions = rng.integers(3, size=N)
        _, rewards, terminated, truncated, infos = env.step(actions)
        np.testing.assert_allclose(infos["terms"].sum(axis=1), rewards, atol=1e-12)
        expected = [scalar.step(int(action)) for scalar, action, goes in zip(scalars, actions, going, strict=True) if goes]
        np.testing.assert_allclose(rewards[going], [reward for reward, _ in expected], atol=1e-9)
        over = terminated | truncated
        assert over[going].tolist() == [ended for _, ended in expected]
        ruined += int((terminated & going).sum())
        accounts = env.block.view.accounts
        held = [scalar.account for scalar in scalars]
        for name in ("equity", "fees", "slippage", "turnover", "drawdown"):
            value = getattr(accounts, name)[going & over]
            np.testing.assert_allclose(value, [getattr(held[row], name) for row in np.flatnonzero(going & over)], rtol=1e-9, atol=1e-9)
        going &= ~over
        n_steps += 1
    assert n_steps == -(-STEPS // skip_frame) or ruined
    assert (ruined > 0) == (volatility > 0.1), "the end by ruin within a frame was compared, too"


@pytest.mark.parametrize("skip_frame", [1, 3, 10])
def test_baselines_act_at_the_same_bars(skip_frame: int) -> None:
    actions = np.random.default_rng(3).integers(3, size=(N, STEPS))
    episodes = source(skip_frame=skip_frame).episodes(range(N))
    result = play(RULES, ("price",), episodes, lambda block, rows, step: actions[rows, step])
    expected = []
    for row, episode in enumerate(source().episodes(range(N))):
        scalar, total = ScalarFrames(episode, skip_frame), 0.0
        for bar in range(0, STEPS, skip_frame):
            total += scalar.step(int(actions[row, bar]))[0]
        expected.append([total, scalar.account.profit])
    np.testing.assert_allclose(np.transpose([result.returns, result.profits]), expected, atol=1e-9)


@pytest.mark.long
@given(count=st.integers(2, 300), warmup=st.integers(1, 50), skip=st.integers(1, 60))
def test_each_nth_bar_from_the_first_action_on(count: int, warmup: int, skip: int) -> None:
    warmup = min(warmup, count - 1)
    asks = asked(MINUTE_NS * np.arange(count), None, warmup, "each_bar", skip_frame=skip)
    if asks is None:
        assert skip == 1
    else:
        assert np.flatnonzero(asks).tolist() == list(range(warmup - 1, count, skip))


def test_a_length_of_time_asks_at_the_first_bar_at_or_after_each_multiple() -> None:
    minutes = np.array([1, 3, 5, 6, 9, 11, 12, 14, 15, 31, 32, 45])
    asks = asked(MINUTE_NS * minutes, None, 2, "5min")
    assert asks is not None
    assert minutes[asks].tolist() == [3, 5, 11, 15, 31, 45], "3 is the first action's"
    every_other = asked(MINUTE_NS * minutes, None, 2, "5min", skip_frame=2)
    assert every_other is not None
    assert minutes[every_other].tolist() == [3, 11, 31]


def test_all_symbols_are_waited_for_until_the_deadline() -> None:
    times = MINUTE_NS * np.arange(1, 9)
    present = np.array([[1, 1], [1, 0], [1, 0], [0, 1], [1, 1], [0, 1], [0, 1], [1, 0]], dtype=np.bool_)
    assert asked(times, None, 1, "all_symbols") is None, "where all have a bar each time it is each bar"
    asks = asked(times, present, 1, "all_symbols")
    assert asks is not None
    assert np.flatnonzero(asks).tolist() == [0, 3, 4, 7]
    soon = asked(times, present, 1, "all_symbols", deadline_ns=MINUTE_NS)
    assert soon is not None
    assert np.flatnonzero(soon).tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decide": "sometimes"}, "decide: expected each_bar, all_symbols, or a length of time such as 5min, received 'sometimes'"),
        ({"decide_deadline": "1min"}, "decide_deadline: expected none without decide = \"all_symbols\", received '1min'"),
        ({"decide": "all_symbols", "decide_deadline": "later"}, "decide_deadline: expected a length such as 1min"),
        ({"skip_frame": 0}, "skip_frame: expected at least 1, received 0"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        PricesConfig(**wrong)


def test_sums_are_of_each_row_and_start_anew() -> None:
    sums = FrameSums(3, 2)
    sums.add(np.array([0, 2]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    sums.add(np.array([2]), np.array([[0.5, 0.5]]))
    assert sums.take(np.array([2, 1])).tolist() == [[3.5, 4.5], [0.0, 0.0]]
    assert sums.take(np.array([0, 2])).tolist() == [[1.0, 2.0], [0.0, 0.0]]
    sums.add(np.array([0]), np.array([[1.0, 1.0]]))
    sums.begin(np.array([0]))
    assert not sums.take(np.array([0])).any()
