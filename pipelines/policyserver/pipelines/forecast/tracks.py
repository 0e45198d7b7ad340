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
import numpy.typing as npt

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
_MOST_AHEAD = 64
"""Most bars whose forecasts an episode reads at once."""
_MOST_READ = 1 << 19
"""Most forecasts that a block has read, 32 bytes each."""


class Track:
    """The forecasts of one symbol's history, made as far as they were asked for. Thread-safe: the first who asks makes them."""

    def __init__(
        self,
        symbol: str,
        history: History,
        config: RegressorConfig,
        stopping: Callable[[], bool],
        start: KeptModel | None = None,
        offset: int = 0,
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
            offset: Where its bars begin among those of all tracks.

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
        self._lock = threading.Lock()  # guards the walk and the model
        self._forecasts = np.zeros((len(history.bars), 3))
        self.offset = offset
        """Where its bars begin among those of all tracks."""
        self._begin()

    @property
    def skipped(self) -> int:
        """Bars not learnt because they or a feature were not finite."""
        return self._regressor.skipped

    def forecast(self, row: int) -> FloatArray:
        """Return the forecast as of a row of the history, float64 (3,); zeros when the run ends before it is made."""
        self.known_from(row)
        forecast: FloatArray = self.forecasts(np.array([row]))[0]
        return forecast

    def known_from(self, row: int) -> int:
        """Make the forecast as of a row of the history; return how many are made, from the first on: no more than `row` if the run ends."""
        if row >= self._known:
            with self._lock:
                self._walk(row)
        return self._known

    def forecasts(self, rows: IntArray) -> FloatArray:
        """Return the forecasts as of rows of the history, float64 (m, 3); zeros where they are not made yet."""
        return self._forecasts.take(rows, axis=0)

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
        self._lock = threading.Lock()  # guards the table, and what has been counted
        self._tracks: dict[tuple[str, tuple[int, int] | None], Track] = {}
        self._n_bars = 0
        self._counted = np.zeros(0, dtype=np.bool_)  # of each bar of all tracks, by their offsets

    def of(self, symbol: str, history: History) -> Track:
        """Return the track of a symbol's history."""
        key = symbol, history.played
        with self._lock:
            if key not in self._tracks:
                start = self._start.get(symbol)
                self._tracks[key] = Track(symbol, history, self._config, self._stopping, start, self._n_bars)
                self._n_bars += len(history.bars)
                if len(self._counted) < self._n_bars:
                    self._counted = np.concatenate([self._counted, np.zeros(self._n_bars, dtype=np.bool_)])
            return self._tracks[key]

    def count(self, bars: IntArray) -> npt.NDArray[np.bool_]:
        """Tell which forecasts count for the skill: as of a bar the one that is first played, for in every other window it is the same.

        Args:
            bars: The offset of a track and a row of its history, added up, int64 (m,).

        Returns:
            Bool (m,).
        """
        with self._lock:
            counts = ~self._counted.take(bars)
            if len(bars) == 1:
                self._counted[bars] = True
            elif np.count_nonzero(counts):
                firsts = np.zeros_like(counts)
                firsts[np.unique(bars, return_index=True)[1]] = True
                counts &= firsts
                self._counted[bars] = True
        return counts

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
    """Reads the forecasts of a block's rows from the tracks of what they trade. See `Forecaster`.

    A row reads those of some bars at once, as far as its tracks know them: so there is Python for a row once in so many bars. It reads none
    that its tracks would have to make first but the next one.
    """

    def __init__(self, view: View, tracks: Tracks) -> None:
        """Read from `tracks` into `view`."""
        self._view = view
        self._tracks = tracks
        n_rows, n_symbols = view.forecast.shape[:2]
        self._of_row: list[list[Track]] = [[] for _ in range(n_rows)]
        self._first_action = np.zeros(n_rows, dtype=np.int64)
        self._own_rows: list[IntArray | None] = [None] * n_rows
        self._forecast = np.zeros(n_rows, dtype=np.bool_)
        ahead = max(1, min(_MOST_AHEAD, _MOST_READ // (n_rows * n_symbols)))
        self._read = np.zeros((n_rows, ahead, *view.forecast.shape[1:]))
        self._bars = np.zeros((n_rows, ahead, n_symbols), dtype=np.int64)  # of these forecasts, as in `Tracks.count`; -1: it was not made
        self._from = np.zeros(n_rows, dtype=np.int64)
        self._n_read = np.zeros(n_rows, dtype=np.uint64)  # bars that are read, from that one on

    def begin(self, rows: IntArray, episodes: Sequence[Episode]) -> None:
        """See `Forecaster`."""
        for row, episode in zip(rows.tolist(), episodes, strict=True):
            self._of_row[row] = [self._tracks.of(symbol, episode.histories[symbol]) for symbol in episode.symbols]
            self._first_action[row] = episode.first_row + episode.bars.warmup_bars - 1
            self._own_rows[row] = None if episode.own_rows is None else episode.own_rows[episode.bars.warmup_bars - 1 :]
        self._forecast[rows] = False
        self._n_read[rows] = 0

    def learn(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """See `Forecaster`. The tracks have learnt by themselves; what counts is told."""
        view = self._view
        returns = view.statistics.prices.last_return[rows]
        errors = returns - view.forecast[rows, :, MEAN]
        counts = (view.stale_bars[rows] == 0) & self._forecast[rows][:, None]
        if np.count_nonzero(counts):
            at = self._read_at(rows, view.clock[rows] - 1)
            bars = self._bars[rows, at]
            counts &= bars >= 0
            counts[counts] = self._tracks.count(bars[counts])
        return np.square(errors[counts]), np.square(returns[counts])

    def predict(self, rows: IntArray) -> None:
        """See `Forecaster`."""
        self._view.forecast[rows] = self._read[rows, self._read_at(rows, self._view.clock[rows])]
        self._forecast[rows] = True

    def _read_at(self, rows: IntArray, clock: IntArray) -> IntArray:
        """Return where in what was read the forecasts as of bars of some episodes are, int64 (m,); read those that are not there."""
        at = clock - self._from.take(rows)
        missing = at.view(np.uint64) >= self._n_read.take(rows)  # one that is before them all is a large number
        if np.count_nonzero(missing):
            for row, first in zip(rows[missing].tolist(), clock[missing].tolist(), strict=True):
                self._read_ahead(row, first)
            at = clock - self._from.take(rows)
        return at

    def _read_ahead(self, row: int, clock: int) -> None:
        """Read the forecasts of an episode from a bar on."""
        tracks, own_rows, ahead = self._of_row[row], self._own_rows[row], self._read.shape[1]
        if own_rows is None:
            first = int(self._first_action[row]) + clock
            places = np.arange(first, first + ahead)[:, None]
        else:
            places = own_rows[clock : clock + ahead]
        known = [track.known_from(place) for track, place in zip(tracks, places[0].tolist(), strict=True)]
        count = max(1, min(int(np.searchsorted(places[:, symbol], until)) for symbol, until in enumerate(known)))
        for symbol, (track, until) in enumerate(zip(tracks, known, strict=True)):
            of_history = places[:count, symbol]
            self._read[row, :count, symbol] = track.forecasts(of_history)
            self._bars[row, :count, symbol] = np.where(of_history < until, track.offset + of_history, -1)
        self._from[row], self._n_read[row] = clock, count
