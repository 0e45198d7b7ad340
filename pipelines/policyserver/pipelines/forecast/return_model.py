"""One River model of the next log-return, asked and taught for many rows at a time.

    model = ReturnModel(RegressorConfig(), ("distance", "return"))
    forecasts = model.predict(features)              # at the close of bar t
    model.learn(features, forecasts, log_returns)    # at the close of bar t + 1

Rows are learnt in their order, and all rows of a bar are learnt before any of the next is forecast. So the same rows in the same blocks
give the same forecasts, whatever threads do. What a forecast is worth is as `ReturnRegressor` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from river import compose, preprocessing

from policyserver.pipelines.forecast.regressor import (
    PREDICTION_LIMIT,
    RELIABILITY_FLOOR,
    RELIABILITY_PRIOR,
    Learnt,
    RegressorConfig,
    build_model,
)
from policyserver.pipelines.market.bars import FloatArray

MEAN, STD, RAW = range(3)
"""Columns of a forecast: what is expected, the standard deviation of its error so far, and what the model itself said."""

_Named = list[dict[str, float]]


class ReturnModel:
    """A River regressor, and the running mean squares by which its forecasts are shrunk. Not thread-safe: one owner at a time."""

    def __init__(self, config: RegressorConfig, names: Sequence[str]) -> None:
        """Build the model. It is told its F features by `names`.

        Raises:
            SettingsError: `config.model` describes no River regressor.
        """
        self._config = config
        self._named = _namer(tuple(names))
        self._newest: tuple[FloatArray, _Named] | None = None  # what was forecast last, to be learnt without naming it again
        self._means = np.zeros(4)  # squares of error, return and raw forecast, and raw forecast times return
        self._steady: dict[int, tuple[FloatArray, float]] = {}
        self.learned = 0
        """Labels learnt: as many as `learn_one` was called."""
        self.skipped = 0
        """Labels not learnt because they or a feature were not finite."""
        self.resets = 0
        """Times the model gave a forecast that was not finite and began anew."""
        self._use(build_model(config))

    @property
    def reliability(self) -> float:
        """Share of the forecast that its past bears out: z**2 / (z**2 + RELIABILITY_PRIOR), z the score of forecast times return."""
        _, returns, forecasts, product = self._means.tolist()
        power = forecasts * returns
        if product <= 0.0 or power <= 0.0:
            return RELIABILITY_FLOOR
        evidence = min(self.learned, self._config.memory_steps) * product**2 / power
        return float(max(RELIABILITY_FLOOR, evidence / (evidence + RELIABILITY_PRIOR)))

    def learnt(self) -> Learnt:
        """Return what was learnt; the model in it goes on learning."""
        error, log_return, forecast, product = self._means.tolist()
        return Learnt(self._model, (error, log_return, forecast, product), self.learned)

    def restore(self, learnt: Learnt) -> None:
        """Go on from what was learnt; the model in it becomes this one's."""
        self._means, self.learned = np.array(learnt.means), learnt.learned
        self._use(learnt.model)

    def predict(self, features: FloatArray) -> FloatArray:
        """Return the forecasts from features of float64 (m, F), float64 (m, 3). The features must not be changed until they are learnt.

        They are zeros before anything was learnt, and where a feature is not finite.
        """
        if not _is_finite(features):
            self._newest = None
            forecasts = np.zeros((len(features), 3))
            known = _finite(features)
            if known.any() and self.learned:
                forecasts[known] = self._forecast(self._named(features[known].tolist()))
            return forecasts
        named = self._named(features.tolist())
        self._newest = features, named
        return self._forecast(named) if self.learned else np.zeros((len(named), 3))

    def learn(self, features: FloatArray, forecasts: FloatArray, log_returns: FloatArray) -> None:
        """Learn the log-returns that followed, float64 (m,), for which `forecasts` were made of `features`."""
        if self._newest is not None and features is self._newest[0] and _is_finite(log_returns):
            named = self._newest[1]
        else:
            takes = np.isfinite(log_returns) & _finite(features)
            if not takes.all():
                self.skipped += int((~takes).sum())
                features, forecasts, log_returns = features[takes], forecasts[takes], log_returns[takes]
            named = self._named(features.tolist())
        if not named:
            return
        self._teach(named, log_returns.tolist())
        raw = forecasts[:, RAW]
        squares = np.empty((4, len(named)))
        error = np.subtract(log_returns, forecasts[:, MEAN], out=squares[0])
        np.multiply(error, error, out=error)
        np.multiply(log_returns, log_returns, out=squares[1])
        np.multiply(raw, raw, out=squares[2])
        np.multiply(raw, log_returns, out=squares[3])
        self._remember(squares)

    # Inside --------------------------------------------------------------------------------------------------------------------------

    def _use(self, model: Any) -> None:
        """Go on with a model. What a scaler and a regressor do is asked of them: their pipeline does the same and takes a third longer."""
        self._model = model
        self._parts: tuple[Any, Any] | None = None
        if type(model) is compose.Pipeline and len(model.steps) == 2:
            first, last = model.steps.values()
            if type(first) is preprocessing.StandardScaler and not isinstance(last, compose.Pipeline):
                self._parts = first, last

    def _forecast(self, named: _Named) -> FloatArray:
        """Return the forecasts of rows whose features are finite."""
        if self._parts is None:
            predict_one = self._model.predict_one
            said = [predict_one(row) for row in named]
        else:
            scaler, regressor = self._parts
            predict_one, transform_one = regressor.predict_one, scaler.transform_one
            said = [predict_one(transform_one(row)) for row in named]
        raw = np.array(said, dtype=np.float64)
        if not _is_finite(raw) and not np.isfinite(raw).all():
            self._use(build_model(self._config))  # it has run away
            self.resets += 1
            raw[~np.isfinite(raw)] = 0.0
        error, power = self._means[:2].tolist()
        limit = PREDICTION_LIMIT * math.sqrt(power)
        forecasts = np.empty((len(named), 3))
        said_within = raw.clip(-limit, limit, out=forecasts[:, RAW])
        np.multiply(said_within, self.reliability, out=forecasts[:, MEAN])
        forecasts[:, STD] = math.sqrt(error)
        return forecasts

    def _teach(self, named: _Named, labels: list[float]) -> None:
        """Let the model learn rows, one after the other."""
        if self._parts is None:
            learn_one = self._model.learn_one
            for row, label in zip(named, labels, strict=True):
                learn_one(row, label)
            return
        scaler, regressor = self._parts
        scale_one, transform_one, learn_one = scaler.learn_one, scaler.transform_one, regressor.learn_one
        for row, label in zip(named, labels, strict=True):
            scale_one(row)
            learn_one(transform_one(row), label)

    def _remember(self, squares: FloatArray) -> None:
        """Take each column in turn into the running means: with a step of 1 / t up to the memory, and the memory's afterwards."""
        count = squares.shape[1]
        steps, kept = self._steps(count)
        self._means = self._means * kept + squares @ steps
        self.learned += count

    def _steps(self, count: int) -> tuple[FloatArray, float]:
        """Return what each of the next columns weighs in the running means, and what these weigh in themselves."""
        is_steady = self.learned >= self._config.memory_steps
        if is_steady and count in self._steady:
            return self._steady[count]
        steps = 1.0 / np.minimum(np.arange(self.learned + 1, self.learned + count + 1), self._config.memory_steps)
        kept = np.multiply.accumulate((1.0 - steps)[::-1])[::-1]
        steps[:-1] *= kept[1:]
        found = steps, float(kept[0])
        if is_steady:
            self._steady[count] = found
        return found


def _namer(names: tuple[str, ...]) -> Callable[[list[list[float]]], _Named]:
    """Return what makes of rows what River wants."""
    if len(names) == 3:  # as many as the pipeline has; this takes half as long
        first, second, third = names
        return lambda rows: [{first: a, second: b, third: c} for a, b, c in rows]
    return lambda rows: [dict(zip(names, row, strict=True)) for row in rows]


def _is_finite(values: FloatArray) -> bool:
    """Tell whether all values are finite; False where only their sum isn't, too."""
    return math.isfinite(np.add.reduce(values, axis=None))


def _finite(features: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which rows have finite numbers alone, bool (m,)."""
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(features), axis=1)
    return finite
