"""The regressor: predicts the next log-return with a River model and learns it when it is known.

    regressor = ReturnRegressor(RegressorConfig())
    prediction = regressor.predict(features)               # at the close of bar t
    regressor.learn(features, prediction, log_return)      # at the close of bar t + 1

A forecast counts as far as its own past bears it out: it is shrunk by the evidence that the model's forecasts went with the returns that
followed. So a model that has found something gives nearly all of it, and one that fits noise gives next to nothing.

River models are not thread-safe: each `ReturnRegressor` has one owner thread, and no lock.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Interval
from river import base, compose, optim, preprocessing

from policyserver.common.settings import Config

DEFAULT_MODEL = "river.linear_model.LinearRegression"
"""Linear regression by stochastic gradient descent."""

PREDICTION_LIMIT = 3.0
"""Largest forecast, in root mean square log-returns: a model that runs away can't run away with the observations."""

RELIABILITY_PRIOR = 4.0
"""Evidence, as a squared z-score, at which half of a forecast is believed."""

RELIABILITY_FLOOR = 0.05
"""Share of a forecast that is believed without any evidence: what the model says stays visible."""

_TRIAL_STEPS = 8


@dataclass(frozen=True, slots=True)
class Prediction:
    """A forecast of the next bar's log-return."""

    mean: float
    """Expected log-return."""
    std: float
    """Standard deviation of its error so far; 0 before anything was learnt."""
    raw: float = 0.0
    """What the model itself said, before it was shrunk to `mean`."""


NO_PREDICTION = Prediction(0.0, 0.0)
"""The forecast of a model that has learnt nothing, or of features that are not finite."""


@dataclass(frozen=True, slots=True)
class RegressorConfig(Config):
    """Which River model predicts, and how it learns."""

    model: str = DEFAULT_MODEL
    """Dotted path of a River regressor."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the regressor."""
    scale_features: bool = True
    """Whether a StandardScaler stands before the regressor."""
    learning_rate: Annotated[float, Gt(0)] = 0.2
    """Of the default LinearRegression: step t moves by learning_rate / t ** learning_rate_power."""
    learning_rate_power: Annotated[float, Interval(ge=0, le=1)] = 0.75
    """Of the default LinearRegression: 0 keeps its speed for ever and follows changes, 0.5 to 1 converges and adds no noise of its own."""
    memory_steps: Annotated[int, Ge(1)] = 20_000
    """Steps that the running mean squares of error, forecast and log-return remember."""
    in_test: Literal["continue", "frozen"] = "continue"
    """While the test part of a split is played: whether it goes on learning, each bar after it was forecast, or stays as training left
    it."""


class ReturnRegressor:
    """One online model of the next log-return. Not thread-safe: one owner thread."""

    def __init__(self, config: RegressorConfig) -> None:
        """Build the model.

        Raises:
            ValueError: `config.model` names no River regressor, or `config.arguments` do not fit it.
        """
        self._config = config
        self._model = build_model(config)
        self._mean_squared_error = 0.0
        self._mean_squared_return = 0.0
        self._mean_squared_forecast = 0.0
        self._mean_forecast_times_return = 0.0
        self.learned = 0
        """Labels learnt."""
        self.skipped = 0
        """Labels not learnt because they or a feature were not finite."""
        self.resets = 0
        """Times the model gave a forecast that was not finite and began anew."""

    @property
    def reliability(self) -> float:
        """Share of the forecast that its past bears out: z**2 / (z**2 + RELIABILITY_PRIOR), z the score of forecast times return."""
        power = self._mean_squared_forecast * self._mean_squared_return
        if self._mean_forecast_times_return <= 0.0 or power <= 0.0:
            return RELIABILITY_FLOOR
        evidence = min(self.learned, self._config.memory_steps) * self._mean_forecast_times_return**2 / power
        return max(RELIABILITY_FLOOR, evidence / (evidence + RELIABILITY_PRIOR))

    def predict(self, features: Mapping[str, float]) -> Prediction:
        """Return the forecast for the bar after the one that `features` describe."""
        if self.learned == 0 or not _finite(features):
            return NO_PREDICTION
        std = math.sqrt(self._mean_squared_error)
        raw = self._model.predict_one(features)
        if not math.isfinite(raw):
            self._model = build_model(self._config)
            self.resets += 1
            return Prediction(0.0, std)
        limit = PREDICTION_LIMIT * math.sqrt(self._mean_squared_return)
        raw = min(max(raw, -limit), limit)
        return Prediction(raw * self.reliability, std, raw)

    def learn(self, features: Mapping[str, float], prediction: Prediction, log_return: float) -> None:
        """Learn the log-return that followed `features`, for which `prediction` was made."""
        if not (math.isfinite(log_return) and _finite(features)):
            self.skipped += 1
            return
        self._model.learn_one(features, log_return)
        self.learned += 1
        weight = 1.0 / min(self.learned, self._config.memory_steps)
        self._mean_squared_error += weight * ((log_return - prediction.mean) ** 2 - self._mean_squared_error)
        self._mean_squared_return += weight * (log_return**2 - self._mean_squared_return)
        self._mean_squared_forecast += weight * (prediction.raw**2 - self._mean_squared_forecast)
        self._mean_forecast_times_return += weight * (prediction.raw * log_return - self._mean_forecast_times_return)


