"""The sample queue for RLlib's `batch_mode="complete_episodes"`: segments are held back until their episode has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from policyserver.common.spaces import leaves
from policyserver.server.episodes.sample_queue import SampleQueue, Segment
from policyserver.server.policies.policy import StepLayout

logger = logging.getLogger(__name__)

_MOST_HELD_STEPS = 1_000_000
_MOST_HELD_BYTES = 2**30  # of observations


class WholeEpisodesQueue(SampleQueue):
    """Hand off whole episodes: all segments of one, in their order, or none.

    What is held back for open episodes is bounded, too: if there is no room, the episode that has waited longest for its end is dropped
    whole and counted, for the longer an episode, the more room it needs.
    """

    def __init__(self, capacity_steps: Callable[[], int], max_segments: int, most_held_steps: int) -> None:
        super().__init__(capacity_steps, max_segments)
        self._held: dict[int, list[Segment]] = {}
        self._held_steps = 0
        self._most_held_steps = most_held_steps
        self._dropped: set[int] = set()
        self._let_go_whole: dict[int, bool] = {}
        """Slots of episodes that are let go whole, because a part of them was played while learning was paused or the daemon silent, or was
        dropped; with whether the daemon was silent."""
        self._episodes_waiting = 0

    def put(self, segment: Segment) -> list[int]:
        """Add a segment; the last one of an episode sets the whole episode free."""
        slot, is_last = segment.slot, segment.terminated or segment.truncated
        if self.lets_go or slot in self._let_go_whole:
            is_cut_off = self.is_cut_off or self._let_go_whole.pop(slot, False)
            if not is_last:
                self._let_go_whole[slot] = is_cut_off
            return self._let_go([*self._release(slot), segment], is_cut_off)
        if slot in self._dropped:
            self._count_dropped(segment.steps)
            if is_last:
                self._dropped.discard(slot)
            return [segment.page]
        if is_last:
            return self._put_episode([*self._release(slot), segment])
        self._held.setdefault(slot, []).append(segment)
        self._held_steps += segment.steps
        return self._make_room()

    def leave(self, slot: int) -> list[int]:
        """Note that the episode in a slot ended with the segment before, if there was one."""
        self._dropped.discard(slot)
        self._let_go_whole.pop(slot, None)
        segments = self._release(slot)
        if self.lets_go:
            return self._let_go(segments, self.is_cut_off)
        if not segments:
            return []
        segments[-1] = replace(segments[-1], truncated=True)
        return self._put_episode(segments)

    def drop_all(self) -> list[int]:
        """Drop everything that waits, and what is held back; return its pages. What open episodes still bring is let go."""
        pages = super().drop_all()
        self._episodes_waiting = 0
        for slot in list(self._held):
            self._let_go_whole[slot] = False
            segments = self._release(slot)
            self.steps_dropped += sum(segment.steps for segment in segments)
            pages += [segment.page for segment in segments]
        return pages

    def take(self, max_segments: int, steps: int) -> list[Segment]:
        """Remove and return the oldest episodes, until they have `steps` steps together or `max_segments` segments."""
        taken: list[Segment] = []
        while self._waiting and len(taken) < max_segments and steps > 0:
            episode = self._oldest()
            steps -= sum(segment.steps for segment in episode)
            taken += episode
        return taken

    def _oldest(self) -> list[Segment]:
        """Remove and return the segments of the episode that waits longest."""
        episode = [self._waiting.popleft()]
        while not (episode[-1].terminated or episode[-1].truncated):
            episode.append(self._waiting.popleft())
        self.steps_waiting -= sum(segment.steps for segment in episode)
        self._episodes_waiting -= 1
        return episode

    def _release(self, slot: int) -> list[Segment]:
        segments = self._held.pop(slot, [])
        self._held_steps -= sum(segment.steps for segment in segments)
        return segments

    def _put_episode(self, segments: list[Segment]) -> list[int]:
        self._waiting += segments
        self._episodes_waiting += 1
        self.steps_waiting += sum(segment.steps for segment in segments)
        freed = []
        while self._overflows() and self._episodes_waiting > 1:
            freed += self._drop(self._oldest())
        return freed

    def _make_room(self) -> list[int]:
        freed = []
        while self._held_steps > self._most_held_steps:
            slot = next(iter(self._held))
            if not self._dropped:
                logger.warning("open episodes have more than %d steps; the oldest are dropped whole", self._most_held_steps)
            self._dropped.add(slot)
            freed += self._drop(self._release(slot))
        return freed

    def _let_go(self, segments: list[Segment], is_cut_off: bool) -> list[int]:
        self._count_let_go(sum(segment.steps for segment in segments), is_cut_off)
        return [segment.page for segment in segments]

    def _drop(self, segments: list[Segment]) -> list[int]:
        self._count_dropped(sum(segment.steps for segment in segments))
        return [segment.page for segment in segments]


def most_held_steps(layout: StepLayout) -> int:
    """Return how many steps of open episodes are held back at most."""
    step_bytes = sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in leaves(layout.observation_space))
    return min(_MOST_HELD_STEPS, _MOST_HELD_BYTES // max(step_bytes, 1))
