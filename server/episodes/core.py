"""The episode core: takes rows from its front ends, answers them in batches, hands their steps to the learner.

It lives on one loop thread, which owns every episode, so nothing on the path of a step takes a lock. Rows that arrive in the same turn of
the loop share one forward pass: a lone caller waits for nobody, and a crowd is batched by the time the last batch took.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.errors import (
    EpisodeFinishedError,
    PolicyServerError,
    ServerInternalError,
    ServerOverloadedError,
)
from policyserver.flags import StepFlag
from policyserver.spaces import leaves

from ..config import EpisodesConfig, HandOffConfig
from ..policies.policy import Policy, StepLayout
from .batch import Batch, Submission
from .batch_pass import BatchPass
from .core_statistics import CoreStatistics
from .episode_table import EpisodeTable, Owner
from .rows import Replies, Rows
from .segments import SegmentBlock
from .trajectories import Trajectories

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)
_TERMINATED, _END, _DISABLED = int(StepFlag.TERMINATED), int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)
_LEAST_CAPACITY_STEPS = 8192  # of a hand-off whose capacity is not configured
# Copied out in one turn of the loop, so that actions never wait for longer than that:
_SEGMENTS_PER_TURN = 128
_BYTES_PER_TURN = 8 * 2**20


class EpisodeCore:
    """Hold the open episodes and answer their rows."""

    def __init__(
        self,
        policy: Policy,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        episodes: EpisodesConfig,
        hand_off: HandOffConfig,
        fragment_steps: int = 4000,
        whole_episodes: bool = False,
    ) -> None:
        self._policy = policy
        self._config = episodes
        self._hand_off_config = hand_off
        action = leaves(action_space, "action")[0]
        self._table = EpisodeTable(episodes.max_open, episodes.finished_remembered, policy.initial_state, (action.shape, action.dtype))
        segment_steps = _segment_steps(hand_off.segment_steps, policy.layout)
        capacity_steps = max(hand_off.capacity_steps or max(2 * fragment_steps, _LEAST_CAPACITY_STEPS, 2 * segment_steps), segment_steps)
        # Segments are dropped whole, so a full hand-off may lack almost one of its capacity.
        self._most_wanted_steps = capacity_steps - segment_steps - policy.layout.carried + 1
        self._trajectories = Trajectories(
            policy.layout,
            slots=episodes.max_open,
            segment_steps=segment_steps,
            capacity_steps=capacity_steps,
            drops=hand_off.overflow == "drop_oldest",
            whole_episodes=whole_episodes,
        )
        self._segments_per_turn = max(1, min(_SEGMENTS_PER_TURN, _BYTES_PER_TURN // self._trajectories.page_bytes))
        self._pending: list[Submission] = []
        self._parked: list[Submission] = []
        self._flush_scheduled = False
        self._sample: _SampleRequest | None = None
        self._idle_timers: dict[int, asyncio.TimerHandle] = {}
        self.statistics = CoreStatistics()
        self._pass = BatchPass(policy, self._table, self._trajectories, self.statistics, observation_space, action_space)

    # Front ends ----------------------------------------------------------------------------------------------------------------------

    def connect(self, client_id: str) -> Owner:
        """Note that a client opened a stream; its episodes of an earlier stream are its own again."""
        owner = self._table.owner(client_id)
        owner.streams += 1
        if timer := self._idle_timers.pop(owner.index, None):
            timer.cancel()
        return owner

    def disconnect(self, owner: Owner) -> None:
        """Note that a client's stream is gone; its episodes end after the idle timeout unless it returns."""
        owner.streams -= 1
        if owner.streams > 0:
            return
        # Nobody is there to hear what was withheld; a client that returns asks again.
        self._parked = [submission for submission in self._parked if submission.owner is not owner]
        timeout_s = self._config.episode_idle_timeout_s
        if owner.aliases:
            logger.info("client %s is gone with %d open episodes; they end in %g s", owner.client_id, len(owner.aliases), timeout_s)
        self._idle_timers[owner.index] = asyncio.get_running_loop().call_later(timeout_s, self._reap_owner, owner)

    def submit(self, rows: Rows, owner: Owner) -> asyncio.Future[Replies]:
        """Take rows in; the future has their replies once all are answered. It never fails: errors are in the replies."""
        future: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()
        self.take(rows, owner, lambda replies: None if future.done() else future.set_result(replies))
        return future

    def take(self, rows: Rows, owner: Owner, done: Callable[[Replies], None]) -> None:
        """Take rows in and call `done`, which must not fail, with their replies once all are answered: a turn of the loop sooner."""
        count = len(rows)
        replies = self._pass.empty_replies(count)
        if error := self._pass.malformed(rows) if count else None:
            replies.refusals = dict.fromkeys(range(count), error)
            self.statistics.rows_refused += count
        if count == 0 or error:
            done(replies)
            return
        self._pending.append(Submission(rows, owner, replies, done, np.arange(count)))
        self._schedule_flush()

    def reap(self, owner: Owner, episode_ids: list[str]) -> None:
        """End episodes of a client that is silent, as truncated at their last complete steps."""
        slots = np.array([owner.aliases[id_] for id_ in episode_ids if id_ in owner.aliases], np.int64)
        self._trajectories.abandon(slots[self._table.training[slots]])
        self._policy.forget(slots.tolist())
        for slot in slots.tolist():
            self._table.close_episode(slot, idle=True)
        self.statistics.episodes_reaped += len(slots)
        self._serve_sample()

    @property
    def is_draining(self) -> bool:
        """Whether new episodes are refused."""
        return bool(self._pass.starts_nothing)

    def finished_episode(self, client_id: str, episode_id: str) -> EpisodeFinishedError | None:
        """Return the error for whoever goes on with a finished episode, if it is remembered."""
        finished = self._table.finished_by_id(client_id, episode_id)
        return finished.error() if finished is not None else None

    # The env runner, through call_soon_threadsafe -------------------------------------------------------------------------------------

    def sample(self, want_steps: int, wait_s: float, done: Callable[[list[SegmentBlock]], None]) -> None:
        """Call `done` with the oldest `want_steps` steps, in whole segments, as soon as there are as many.

        After `wait_s`, or when the hand-off can hold no more, it is called with what there is, possibly nothing.
        """
        timer = asyncio.get_running_loop().call_later(wait_s, self._sample_timed_out)
        self._sample = _SampleRequest(want_steps, timer, done)
        self._serve_sample()

    def serve_weights(self, weights_seq_no: int) -> None:
        """Swap to the weights loaded last."""
        self._policy.swap(weights_seq_no)

    def drain(self) -> None:
        """Refuse new episodes from now on, and answer `sample` at once."""
        self._pass.starts_nothing = True
        if self._sample is not None:
            self._sample_timed_out()

    def fail_all(self, error: PolicyServerError) -> None:
        """Answer everything that waits with an error; for the end of the process."""
        for submission in (*self._pending, *self._parked):
            submission.replies.refusals.update(dict.fromkeys(submission.todo.tolist(), error))
            submission.done(submission.replies)
        self._pending, self._parked = [], []

    def snapshot(self) -> CoreStatistics:
        """Bring the counters up to date and return them."""
        statistics, trajectories = self.statistics, self._trajectories
        statistics.episodes_open = self._table.open
        statistics.steps_handed_off = trajectories.steps_handed_off
        statistics.steps_dropped = trajectories.hand_off.steps_dropped
        statistics.steps_waiting = trajectories.hand_off.steps_waiting
        statistics.staleness_mean = trajectories.versions_behind / max(trajectories.steps_handed_off, 1)
        statistics.weights_seq_no = self._policy.weights_seq_no
        return statistics

    def trim(self) -> None:
        """Give memory that is no longer used back to the operating system."""
        self._table.trim()
        self._trajectories.trim()

    # One pass ------------------------------------------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        pending, self._pending = self._pending, []
        if self._hand_off_config.overflow == "block" and self._trajectories.hand_off.is_full:
            pending = self._park(pending)
        if not pending:
            return
        batch = Batch.of(pending)
        try:
            deferred = self._pass.apply(batch)
        except Exception:
            incident = secrets.token_hex(4)
            logger.exception("incident %s: %d rows could not be answered", incident, len(batch))
            error = ServerInternalError(f"the server failed to answer; incident {incident} in its log")
            self.statistics.rows_failed += len(batch)
            deferred = np.empty(0, np.int64)
            for index in range(len(batch)):
                batch.refuse(index, error)
        self._answer(batch, deferred)
        self._serve_sample()

    def _answer(self, batch: Batch, deferred: npt.NDArray[np.int64]) -> None:
        """Resolve the submissions that are complete and keep the others for the next pass."""
        waiting = batch.submission[deferred]
        for number, submission in enumerate(batch.submissions):
            submission.todo = np.sort(batch.row[deferred[waiting == number]]) if deferred.size else deferred
            if submission.todo.size:
                self._pending.append(submission)
            else:
                self.statistics.rows_refused += len(submission.replies.refusals)
                submission.done(submission.replies)
        if self._pending:
            self._schedule_flush()

    # Waiting -------------------------------------------------------------------------------------------------------------------------

    def _park(self, submissions: list[Submission]) -> list[Submission]:
        """Withhold submissions that would add steps while the learner is behind; ends of episodes pass."""
        passing = []
        for submission in submissions:
            if (submission.rows.flags[submission.todo] & _END != 0).all():
                passing.append(submission)
            else:
                self._parked.append(submission)
                self.statistics.rows_withheld += len(submission.todo)
                asyncio.get_running_loop().call_later(self._hand_off_config.block_timeout_s, self._give_up, submission)
        return passing

    def _give_up(self, submission: Submission) -> None:
        if submission not in self._parked:
            return
        self._parked.remove(submission)
        timeout_s = self._hand_off_config.block_timeout_s
        error = ServerOverloadedError(f"the learner was behind for {timeout_s:g} s; try again later", reason="LEARNER_BEHIND")
        submission.replies.refusals.update(dict.fromkeys(submission.todo.tolist(), error))
        self.statistics.rows_refused += len(submission.replies.refusals)
        submission.done(submission.replies)

    def _reap_owner(self, owner: Owner) -> None:
        del self._idle_timers[owner.index]
        count = len(owner.aliases)
        self.reap(owner, list(owner.aliases))
        self._table.forget_owner(owner)
        if count:
            logger.info("client %s did not come back; its %d episodes ended as truncated", owner.client_id, count)

    def _serve_sample(self) -> None:
        request, waiting = self._sample, self._trajectories.hand_off.steps_waiting
        if request is not None and (self._pass.starts_nothing or waiting >= min(request.want_steps, self._most_wanted_steps)):
            self._sample = None
            request.timer.cancel()
            self._collect([], request.want_steps, request.done)

    def _sample_timed_out(self) -> None:
        request, self._sample = self._sample, None
        if request is not None:
            request.timer.cancel()
            self._trajectories.expire(time.monotonic() - self._hand_off_config.max_segment_age_s)
            self._collect([], request.want_steps, request.done)

    def _collect(self, blocks: list[SegmentBlock], steps: int, done: Callable[[list[SegmentBlock]], None]) -> None:
        """Copy `steps` waiting steps out, a few segments in each turn of the loop."""
        block = self._trajectories.collect(self._segments_per_turn, steps, self._policy.weights_seq_no)
        if block is not None:
            blocks.append(block)
            asyncio.get_running_loop().call_soon(self._collect, blocks, steps - block.steps, done)
            return
        if self._parked and not self._trajectories.hand_off.is_full:
            self._pending, self._parked = self._parked + self._pending, []
            self._schedule_flush()
        done(blocks)


def _segment_steps(wanted: int, layout: StepLayout) -> int:
    """Return how long a segment is at most.

    A page has room for what it hands over and what it carries on, however young it is when its time has come. A recurrent net's segments
    end where a sequence does, so that the states that are kept fit together when they are joined, and no sequence is padded for it.
    """
    steps = max(wanted, layout.carried + 1)
    return steps if layout.initial_state is None else max(steps // layout.state_every, 1) * layout.state_every


@dataclass(frozen=True, slots=True)
class _SampleRequest:
    want_steps: int
    timer: asyncio.TimerHandle
    done: Callable[[list[SegmentBlock]], None]
