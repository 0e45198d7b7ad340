"""One model asked and taught for many rows at a time keeps the books of `ReturnRegressor`, which takes them one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from river import base

from policyserver.pipelines.forecast.regressor import (
    NO_PREDICTION,
    PREDICTION_LIMIT,
    Prediction,
    RegressorConfig,
    ReturnRegressor,
    build_model,
)
from policyserver.pipelines.forecast.return_model import MEAN, RAW, ReturnModel
from policyserver.pipelines.market.bars import FloatArray

Row = Mapping[str, float]

NAMES = ("a", "b")


def rows_of(rng: np.random.Generator, count: int) -> FloatArray:
    return 0.01 * rng.standard_normal((count, 2))


def values(predictions: list[Prediction]) -> list[tuple[float, float, float]]:
    return [(prediction.mean, prediction.std, prediction.raw) for prediction in predictions]


@pytest.mark.long
@pytest.mark.parametrize("memory_steps", [20_000, 200, 10])
@pytest.mark.parametrize("model", ["river.linear_model.LinearRegression", "river.tree.HoeffdingTreeRegressor"])
def test_the_books_are_those_of_the_scalar_regressor(model: str, memory_steps: int) -> None:
    """Blocks of changing size, and labels and inputs that are not finite among them."""
    config = RegressorConfig(model=model, memory_steps=memory_steps)
    rng = np.random.default_rng(1)
    many, one = ReturnModel(config, NAMES), ReturnRegressor(config)
    for _ in range(120):
        count = int(rng.integers(1, 12))
        inputs = rows_of(rng, count)
        labels = 0.5 * inputs[:, 0] + 0.01 * rng.standard_normal(count)
        if rng.random() < 0.1:
            inputs[0] = math.nan, 0.0
        if rng.random() < 0.1:
            labels[-1] = math.inf
        forecasts = many.predict(inputs)
        named = [dict(zip(NAMES, row, strict=True)) for row in inputs.tolist()]
        expected = [one.predict(row) for row in named]
        np.testing.assert_allclose(forecasts, values(expected), rtol=1e-12, atol=1e-15)
        many.learn(inputs, forecasts, labels)
        for row, prediction, label in zip(named, expected, labels.tolist(), strict=True):
            one.learn(row, prediction, label)
        assert many.reliability == pytest.approx(one.reliability, rel=1e-12)
        assert (many.learned, many.skipped, many.resets) == (one.learned, one.skipped, one.resets)
    assert many.skipped > 5
    assert many.learned > 400


class Counting(base.Regressor):  # type: ignore[misc]  # the sources of river are not followed
    """Says the mean of what it has learnt, and notes all its calls."""

    calls: list[tuple[Any, ...]]

    def __init__(self) -> None:
        type(self).calls = []

    def learn_one(self, x: Row, y: float) -> None:
        self.calls.append(("learn", x["a"], y))

    def predict_one(self, x: Row) -> float:
        self.calls.append(("predict", x["a"]))
        return x["a"]


COUNTING = RegressorConfig(model=f"python:{__name__}.Counting", scale_features=False)


def test_each_label_is_learnt_by_one_call_in_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    model = ReturnModel(COUNTING, NAMES)
    inputs, labels = rows_of(rng, 50), rng.standard_normal(50)
    model.learn(inputs, model.predict(inputs), labels)
    assert Counting.calls == [("learn", row[0], label) for row, label in zip(inputs.tolist(), labels.tolist(), strict=True)]
    Counting.calls.clear()
    model.predict(inputs)
    assert Counting.calls == [("predict", row[0]) for row in inputs.tolist()]


def test_what_is_not_finite_leaves_no_trace_and_is_forecast_as_nothing() -> None:
    model = ReturnModel(COUNTING, NAMES)
    rng = np.random.default_rng(1)
    inputs, labels = rows_of(rng, 4), np.array([0.01, math.nan, 0.02, 0.01])
    inputs[2] = math.inf, 0.0
    model.learn(inputs, model.predict(inputs), labels)
    assert [call[2] for call in Counting.calls] == [0.01, 0.01]
    assert (model.learned, model.skipped) == (2, 2)
    forecasts = model.predict(inputs)
    assert tuple(forecasts[2]) == values([NO_PREDICTION])[0]
    assert np.all(forecasts[[0, 1, 3], RAW] != 0.0)


def test_a_model_that_runs_away_begins_anew() -> None:
    model = ReturnModel(RegressorConfig(scale_features=False, learning_rate=1e9, learning_rate_power=0.0), ("x",))
    huge = np.full((2, 1), 1e300)
    for _ in range(3):
        forecasts = model.predict(huge)
        assert np.all(np.isfinite(forecasts))
        model.learn(huge, forecasts, np.array([0.01, 0.01]))
    assert model.resets > 0
    assert np.all(np.isfinite(model.predict(np.ones((1, 1)))))


def test_the_forecasts_of_a_bar_depend_on_no_other_row_of_it() -> None:
    config, rng = RegressorConfig(), np.random.default_rng(1)
    model = ReturnModel(config, NAMES)
    inputs = rows_of(rng, 300)
    model.learn(inputs, model.predict(inputs), 0.5 * inputs[:, 0])
    together = model.predict(inputs)
    np.testing.assert_array_equal(together, np.concatenate([model.predict(row[None]) for row in inputs]))
    assert np.any(together[:, MEAN] != 0.0)


def test_a_scaler_and_its_regressor_are_asked_as_their_pipeline_asks_them() -> None:
    """The model does not call the pipeline that it built; what it forecasts is the pipeline's to the last bit."""
    config, rng = RegressorConfig(), np.random.default_rng(1)
    model, pipeline = ReturnModel(config, ("a", "b", "c")), build_model(config)
    for _ in range(40):
        inputs = 0.01 * rng.standard_normal((6, 3))
        labels = 0.5 * inputs[:, 0] + 0.01 * rng.standard_normal(6)
        named = [dict(zip(("a", "b", "c"), row, strict=True)) for row in inputs.tolist()]
        forecasts = model.predict(inputs)
        if model.learned:
            limit = PREDICTION_LIMIT * math.sqrt(model.learnt().means[1])
            assert forecasts[:, RAW].tolist() == [min(max(pipeline.predict_one(row), -limit), limit) for row in named]
        model.learn(inputs, forecasts, labels)
        for row, label in zip(named, labels.tolist(), strict=True):
            pipeline.learn_one(row, label)
    assert pipeline["LinearRegression"].weights == model.learnt().model["LinearRegression"].weights


def test_rows_that_were_forecast_are_learnt_as_they_were_though_others_were_forecast_since() -> None:
    rng = np.random.default_rng(1)
    inputs, others = rows_of(rng, 3), rows_of(rng, 3)
    model = ReturnModel(COUNTING, NAMES)
    forecasts = model.predict(inputs)
    model.predict(others)
    model.learn(inputs, forecasts, np.full(3, 0.01))
    assert [call[1] for call in Counting.calls if call[0] == "learn"] == inputs[:, 0].tolist()
