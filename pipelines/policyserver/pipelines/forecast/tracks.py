"""Forecasts of recorded bars: one pass through each history in its own time, which all episodes on it read.

Windows of one history overlap, so a model that learnt in the order in which they are played would know the bars that it forecasts. Here a
history is learnt in its own order, once, and an episode reads the forecast that was made as of its bar: a function of the history up to
that bar alone, which neither episodes, their order, nor a resume change.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from policyserver.pipelines.forecast.regressor import Prediction, RegressorConfig, ReturnRegressor
from policyserver.pipelines.forecast.return_model import MEAN
from policyserver.pipelines.forecast.state_file import KeptModel
from policyserver.pipelines.forecast.track_features import TrackFeatures
from policyserver.pipelines.market.bars import Bars, FloatArray, History, IntArray
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.market.schemes.scheme import View

logger = logging.getLogger(__name__)

_BLOCK_BARS = 1024
"""Bars learnt from one look at whether the run is ending to the next: about 50 ms with the default model."""


class Track:
    """The forecasts of one symbol's history, made as far as they were asked for. Thread-safe: the first who asks makes them."""

    def __init__(
        self, symbol: str, history: History, config: RegressorConfig, stopping: Callable[[], bool], start: KeptModel | None = None
    ) -> None:
        """Begin before the first bar.

        What begins with a model that has learnt before does not learn again the bars up to the newest that it knows, and gives no
        forecast as of an earlier bar: zeros stand there. Its forecasts after it are those of a track that had never stopped.

        Args:
            symbol: For the log.
            history: The bars.
            config: Of the regressor.
            stopping: Whether the run is ending, so that the forecasts are no longer needed.
            start: What the model begins with.

        Raises:
            Exception: `start` can't be unpickled.
        """
        self._symbol = symbol
        self._history = history
        self._config = config
        self._stopping = stopping
        frozen = config.in_test == "frozen" and history.is_test and history.played is not None
        self._learns_until = history.played[0] if frozen and history.played is not None else len(history.bars)
        self._start = start
        self._first = 0 if start is None or start.until_ns is None else int(np.searchsorted(history.bars.time_ns, start.until_ns))
        self._wanted_until = len(history.bars) if history.played is None else history.played[1]
        self._lock = threading.Lock()  # guards the walk, the model and what has been counted
        self._forecasts = np.zeros((len(history.bars), 3))
        self._counted = np.zeros(len(history.bars), dtype=np.bool_)
        self._begin()

    @property
    def skipped(self) -> int:
        """Bars not learnt because they or a feature were not finite."""
        return self._regressor.skipped

    def forecast(self, row: int) -> FloatArray:
        """Return the forecast as of a row of the history, float64 (3,); zeros when the run ends before it is made."""
        if row >= self._known:
            with self._lock:
                self._walk(row)
        forecast: FloatArray = self._forecasts[row]
        return forecast

    def kept(self) -> KeptModel | None:
        """Return what the model has learnt up to the bar that the walk has reached; None: nothing more than it began with.

        Raises:
            Exception: It can't be pickled.
        """
        with self._lock:
            until = min(self._known, self._learns_until)
            if until <= self._first + 1:
                return None
            return KeptModel.of(self._regressor.learnt(), int(self._history.bars.time_ns[until - 1]))

    def counts(self, row: int) -> bool:
        """Tell whether the forecast as of a row counts for the skill: when it is first played, for in every other window it is the same."""
        with self._lock:
            first = row < self._known and not self._counted[row]
            self._counted[row] |= first
        return bool(first)

    def _begin(self) -> None:
        """Go back before the first bar, with a regressor that knows what it began with."""
        self._regressor = ReturnRegressor(self._config)
        if self._start is not None:
            self._regressor.restore(self._start.learnt())
        self._features = TrackFeatures(self._history.window_bars)
        self._newest: tuple[dict[str, float], Prediction] | None = None
        self._known = 0

    def _walk(self, row: int) -> None:
        """Go on until the forecast as of `row` is known, or the run is ending.

        Raises:
            Exception: What the model raises. The walk begins anew then: what was learnt of a block would lie ahead of its forecasts.
        """
        begun, before = time.monotonic(), self._known
        while self._known <= row and not self._stopping():
            try:
                wanted_until = max(self._wanted_until, row + 1)  # what is never asked for is not learnt: testing comes after training
                self._learn_block(self._history.bars.slice(self._known, min(self._known + _BLOCK_BARS, wanted_until)))
            except Exception:
                self._begin()
                raise
        if self._known > before:
            seconds = time.monotonic() - begun
            logger.info("%s: learnt %d recorded bars in their order in %.1f s", self._symbol, self._known - before, seconds)

    def _learn_block(self, block: Bars) -> None:
        forecasts = [
            self._step(close, row < self._learns_until) if row >= self._first else self._pass(close)
            for row, close in enumerate(block.close.tolist(), self._known)
        ]
        self._forecasts[self._known : self._known + len(block)] = forecasts
        self._known += len(block)

    def _pass(self, close: float) -> tuple[float, float, float]:
        """Pass a bar that the model has learnt."""
        self._features.update(close)
        return 0.0, 0.0, 0.0

    def _step(self, close: float, learns: bool) -> tuple[float, float, float]:
        """Learn what followed the newest forecast, unless the model is frozen, and forecast what follows a bar."""
        self._features.update(close)
        if math.isnan(self._features.last_return):
            return 0.0, 0.0, 0.0  # the first bar has no features yet
        if self._newest is not None and learns:
            self._regressor.learn(*self._newest, self._features.last_return)
        inputs = self._features.inputs()
        prediction = self._regressor.predict(inputs)
        self._newest = inputs, prediction
        return prediction.mean, prediction.std, prediction.raw


