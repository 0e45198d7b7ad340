"""The steps of open episodes, in pages taken from a pool on demand and handed over when they are full or the episode ends."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tree

from .arena import Arena, FreeList
from .segments import SegmentBlock, output_columns

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """What one step consists of, for the net that is served."""

    observation: tuple[tuple[int, ...], np.dtype[Any]]
    """Shape and dtype of an observation."""
    action: tuple[tuple[int, ...], np.dtype[Any]]
    """Shape and dtype of an action as the RLModule's distribution gives it."""
    dist_inputs: int | None
    """Length of the action distribution's inputs; None if the net has none."""
    initial_state: Any
    """The recurrent net's state at the beginning of an episode, a tree of arrays; None for a stateless net."""
    max_seq_len: int
    """The learner reads the recurrent state before every `max_seq_len`-th step."""


@dataclass(slots=True)
class Decisions:
    """What the net decided for n rows, with everything the learner needs of it."""

    actions: Array
    """[n, *action shape], as the RLModule's distribution gives them."""
    log_probs: npt.NDArray[np.float32]
    """float32[n], nats."""
    dist_inputs: Array | None
    """float32[n, d]."""
    weights_seq_no: int
    """Policy version."""

    @property
    def sound(self) -> npt.NDArray[np.bool_]:
        """Which rows the net answered with a distribution that has the action it gave, bool[n]."""
        sound = np.isfinite(self.log_probs)
        if self.dist_inputs is not None:
            sound &= ~np.isnan(self.dist_inputs).reshape(len(sound), -1).any(axis=1)
        return sound

    def select(self, rows: Array) -> Decisions:
        """Return the decisions of some rows."""
        inputs = self.dist_inputs[rows] if self.dist_inputs is not None else None
        return Decisions(self.actions[rows], self.log_probs[rows], inputs, self.weights_seq_no)


@dataclass(frozen=True, slots=True)
class Segment:
    """A page that waits for the learner."""

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
        """Add a segment and return the pages of those that were dropped for it."""
        self._waiting.append(segment)
        self.steps_waiting += segment.steps
        freed = []
        while self.steps_waiting > self._most_steps:
            oldest = self._waiting.popleft()
            self.steps_waiting -= oldest.steps
            self.steps_dropped += oldest.steps
            freed.append(oldest.page)
        return freed

    def take(self, max_segments: int, steps: int) -> list[Segment]:
        """Remove and return the oldest segments, until they have `steps` steps together or there are `max_segments`."""
        taken: list[Segment] = []
        while self._waiting and len(taken) < max_segments and steps > 0:
            taken.append(self._waiting.popleft())
            steps -= taken[-1].steps
        self.steps_waiting -= sum(segment.steps for segment in taken)
        return taken


