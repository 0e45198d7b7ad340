"""What is recorded of the prices that a run is played on."""

from __future__ import annotations

from policyserver.monitoring.points import Points
from policyserver.monitoring.recorded_prices import RecordedPrices
from policyserver.pipelines.prices import EpisodePrices
from policyserver.pipelines.run_state import RunState
from policyserver.pipelines.runtime.routes import Recorder


class PriceRecords:
    """Records the prices of each symbol when its first episode begins. Belongs to one thread."""

    def __init__(self, run: RunState, recorder: Recorder, *, trained_on: bool) -> None:
        """Record with `recorder`, and in `run` for the summary; `trained_on`: whether the policy learns from the episodes."""
        self._run = run
        self._recorder = recorder
        self._trained_on = trained_on
        self._symbols: set[str] = set()

    def note(self, prices: EpisodePrices) -> None:
        """Take note of an episode's prices."""
        if prices.symbol in self._symbols:
            return
        self._symbols.add(prices.symbol)
        bars = prices.bars if prices.history is None else prices.history.bars
        first_s, last_s = (float(bars.time_ns[end]) * 1e-9 for end in (0, -1))
        known = RecordedPrices(prices.symbol, self._trained_on, len(bars), first_s, last_s)
        if prices.history is not None:
            self._run.recorded_prices.append(known)
        fields = {
            "recorded": prices.history is not None,
            "trained_on": known.trained_on,
            "bars": known.bars,
            "first_bar_s": known.first_bar_s,
            "last_bar_s": known.last_bar_s,
        }
        self._recorder.sink.write(Points.one("prices", {**self._recorder.tags, "symbol": prices.symbol}, fields))
