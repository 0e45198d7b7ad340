"""The forecasts of a block: which model a row asks and teaches, and what it is forecast from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.forecast.return_model import MEAN, ReturnModel
from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.running_statistics import ExponentialMean, MeanSinceStart, Statistic
from policyserver.pipelines.market.schemes.scheme import View

Sharing = Literal["block", "episode"]
"""Who teaches one model: all episodes of a block, or each its own."""

_FAST = ExponentialMean(8)
_SLOW = MeanSinceStart()

STATISTICS: frozenset[Statistic] = frozenset({_FAST, _SLOW})
"""What forecasts are made from, for the block to compute."""

INPUTS = ("distance_slow", "distance_fast", "return_1")
"""What the model predicts the next log-return from, in units of log-price."""


class BlockForecaster:
    """Learns each bar of a block's rows when it has come, and forecasts the next. One owner at a time: the block's.

    What a model has learnt when it forecasts lies in the past of that forecast: simulated prices have no time in common, and each path is
    drawn by itself. Recorded prices do: see `tracks`.
    """

    def __init__(self, view: View, config: RegressorConfig, sharing: Sharing = "block") -> None:
        """Forecast the rows of `view`, whose forecasts it fills in."""
        n_rows, self._n_symbols = view.shape.n_rows, view.shape.n_symbols
        self._view = view
        self._config = config
        self._models = [ReturnModel(config) for _ in range(1 if sharing == "block" else n_rows)]
        self._shared = sharing == "block"
        self._inputs: list[dict[str, float] | None] = [None] * (n_rows * self._n_symbols)

    @property
    def skipped(self) -> int:
        """Labels not learnt because they or a feature were not finite."""
        return sum(model.skipped for model in self._models)

    @property
    def learned(self) -> int:
        """Labels learnt."""
        return sum(model.learned for model in self._models)

    def begin(self, rows: IntArray, episodes: Sequence[Episode]) -> None:
        """Forget what rows were forecast from: new episodes begin in them."""
        for row in rows.tolist():
            self._inputs[row * self._n_symbols : (row + 1) * self._n_symbols] = [None] * self._n_symbols
            if not self._shared:
                self._models[row] = ReturnModel(self._config)

    def learn(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Learn the last log-return of each row that was forecast.

        Returns:
            The squared errors of these forecasts and of the zero forecast, float64 (f,) each.
        """
        view = self._view
        returns = view.statistics.prices.last_return[rows]
        forecast = view.forecast[rows]
        known = self._known(rows)
        for model, places in self._by_model(rows):
            taught = places[known[places].any(axis=1)] if not known.all() else places
            inputs = [self._inputs[cell] for cell in self._cells(rows[taught])]
            mask = np.array([row is not None for row in inputs], dtype=np.bool_)
            if mask.any():
                flat = forecast[taught].reshape(-1, 3)[mask]
                model.learn([row for row in inputs if row is not None], flat, returns[taught].reshape(-1)[mask])
        error = (returns - forecast[..., MEAN])[known]
        return error * error, np.square(returns[known])

    def predict(self, rows: IntArray) -> None:
        """Forecast the next log-return of each row, into the view."""
        view, statistics = self._view, self._view.statistics
        log_price = statistics.prices.log_price[rows]
        features = np.stack(
            [log_price - statistics[_SLOW][rows], log_price - statistics[_FAST][rows], statistics.prices.last_return[rows]], axis=-1
        )
        for model, places in self._by_model(rows):
            inputs = [dict(zip(INPUTS, values, strict=True)) for values in features[places].reshape(-1, 3).tolist()]
            for cell, row in zip(self._cells(rows[places]), inputs, strict=True):
                self._inputs[cell] = row
            view.forecast[rows[places]] = model.predict(inputs).reshape(len(places), self._n_symbols, 3)

    def _by_model(self, rows: IntArray) -> list[tuple[ReturnModel, IntArray]]:
        """Return each model with the places of its rows among `rows`."""
        if self._shared:
            return [(self._models[0], np.arange(len(rows)))]
        return [(self._models[row], np.array([place])) for place, row in enumerate(rows.tolist())]

    def _cells(self, rows: IntArray) -> list[int]:
        cells: list[int] = (rows[:, None] * self._n_symbols + np.arange(self._n_symbols)).ravel().tolist()
        return cells

    def _known(self, rows: IntArray) -> npt.NDArray[np.bool_]:
        """Return which symbols of which rows were forecast, bool (m, K)."""
        flat = [self._inputs[cell] is not None for cell in self._cells(rows)]
        return np.array(flat, dtype=np.bool_).reshape(len(rows), self._n_symbols)