def build_model(config: RegressorConfig) -> Any:
    """Return the River model that `config` describes.

    Raises:
        ValueError: `config.model` names no River regressor, or `config.arguments` do not fit it.
    """
    module_name, _, class_name = config.model.rpartition(".")
    try:
        model_class = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # importing a module of the user's runs it
        expected = "expected the dotted path of a River regressor"
        raise ValueError(f"RegressorConfig.model: {expected}, received {config.model!r}: {_line(error)}") from error
    if not (isinstance(model_class, type) and issubclass(model_class, base.Regressor)):
        raise ValueError(f"RegressorConfig.model: expected a River regressor, received {config.model!r}")
    arguments = dict(config.arguments)
    if config.model == DEFAULT_MODEL:
        schedule = optim.schedulers.InverseScaling(config.learning_rate, config.learning_rate_power)
        arguments = {"optimizer": optim.SGD(schedule), "intercept_lr": 0.0} | arguments
    try:
        model = model_class(**arguments)
    except Exception as error:
        raise ValueError(f"RegressorConfig.arguments: {config.model} refused {config.arguments}: {_line(error)}") from error
    return compose.Pipeline(preprocessing.StandardScaler(), model) if config.scale_features else model


def try_out(config: RegressorConfig, features: Sequence[str]) -> None:
    """Build the model and let it learn a few labels of `features`, so that what it can't do is known before a run begins.

    Raises:
        ValueError: `config.model` names no River regressor, or one that can't be built or can't learn with `config.arguments`.
    """
    regressor = ReturnRegressor(config)
    try:
        for step in range(_TRIAL_STEPS):
            inputs = {name: 0.01 * math.sin(step + place) for place, name in enumerate(features)}
            regressor.learn(inputs, regressor.predict(inputs), 0.01 * math.cos(step))
    except Exception as error:
        problem = f"{config.model} with {config.arguments} fails to learn: {type(error).__name__}: {_line(error)}"
        raise ValueError(f"RegressorConfig.model: expected a regressor that learns from numbers, {problem}") from error


def skill(squared_errors: npt.NDArray[np.float64], squared_returns: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return how much better than the zero forecast the predictions were, and the standard error of that.

    Args:
        squared_errors: (log-return - prediction)**2 per step, float64 (n,).
        squared_returns: log-return**2 per step, float64 (n,).

    Returns:
        1 - mean(squared_errors) / mean(squared_returns), and its standard error by the delta method; NaNs without steps.
    """
    n, power = len(squared_returns), float(np.mean(squared_returns)) if len(squared_returns) else 0.0
    if power == 0.0:
        return math.nan, math.nan
    gains = squared_returns - squared_errors
    value = float(np.mean(gains)) / power
    return value, float(np.std(gains - value * squared_returns)) / (power * math.sqrt(n))


def _line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _finite(features: Mapping[str, float]) -> bool:
    return math.isfinite(math.fsum(features.values()))
