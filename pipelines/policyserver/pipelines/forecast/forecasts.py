"""The forecasters of a run: one for each block, and what all of them have learnt."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping

from policyserver.pipelines.forecast.block_forecaster import INPUTS, BlockForecaster
from policyserver.pipelines.forecast.regressor import RegressorConfig
from policyserver.pipelines.forecast.state_file import ForecastState, Kind, settings_of_model
from policyserver.pipelines.forecast.tracks import TrackForecaster, Tracks
from policyserver.pipelines.market.episode_source import EpisodeSource
from policyserver.pipelines.market.forecaster import Forecaster
from policyserver.pipelines.market.schemes.scheme import View


def unlearnt_state(config: RegressorConfig, window_bars: int, bar_intervals_ns: Mapping[str, int], *, is_recorded: bool) -> ForecastState:
    """Return the state of a run that has learnt nothing: what another one is compared with."""
    kind: Kind = "symbols" if is_recorded else "blocks"
    return ForecastState(kind, {}, INPUTS, window_bars, settings_of_model(config), bar_intervals_ns)


def window_bars(source: EpisodeSource) -> int:
    """Return how many bars an episode has, warm-up included: of as many is the mean from which `distance_slow` is."""
    (episode,) = source.episodes([0])
    return max((history.window_bars for history in episode.histories.values()), default=len(episode.bars.time_ns))


class Forecasts:
    """Makes the forecasters of a run's blocks. Thread-safe."""

    def __init__(
        self,
        config: RegressorConfig,
        *,
        is_recorded: bool,
        stopping: Callable[[], bool] = lambda: False,
        start: ForecastState | None = None,
    ) -> None:
        """Have none yet.

        Args:
            config: Of the regressor.
            is_recorded: Whether episodes are windows of histories.
            stopping: Whether the run is ending.
            start: What the models begin with: block b of the run with the model b modulo the number of models, each symbol with its own,
                and anew if it has none.
        """
        self._config = config
        self._is_recorded = is_recorded
        self._start = start
        self._tracks = Tracks(config, stopping, start.models if start is not None else None)
        self._lock = threading.Lock()  # guards what follows
        self._of_block: dict[int, BlockForecaster] = {}
        self._skipped = self._episodes_before = 0  # of forecasters that others have replaced

    def make(self, view: View, block: int) -> Forecaster:
        """Make the forecaster of a block, in place of the one of its number, if there is any.

        Raises:
            Exception: What its model begins with can't be unpickled.
        """
        if self._is_recorded:
            return TrackForecaster(view, self._tracks)
        models = [] if self._start is None else list(self._start.models.values())
        forecaster = BlockForecaster(view, self._config, start=models[block % len(models)] if models else None)
        with self._lock:
            if (old := self._of_block.get(block)) is not None:
                self._skipped += old.skipped
                self._episodes_before = max(self._episodes_before, old.episodes_before)
            self._of_block[block] = forecaster
        return forecaster

    @property
    def skipped(self) -> int:
        """Labels that were not learnt, those of blocks that were given up among them."""
        with self._lock:
            return self._tracks.skipped + self._skipped + sum(forecaster.skipped for forecaster in self._of_block.values())

    def state(self, window_bars: int, bar_intervals_ns: Mapping[str, int], seed: int) -> ForecastState:
        """Return what has been learnt so far.

        Args:
            window_bars: Bars of an episode, warm-up included.
            bar_intervals_ns: By symbol, the usual time from one bar to the next.
            seed: Of the episodes.

        Raises:
            Exception: A model can't be pickled.
        """
        earlier = self._start.bar_intervals_ns if self._is_recorded and self._start is not None else {}
        empty = unlearnt_state(self._config, window_bars, {**earlier, **bar_intervals_ns}, is_recorded=self._is_recorded)
        if self._is_recorded:
            return dataclasses.replace(empty, models=self._tracks.kept())
        with self._lock:
            of_block, before = dict(self._of_block), self._episodes_before
        episodes = dict(self._start.episodes) if self._start is not None else {}
        episodes[seed] = max([episodes.get(seed, 0), before, *(forecaster.episodes_before for forecaster in of_block.values())])
        models = {str(block): of_block[block].kept() for block in sorted(of_block)}
        return dataclasses.replace(empty, models=models, episodes=episodes)
