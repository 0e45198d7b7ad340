"""The regressor learns a linear relation and its uncertainty, is believed as far as it was right, and has no skill on a fair game."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyserver.pipelines.forecast.block_forecaster import STATISTICS, BlockForecaster
from policyserver.pipelines.forecast.regressor import (
    DEFAULT_MODEL,
    NO_PREDICTION,
    Prediction,
    RegressorConfig,
    ReturnRegressor,
    skill,
)
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.feed import BarFeed
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.vector_env import begin_episodes
from policyserver.pipelines.prices import PricesConfig, make_source


def learn_from_noise(regressor: ReturnRegressor, n: int, slope: float, seed: int = 1) -> tuple[list[float], list[float]]:
    """BarFeed labels slope * x + noise; return the squared errors and squared labels, forecasts made before learning."""
    rng = np.random.default_rng(seed)
    errors, labels = [], []
    for x, noise in 0.01 * rng.standard_normal((n, 2)):
        features, label = {"x": float(x)}, float(slope * x + noise)
        prediction = regressor.predict(features)
        regressor.learn(features, prediction, label)
        errors.append((label - prediction.mean) ** 2)
        labels.append(label**2)
    return errors, labels


@pytest.mark.long
@pytest.mark.parametrize(
    "config",
    [
        RegressorConfig(),
        RegressorConfig(model="river.linear_model.BayesianLinearRegression"),
        RegressorConfig(model="river.rules.AMRules", scale_features=False),
        RegressorConfig(model={"name": DEFAULT_MODEL, "l2": 1e-4}),
    ],
    ids=["line", "bayesian", "rules", "ridge"],
)
def test_a_linear_relation_is_learnt_and_its_uncertainty_known(config: RegressorConfig) -> None:
    regressor = ReturnRegressor(config)
    learn_from_noise(regressor, 3000, slope=0.5)
    prediction = regressor.predict({"x": 0.01})
    assert prediction.mean == pytest.approx(0.005, abs=0.0015)
    assert prediction.std == pytest.approx(0.01, rel=0.1)
    assert regressor.learned == 3000


def test_a_fresh_model_predicts_nothing() -> None:
    assert ReturnRegressor(RegressorConfig()).predict({"x": 1.0}) == NO_PREDICTION


@pytest.mark.parametrize(
    ("features", "label"),
    [({"x": math.nan}, 0.1), ({"x": math.inf}, 0.1), ({"x": 1.0}, math.nan), ({"x": 1.0}, -math.inf)],
)
def test_what_is_not_finite_is_skipped_and_counted_and_leaves_no_trace(features: dict[str, float], label: float) -> None:
    poisoned, healthy = ReturnRegressor(RegressorConfig()), ReturnRegressor(RegressorConfig())
    for regressor in (poisoned, healthy):
        learn_from_noise(regressor, 50, slope=0.5)
    poisoned.learn(features, NO_PREDICTION, label)
    assert poisoned.skipped == 1
    assert poisoned.learned == 50
    assert poisoned.predict({"x": 0.01}) == healthy.predict({"x": 0.01})
    assert poisoned.predict({"x": math.nan}) == NO_PREDICTION


def test_a_forecast_is_bounded_by_the_returns_there_were() -> None:
    regressor = ReturnRegressor(RegressorConfig())
    learn_from_noise(regressor, 500, slope=0.5)
    _, squares = learn_from_noise(regressor, 500, slope=0.5, seed=2)
    assert regressor.predict({"x": 1e6}).raw == pytest.approx(3 * math.sqrt(np.mean(squares)), rel=0.1)


@pytest.mark.long
def test_a_forecast_counts_as_far_as_its_past_bears_it_out() -> None:
    informed, guessing = ReturnRegressor(RegressorConfig()), ReturnRegressor(RegressorConfig())
    learn_from_noise(informed, 3000, slope=0.5)
    learn_from_noise(guessing, 3000, slope=0.0)
    for regressor, low, high in ((informed, 0.95, 1.0), (guessing, 0.05, 0.5)):
        prediction = regressor.predict({"x": 0.01})
        assert low <= regressor.reliability <= high
        assert prediction.mean == pytest.approx(prediction.raw * regressor.reliability)


def test_a_model_that_was_wrong_so_far_is_not_believed() -> None:
    regressor = ReturnRegressor(RegressorConfig())
    for sign in (1.0, -1.0) * 50:
        regressor.learn({"x": sign}, Prediction(-0.01 * sign, 0.01, -0.01 * sign), 0.01 * sign)
    assert regressor.reliability == 0.05


def test_a_model_that_runs_away_begins_anew() -> None:
    regressor = ReturnRegressor(RegressorConfig(scale_features=False, learning_rate=1e9, learning_rate_power=0.0))
    for _ in range(3):
        regressor.learn({"x": 1e300}, regressor.predict({"x": 1e300}), 0.01)
    assert regressor.resets > 0
    after = regressor.predict({"x": 1.0})
    assert math.isfinite(after.mean)
    assert math.isfinite(after.std)


def test_neither_features_nor_prediction_are_changed() -> None:
    regressor = ReturnRegressor(RegressorConfig())
    features = {"b": 2.0, "a": 1.0}
    regressor.learn(features, regressor.predict(features), 0.1)
    assert list(features.items()) == [("b", 2.0), ("a", 1.0)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "river.linear_model.Nothing"}, r"^regressor\.model\.name: expected \"river\.package\.Class\", or .*, received"),
        ({"model": "nothing"}, r"^regressor\.model\.name: "),
        ({"model": "river.linear_model.LogisticRegression"}, "expected a River regressor, .*, received LogisticRegression"),
        ({"model": {"name": DEFAULT_MODEL, "colour": 1}}, r"^regressor\.model\.colour: expected a parameter of .*, received 'colour'"),
        ({"learning_rate": 0.0}, r"^argument of RegressorConfig: learning_rate: "),
        ({"learning_rate_power": 2.0}, r"^argument of RegressorConfig: learning_rate_power: "),
        ({"memory_steps": 0}, r"^argument of RegressorConfig: memory_steps: "),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_by_field(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReturnRegressor(RegressorConfig(**config))  # type: ignore[arg-type]


def test_skill_is_one_for_a_perfect_forecast_and_zero_for_none() -> None:
    returns = np.random.default_rng(1).standard_normal(1000) ** 2
    assert skill(np.zeros(1000), returns) == (1.0, 0.0)
    assert skill(returns, returns) == (0.0, 0.0)
    assert all(math.isnan(value) for value in skill(np.zeros(0), np.zeros(0)))


def test_the_standard_error_of_the_skill_is_its_spread_over_repetitions() -> None:
    rng = np.random.default_rng(4)
    measured = []
    for _ in range(400):
        signal = 0.3 * rng.standard_normal(500)
        returns = signal + rng.standard_normal(500)
        measured.append(skill((returns - signal) ** 2, returns**2))
    values, errors = np.transpose(measured)
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)


def last_tenth_skill(process: str, n_episodes: int, n_rows: int = 64) -> tuple[float, float]:
    """Skill over the last tenth of the steps, one default model for a block of episodes side by side."""
    config = PricesConfig(process=process, steps_per_bar=1)
    source, rows = make_source(config, seed=5), np.arange(n_rows)
    block, feed = EpisodeBlock(n_rows, source.slots, Rules.of(RulesConfig()), STATISTICS), BarFeed(n_rows, 1)
    forecaster = BlockForecaster(block.view, RegressorConfig())
    judged = []
    for first in range(0, n_episodes, n_rows):
        episodes = source.episodes(range(first, first + n_rows))
        begin_episodes(block, feed, rows, episodes)
        forecaster.begin(rows, episodes)
        for _ in range(config.bars_per_episode):
            forecaster.predict(rows)
            block.fill(rows, feed.next(rows))
            judged.append(forecaster.learn(rows))
    errors, returns = (np.concatenate(column) for column in zip(*judged, strict=True))
    tenth = len(errors) // 10
    return skill(errors[-tenth:], returns[-tenth:])


@pytest.mark.long
def test_the_default_model_has_skill_on_ornstein_uhlenbeck_prices() -> None:
    value, error = last_tenth_skill("ou", 640)
    assert value > 0.01
    assert value < 0.025 + 2 * error, "more than there is to know: something looks ahead"


@pytest.mark.slow
@pytest.mark.long
def test_the_default_model_has_no_skill_on_geometric_brownian_motion() -> None:
    value, error = last_tenth_skill("gbm", 640)
    assert abs(value) < 2 * error
    assert error < 0.002
