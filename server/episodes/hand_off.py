"""Segments that wait for the learner, within bounds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """A page that waits for the learner."""

    slot: int
    page: int
    steps: int
    t_started: int
    terminated: bool
    truncated: bool
    infos: dict[int, dict[str, Any]] | None


class HandOff:
    """Hold the segments that wait for the learner, within bounds.

    When a new segment does not fit, the oldest are dropped and counted: the newest are closest to the policy that learns. With the
    overflow policy `block` the episode core withholds replies instead, as soon as the hand-off `is_full`; what can still come then (the
    segments completed in one pass, and ends of episodes, which are never withheld) goes into a reserve, and nothing is dropped.
    """

    def __init__(self, capacity_steps: int, reserve_steps: int = 0) -> None:
        self._waiting: deque[Segment] = deque()
        self._capacity_steps = capacity_steps
        self._most_steps = capacity_steps + reserve_steps
        self.steps_waiting = 0
        self.steps_dropped = 0

    @property
    def is_full(self) -> bool:
        """Whether a reply that completes steps should be withheld under the `block` policy."""
        return self.steps_waiting >= self._capacity_steps

    def put(self, segment: Segment) -> list[int]:
        """Add a segment; return the pages of those that were dropped for it."""
        self._waiting.append(segment)
        self.steps_waiting += segment.steps
        freed = []
        while self.steps_waiting > self._most_steps:
            oldest = self._waiting.popleft()
            self.steps_waiting -= oldest.steps
            self.steps_dropped += oldest.steps
            freed.append(oldest.page)
        return freed

    def leave(self, slot: int) -> list[int]:
        """Take note that the episode in a slot is over, whether or not its last segment said so; return pages that were dropped for it."""
        return []

    def take(self, max_segments: int, steps: int) -> list[Segment]:
        """Remove and return the oldest segments, until they have `steps` steps together or there are `max_segments`."""
        taken: list[Segment] = []
        while self._waiting and len(taken) < max_segments and steps > 0:
            taken.append(self._waiting.popleft())
            steps -= taken[-1].steps
        self.steps_waiting -= sum(segment.steps for segment in taken)
        return taken
