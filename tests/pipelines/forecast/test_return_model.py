"""One model asked and taught for many rows at a time keeps the books of `ReturnRegressor`, which takes them one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from river import base

from policyserver.pipelines.forecast.regressor import NO_PREDICTION, Prediction, RegressorConfig, ReturnRegressor
from policyserver.pipelines.forecast.return_model import MEAN, RAW, ReturnModel

Row = Mapping[str, float]


def rows_of(rng: np.random.Generator, count: int) -> list[Row]:
    return [{"a": a, "b": b} for a, b in 0.01 * rng.standard_normal((count, 2))]


def values(predictions: list[Prediction]) -> list[tuple[float, float, float]]:
    return [(prediction.mean, prediction.std, prediction.raw) for prediction in predictions]


@pytest.mark.parametrize("memory_steps", [20_000, 200, 10])
@pytest.mark.parametrize("model", ["river.linear_model.LinearRegression", "river.tree.HoeffdingTreeRegressor"])
def test_the_books_are_those_of_the_scalar_regressor(model: str, memory_steps: int) -> None:
    """Blocks of changing size, and labels and inputs that are not finite among them."""
    config = RegressorConfig(model=model, memory_steps=memory_steps)
    rng = np.random.default_rng(1)
    many, one = ReturnModel(config), ReturnRegressor(config)
    for _ in range(120):
        count = int(rng.integers(1, 12))
        inputs = rows_of(rng, count)
        labels = np.array([0.5 * row["a"] for row in inputs]) + 0.01 * rng.standard_normal(count)
        if rng.random() < 0.1:
            inputs[0] = {"a": math.nan, "b": 0.0}
        if rng.random() < 0.1:
            labels[-1] = math.inf
        forecasts = many.predict(inputs)
        expected = [one.predict(row) for row in inputs]
        np.testing.assert_allclose(forecasts, values(expected), rtol=1e-12, atol=1e-15)
        many.learn(inputs, forecasts, labels)
        for row, prediction, label in zip(inputs, expected, labels.tolist(), strict=True):
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


COUNTING = RegressorConfig(model=f"{__name__}.Counting", scale_features=False)


def test_each_label_is_learnt_by_one_call_in_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    model = ReturnModel(COUNTING)
    inputs, labels = rows_of(rng, 50), rng.standard_normal(50)
    model.learn(inputs, model.predict(inputs), labels)
    assert Counting.calls == [("learn", row["a"], label) for row, label in zip(inputs, labels.tolist(), strict=True)]
    Counting.calls.clear()
    model.predict(inputs)
    assert Counting.calls == [("predict", row["a"]) for row in inputs]


def test_what_is_not_finite_leaves_no_trace_and_is_forecast_as_nothing() -> None:
    model = ReturnModel(COUNTING)
    rng = np.random.default_rng(1)
    inputs, labels = rows_of(rng, 4), np.array([0.01, math.nan, 0.02, 0.01])
    inputs[2] = {"a": math.inf, "b": 0.0}
    model.learn(inputs, model.predict(inputs), labels)
    assert [call[2] for call in Counting.calls] == [0.01, 0.01]
    assert (model.learned, model.skipped) == (2, 2)
    forecasts = model.predict(inputs)
    assert tuple(forecasts[2]) == values([NO_PREDICTION])[0]
    assert np.all(forecasts[[0, 1, 3], RAW] != 0.0)


def test_a_model_that_runs_away_begins_anew() -> None:
    model = ReturnModel(RegressorConfig(scale_features=False, learning_rate=1e9, learning_rate_power=0.0))
    for _ in range(3):
        forecasts = model.predict([{"x": 1e300}] * 2)
        assert np.all(np.isfinite(forecasts))
        model.learn([{"x": 1e300}] * 2, forecasts, np.array([0.01, 0.01]))
    assert model.resets > 0
    assert np.all(np.isfinite(model.predict([{"x": 1.0}])))


def test_the_forecasts_of_a_bar_depend_on_no_other_row_of_it() -> None:
    config, rng = RegressorConfig(), np.random.default_rng(1)
    model = ReturnModel(config)
    inputs = rows_of(rng, 300)
    model.learn(inputs, model.predict(inputs), np.array([0.5 * row["a"] for row in inputs]))
    together = model.predict(inputs)
    np.testing.assert_array_equal(together, np.concatenate([model.predict([row]) for row in inputs]))
    assert np.any(together[:, MEAN] != 0.0)
