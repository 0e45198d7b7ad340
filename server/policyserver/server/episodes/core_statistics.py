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
    starts_refused: int = 0
    """Episodes that could not begin, for the server holds as many as it may, or their connection its share."""
    rows_repeated: int = 0
    rows_refused: int = 0
    questions_waiting: int = 0
    """Questions that wait for the learner now."""
    questions_waited: int = 0
    """Questions that had to wait for the learner."""
    learner_wait_s: float = 0.0
    """How long they waited, all together."""
    rows_failed: int = 0
    """Rows that the server could not answer by a mistake of its own, such as an RLModule that raises."""
    rewards_dropped: int = 0
    """Rewards that an environment in this process logged before the first action of their episode."""
    batches: int = 0
    reward_sum: float = 0.0
    steps_completed: int = 0
    steps_handed_off: int = 0
    steps_dropped: int = 0
    infos_dropped: int = 0
    """Infos that were left out of their steps, because those that wait for the learner take as many bytes as they may."""
    steps_untrained: int = 0
    steps_waiting: int = 0
    weights_seq_no: int = 0
    staleness_mean: float = 0.0
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=256), repr=False)
    """Returns of the newest episodes."""
    unreported: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=10_000), repr=False)
    """Length, return and duration (seconds) of the newest finished episodes that RLlib's metrics have not seen."""

    reported: dict[str, int] = field(default_factory=dict, repr=False)
    """Counters as they were when RLlib's metrics saw them last."""

    def since_report(self, name: str) -> int:
        """Return how much a counter has grown since the last call, for RLlib's metrics."""
        before, self.reported[name] = self.reported.get(name, 0), getattr(self, name)
        return self.reported[name] - before

    def episode_finished(self, steps: int, return_: float, duration_s: float) -> None:
        """Note a finished episode that is trained on."""
        if steps > 0:
            self.returns.append(return_)
            self.unreported.append((steps, return_, duration_s))
