"""What the nodes of one pipeline share: the end of the run, the ledger, and what is known of its results."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policyserver.monitoring.newest_tenth import MOST_EPISODES, SHARE, newest_count
from policyserver.monitoring.recorded_prices import RecordedPrices
from policyserver.monitoring.tail import Tail
from policyserver.pipelines.episode_figures import EpisodeFigures
from policyserver.pipelines.events import Ending
from policyserver.pipelines.market.bars import FloatArray

EPISODE_COLUMNS = ("return", "no_trade", "random", "profit", "costs", "random_profit", "random_costs")
"""What is kept of each whole episode: returns in units of reward, profits and costs as fractions of the initial equity."""

FORECAST_COLUMNS = ("squared_error", "squared_return")
"""What is kept of each forecast, in squared log-returns."""

EPISODES_KEPT = 2 * MOST_EPISODES
FORECASTS_KEPT = 524_288
DECISIONS_KEPT = 12


@dataclass(frozen=True, slots=True)
class ShownDecision:
    """A decision and its reward, to be shown to the user."""

    bar: int
    """Index of the bar at whose close it was taken."""
    price: float
    """Close of that bar, of the first symbol."""
    prediction: float
    """Expected log-return of the next bar, of the first symbol."""
    action: str
    """What was done, as its scheme calls it; of a fallback what it is reported as."""
    fallback: bool
    """Whether it is the configured fallback instead of the policy's action."""
    weights_seq_no: int
    """Policy version that acted, or the newest known one."""
    node: str
    """Name of the node thread that took it."""
    episode: str
    """Id of the episode."""
    symbol: str
    """What is traded."""
    position: float
    """Value of the position after the fill, as a signed fraction of the equity, of the first symbol."""
    reward: float
    """Reward of the action."""


class ExactSum:
    """A sum of floats that does not lose digits (Neumaier). One thread adds; any thread may read."""

    __slots__ = ("_correction", "_sum")

    def __init__(self) -> None:
        """Start at 0."""
        self._sum = 0.0
        self._correction = 0.0

    def add(self, value: float) -> None:
        """Add one value."""
        total = self._sum + value
        if abs(self._sum) >= abs(value):
            self._correction += (self._sum - total) + value
        else:
            self._correction += (value - total) + self._sum
        self._sum = total

    @property
    def value(self) -> float:
        """The sum so far."""
        return self._sum + self._correction


class RunState:
    """Shared by the nodes of one pipeline."""

    def __init__(self, slots: int, steps: int | None, *, of_test: bool = False) -> None:
        """Begin a run.

        Args:
            slots: concurrent episodes.
            steps: number of steps after which the run ends; None: only when asked.
            of_test: Whether its figures are of all whole episodes; else they are of the newest tenth.
        """
        self.stopping = threading.Event()
        """Set when episodes are to end at the bar they have reached."""
        self.ended = threading.Event()
        """Set when every slot is given back, or the run has failed."""
        self.failure: BaseException | None = None
        """Why the run failed, if it did."""
        self.episodes = Tail(EPISODE_COLUMNS, EPISODES_KEPT)
        """Results of the episodes that ran their full length, or into ruin."""
        self.of_test = of_test
        self._all = EpisodeFigures.of(self.episodes.newest(0))
        self.forecasts = Tail(FORECAST_COLUMNS, FORECASTS_KEPT)
        """Forecasts compared with what came."""
        self.recorded_prices: list[RecordedPrices] = []
        """The recorded bars that episodes have been windows of, by symbol; empty where prices are simulated."""
        self.decisions: deque[ShownDecision] = deque(maxlen=DECISIONS_KEPT)
        """Newest decisions whose reward is known."""
        self.spans: Counter[str] = Counter()
        """Episodes that have ended by the part of the split that they were played on; none without a split."""
        self.endings: Counter[Ending] = Counter()
        """Episodes by the way they ended."""
        self._lock = threading.Lock()  # guards what follows, and endings
        self._steps_wanted = steps
        self._steps = 0
        self._slots_out = slots
        self._on_end: list[Callable[[], None]] = []

    @property
    def steps(self) -> int:
        """Steps whose reward is known."""
        return self._steps

    def newest_forecasts(self) -> dict[str, FloatArray]:
        """Return the forecasts that count for the skill, as columns: the last tenth, or all on recorded bars, which each count once."""
        return self.forecasts.last(1.0 if self.recorded_prices else SHARE)

    def add_results(self, rows: Sequence[Sequence[float]] | FloatArray) -> None:
        """Take the results of whole episodes, each a value for every one of `EPISODE_COLUMNS`. One thread adds."""
        self.episodes.extend(rows)
        if self.of_test and len(rows):
            self._all = self._all.plus(EpisodeFigures.of(dict(zip(EPISODE_COLUMNS, np.array(rows, dtype=np.float64).T, strict=True))))

    def newest_tenth(self) -> dict[str, FloatArray]:
        """Return the results behind what is shown while the run goes on: those of the newest tenth of the whole episodes."""
        return self.episodes.newest(newest_count(self.episodes.count))

    def figures(self) -> EpisodeFigures:
        """Return what the run came to: of a test all whole episodes, else the newest tenth, for the policy was another one before."""
        return self._all if self.of_test else EpisodeFigures.of(self.newest_tenth())

    def add_steps(self, count: int) -> None:
        """Count steps; ends the run when there are enough."""
        with self._lock:
            self._steps += count
            enough = self._steps_wanted is not None and self._steps >= self._steps_wanted
        if enough:
            self.stopping.set()

    def add_ending(self, ending: Ending, count: int = 1) -> None:
        """Count episodes that have ended."""
        with self._lock:
            self.endings[ending] += count

    def give_back_slots(self, count: int) -> None:
        """Say that slots will get no further episode; the run has ended when all are back."""
        with self._lock:
            self._slots_out -= count
            all_back = self._slots_out <= 0
        if all_back:
            self._end()

    def fail(self, error: BaseException) -> None:
        """Fail the run; the first error is the one that is kept."""
        with self._lock:
            self.failure = self.failure or error
        self.stopping.set()
        self._end()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back when the run has ended, on the thread that ends it; at once if it has."""
        with self._lock:
            if not self.ended.is_set():
                self._on_end.append(callback)
                return
        callback()

    def _end(self) -> None:
        with self._lock:
            self.ended.set()
            callbacks, self._on_end = self._on_end, []
        for callback in callbacks:
            callback()
