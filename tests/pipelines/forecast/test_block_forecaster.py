"""The forecasts of a block's rows: of the features that are documented, by a model that knows their past alone, the same in each run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from policyserver.pipelines.forecast.block_forecaster import INPUTS, STATISTICS, BlockForecaster, Sharing
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.forecast.return_model import ReturnModel
from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.block import GOES_ON
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.prices import PricesConfig, make_source
from tests.pipelines.market.price_paths import begun
from tests.pipelines.market.reference.features import REGRESSOR_FEATURES, FeatureState

SOURCE = make_source(PricesConfig(bars_per_episode=30, warmup_bars=40), seed=3)


@dataclass
class Noted:
    """What models were taught."""

    learnt: list[tuple[dict[str, float], float]]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    learn, notes = ReturnModel.learn, Noted([])

    def note(self: ReturnModel, features: FloatArray, forecasts: FloatArray, log_returns: FloatArray) -> None:
        named = [dict(zip(INPUTS, row, strict=True)) for row in features.tolist()]
        notes.learnt += list(zip(named, log_returns.tolist(), strict=True))
        learn(self, features, forecasts, log_returns)

    monkeypatch.setattr(ReturnModel, "learn", note)
    return notes


def played(n_rows: int, rounds: int = 1, sharing: Sharing = "block") -> tuple[BlockForecaster, FloatArray, int]:
    """Play rounds of episodes; return the forecaster, all its forecasts, (bars, rows, 3), and the labels that could be judged."""
    episodes = [SOURCE.episodes(range(n * n_rows, (n + 1) * n_rows)) for n in range(rounds)]
    block, feed = begun(episodes[0], statistics=STATISTICS)
    forecaster, rows = BlockForecaster(block.view, RegressorConfig(), sharing), np.arange(n_rows)
    forecasts, judged = [], 0
    for number, beginning in enumerate(episodes):
        if number:
            begin_episodes(block, feed, rows, beginning)
        forecaster.begin(rows, beginning)
        forecaster.predict(rows)
        forecasts.append(block.view.forecast[:, 0].copy())
        for _ in range(30):
            block.fill(rows, feed.next(rows))
            judged += len(forecaster.learn(rows)[0])
            forecaster.predict(rows)
            forecasts.append(block.view.forecast[:, 0].copy())
    return forecaster, np.array(forecasts), judged


@pytest.mark.long
@pytest.mark.parametrize("sharing", ["block", "episode"])
def test_the_same_rows_in_the_same_blocks_give_the_same_bits(sharing: Sharing) -> None:
    first, again = (played(8, rounds=3, sharing=sharing) for _ in range(2))
    assert first[1].tobytes() == again[1].tobytes()
    assert np.any(first[1] != 0.0)


@pytest.mark.parametrize("sharing", ["block", "episode"])
def test_every_bar_after_a_forecast_is_a_label_that_is_learnt_once(noted: Noted, sharing: Sharing) -> None:
    forecaster, _, judged = played(4, rounds=2, sharing=sharing)
    assert judged == len(noted.learnt) == 4 * 2 * 30
    assert forecaster.skipped == 0
    if sharing == "block":
        assert forecaster.learned == 4 * 2 * 30
    else:
        assert forecaster.learned == 4 * 30, "of the newest episodes: each has a model of its own"


def test_a_label_goes_with_the_features_of_the_bar_before_it(noted: Noted) -> None:
    played(1)
    (episode,) = SOURCE.episodes([0])
    closes, state = episode.bars.bars[:, 0, 3].tolist(), FeatureState()
    for close in closes[:40]:
        state.update(close)
    assert INPUTS == REGRESSOR_FEATURES
    for (inputs, label), close in zip(noted.learnt, closes[40:], strict=True):
        assert inputs == pytest.approx(state.regressor_features(), abs=1e-12)
        state.update(close)
        assert label == pytest.approx(state.last_return, abs=1e-15)


@pytest.mark.long
def test_a_model_of_an_episode_knows_nothing_of_other_episodes() -> None:
    alone, beside = played(1, sharing="episode")[1], played(5, sharing="episode")[1]
    np.testing.assert_allclose(alone[:, 0], beside[:, 0], rtol=1e-9, atol=1e-15)  # sums of other shapes round otherwise
    later = played(1, rounds=2, sharing="episode")[1]
    assert not np.any(later[31]), "and nothing of the one before it in its row"
    assert np.any(played(1, rounds=2, sharing="block")[1][31])


def test_rows_that_have_no_bar_yet_teach_nothing_and_the_others_as_ever(noted: Noted) -> None:
    episodes = SOURCE.episodes(range(3))
    block, feed = begun(episodes, statistics=STATISTICS)
    forecaster, rows = BlockForecaster(block.view, RegressorConfig()), np.arange(3)
    forecaster.begin(rows, episodes)
    forecaster.predict(np.array([0, 2]))
    block.fill(rows, feed.next(rows))
    errors, returns = forecaster.learn(rows)
    assert len(errors) == len(returns) == len(noted.learnt) == 2
    labels = [_last_return(episodes[row], 40) for row in (0, 2)]
    assert [label for _, label in noted.learnt] == pytest.approx(labels)
    assert returns == pytest.approx(np.square(labels))
    assert block.mark(rows).ends.tolist() == [GOES_ON] * 3


def _last_return(episode: Episode, bar: int) -> float:
    closes = episode.bars.bars[:, 0, 3]
    return float(np.log(closes[bar] / closes[bar - 1]))
