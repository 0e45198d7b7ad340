"""Counters of the episode core."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from policyserver.common.server_stats import PolicyFigures, ServerStats
from policyserver.server.episodes.pass_timing import PassTiming


@dataclass(slots=True)
class FinishedFigures:
    """Finished episodes of one policy."""

    episodes: int = 0
    actions: int = 0
    newest: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=256), repr=False)
    """Return and length of the newest."""

    def figures(self, policy: str) -> PolicyFigures:
        """Return them under a name."""
        returns, lengths = zip(*self.newest, strict=True)
        return PolicyFigures(policy, self.episodes, self.actions, sum(returns) / len(returns), sum(lengths) / len(lengths))


@dataclass(slots=True, kw_only=True)
class CoreStatistics(ServerStats):
    """What happened since the serving process began: what clients are told, and what only RLlib's metrics are."""

    rows_failed: int = 0
    """Rows that the server could not answer by a mistake of its own, such as an RLModule that raises."""
    rewards_dropped: int = 0
    """Rewards that an environment in this process logged before the first action of their episode."""
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=256), repr=False)
    """Returns of the newest episodes."""
    unreported: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=10_000), repr=False)
    """Length, return and duration (seconds) of the newest finished episodes that RLlib's metrics have not seen."""

    by_policy: dict[str, FinishedFigures] = field(default_factory=dict, repr=False)
    """Figures of finished episodes by what decided them, as `PolicyFigures.policy` names it."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)
    """Calls that ended, by method and status."""
    timing: PassTiming = field(default_factory=PassTiming, repr=False)
    """How large passes were, and how long their parts took."""

    reported: dict[str, int] = field(default_factory=dict, repr=False)
    """Counters as they were when RLlib's metrics saw them last."""

    def since_report(self, name: str) -> int:
        """Return how much a counter has grown since the last call, for RLlib's metrics."""
        before, self.reported[name] = self.reported.get(name, 0), getattr(self, name)
        return self.reported[name] - before

    def finished_by(self, policy: str, return_: float, steps: int) -> None:
        """Note a finished episode of a policy, as `PolicyFigures.policy` names it."""
        if steps > 0:
            figures = self.by_policy.setdefault(policy, FinishedFigures())
            figures.episodes += 1
            figures.actions += steps
            figures.newest.append((return_, steps))

    def episode_finished(self, steps: int, return_: float, duration_s: float) -> None:
        """Note a finished episode that is trained on."""
        if steps > 0:
            self.returns.append(return_)
            self.unreported.append((steps, return_, duration_s))
