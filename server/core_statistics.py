"""Counters of the episode core."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class CoreStatistics:
    """What happened since the serving process began. The units are those of GetStatsResponse."""

    episodes_open: int = 0
    episodes_started: int = 0
    episodes_finished: int = 0
    episodes_reaped: int = 0
    actions: int = 0
    actions_overridden: int = 0
    """Actions that a client replaced by its own."""
    rows_repeated: int = 0
    rows_refused: int = 0
    rows_withheld: int = 0
    """Rows that had to wait because the learner was behind."""
    batches: int = 0
    reward_sum: float = 0.0
    steps_completed: int = 0
    steps_handed_off: int = 0
    steps_dropped: int = 0
    steps_untrained: int = 0
    steps_waiting: int = 0
    weights_seq_no: int = 0
    staleness_mean: float = 0.0
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=256), repr=False)
    """Returns of the newest episodes."""
    unreported: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=10_000), repr=False)
    """Length, return and duration (seconds) of the newest finished episodes that RLlib's metrics have not seen."""

    def episode_finished(self, steps: int, return_: float, duration_s: float) -> None:
        """Note a finished episode that is trained on."""
        if steps > 0:
            self.returns.append(return_)
            self.unreported.append((steps, return_, duration_s))