class Trajectories:
    """Record the steps of open episodes, by slot. Owned by the loop thread.

    Every method takes arrays of slots without repetition, so that one call handles a whole batch. An episode's pending step is the one
    whose action was given out and whose reward has not come yet.
    """

    def __init__(self, layout: StepLayout, *, slots: int, segment_steps: int, capacity_steps: int, drops: bool = True) -> None:
        self._segment_steps = segment_steps
        self._max_seq_len = layout.max_seq_len
        self._state_structure = layout.initial_state
        state_leaves = [np.asarray(leaf) for leaf in tree.flatten(layout.initial_state)] if layout.initial_state is not None else []
        reserve = 0 if drops else 2 * slots  # an episode can complete one segment more in a pass, and end with another
        pages = slots + capacity_steps + reserve + 1  # every waiting segment has a step at least
        rows = segment_steps + 1
        self._free = FreeList(pages)

        def column(rows: int, shape: tuple[int, ...], dtype: Any) -> Arena:
            arena = Arena(pages, (rows, *shape), dtype)
            self._arenas.append(arena)
            return arena

        self._arenas: list[Arena] = []
        self._observations = column(rows + 1, *layout.observation).array
        self._actions = column(rows, *layout.action).array
        self._rewards = column(rows, (), np.float32).array
        self._log_probs = column(rows, (), np.float32).array
        self._seq_nos = column(rows, (), np.int64).array
        self._dist_inputs = column(rows, (layout.dist_inputs,), np.float32).array if layout.dist_inputs is not None else None
        state_rows = segment_steps // layout.max_seq_len + 1
        self._states = [column(state_rows, leaf.shape, leaf.dtype).array for leaf in state_leaves]
        # Per slot: the page being written (-1: none), the steps in it (the pending one included), the number of its first step,
        # the steps at which it is handed over, and when it was begun.
        self._page = Arena(slots, (), np.int64).array
        self._page[:] = -1
        self._fill = Arena(slots, (), np.int64).array
        self._limit = Arena(slots, (), np.int64).array
        self._started_s = Arena(slots, (), np.float64).array
        self._t_started = Arena(slots, (), np.int64).array
        self._infos: dict[int, dict[int, dict[str, Any]]] = {}
        self.hand_off = HandOff(capacity_steps, reserve * segment_steps)
        self.steps_handed_off = 0
        self.versions_behind = 0

    @property
    def pages_used(self) -> int:
        """Pages that hold steps now."""
        return self._free.used

    def record(self, slots: Slots, rewards: Array, observations: Array, decisions: Decisions, state_before: list[Array]) -> None:
        """Complete the pending steps with their rewards and begin the next ones.

        Args:
            slots: The episodes, int64[n].
            rewards: Rewards of the pending steps, float64[n]; ignored where there is none.
            observations: What the pending actions led to and the next ones answer, [n, ...].
            decisions: The next actions.
            state_before: The recurrent state that `decisions` started from, leaf by leaf, [n, ...].
        """
        now_s = time.monotonic()
        pages, fill = self._page[slots], self._fill[slots]
        running = pages >= 0
        self._rewards[pages[running], fill[running]] = rewards[running]
        full = np.flatnonzero(running & (fill >= self._limit[slots]))
        if full.size:
            self._turn_pages(slots[full], observations[full], [leaf[full] for leaf in state_before], now_s)
        for slot in slots[~running].tolist():
            self._page[slot] = self._new_page()
            self._limit[slot] = self._segment_steps
            self._started_s[slot] = now_s
            self._t_started[slot] = 0
        pages, fill = self._page[slots], self._fill[slots] + 1
        self._fill[slots] = fill
        self._observations[pages, fill] = observations
        self._actions[pages, fill] = decisions.actions
        self._log_probs[pages, fill] = decisions.log_probs
        self._seq_nos[pages, fill] = decisions.weights_seq_no
        if self._dist_inputs is not None:
            self._dist_inputs[pages, fill] = decisions.dist_inputs
        if self._states:
            keep = np.flatnonzero((fill - 1) % self._max_seq_len == 0)
            for arena, leaf in zip(self._states, state_before, strict=True):
                arena[pages[keep], (fill[keep] - 1) // self._max_seq_len] = leaf[keep]

    def replace_pending_actions(self, slots: Slots, actions: Array, log_probs: Array) -> None:
        """Record other actions than those given out for the pending steps."""
        pages, fill = self._page[slots], self._fill[slots]
        self._actions[pages, fill] = actions
        self._log_probs[pages, fill] = log_probs

    def pending_dist_inputs(self, slots: Slots) -> Array:
        """Return the action distribution's inputs of the pending steps, float32[n, d]."""
        assert self._dist_inputs is not None
        inputs: Array = self._dist_inputs[self._page[slots], self._fill[slots]]
        return inputs

    def add_info(self, slot: int, info: dict[str, Any]) -> None:
        """Attach an info to the observation that the episode will record next."""
        self._infos.setdefault(slot, {})[int(self._fill[slot]) + 1] = info

    def finish(self, slots: Slots, rewards: Array, observations: Array, terminated: Array, state_after: list[Array]) -> None:
        """End episodes with their last rewards and observations; those that are not terminated are truncated."""
        pages, fill = self._page[slots], self._fill[slots]
        running = np.flatnonzero(pages >= 0)
        self._rewards[pages[running], fill[running]] = rewards[running]
        self._observations[pages[running], fill[running] + 1] = observations[running]
        self._keep_last_states(slots[running], [leaf[running] for leaf in state_after])
        for slot, is_terminated in zip(slots[running].tolist(), terminated[running].tolist(), strict=True):
            self._close(slot, int(self._fill[slot]), terminated=is_terminated, truncated=not is_terminated)
        for slot in slots.tolist():
            self._forget(slot)

    def abandon(self, slots: Slots) -> None:
        """End episodes as truncated at their last complete steps; the pending ones are lost."""
        for slot in slots[self._fill[slots] > 1].tolist():
            self._close(slot, int(self._fill[slot]) - 1, terminated=False, truncated=True)
        for slot in slots.tolist():
            self._forget(slot)

    def expire(self, started_before_s: float) -> None:
        """Have pages that were begun before a time of `time.monotonic` handed over at the episode's next step, full or not."""
        old = np.flatnonzero((self._page >= 0) & (self._started_s < started_before_s))
        self._limit[old] = self._fill[old]

    def collect(self, max_segments: int, steps: int, weights_seq_no: int) -> SegmentBlock | None:
        """Copy the oldest waiting segments out and free their pages; None if nothing waits.

        Args:
            max_segments: Most segments to copy.
            steps: Enough steps: no segment more is copied once there are as many.
            weights_seq_no: Policy version served now.
        """
        segments = self.hand_off.take(max_segments, steps)
        if not segments:
            return None
        pages = np.array([segment.page for segment in segments])
        lengths = np.array([segment.steps for segment in segments], np.int32)
        longest = int(lengths.max())
        rows = longest + 1
        seq_nos = self._seq_nos[pages, :rows]
        numbers = np.arange(rows)[None, :]
        own = (numbers >= 1) & (numbers <= lengths[:, None])
        versions_behind = int((weights_seq_no - seq_nos)[own].sum())
        block = SegmentBlock(
            lengths=lengths,
            t_started=np.array([segment.t_started for segment in segments], np.int64),
            terminated=np.array([segment.terminated for segment in segments]),
            truncated=np.array([segment.truncated for segment in segments]),
            observations=self._observations[pages, : rows + 1],
            actions=self._actions[pages, :rows],
            rewards=self._rewards[pages, :rows],
            outputs=output_columns(
                self._dist_inputs[pages, :rows] if self._dist_inputs is not None else None, self._log_probs[pages, :rows], seq_nos
            ),
            state_out=self._state_out(pages, rows) if self._states else None,
            infos={(index, row): info for index, segment in enumerate(segments) if segment.infos for row, info in segment.infos.items()},
            versions_behind=versions_behind,
        )
        self.versions_behind += versions_behind
        self.steps_handed_off += block.steps
        for page in pages.tolist():
            self._free.give(page)
        return block

    def trim(self) -> None:
        """Give the memory of pages that are no longer used back to the operating system."""
        first, count = self._free.trim()
        if count:
            for arena in self._arenas:
                arena.release(first, count)

    def _state_out(self, pages: Array, rows: int) -> Any:
        leaves = []
        for states in self._states:
            dense = np.zeros((len(pages), rows, *states.shape[2:]), states.dtype)
            kept = -(-rows // self._max_seq_len)
            dense[:, :: self._max_seq_len] = states[pages, :kept]
            leaves.append(dense)
        return tree.unflatten_as(self._state_structure, leaves)

    def _keep_last_states(self, slots: Slots, state_after: list[Array]) -> None:
        """Store the state after a page's last step where a sequence would begin with the observation that follows it."""
        if not self._states:
            return
        fill = self._fill[slots]
        keep = np.flatnonzero(fill % self._max_seq_len == 0)
        for arena, leaf in zip(self._states, state_after, strict=True):
            arena[self._page[slots[keep]], fill[keep] // self._max_seq_len] = leaf[keep]

    def _turn_pages(self, slots: Slots, observations: Array, state_before: list[Array], now_s: float) -> None:
        """Hand full pages over and go on in new ones that begin with the look-back."""
        old = self._page[slots]
        fill = self._fill[slots]
        self._observations[old, fill + 1] = observations
        self._keep_last_states(slots, state_before)
        new = np.array([self._new_page() for _ in range(len(slots))], np.int64)
        for column in (self._observations, self._actions, self._rewards, self._log_probs, self._seq_nos, self._dist_inputs):
            if column is not None:
                column[new, 0] = column[old, fill]
        for slot, steps in zip(slots.tolist(), fill.tolist(), strict=True):
            last = self._infos.get(slot, {}).get(steps + 1)
            self._close(slot, steps, terminated=False, truncated=False)
            if last is not None:
                self._infos[slot] = {1: last}
        self._page[slots] = new
        self._limit[slots] = self._segment_steps
        self._started_s[slots] = now_s
        self._t_started[slots] += fill
        self._fill[slots] = 0

    def _close(self, slot: int, steps: int, *, terminated: bool, truncated: bool) -> None:
        infos = self._infos.pop(slot, None)
        segment = Segment(int(self._page[slot]), steps, int(self._t_started[slot]), terminated, truncated, infos)
        for page in self.hand_off.put(segment):
            self._free.give(page)
        self._page[slot] = -1

    def _forget(self, slot: int) -> None:
        if self._page[slot] >= 0:
            self._free.give(int(self._page[slot]))
            self._page[slot] = -1
        self._fill[slot] = 0
        self._infos.pop(slot, None)

    def _new_page(self) -> int:
        page = self._free.take()
        assert page is not None, "the pool has a page for every slot and every waiting segment"
        return page
