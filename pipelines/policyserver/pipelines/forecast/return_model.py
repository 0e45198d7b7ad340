"""One River model of the next log-return, asked and taught for many rows at a time.

    model = ReturnModel(RegressorConfig(), ("distance", "return"))
    forecasts = model.predict(features)              # at the close of bar t
    model.learn(features, forecasts, log_returns)    # at the close of bar t + 1

Rows are learnt in their order, and all rows of a bar are learnt before any of the next is forecast. So the same rows in the same blocks
give the same forecasts, whatever threads do. What a forecast is worth is as `ReturnRegressor` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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


class ReturnModel:
    """A River regressor, and the running mean squares by which its forecasts are shrunk. Not thread-safe: one owner at a time."""

    def __init__(self, config: RegressorConfig, names: Sequence[str]) -> None:
        """Build the model. It is told its F features by `names`.

        Raises:
            SettingsError: `config.model` describes no River regressor.
        """
        self._config = config
        self._names = tuple(names)
        self._model = build_model(config)
        self._means = np.zeros(4)  # squares of error, return and raw forecast, and raw forecast times return
        self.learned = 0
        """Labels learnt: as many as `learn_one` was called."""
        self.skipped = 0
        """Labels not learnt because they or a feature were not finite."""
        self.resets = 0
        """Times the model gave a forecast that was not finite and began anew."""

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
        self._model, self._means, self.learned = learnt.model, np.array(learnt.means), learnt.learned

    def predict(self, features: FloatArray) -> FloatArray:
        """Return the forecasts from features of float64 (m, F), float64 (m, 3).

        They are zeros before anything was learnt, and where a feature is not finite.
        """
        forecasts = np.zeros((len(features), 3))
        if self.learned == 0:
            return forecasts
        known = _finite(features)
        predict_one = self._model.predict_one
        raw = np.array([predict_one(row) for row in self._named(features if known.all() else features[known])], dtype=np.float64)
        if not np.isfinite(raw).all():
            self._model = build_model(self._config)  # it has run away
            self.resets += 1
            raw[~np.isfinite(raw)] = 0.0
        error, power = np.sqrt(self._means[:2]).tolist()
        limit = PREDICTION_LIMIT * power
        said = np.clip(raw, -limit, limit)
        forecasts[known, RAW] = said
        forecasts[known, MEAN] = said * self.reliability
        forecasts[known, STD] = error
        return forecasts

    def learn(self, features: FloatArray, forecasts: FloatArray, log_returns: FloatArray) -> None:
        """Learn the log-returns that followed, float64 (m,), for which `forecasts` were made of `features`."""
        takes = np.isfinite(log_returns) & _finite(features)
        if not takes.all():
            self.skipped += int((~takes).sum())
            features, forecasts, log_returns = features[takes], forecasts[takes], log_returns[takes]
        if not len(log_returns):
            return
        learn_one = self._model.learn_one
        for row, label in zip(self._named(features), log_returns.tolist(), strict=True):
            learn_one(row, label)
        raw = forecasts[:, RAW]
        error = log_returns - forecasts[:, MEAN]
        self._remember(np.array([error * error, log_returns * log_returns, raw * raw, raw * log_returns]))

    def _remember(self, squares: FloatArray) -> None:
        """Take each column in turn into the running means: with a step of 1 / t up to the memory, and the memory's afterwards."""
        count = squares.shape[1]
        steps = 1.0 / np.minimum(np.arange(self.learned + 1, self.learned + count + 1), self._config.memory_steps)
        kept = np.multiply.accumulate((1.0 - steps)[::-1])[::-1]
        steps[:-1] *= kept[1:]
        self._means = self._means * kept[0] + squares @ steps
        self.learned += count

    def _named(self, features: FloatArray) -> list[dict[str, float]]:
        """Return each row as River wants it."""
        names = self._names
        return [dict(zip(names, row, strict=True)) for row in features.tolist()]


def _finite(features: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which rows have finite numbers alone, bool (m,)."""
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(features), axis=1)
    return finite
