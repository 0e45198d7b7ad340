"""What is recorded of the prices that a run is played on."""

from __future__ import annotations

import threading

from policyserver.monitoring.points import Points
from policyserver.monitoring.recorded_prices import RecordedPrices
from policyserver.pipelines.market.episode_source import Episode
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.routes import Recorder


class PriceRecords:
    """Records the prices of each symbol, and of each part of a split, when the first episode begins. Thread-safe: a run has one."""

    def __init__(self, run: RunState, recorder: Recorder, *, trained_on: bool) -> None:
        """Record with `recorder`, and in `run` for the summary; `trained_on`: whether the policy learns from the episodes."""
        self._run = run
        self._recorder = recorder
        self._trained_on = trained_on
        self._lock = threading.Lock()  # guards what follows
        self._noted: set[tuple[str, str]] = set()

    def note(self, episode: Episode) -> None:
        """Take note of an episode's prices."""
        with self._lock:
            new = [symbol for symbol in episode.symbols if (symbol, episode.span) not in self._noted]
            self._noted.update((symbol, episode.span) for symbol in new)
        for symbol in new:
            self._write(episode, symbol)

    def _write(self, episode: Episode, symbol: str) -> None:
        history = episode.histories.get(symbol)
        times = episode.bars.time_ns if history is None else history.bars.time_ns[slice(*(history.played or (None, None)))]
        first_s, last_s = (float(times[end]) * 1e-9 for end in (0, -1))
        known = RecordedPrices(symbol, self._trained_on, len(times), first_s, last_s, episode.span)
        if history is not None:
            self._run.recorded_prices.append(known)
        fields = {
            "recorded": history is not None,
            "trained_on": known.trained_on,
            "bars": known.bars,
            "first_bar_s": known.first_bar_s,
            "last_bar_s": known.last_bar_s,
            "span": known.span or None,
        }
        self._recorder.sink.write(Points.one("prices", {**self._recorder.tags, "symbol": symbol}, fields))
