"""The forecasts of a block: which model a row asks and teaches, and what it is forecast from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np

from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.forecast.return_model import MEAN, ReturnModel
from policyserver.pipelines.forecast.state_file import KeptModel
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
    """Learns each bar of a block's rows when it has come, and forecasts the next. One owner at a time: the block's; `kept` is thread-safe.

    What a model has learnt when it forecasts lies in the past of that forecast: simulated prices have no time in common, and each path is
    drawn by itself. Recorded prices do: see `tracks`.
    """

    def __init__(self, view: View, config: RegressorConfig, sharing: Sharing = "block", start: KeptModel | None = None) -> None:
        """Forecast the rows of `view`, whose forecasts it fills in; the model of a block begins with `start`.

        Raises:
            Exception: `start` can't be unpickled.
        """
        shape = view.shape.n_rows, view.shape.n_symbols
        self._view = view
        self._config = config
        self._models = [ReturnModel(config, INPUTS) for _ in range(1 if sharing == "block" else shape[0])]
        self._shared = sharing == "block"
        self._features = np.zeros((*shape, len(INPUTS)))
        self._is_forecast = np.zeros(shape[0], dtype=np.bool_)
        self._lock = threading.Lock()  # guards the models between the block's owner and who saves them
        self.episodes_before = 0
        """Number of the first episode of which none was begun."""
        if start is not None and self._shared:
            self._models[0].restore(start.learnt())

    def kept(self) -> KeptModel:
        """Return what the model of a block has learnt.

        Raises:
            Exception: It can't be pickled.
        """
        with self._lock:
            return KeptModel.of(self._models[0].learnt())

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
        self._is_forecast[rows] = False
        self.episodes_before = max([self.episodes_before, *(episode.number + 1 for episode in episodes)])
        if not self._shared:
            for row in rows.tolist():
                self._models[row] = ReturnModel(self._config, INPUTS)

    def learn(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Learn the last log-return of each row that was forecast.

        Returns:
            The squared errors of these forecasts and of the zero forecast, float64 (f,) each.
        """
        known = self._is_forecast[rows]
        if not known.all():
            rows = rows[known]
        returns = self._view.statistics.prices.last_return.take(rows, axis=0)
        forecasts = self._view.forecast.take(rows, axis=0)
        features = self._features.take(rows, axis=0)
        with self._lock:
            for model, place in self._by_model(rows):
                model.learn(features[place].reshape(-1, len(INPUTS)), forecasts[place].reshape(-1, 3), returns[place].ravel())
        errors = (returns - forecasts[..., MEAN]).ravel()
        return errors * errors, np.square(returns).ravel()

    def predict(self, rows: IntArray) -> None:
        """Forecast the next log-return of each row, into the view."""
        view, statistics = self._view, self._view.statistics
        log_price = statistics.prices.log_price[rows]
        features = np.empty((*log_price.shape, len(INPUTS)))
        features[..., 0] = log_price - statistics[_SLOW][rows]
        features[..., 1] = log_price - statistics[_FAST][rows]
        features[..., 2] = statistics.prices.last_return[rows]
        self._features[rows] = features
        self._is_forecast[rows] = True
        forecasts = np.empty((*log_price.shape, 3))
        with self._lock:
            for model, place in self._by_model(rows):
                of_model = features[place]
                forecasts[place] = model.predict(of_model.reshape(-1, len(INPUTS))).reshape(*of_model.shape[:-1], 3)
        view.forecast[rows] = forecasts

    def _by_model(self, rows: IntArray) -> list[tuple[ReturnModel, slice]]:
        """Return each model with the places of its rows among `rows`."""
        if self._shared:
            return [(self._models[0], slice(None))]
        return [(self._models[row], slice(place, place + 1)) for place, row in enumerate(rows.tolist())]
