"""Where an episode's forecasts come from: one forecaster for each symbol, shared by all its episodes.

What a forecaster has learnt when it forecasts lies in the past of that forecast, whichever episode brought it. Simulated prices have no
time in common: each path is drawn by itself, and what is learnt from one tells nothing of the noise in another. Windows of one history
overlap, so a model that learnt in the order in which they are played would know the bars that it forecasts; there the history is learnt in
its own order, once, and an episode reads the forecast that was made as of its bar.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from policyserver.pipelines.events import Episode
from policyserver.pipelines.features import FeatureState
from policyserver.pipelines.forecast.regressor import NO_PREDICTION, Prediction, RegressorConfig, ReturnRegressor
from policyserver.pipelines.market.bars import Bar, Bars, History

logger = logging.getLogger(__name__)

_BLOCK_BARS = 1024
"""Bars learnt from one look at whether the run is ending to the next: about 50 ms with the default model."""


class Forecaster(Protocol):
    """Forecasts for the episodes of one symbol. Not thread-safe: one owner thread."""

    @property
    def skipped(self) -> int:
        """Bars not learnt because they or a feature were not finite."""

    def settle(self, episode: Episode, bar: Bar) -> bool:
        """Take in the bar after the episode's newest forecast; whether that forecast counts as one more for the skill."""

    def forecast(self, episode: Episode, bar: Bar) -> Prediction:
        """Return the forecast at the close of `bar`, which the episode's features have seen."""


def forecaster_of(episode: Episode, config: RegressorConfig, stopping: Callable[[], bool]) -> Forecaster:
    """Return a new forecaster for the symbol of an episode; see `HistoryForecaster` for `stopping`."""
    history = episode.prices.history
    return OnlineForecaster(config) if history is None else HistoryForecaster(episode.symbol, history, config, stopping)


class OnlineForecaster:
    """Learns each bar when an episode has reached it: all episodes of the symbol teach the same regressor."""

    def __init__(self, config: RegressorConfig) -> None:
        """Begin with a regressor that knows nothing."""
        self._regressor = ReturnRegressor(config)

    @property
    def skipped(self) -> int:
        """See `Forecaster`."""
        return self._regressor.skipped

    def settle(self, episode: Episode, bar: Bar) -> bool:
        """See `Forecaster`. Every forecast counts."""
        if episode.regressor_features is None:
            return False
        self._regressor.learn(episode.regressor_features, episode.prediction, episode.features.last_return)
        return True

    def forecast(self, episode: Episode, bar: Bar) -> Prediction:
        """See `Forecaster`."""
        episode.regressor_features = episode.features.regressor_features()
        return self._regressor.predict(episode.regressor_features)


class HistoryForecaster:
    """Walks forward through a history: forecasts each bar, then learns it, once.

    The forecast as of a bar is a function of the history up to that bar alone; neither episodes, their order, nor a resume change it. Its
    features are those of the bars before, as many as an episode has.
    """

    def __init__(self, symbol: str, history: History, config: RegressorConfig, stopping: Callable[[], bool]) -> None:
        """Begin before the first bar.

        Args:
            symbol: for the log.
            history: the bars.
            config: of the regressor.
            stopping: whether the run is ending, so that nobody needs the forecasts any more.
        """
        self._symbol = symbol
        self._history = history
        self._config = config
        self._stopping = stopping
        self._forecasts = np.zeros((len(history.bars), 3))
        self._counted = np.zeros(len(history.bars), dtype=bool)
        self._begin()

    def _begin(self) -> None:
        """Go back before the first bar, with a regressor that knows nothing."""
        self._regressor = ReturnRegressor(self._config)
        self._features = FeatureState(self._history.window_bars)
        self._newest: tuple[dict[str, float], Prediction] | None = None
        self._known = 0

    @property
    def skipped(self) -> int:
        """See `Forecaster`."""
        return self._regressor.skipped

    def settle(self, episode: Episode, bar: Bar) -> bool:
        """See `Forecaster`. A bar's forecast counts when the bar is first played, for in every other window it is the same."""
        row = episode.prices.row(bar) - 1
        first = row < self._known and not self._counted[row]
        self._counted[row] |= first
        return bool(first)

    def forecast(self, episode: Episode, bar: Bar) -> Prediction:
        """See `Forecaster`. `NO_PREDICTION` when the run ends before the bar is learnt."""
        row = episode.prices.row(bar)
        if row >= self._known and not self._walk(row):
            return NO_PREDICTION
        mean, std, raw = self._forecasts[row].tolist()
        return Prediction(mean, std, raw)

    def _walk(self, row: int) -> bool:
        """Go on until the forecast as of `row` is known; whether it is, for the run may be ending.

        Raises:
            Exception: What the model raises. The walk begins anew then, for what was learnt of a block would lie ahead of its forecasts.
        """
        begun, before = time.monotonic(), self._known
        while self._known <= row and not self._stopping():
            try:
                self._learn_block(self._history.bars.slice(self._known, self._known + _BLOCK_BARS))
            except Exception:
                self._begin()
                raise
        if self._known > before:
            seconds = time.monotonic() - begun
            logger.info("%s: learnt %d recorded bars in their order in %.1f s", self._symbol, self._known - before, seconds)
        return self._known > row

    def _learn_block(self, block: Bars) -> None:
        self._forecasts[self._known : self._known + len(block)] = [self._step(bar) for bar in block.rows(0)]
        self._known += len(block)

    def _step(self, bar: Bar) -> tuple[float, float, float]:
        """Learn what followed the newest forecast, and forecast what follows `bar`."""
        self._features.update(bar)
        if math.isnan(self._features.last_return):
            return 0.0, 0.0, 0.0  # the first bar has no features yet
        if self._newest is not None:
            self._regressor.learn(*self._newest, self._features.last_return)
        inputs = self._features.regressor_features()
        prediction = self._regressor.predict(inputs)
        self._newest = inputs, prediction
        return prediction.mean, prediction.std, prediction.raw
