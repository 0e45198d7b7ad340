"""The regressor: predicts the next log-return with a River model and learns it when it is known.

River models are not thread-safe: each `ReturnRegressor` has one owner thread.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from river import compose, linear_model, optim, preprocessing


@dataclass(frozen=True, slots=True)
class Prediction:
    """A forecast of the next bar's log-return."""

    mean: float
    """Expected log-return."""
    std: float
    """Standard deviation of its error, as far as it is known: 0 before anything was learnt."""


NO_PREDICTION = Prediction(0.0, 0.0)
"""The forecast of a model that has seen nothing."""


@dataclass(frozen=True, slots=True)
class RegressorConfig:
    """Which River model predicts, and how it learns."""

    model: str = "river.linear_model.LinearRegression"
    """Dotted path of a River regressor."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the regressor; with none, LinearRegression gets the optimiser described by `learning_rate`."""
    scale_features: bool = True
    """Whether a StandardScaler stands before the regressor."""
    learning_rate: float = 0.05
    """Of the default LinearRegression: step size of the first step."""
    learning_rate_power: float = 0.5
    """Of the default LinearRegression: the step size is learning_rate / t ** learning_rate_power."""
    error_bars: int = 1000
    """Memory, in steps, of the running error that the prediction's standard deviation is made of."""


class ReturnRegressor:
    """One online model of the next log-return. Not thread-safe: one owner thread."""

    def __init__(self, config: RegressorConfig) -> None:
        """Build the model.

        Raises:
            ValueError: `config.model` names no River regressor or `config.arguments` do not fit it.
        """
        self._config = config
        self._model = build_model(config)
        self._error_variance = 0.0
        self.learned = 0
        """Labels learnt."""
        self.skipped = 0
        """Labels not learnt because a feature or the label was not finite."""

    def predict(self, features: Mapping[str, float]) -> Prediction:
        """Return the forecast for the bar after the one that `features` describe."""
        raise NotImplementedError

    def learn(self, features: Mapping[str, float], prediction: Prediction, log_return: float) -> None:
        """Learn the log-return that followed `features`, for which `prediction` was made."""
        raise NotImplementedError


def build_model(config: RegressorConfig) -> Any:
    raise NotImplementedError


def skill(squared_errors: npt.NDArray[np.float64], squared_returns: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return 1 - MSE / MSE of the zero forecast, and its standard error."""
    raise NotImplementedError
