"""Questions that wait for the learner: their steps are recorded, their actions are decided when there is room."""

from __future__ import annotations

import logging
import time

import numpy as np
import numpy.typing as npt

from policyserver.common.errors import ServerOverloadedError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array
from policyserver.server.episodes.core_statistics import CoreStatistics
from policyserver.server.episodes.episode_table import EpisodeTable
from policyserver.server.episodes.lazy_array import LazyArray
from policyserver.server.episodes.masks import Mask, all_true, any_true, count
from policyserver.server.episodes.room import Room
from policyserver.server.episodes.trajectories import Trajectories
from policyserver.server.policies.policy import LIVE, DrawKeys, Policy, StepRows

logger = logging.getLogger(__name__)

Slots = npt.NDArray[np.int64]

_GIVEN, _NO_WAIT = int(StepFlag.ACTION_GIVEN), int(StepFlag.NO_WAIT)


class WithheldQuestions:
    """Track which episodes' newest questions wait, and which answers are out whose steps are still to come. Owned by the loop thread.

    A question that finds no room is applied like any other, so that the step it completes is recorded; only its answer is kept, and the
    caller is told to send the same row again. Repeated when there is room, it is answered with an action of the weights served then.
    """

    def __init__(self, policy: Policy, table: EpisodeTable, trajectories: Trajectories, room: Room, statistics: CoreStatistics) -> None:
        self._policy = policy
        self._table = table
        self._trajectories = trajectories
        self._room = room
        self._statistics = statistics
        self._is_withheld = LazyArray(table.max_open, (), np.bool_).array
        self._since_s = LazyArray(table.max_open, (), np.float64).array
        self._is_awaited = LazyArray(table.max_open, (), np.bool_).array
        self._states_before = [LazyArray(table.max_open, leaf.shape, leaf.dtype).array for leaf in policy.initial_state]
        self.waiting = 0
        """Questions that wait now."""
        self.awaited = 0
        """Answers that were given to callers who wait for room, and whose steps have not come back yet."""

    def choose(self, rows: StepRows, flags: Array) -> tuple[Mask, Mask]:
        """Say whose answers are kept, of n rows with their bits of StepFlag, uint8[n].

        Returns:
            Which rows ask for an action to be trained on and can wait for it, and which of them have to, because there is no room once
            these rows' steps are recorded; bool[n] each.
        """
        completes, unasked = rows.training & ~rows.is_new, flags & (_GIVEN | _NO_WAIT) != 0
        waits = rows.training & ~rows.ends & ~unasked
        held = waits if any_true(waits) and not self._room.is_open_after(count(completes & ~unasked)) else np.zeros_like(waits)
        if any_true(unasked):
            self._room.note_unasked(count(completes & unasked))
        return waits, held

    def note(self, slots: Slots, withheld: Mask, waits: Mask) -> None:
        """Take note of applied rows of n episodes.

        The answers of those `withheld`, bool[n], are kept; those that `waits`, bool[n], got one though they wait for room.
        """
        self.forget(slots)
        if any_true(waits):
            self._is_awaited[slots] = waits
            self.awaited += count(waits)
        if any_true(withheld):
            withheld_slots = slots[withheld]
            self._is_withheld[withheld_slots] = True
            self._since_s[withheld_slots] = time.monotonic()
            self.waiting += len(withheld_slots)
            self._statistics.questions_waited += len(withheld_slots)

    def keep_states(self, slots: Slots, before: list[Array]) -> None:
        """Keep the states from which waiting questions were decided, leaf by leaf, [n, ...], for they may be decided anew."""
        for column, leaf in zip(self._states_before, before, strict=True):
            column[slots] = leaf

    def forget(self, slots: Slots) -> None:
        """Note that episodes go on, or are over."""
        if self.awaited:
            self.awaited -= count(self._is_awaited[slots])
            self._is_awaited[slots] = False
        if self.waiting and any_true(withheld := self._is_withheld[slots]):
            withheld_slots = slots[withheld]
            self._is_withheld[withheld_slots] = False
            self.waiting -= len(withheld_slots)
            self._statistics.learner_wait_s += float((time.monotonic() - self._since_s[withheld_slots]).sum())

    def is_withheld(self, slot: int) -> bool:
        """Tell whether the newest question of an episode waits."""
        return bool(self.waiting and self._is_withheld[slot])

    def may_answer(self, flags: int) -> bool:
        """Tell whether a question that is repeated is answered now."""
        return bool(flags & _NO_WAIT) or self._room.is_open

    @staticmethod
    def refusal() -> ServerOverloadedError:
        """Make the error for a caller whose question waits."""
        return ServerOverloadedError(
            "the learner has the steps it wants: this row's step is recorded, its action is not decided yet. Send the same row again when "
            "the stream says room, or with the flag NO_WAIT",
            reason="LEARNER_BEHIND",
        )

    def decide(self, slots: Slots) -> None:
        """Answer questions of episodes that waited, each once; episodes whose questions no longer wait are left alone.

        They are decided anew if newer weights are served; if the net gives nothing sound, the first decision stands.
        """
        slots = slots[self._is_withheld[slots]]
        self.forget(slots)
        self._is_awaited[slots] = True
        self.awaited += len(slots)
        self._decide_anew(slots)
        self._policy.note_answers(slots, self._table.actions[slots])

    def _decide_anew(self, slots: Slots) -> None:
        """Have the questions that were decided by older weights than are served now decided by these."""
        older = slots[(self._table.weights_seq_nos[slots] != self._policy.weights_seq_no) & (self._table.policies[slots] == LIVE)]
        if not self._policy.decides_again or not older.size:
            return
        try:
            decided = self._policy.decide_again(self._rows(older))
        except Exception:
            logger.exception("%d questions that waited could not be decided anew; their first decisions stand", len(older))
            return
        if all_true(decided.decisions.sound):
            self._trajectories.replace_pending_decisions(older, decided.decisions)
            self._table.note_decisions(older, decided.decisions, decided.executed, decided.state)

    def _rows(self, slots: Slots) -> StepRows:
        table, by = self._table, DrawKeys(self._table.draw_keys[slots], self._table.next_sequence[slots] - 1)
        before = [column[slots] for column in self._states_before]
        rows = StepRows.asking(slots, self._trajectories.pending_observations(slots), table.actions[slots], before, by)
        rows.greedy = table.greedy[slots] if table.unlike_most else None
        return rows