class Tracks:
    """The tracks of a run, one for each symbol and fold that is tested. Thread-safe."""

    def __init__(self, config: RegressorConfig, stopping: Callable[[], bool], start: Mapping[str, KeptModel] | None = None) -> None:
        """Have none yet; see `Track`. `start` has what the model of each symbol begins with."""
        self._start = start or {}
        self._config = config
        self._stopping = stopping
        self._lock = threading.Lock()  # guards the table
        self._tracks: dict[tuple[str, tuple[int, int] | None], Track] = {}

    def of(self, symbol: str, history: History) -> Track:
        """Return the track of a symbol's history."""
        key = symbol, history.played
        with self._lock:
            if key not in self._tracks:
                self._tracks[key] = Track(symbol, history, self._config, self._stopping, self._start.get(symbol))
            return self._tracks[key]

    def kept(self) -> dict[str, KeptModel]:
        """Return of each symbol what its model has learnt: that of the track which has learnt furthest.

        Raises:
            Exception: One can't be pickled.
        """
        with self._lock:
            tracks = [(symbol, track) for (symbol, _), track in self._tracks.items()]
        found = dict(self._start)
        for symbol, track in tracks:
            kept, known = track.kept(), found.get(symbol)
            if kept is not None and (known is None or (kept.until_ns or 0) > (known.until_ns or 0)):
                found[symbol] = kept
        return found

    @property
    def skipped(self) -> int:
        """Bars not learnt because they or a feature were not finite."""
        with self._lock:
            return sum(track.skipped for track in self._tracks.values())


class TrackForecaster:
    """Reads the forecasts of a block's rows from the tracks of what they trade. See `Forecaster`."""

    def __init__(self, view: View, tracks: Tracks) -> None:
        """Read from `tracks` into `view`."""
        self._view = view
        self._tracks = tracks
        n_rows = view.shape.n_rows
        self._of_row: list[list[Track]] = [[] for _ in range(n_rows)]
        self._first_action = np.zeros(n_rows, dtype=np.int64)
        self._own_rows: list[IntArray | None] = [None] * n_rows
        self._forecast = np.zeros(n_rows, dtype=np.bool_)

    def begin(self, rows: IntArray, episodes: Sequence[Episode]) -> None:
        """See `Forecaster`."""
        for row, episode in zip(rows.tolist(), episodes, strict=True):
            self._of_row[row] = [self._tracks.of(symbol, episode.histories[symbol]) for symbol in episode.symbols]
            self._first_action[row] = episode.first_row + episode.bars.warmup_bars - 1
            self._own_rows[row] = None if episode.own_rows is None else episode.own_rows[episode.bars.warmup_bars - 1 :]
        self._forecast[rows] = False

    def learn(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """See `Forecaster`. The tracks have learnt by themselves; what counts is told."""
        view = self._view
        errors = view.statistics.prices.last_return[rows] - view.forecast[rows, :, MEAN]
        returns = view.statistics.prices.last_return[rows]
        has_bar = (view.stale_bars[rows] == 0).tolist()
        counts = np.array(
            [
                [
                    bool(self._forecast[row]) and is_new and track.counts(place)
                    for (track, place), is_new in zip(self._places(row, clock - 1), own, strict=True)
                ]
                for row, clock, own in zip(rows.tolist(), view.clock[rows].tolist(), has_bar, strict=True)
            ],
            dtype=np.bool_,
        )
        return np.square(errors[counts]), np.square(returns[counts])

    def predict(self, rows: IntArray) -> None:
        """See `Forecaster`."""
        for row, clock in zip(rows.tolist(), self._view.clock[rows].tolist(), strict=True):
            for symbol, (track, place) in enumerate(self._places(row, clock)):
                self._view.forecast[row, symbol] = track.forecast(place)
        self._forecast[rows] = True

    def _places(self, row: int, clock: int) -> list[tuple[Track, int]]:
        """Return each symbol's track, and the row of its history that is its newest at a bar of the episode."""
        tracks, own_rows = self._of_row[row], self._own_rows[row]
        if own_rows is None:
            return [(tracks[0], int(self._first_action[row]) + clock)]
        return list(zip(tracks, own_rows[clock].tolist(), strict=True))
