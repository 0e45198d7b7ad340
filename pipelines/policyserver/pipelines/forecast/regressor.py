"""The regressor: predicts the next log-return with a River model and learns it when it is known.

    regressor = ReturnRegressor(RegressorConfig())
    prediction = regressor.predict(features)               # at the close of bar t
    regressor.learn(features, prediction, log_return)      # at the close of bar t + 1

A forecast counts as far as its own past bears it out: it is shrunk by the evidence that the model's forecasts went with the returns that
followed. So a model that has found something gives nearly all of it, and one that fits noise gives next to nothing.

River models are not thread-safe: each `ReturnRegressor` has one owner thread, and no lock.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Interval
from river import compose, optim, preprocessing

from policyserver.common.settings import Config, SettingsError
from policyserver.pipelines.forecast.river_objects import line_of, make_regressor
from policyserver.pipelines.market.registry import Choice
from policyserver.pipelines.market.unread import refuse_unread

DEFAULT_MODEL = "river.linear_model.LinearRegression"
"""Linear regression by stochastic gradient descent."""

PREDICTION_LIMIT = 3.0
"""Largest forecast, in root mean square log-returns: a model that runs away can't run away with the observations."""

RELIABILITY_PRIOR = 4.0
"""Evidence, as a squared z-score, at which half of a forecast is believed."""

RELIABILITY_FLOOR = 0.05
"""Share of a forecast that is believed without any evidence: what the model says stays visible."""

MODEL_KEY = "regressor.model"
"""Key of the model's configuration, for errors."""

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
class Learnt:
    """What a model of the next log-return has learnt."""

    model: Any
    """The River model."""
    means: tuple[float, float, float, float]
    """Running means: squares of error, log-return and raw forecast, and raw forecast times log-return."""
    learned: int
    """Labels learnt."""


@dataclass(frozen=True, slots=True)
class RegressorConfig(Config):
    """Which River model predicts, and how it learns."""

    model: Choice = DEFAULT_MODEL
    """A River regressor, or a pipeline that ends in one: its name, such as "river.linear_model.LinearRegression", or a table of name and
    parameters, in which each object is such a table itself. "python:package.module.Name" is one of your own."""
    scale_features: bool = True
    """Whether a StandardScaler stands before the regressor; a pipeline is left as it is."""
    learning_rate: Annotated[float, Gt(0)] = 0.2
    """Of a LinearRegression without an optimizer of its own: step t moves by learning_rate / t ** learning_rate_power."""
    learning_rate_power: Annotated[float, Interval(ge=0, le=1)] = 0.75
    """Of the same: 0 keeps its speed for ever and follows changes, 0.5 to 1 converges and adds no noise of its own."""
    memory_steps: Annotated[int, Ge(1)] = 20_000
    """Steps that the running mean squares of error, forecast and log-return remember."""
    in_test: Literal["continue", "frozen"] = "continue"
    """While the test part of a split is played: whether it goes on learning, each bar after it was forecast, or stays as training left
    it."""
    state: Path | None = None
    """What it begins with: the folder of an earlier run, or a file of what its forecaster had learnt. It holds a pickle, which is code that
    runs when it is read: name only what you trust. None: it begins anew."""
    state_sha256: str | None = None
    """SHA-256 of that file, in hexadecimal digits; another one is refused before anything of it is unpickled. None: any."""
    save_every_s: Annotated[float, Gt(0)] | None = 600.0
    """Seconds from one time that what was learnt is saved into the run's folder to the next; it is saved at the run's end, too. None: it
    is not saved."""

    def _check(self) -> None:
        if self.state_sha256 is not None and self.state is None:
            raise ValueError(f"state_sha256: expected none without regressor.state, received {self.state_sha256!r}")
        table = {"name": self.model} if isinstance(self.model, str) else self.model
        if table.get("name") != DEFAULT_MODEL or "optimizer" in table:
            of = "beside a model other than a LinearRegression without an optimizer: set it in regressor.model"
            refuse_unread(self, ("learning_rate", "learning_rate_power"), of)


class ReturnRegressor:
    """One online model of the next log-return. Not thread-safe: one owner thread."""

    def __init__(self, config: RegressorConfig) -> None:
        """Build the model.

        Raises:
            SettingsError: `config.model` describes no River regressor.
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

    def learnt(self) -> Learnt:
        """Return what was learnt; the model in it goes on learning."""
        means = self._mean_squared_error, self._mean_squared_return, self._mean_squared_forecast, self._mean_forecast_times_return
        return Learnt(self._model, means, self.learned)

    def restore(self, learnt: Learnt) -> None:
        """Go on from what was learnt; the model in it becomes this one's."""
        self._model, self.learned = learnt.model, learnt.learned
        self._mean_squared_error, self._mean_squared_return, self._mean_squared_forecast, self._mean_forecast_times_return = learnt.means

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
        SettingsError: It describes no River regressor.
    """
    table = {"name": config.model} if isinstance(config.model, str) else dict(config.model)
    if table.get("name") == DEFAULT_MODEL and "optimizer" not in table:
        schedule = optim.schedulers.InverseScaling(config.learning_rate, config.learning_rate_power)
        table = {"optimizer": optim.SGD(schedule), "intercept_lr": 0.0} | table
    model = make_regressor(table, MODEL_KEY)
    if config.scale_features and not isinstance(model, compose.Pipeline):
        return compose.Pipeline(preprocessing.StandardScaler(), model)
    return model


def try_out(config: RegressorConfig, features: Sequence[str]) -> None:
    """Build the model, let it learn a few labels of `features`, and pickle it, so that what it can't do is known before a run begins.

    Raises:
        SettingsError: `config.model` describes no River regressor, or one that can't learn from numbers or can't be saved.
    """
    regressor = ReturnRegressor(config)
    try:
        for step in range(_TRIAL_STEPS):
            inputs = {name: 0.01 * math.sin(step + place) for place, name in enumerate(features)}
            regressor.learn(inputs, regressor.predict(inputs), 0.01 * math.cos(step))
    except Exception as error:
        problem = f"{config.model} fails to learn: {type(error).__name__}: {line_of(error)}"
        raise SettingsError(MODEL_KEY, "", f"expected a regressor that learns from numbers, received {problem}") from error
    if config.save_every_s is not None:
        try:
            pickle.dumps(regressor.learnt())
        except Exception as error:
            expected = 'expected a model that can be pickled (or regressor.save_every_s = "none")'
            raise SettingsError(MODEL_KEY, "", f"{expected}, received {config.model}: {line_of(error)}") from error


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


def _finite(features: Mapping[str, float]) -> bool:
    return math.isfinite(math.fsum(features.values()))
