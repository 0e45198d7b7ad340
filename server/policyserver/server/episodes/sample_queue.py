"""Segments that wait for the learner, within bounds."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """A page that waits for the learner."""

    slot: int
    episode: int
    """Number of its episode, for others have the slot after it."""
    page: int
    steps: int
    t_started: int
    terminated: bool
    truncated: bool
    infos: dict[int, dict[str, Any]] | None


class SampleQueue:
    """Hold the segments that wait for the learner, within bounds.

    Overflow policy: when a new segment does not fit, the oldest are dropped and counted, for the newest are closest to the policy that
    learns. What waits for room (`room.py`) never comes so far; it is what clients send that can't wait.
    """

    def __init__(self, capacity_steps: Callable[[], int], max_segments: int) -> None:
        """Begin empty.

        So many steps may wait as `capacity_steps` returns, and so many segments, however short, as there are pages for them.
        """
        self._waiting: deque[Segment] = deque()
        self._capacity_steps = capacity_steps
        self._max_segments = max_segments
        self.steps_waiting = 0
        self.steps_dropped = 0
        self.steps_paused = 0
        self.steps_cut_off = 0
        self.is_paused = False
        """Learning is paused: what comes is let go, and counted in `steps_paused`."""
        self.is_cut_off = False
        """The daemon is silent, or the learner has not asked since: what comes is let go and counted in `steps_cut_off`, paused or not."""
        self.is_draining = False
        """The server stops: no client is held up, and what comes may be too late for the learner."""

    @property
    def lets_go(self) -> bool:
        """Whether what comes is let go."""
        return self.is_paused or self.is_cut_off

    def put(self, segment: Segment) -> list[int]:
        """Add a segment; return the pages of those that were dropped for it, or its own while what comes is let go."""
        if self.lets_go:
            self._count_let_go(segment.steps, self.is_cut_off)
            return [segment.page]
        self._waiting.append(segment)
        self.steps_waiting += segment.steps
        freed = []
        while self._overflows() and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self.steps_waiting -= oldest.steps
            self._count_dropped(oldest.steps)
            freed.append(oldest.page)
        return freed

    def leave(self, slot: int) -> list[int]:
        """Note that the episode in a slot is over, whether or not its last segment said so; return pages that were dropped for it."""
        return []

    def drop_all(self) -> list[int]:
        """Drop everything that waits; return its pages."""
        pages = [segment.page for segment in self._waiting]
        self._waiting.clear()
        self.steps_dropped += self.steps_waiting
        self.steps_waiting = 0
        return pages

    def take(self, max_segments: int, steps: int) -> list[Segment]:
        """Remove and return the oldest segments, until they have `steps` steps together or there are `max_segments`."""
        taken: list[Segment] = []
        while self._waiting and len(taken) < max_segments and steps > 0:
            taken.append(self._waiting.popleft())
            steps -= taken[-1].steps
        self.steps_waiting -= sum(segment.steps for segment in taken)
        return taken

    def _overflows(self) -> bool:
        return self.steps_waiting > self._capacity_steps() or len(self._waiting) > self._max_segments

    def _count_let_go(self, steps: int, is_cut_off: bool) -> None:
        if is_cut_off:
            self.steps_cut_off += steps
        else:
            self.steps_paused += steps

    def _count_dropped(self, steps: int) -> None:
        if not self.steps_dropped and not self.is_draining:
            logger.warning(
                "steps come faster than the learner takes them: of the %d that wait the oldest are dropped (counted as steps_dropped). Let "
                "clients wait (ClientConfig.waits_for_learner), make updates cheaper, or raise hand_off.capacity_steps",
                self.steps_waiting,
            )
        self.steps_dropped += steps
