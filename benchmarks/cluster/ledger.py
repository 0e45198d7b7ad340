"""What clients of a server on a cluster were acknowledged, by the serving process that did it, and when each of their episodes acted."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Times = npt.NDArray[np.float64]
UNKNOWN = ""
"""Serving process of episodes that were lost before it was seen where they were."""


@dataclass
class Acknowledged:
    """What one serving process acknowledged."""

    target: str = ""
    """Its address."""
    actions: int = 0
    steps: int = 0
    """Actions whose reward was acknowledged, too."""
    reward: float = 0.0
    episodes: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Length and return of those that ended."""
    lost: int = 0
    """Episodes that were open there when it went."""


class Ledger:
    """What the clients of one process, or of several, were acknowledged. The caller holds a lock."""

    def __init__(self) -> None:
        self.by_boot: dict[str, Acknowledged] = {}
        """By boot id."""
        self.errors: collections.Counter[str] = collections.Counter()
        """Errors of rows, by type."""
        self.mixed_up = 0
        """Actions that were another observation's."""
        self._acted: list[tuple[float, Places]] = []
        self._calls: list[tuple[float, float, str, int]] = []

    def of(self, boot: str) -> Acknowledged:
        """Return the part of a serving process."""
        return self.by_boot.setdefault(boot, Acknowledged())

    def note_acted(self, time_s: float, places: Places) -> None:
        """Note that the episodes of some places got an action."""
        if len(places):
            self._acted.append((time_s, places.copy()))

    def note_call(self, began_s: float, ended_s: float, boots: Iterable[str]) -> None:
        """Note for how long the rows of a call were on their way, each with the serving process that it went to."""
        self._calls.extend((began_s, ended_s, boot, rows) for boot, rows in collections.Counter(boots).items())

    def acted(self) -> tuple[Times, Places]:
        """Return the times of all actions, and their places."""
        times = [np.full(len(places), time_s) for time_s, places in self._acted]
        return np.concatenate([np.zeros(0), *times]), np.concatenate([np.zeros(0, np.int64), *(places for _, places in self._acted)])

    def in_flight(self, boot: str, time_s: float) -> int:
        """Return the rows that were on their way to a serving process at a time, and those whose process is not known."""
        return sum(rows for began_s, ended_s, to, rows in self._calls if began_s <= time_s < ended_s and to in (boot, UNKNOWN))

    def answered_between(self, boot: str, since_s: float, until_s: float) -> int:
        """Return the rows of calls to a serving process that ended in a span of time."""
        return sum(rows for _, ended_s, to, rows in self._calls if since_s < ended_s <= until_s and to == boot)

    def first_place_from(self, first: int) -> None:
        """Number the places from another number on."""
        self._acted = [(time_s, places + first) for time_s, places in self._acted]

    def add(self, other: Ledger) -> None:
        """Add what the clients of another process were acknowledged."""
        for boot, theirs in other.by_boot.items():
            ours = self.of(boot)
            ours.target = ours.target or theirs.target
            ours.actions += theirs.actions
            ours.steps += theirs.steps
            ours.reward += theirs.reward
            ours.lost += theirs.lost
            ours.episodes |= theirs.episodes
        self.errors += other.errors
        self.mixed_up += other.mixed_up
        self._acted += other._acted
        self._calls += other._calls

    def save(self, file: Path) -> None:
        """Write everything to a file of JSON, in one piece."""
        content = {
            "by_boot": {boot: vars(part) for boot, part in self.by_boot.items()},
            "errors": self.errors,
            "mixed_up": self.mixed_up,
            "acted": [[time_s, places.tolist()] for time_s, places in self._acted],
            "calls": self._calls,
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.rename(file)

    @classmethod
    def load(cls, file: Path) -> Ledger:
        """Read what `save` wrote."""
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        ledger = cls()
        for boot, part in content["by_boot"].items():
            episodes = {episode: (length, total) for episode, (length, total) in part.pop("episodes").items()}
            ledger.by_boot[boot] = Acknowledged(**part, episodes=episodes)
        ledger.errors.update(content["errors"])
        ledger.mixed_up = content["mixed_up"]
        ledger._acted = [(time_s, np.array(places, np.int64)) for time_s, places in content["acted"]]
        ledger._calls = [(began_s, ended_s, boot, rows) for began_s, ended_s, boot, rows in content["calls"]]
        return ledger


def merged(ledgers: Sequence[Ledger], places_each: int) -> Ledger:
    """Add up the ledgers of several processes, each with so many places."""
    total = Ledger()
    for number, ledger in enumerate(ledgers):
        ledger.first_place_from(number * places_each)
        total.add(ledger)
    return total
