from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest

from policyserver.pipelines.account import Account, AccountConfig
from policyserver.pipelines.events import Episode
from policyserver.pipelines.features import FeatureState
from policyserver.pipelines.forecast.regressor import NO_PREDICTION, Prediction, RegressorConfig, ReturnRegressor
from policyserver.pipelines.forecasters import HistoryForecaster
from policyserver.pipelines.market.bars import Bars, FloatArray, History
from policyserver.pipelines.prices import EpisodePrices
from tests.pipelines.recorded_prices import fair_game

WINDOW, WARMUP = 60, 20


def history(closes: FloatArray) -> History:
    return History(Bars(np.arange(len(closes)), closes, closes, closes, closes, np.zeros(len(closes))), WINDOW)


def episode(recorded: History, first_row: int) -> Episode:
    bars = recorded.bars.slice(first_row, first_row + WINDOW)
    prices = EpisodePrices("A", first_row, "csv", {}, bars, WARMUP, recorded, first_row)
    return Episode(0, f"A-{first_row}", prices, Account(AccountConfig(), 1.0))


def never() -> bool:
    return False


def test_the_forecasts_are_those_of_one_regressor_that_goes_through_the_bars_in_order() -> None:
    recorded = history(fair_game(3_000, seed=3))
    forecaster = HistoryForecaster("A", recorded, RegressorConfig(), never)
    regressor, features = ReturnRegressor(RegressorConfig()), FeatureState(WINDOW)
    expected: list[tuple[Prediction, dict[str, float] | None]] = []
    for bar in recorded.bars.rows(0):
        before = expected[-1] if expected else None
        features.update(bar)
        if before is not None and before[1] is not None:
            regressor.learn(before[1], before[0], features.last_return)
        inputs = features.regressor_features() if bar.index else None
        expected.append((NO_PREDICTION if inputs is None else regressor.predict(inputs), inputs))
    for first_row in (2_940, 0, 1_000, 1_030, 0):  # the last one first
        played = episode(recorded, first_row)
        for bar in played.prices.bars.rows(1 - WARMUP):
            if bar.index >= 0:
                assert forecaster.forecast(played, bar) == expected[first_row + WARMUP - 1 + bar.index][0]
    assert forecaster.skipped == 0


def test_the_slow_mean_of_the_features_is_of_as_many_bars_as_an_episode_has() -> None:
    closes = fair_game(500, seed=3)
    state = FeatureState(WINDOW)
    for number, bar in enumerate(history(closes).bars.rows(0)):
        state.update(bar)
        newest = np.log(closes[max(0, number + 1 - WINDOW) : number + 1])
        assert state.regressor_features()["distance_slow"] == pytest.approx(newest[-1] - newest.mean(), abs=1e-12)


def test_a_forecast_counts_once_for_the_skill_however_many_windows_have_its_bar() -> None:
    recorded = history(fair_game(200, seed=3))
    forecaster = HistoryForecaster("A", recorded, RegressorConfig(), never)
    counted = []
    for first_row in (0, 10, 10, 140):
        played = episode(recorded, first_row)
        for bar in played.prices.bars.rows(1 - WARMUP):
            if bar.index > 0:
                counted.append(forecaster.settle(played, bar))
            if bar.index >= 0:
                forecaster.forecast(played, bar)
    assert sum(counted) == 40 + 10 + 0 + 40


def test_a_run_that_is_ending_waits_for_no_long_file() -> None:
    recorded = history(fair_game(50_000, seed=3))
    looks = count(1)
    forecaster = HistoryForecaster("A", recorded, RegressorConfig(), lambda: next(looks) > 3)
    played = episode(recorded, 49_000)
    (bar,) = played.prices.bars.slice(0, 1).rows(0)
    assert forecaster.forecast(played, bar) == NO_PREDICTION
    assert next(looks) == 5, "three blocks were learnt"


def test_a_model_that_failed_in_the_middle_has_no_bars_ahead_of_its_forecasts_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = history(fair_game(2_000, seed=3))
    played = episode(recorded, 1_500)
    (bar,) = played.prices.bars.slice(0, 1).rows(0)
    undisturbed = HistoryForecaster("A", recorded, RegressorConfig(), never).forecast(played, bar)
    forecaster = HistoryForecaster("A", recorded, RegressorConfig(), never)
    learn, calls = ReturnRegressor.learn, count(1)

    def stumble(self: ReturnRegressor, *learnt: Any) -> None:
        if next(calls) == 1_300:
            raise RuntimeError("stumbled")
        learn(self, *learnt)

    monkeypatch.setattr(ReturnRegressor, "learn", stumble)
    with pytest.raises(RuntimeError, match="stumbled"):
        forecaster.forecast(played, bar)
    assert forecaster.forecast(played, bar) == undisturbed
