"""What a server recorded of its serving processes, episodes and updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from policyserver.monitoring.store.reader import StoreReader

_ALL = 10_000_000
_ID_CHARACTERS = 8
"""Of a boot id, in the tag `worker` of what is recorded of a serving process."""


@dataclass(frozen=True)
class Report:
    """The counters of a serving process, as it reported them."""

    time_s: float
    """When they were written down."""
    actions: int
    steps: int
    reward: float
    counters: Mapping[str, Any]
    """All of them."""


class Update(NamedTuple):
    """An iteration of training."""

    time_s: float
    """When it was written down: it had ended."""
    learn_s: float
    """How long the learner's update took, which a busy machine makes longer."""


@dataclass(frozen=True)
class Record:
    """A run's record."""

    reports: Mapping[str, Sequence[Report]]
    """By boot id, oldest first."""
    episodes: Mapping[str, Sequence[tuple[str, int, float, str]]]
    """By the id's beginning: id, length, return of each episode that ended, and how it ended."""
    updates: Sequence[Update]
    """Oldest first."""
    steps_trained: int

    def newest(self, boot: str, before_s: float = float("inf")) -> Report | None:
        """Return the newest report of a process that was written before a time."""
        return next((report for report in reversed(self.reports.get(boot, ())) if report.time_s < before_s), None)

    def ended(self, boot: str) -> Sequence[tuple[str, int, float, str]]:
        """Return the episodes that ended at a process."""
        return self.episodes.get(boot[:_ID_CHARACTERS], ())


def read(store: Path, run: str) -> Record:
    """Read the record of a run that has ended."""
    reader = StoreReader(store)
    try:
        server, episode, train = (list(reversed(reader.newest(name, run, limit=_ALL))) for name in ("server", "episode", "train"))
    finally:
        reader.close()
    reports: dict[str, list[Report]] = {}
    for row in server:
        figures = int(row["actions"]), int(row["steps_completed"]), float(row["reward_sum"])
        reports.setdefault(row["boot_id"], []).append(Report(row["time_ns"] / 1e9, *figures, row))
    episodes: dict[str, list[tuple[str, int, float, str]]] = {}
    for row in episode:
        process = str(row["worker"]).removeprefix("serving-")
        episodes.setdefault(process, []).append((row["episode"], int(row["length"]), float(row["return"]), row["ended"]))
    updates = [Update(row["time_ns"] / 1e9, float(row["learn_seconds"])) for row in train]
    return Record(reports, episodes, updates, int(train[-1]["steps_total"]) if train else 0)
