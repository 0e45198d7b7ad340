"""The steps of open episodes, in pages taken from a pool on demand and handed off when they are full or the episode ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tree
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policyserver.common.spaces import Array, leaves
from policyserver.server.episodes.lazy_array import LazyArray, LazyTable
from policyserver.server.episodes.masks import all_true, any_true, flatnonzero
from policyserver.server.episodes.sample_queue import SampleQueue, Segment
from policyserver.server.episodes.segments import BEHIND_FROM, SegmentBlock
from policyserver.server.episodes.waiting_infos import WaitingInfos
from policyserver.server.episodes.whole_episodes_queue import WholeEpisodesQueue, most_held_steps
from policyserver.server.policies.policy import ModuleOutputs, StepLayout

Slots = npt.NDArray[np.int64]


class Trajectories:
    """Record the steps of open episodes, by slot. Owned by the loop thread.

    Every method takes arrays of slots without repetition, so that one call handles a whole batch. An episode's pending step is the one
    whose action was given out and whose reward has not come yet.
    """

    def __init__(
        self,
        layout: StepLayout,
        *,
        slots: int,
        segment_steps: int,
        capacity_steps: Callable[[], int],
        max_segments: int,
        whole_episodes: bool = False,
        most_info_bytes: int = 64 * 2**20,
    ) -> None:
        """Reserve the pages.

        Args:
            layout: What a step consists of.
            slots: Episodes that may be open.
            segment_steps: Steps of a full page.
            capacity_steps: Returns how many steps may wait for the learner now.
            max_segments: Segments that may wait for it.
            whole_episodes: Whether episodes are handed off when they have ended.
            most_info_bytes: Bytes that infos may take until they are handed off.
        """
        self._layout = layout
        self._state_every = layout.state_every
        self._whole_episodes = whole_episodes
        self._carried = layout.carried
        self._full_steps = segment_steps + layout.carried
        self._lookback = layout.lookback
        self._least_ready = 2 * layout.carried + 1 if layout.carried else 1
        """Complete steps of an open page from which on it can be handed off in part: enough for the piece, and for what is carried on."""
        self._rows_before = layout.lookback - 1  # a page's step number 1 lies in row `lookback`
        state_leaves = [np.asarray(leaf) for leaf in tree.flatten(layout.initial_state)] if layout.initial_state is not None else []
        pages = 2 * slots + max_segments + 1  # while an episode's page is turned, it has two
        if whole_episodes:
            held_steps = most_held_steps(layout)
            pages += 2 * (held_steps // segment_steps + 1)  # held back, and of one episode that is too long for the capacity
        rows = layout.lookback + self._full_steps
        self._pages = LazyTable(pages)

        def column(rows: int, shape: tuple[int, ...], dtype: Any) -> Array:
            return self._pages.column(dtype, (rows, *shape))

        self._observations = [column(rows + 1, leaf.shape, leaf.dtype) for leaf in leaves(layout.observation_space, "observation")]
        self._actions = column(rows, *layout.action)
        self._rewards = column(rows, (), np.float32)
        self._seq_nos = column(rows, (), np.int64)
        self._outputs = {name: column(rows, *shape_and_dtype) for name, shape_and_dtype in layout.outputs.items()}
        state_rows = self._full_steps // layout.state_every + 1
        self._states = [column(state_rows, leaf.shape, leaf.dtype) for leaf in state_leaves]
        self._pending_states = [LazyArray(slots, leaf.shape, leaf.dtype).array for leaf in state_leaves]  # before the pending step
        self.page_bytes = self._pages.row_bytes
        """Size of a page, and so of a segment on its way to the learner."""
        # Per slot: the page being written (-1: none), the steps in it (the pending one included), when it was begun, the number of its
        # first step, and that of the episode.
        self._page = LazyArray(slots, (), np.int64).array
        self._page[:] = -1
        self._fill = LazyArray(slots, (), np.int64).array
        self._started_s = LazyArray(slots, (), np.float64).array
        self._t_started = LazyArray(slots, (), np.int64).array
        self._episode = LazyArray(slots, (), np.int64).array
        self._episodes_begun = 0
        self._infos: dict[int, dict[int, dict[str, Any]]] = {}
        self.waiting_infos = WaitingInfos(most_info_bytes)
        self.queue = SampleQueue(capacity_steps, max_segments)
        if whole_episodes:
            self.queue = WholeEpisodesQueue(capacity_steps, max_segments, held_steps)
        self._steps_ready_in_pages = 0
        self.steps_handed_off = 0
        self.versions_behind = 0

    @property
    def pages_used(self) -> int:
        """Pages that hold steps now."""
        return self._pages.used

    @property
    def steps_ready(self) -> int:
        """Steps that could be handed off now, those in open pages included unless they are let go."""
        return self.queue.steps_waiting + (0 if self.queue.lets_go else self._steps_ready_in_pages)

    @property
    def steps_let_go(self) -> tuple[int, int]:
        """Steps that were recorded while learning was paused, and those while the daemon was silent."""
        queue, in_pages = self.queue, self._steps_ready_in_pages
        paused, cut_off = queue.is_paused and not queue.is_cut_off, queue.is_cut_off
        return queue.steps_paused + paused * in_pages, queue.steps_cut_off + cut_off * in_pages

    @property
    def pages_open(self) -> int:
        """Episodes that are being recorded."""
        return int(np.count_nonzero(self._page >= 0))

    def record(self, slots: Slots, rewards: Array, observations: list[Array], decisions: ModuleOutputs, state_before: list[Array]) -> None:
        """Complete the pending steps with their rewards and begin the next ones.

        Args:
            slots: The episodes, int64[n].
            rewards: Rewards of the pending steps, float64[n]; ignored for an episode without a pending step.
            observations: What the pending actions led to and the next ones answer, leaf by leaf, [n, ...].
            decisions: The next actions.
            state_before: The recurrent state that `decisions` started from, leaf by leaf, [n, ...].
        """
        now_s = time.monotonic()
        pages, fill = self._page[slots], self._fill[slots]
        running = pages >= 0
        is_full = fill >= self._full_steps
        self._steps_ready_in_pages += self._ready(fill) - self._ready(fill - 1)
        if all_true(running):
            self._rewards[pages, fill + self._rows_before] = rewards
        else:
            self._rewards[pages[running], fill[running] + self._rows_before] = rewards[running]
            is_full &= running
            new = slots[~running]
            self._page[new], self._started_s[new], self._t_started[new] = [self._new_page() for _ in range(len(new))], now_s, 0
            self._episode[new] = self._episodes_begun + np.arange(len(new))
            self._episodes_begun += len(new)
            pages = self._page[slots]
        if any_true(is_full):
            full = flatnonzero(is_full)
            self._turn_pages(slots[full], [leaf[full] for leaf in observations], [leaf[full] for leaf in state_before], now_s)
            pages, fill = self._page[slots], self._fill[slots]
        fill = fill + 1
        self._fill[slots] = fill
        at = pages, fill + self._rows_before
        for column, leaf in zip(self._observations, observations, strict=True):
            column[at] = leaf
        self._write(at, decisions)
        if self._states:
            keep = flatnonzero((fill - 1) % self._state_every == 0)
            for column, pending, leaf in zip(self._states, self._pending_states, state_before, strict=True):
                column[pages[keep], (fill[keep] - 1) // self._state_every] = leaf[keep]
                pending[slots] = leaf

    def pending_observations(self, slots: Slots) -> list[Array]:
        """Return what the pending actions answer, as it is recorded, leaf by leaf, [n, ...]."""
        at = self._pending(slots)
        return [column[at] for column in self._observations]

    def replace_pending_decisions(self, slots: Slots, decisions: ModuleOutputs) -> None:
        """Record other decisions for the pending steps, whose callers have no answer yet."""
        self._write(self._pending(slots), decisions)

    def _write(self, at: tuple[Array, Array], decisions: ModuleOutputs) -> None:
        self._actions[at] = decisions.actions
        self._seq_nos[at] = decisions.weights_seq_no
        for name, column in self._outputs.items():
            column[at] = decisions.outputs[name]

    def replace_pending_actions(self, slots: Slots, actions: Array, log_probs: Array | None) -> None:
        """Record other actions than those given out for the pending steps."""
        at = self._pending(slots)
        self._actions[at] = actions
        if log_probs is not None and Columns.ACTION_LOGP in self._outputs:
            self._outputs[Columns.ACTION_LOGP][at] = log_probs

    def pending_outputs(self, slots: Slots) -> dict[str, Array]:
        """Return what the net gave for the pending steps, [n, ...] by column name."""
        at = self._pending(slots)
        return {name: column[at] for name, column in self._outputs.items()}

    def add_info(self, slot: int, info: dict[str, Any]) -> None:
        """Attach an info to the observation that the episode will record next."""
        if (kept := self.waiting_infos.keep(info)) is not None:
            self._infos.setdefault(slot, {})[int(self._fill[slot]) + 1] = kept

    def finish(self, slots: Slots, rewards: Array, observations: list[Array], terminated: Array, state_after: list[Array]) -> None:
        """End episodes with their last rewards and observations; those that are not terminated are truncated."""
        running = np.flatnonzero(self._page[slots] >= 0)
        self._steps_ready_in_pages -= self._ready(self._fill[slots[running]] - 1)
        pages, rows = self._pending(slots[running])
        self._rewards[pages, rows] = rewards[running]
        for column, leaf in zip(self._observations, observations, strict=True):
            column[pages, rows + 1] = leaf[running]
        self._keep_last_states(slots[running], [leaf[running] for leaf in state_after])
        for slot, is_terminated in zip(slots[running].tolist(), terminated[running].tolist(), strict=True):
            self._close(slot, int(self._fill[slot]), terminated=is_terminated, truncated=not is_terminated)
        for slot in slots.tolist():
            self._forget(slot)

    def abandon(self, slots: Slots) -> None:
        """End episodes as truncated at their last complete steps; the pending ones are lost."""
        self._steps_ready_in_pages -= self._ready(self._fill[slots] - 1)
        for slot in slots[self._fill[slots] > 1].tolist():
            self._close(slot, int(self._fill[slot]) - 1, terminated=False, truncated=True)
        for slot in slots.tolist():
            self._forget(slot)

    def open_pages(self, started_before_s: float = np.inf) -> Slots:
        """Return the episodes that have steps ready in pages begun before a time of `time.monotonic`, the oldest pages first.

        Whole episodes come when they end, so of these there are none.
        """
        if self._whole_episodes or not self._steps_ready_in_pages:
            return np.empty(0, np.int64)
        slots = np.flatnonzero((self._page >= 0) & (self._started_s < started_before_s) & (self._fill > self._least_ready))
        return slots[np.argsort(self._started_s[slots], kind="stable")]

    def ready_in_pages(self, slots: Slots) -> npt.NDArray[np.int64]:
        """Return how many steps of each open page could be handed off, int64[n]."""
        return self._fill[slots] - 1 - self._carried

    def close_pages(self, slots: Slots) -> None:
        """Have the steps that are ready in open pages wait for the learner; the pending steps go on in new pages."""
        slots = slots[(self._page[slots] >= 0) & (self._fill[slots] > self._least_ready)]
        if slots.size:
            self._steps_ready_in_pages -= self._ready(self._fill[slots] - 1)
            self._go_on_in_new_pages(slots, self._fill[slots] - 1 - self._carried, self._carried + 1, time.monotonic())

    def let_go(self, *, paused: bool, cut_off: bool) -> None:
        """Have what is recorded wait for the learner and let go of what comes; without a reason, record for the learner again.

        Steps are still recorded, so that look-back and recurrent states are there when learning goes on: from the pending step of each
        episode on. A second call does nothing.
        """
        queue = self.queue
        if (paused, cut_off) != (queue.is_paused, queue.is_cut_off):
            if queue.lets_go:
                self._let_go_of_open_pages()  # counted by the reason that there was
            else:
                self.close_pages(self.open_pages())
            queue.is_paused, queue.is_cut_off = paused, cut_off

    def drop(self) -> int:
        """Drop what is recorded, but for the pending step of each episode; return how many steps that were."""
        queue = self.queue
        before, paused, was_paused = queue.steps_dropped, queue.steps_paused, queue.is_paused
        for page in queue.drop_all():
            self._pages.give(page)
        queue.is_paused = True
        self._let_go_of_open_pages()
        queue.is_paused = was_paused
        if not was_paused:
            queue.steps_dropped += queue.steps_paused - paused
            queue.steps_paused = paused
        return queue.steps_dropped - before

    def _let_go_of_open_pages(self) -> None:
        """Let go of the complete steps in open pages, while `queue` does so with all that it is given."""
        slots = np.flatnonzero(self._page >= 0)
        if slots.size:
            self._steps_ready_in_pages = 0
            self._go_on_in_new_pages(slots, self._fill[slots] - 1, 1, time.monotonic())

    def collect(self, max_segments: int, steps: int, weights_seq_no: int) -> SegmentBlock | None:
        """Copy the oldest waiting segments out and free their pages; None if nothing waits.

        At most so many segments are copied, and none more once they have so many steps. `weights_seq_no` is the policy version served now.
        """
        segments = self.queue.take(max_segments, steps)
        if not segments:
            return None
        pages = np.array([segment.page for segment in segments])
        lengths = np.array([segment.steps for segment in segments], np.int32)
        rows = self._lookback + int(lengths.max())
        seq_nos = self._seq_nos[pages, :rows]
        numbers = np.arange(rows)[None, :] - self._rows_before
        is_step = (numbers >= 1) & (numbers <= lengths[:, None])
        versions_behind = (weights_seq_no - seq_nos)[is_step]
        block = SegmentBlock(
            layout=self._layout,
            episodes=np.array([segment.episode for segment in segments], np.int64),
            lengths=lengths,
            t_started=np.array([segment.t_started for segment in segments], np.int64),
            terminated=np.array([segment.terminated for segment in segments]),
            truncated=np.array([segment.truncated for segment in segments]),
            observations=[column[pages, : rows + 1] for column in self._observations],
            actions=self._actions[pages, :rows],
            rewards=self._rewards[pages, :rows],
            outputs={WEIGHTS_SEQ_NO: seq_nos, **{name: column[pages, :rows] for name, column in self._outputs.items()}},
            states=[column[pages, : -(-(rows - self._rows_before) // self._state_every)] for column in self._states],
            infos={
                (index, self._rows_before + number): dict(info)
                for index, segment in enumerate(segments)
                if segment.infos
                for number, info in segment.infos.items()
            },
            versions_behind=int(versions_behind.sum()),
            steps_behind=np.histogram(versions_behind, [*BEHIND_FROM, np.iinfo(np.int64).max])[0],
        )
        self.versions_behind += block.versions_behind
        self.steps_handed_off += block.steps
        for page in pages.tolist():
            self._pages.give(page)
        return block

    def trim(self) -> None:
        """Give the memory of pages that are no longer used back to the operating system."""
        self._pages.trim()

    def _pending(self, slots: Slots) -> tuple[Array, Array]:
        """Return where the pending steps lie, as an index of the columns."""
        return self._page[slots], self._fill[slots] + self._rows_before

    def _keep_last_states(self, slots: Slots, state_after: list[Array]) -> None:
        """Store the state after a page's last step where a sequence would begin with the observation that follows it."""
        if not self._states:
            return
        fill = self._fill[slots]
        keep = flatnonzero(fill % self._state_every == 0)
        for column, leaf in zip(self._states, state_after, strict=True):
            column[self._page[slots[keep]], fill[keep] // self._state_every] = leaf[keep]

    def _ready(self, complete: Array) -> int:
        """Count the steps that could be handed off of pages with so many complete steps each."""
        if self._whole_episodes:
            return 0
        if not self._carried:
            return int(np.maximum(complete, 0).sum())
        return int((complete - self._carried)[complete >= self._least_ready].sum())

    def _turn_pages(self, slots: Slots, observations: list[Array], state_before: list[Array], now_s: float) -> None:
        """Hand full pages over, and go on in new ones that begin with the look-back and the steps that are carried over."""
        old, fill = self._page[slots], self._fill[slots]
        self._steps_ready_in_pages -= self._ready(fill)
        for column, leaf in zip(self._observations, observations, strict=True):
            column[old, fill + self._lookback] = leaf
        self._keep_last_states(slots, state_before)
        self._go_on_in_new_pages(slots, fill - self._carried, self._carried, now_s)

    def _go_on_in_new_pages(self, slots: Slots, steps: Array, kept: int, now_s: float) -> None:
        """Have the first steps of pages wait for the learner, and go on in new pages that begin with the look-back and the others.

        Of each page so many `steps`, int64[n], are complete and handed off, and `kept` come after these, a pending one included.
        """
        old = self._page[slots]
        new = np.array([self._new_page() for _ in range(len(slots))], np.int64)
        last = steps[:, None] + np.arange(self._lookback + kept)
        for column in (*self._observations, self._actions, self._rewards, self._seq_nos, *self._outputs.values()):
            column[new, : last.shape[1]] = column[old[:, None], last]
        if kept and self._state_every == 1:
            for column in self._states:
                column[new, :kept] = column[old[:, None], last[:, :kept]]
        elif kept:  # it is the pending step alone
            for column, pending in zip(self._states, self._pending_states, strict=True):
                column[new, 0] = pending[slots]
        for slot, count in zip(slots.tolist(), steps.tolist(), strict=True):
            infos = self._infos.pop(slot, {})
            self._infos[slot] = {number: info for number, info in infos.items() if number <= count + 1}
            self._close(slot, count, terminated=False, truncated=False)
            if infos and (after := {number - count: info for number, info in infos.items() if number > count - self._lookback}):
                self._infos[slot] = after
        self._page[slots] = new
        self._started_s[slots] = now_s
        self._t_started[slots] += steps
        self._fill[slots] = kept

    def _close(self, slot: int, steps: int, *, terminated: bool, truncated: bool) -> None:
        infos = self._infos.pop(slot, None)
        episode, page, t_started = int(self._episode[slot]), int(self._page[slot]), int(self._t_started[slot])
        segment = Segment(slot, episode, page, steps, t_started, terminated, truncated, infos)
        for page in self.queue.put(segment):
            self._pages.give(page)
        self._page[slot] = -1

    def _forget(self, slot: int) -> None:
        if self._page[slot] >= 0:
            self._pages.give(int(self._page[slot]))
            self._page[slot] = -1
        self._fill[slot] = 0
        self._infos.pop(slot, None)
        for page in self.queue.leave(slot):
            self._pages.give(page)

    def _new_page(self) -> int:
        page = self._pages.take()
        assert page is not None, "the pool has a page for every slot and every waiting segment"
        return page
