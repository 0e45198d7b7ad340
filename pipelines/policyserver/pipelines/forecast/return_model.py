"""One River model of the next log-return, asked and taught for many rows at a time.

    model = ReturnModel(RegressorConfig())
    forecasts = model.predict(inputs)              # at the close of bar t
    model.learn(inputs, forecasts, log_returns)    # at the close of bar t + 1

Rows are learnt in their order, and all rows of a bar are learnt before any of the next is forecast. So the same rows in the same blocks
give the same forecasts, whatever threads do. What a forecast is worth is as `ReturnRegressor` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from policyserver.pipelines.forecast.regressor import (
    PREDICTION_LIMIT,
    RELIABILITY_FLOOR,
    RELIABILITY_PRIOR,
    RegressorConfig,
    build_model,
)
from policyserver.pipelines.market.bars import FloatArray

Inputs = Sequence[Mapping[str, float]]
"""What each of m rows is forecast from, by name."""

MEAN, STD, RAW = range(3)
"""Columns of a forecast: what is expected, the standard deviation of its error so far, and what the model itself said."""


class ReturnModel:
    """A River regressor, and the running mean squares by which its forecasts are shrunk. Not thread-safe: one owner at a time."""

    def __init__(self, config: RegressorConfig) -> None:
        """Build the model.

        Raises:
            ValueError: `config.model` names no River regressor, or `config.arguments` do not fit it.
        """
        self._config = config
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

    def predict(self, inputs: Inputs) -> FloatArray:
        """Return the forecasts of m rows, float64 (m, 3); zeros before anything was learnt, and where an input is not finite."""
        forecasts = np.zeros((len(inputs), 3))
        if self.learned == 0:
            return forecasts
        predict_one = self._model.predict_one
        raw = np.array([predict_one(row) if _finite(row) else math.nan for row in inputs], dtype=np.float64)
        known = np.isfinite(raw)
        if not known.all():
            self._note_unknown(inputs, known)
            raw = np.where(known, raw, 0.0)
        error, power = np.sqrt(self._means[:2]).tolist()
        limit = PREDICTION_LIMIT * power
        forecasts[:, RAW] = np.clip(raw, -limit, limit)
        forecasts[:, MEAN] = forecasts[:, RAW] * self.reliability
        forecasts[:, STD] = np.where([_finite(row) for row in inputs], error, 0.0) if not known.all() else error
        return forecasts

    def learn(self, inputs: Inputs, forecasts: FloatArray, log_returns: FloatArray) -> None:
        """Learn the log-returns that followed, float64 (m,), for which `forecasts` were made of `inputs`."""
        learn_one = self._model.learn_one
        takes = np.isfinite(log_returns)
        for place, (row, label) in enumerate(zip(inputs, log_returns.tolist(), strict=True)):
            if takes[place] and _finite(row):
                learn_one(row, label)
            else:
                takes[place] = False
        if not takes.all():
            self.skipped += int((~takes).sum())
            forecasts, log_returns = forecasts[takes], log_returns[takes]
        if len(log_returns):
            raw = forecasts[:, RAW]
            error = log_returns - forecasts[:, MEAN]
            self._remember(np.stack([error * error, log_returns * log_returns, raw * raw, raw * log_returns], axis=1))

    def _remember(self, squares: FloatArray) -> None:
        """Take each row in turn into the running means: with a step of 1 / t up to the memory, and the memory's afterwards."""
        count = len(squares)
        steps = 1.0 / np.minimum(np.arange(self.learned + 1, self.learned + count + 1), self._config.memory_steps)
        kept = np.cumprod((1.0 - steps)[::-1])[::-1]
        weights = steps * np.append(kept[1:], 1.0)
        self._means = self._means * kept[0] + weights @ squares
        self.learned += count

    def _note_unknown(self, inputs: Inputs, known: np.ndarray) -> None:
        """Begin anew when the model itself has run away: its forecast of finite inputs is not finite."""
        if any(not fine and _finite(row) for row, fine in zip(inputs, known.tolist(), strict=True)):
            self._model = build_model(self._config)
            self.resets += 1


def _finite(row: Mapping[str, float]) -> bool:
    return math.isfinite(math.fsum(row.values()))
