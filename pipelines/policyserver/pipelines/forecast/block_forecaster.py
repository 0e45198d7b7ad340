"""The forecasts of a block: which model a row asks and teaches, and what it is forecast from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
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
        self._newest: _Newest | None = None
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
        self._newest = None
        self.episodes_before = max([self.episodes_before, *(episode.number + 1 for episode in episodes)])
        if not self._shared:
            for row in rows.tolist():
                self._models[row] = ReturnModel(self._config, INPUTS)

    def learn(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Learn the last log-return of each row that was forecast.

        Returns:
            The squared errors of these forecasts and of the zero forecast, float64 (f,) each.
        """
        newest, last_return = self._newest, self._view.statistics.prices.last_return
        if newest is not None and (rows is newest.rows or np.array_equal(rows, newest.rows)):
            features, forecasts = newest.features, newest.forecasts
        else:
            known = self._is_forecast[rows]
            if not known.all():
                rows = rows[known]
            features = self._features.take(rows, axis=0).reshape(-1, len(INPUTS))
            forecasts = self._view.forecast.take(rows, axis=0).reshape(-1, 3)
        returns = last_return.take(rows, axis=0).reshape(-1)
        with self._lock:
            if self._shared:
                self._models[0].learn(features, forecasts, returns)
            else:
                for model, place in self._by_model(rows):
                    model.learn(features[place], forecasts[place], returns[place])
        errors = returns - forecasts[:, MEAN]
        return errors * errors, returns * returns

    def predict(self, rows: IntArray) -> None:
        """Forecast the next log-return of each row, into the view."""
        view, statistics = self._view, self._view.statistics
        into = slice(None) if len(rows) == view.shape.n_rows else rows
        log_price = statistics.prices.log_price[into]
        features = np.empty((*log_price.shape, len(INPUTS)))
        np.subtract(log_price, statistics[_SLOW][into], out=features[..., 0])
        np.subtract(log_price, statistics[_FAST][into], out=features[..., 1])
        features[..., 2] = statistics.prices.last_return[into]
        self._features[into] = features
        self._is_forecast[into] = True
        flat = features.reshape(-1, len(INPUTS))
        with self._lock:
            if self._shared:
                forecasts = self._models[0].predict(flat)
            else:
                parts = [model.predict(flat[place]) for model, place in self._by_model(rows)]
                forecasts = np.concatenate(parts) if parts else np.empty((0, 3))
        view.forecast[into] = forecasts.reshape(*log_price.shape, 3)
        self._newest = _Newest(rows, flat, forecasts)

    def _by_model(self, rows: IntArray) -> list[tuple[ReturnModel, slice]]:
        """Return the model of each row's own, with the places of its symbols among those of `rows`."""
        count = self._view.shape.n_symbols
        return [(self._models[row], slice(place * count, (place + 1) * count)) for place, row in enumerate(rows.tolist())]


@dataclass(frozen=True, slots=True, eq=False)
class _Newest:
    """What was forecast last, K symbols of each row one after the other."""

    rows: IntArray
    features: FloatArray
    forecasts: FloatArray
