"""The episode core: takes rows from its front ends, answers them in batches, records their steps. It lives on one loop thread.

Rows that arrive in the same turn of the loop share one forward pass. A batch goes through four stages: look up, check, decide, commit.
Only the last one changes anything, and it does not wait for anything, so a row is applied as a whole or not at all.
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
    EpisodeDuplicateError,
    EpisodeFinishedError,
    EpisodeUnknownError,
    InvalidInputError,
    PolicyServerError,
    SequenceError,
    ServerInternalError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from policyserver.flags import StepFlag
from policyserver.spaces import leaves

from .batch import Batch, Submission, malformed
from .config import EpisodesConfig, HandOffConfig
from .core_statistics import CoreStatistics
from .episode_table import EpisodeTable, Owner
from .inference import ActionForm, PolicyNet
from .row_checks import LeafCheck, bad_flags
from .rows import Replies, Rows
from .segments import SegmentBlock
from .trajectories import Trajectories

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)
_TERMINATED, _END, _DISABLED = int(StepFlag.TERMINATED), int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)
_SEGMENTS_PER_TURN = 128  # copied out in one turn of the loop, so that actions never wait for longer than that


class EpisodeCore:
    """Hold the open episodes and answer their rows."""

    def __init__(
        self,
        net: PolicyNet,
        form: ActionForm,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        episodes: EpisodesConfig,
        hand_off: HandOffConfig,
    ) -> None:
        self._net = net
        self._form = form
        self._config = episodes
        self._hand_off_config = hand_off
        self._observation_checks = [LeafCheck(leaf, "BAD_OBSERVATION") for leaf in leaves(observation_space, "observation")]
        action_leaves = leaves(action_space, "action")
        self._action_checks = [LeafCheck(leaf, "BAD_ACTION") for leaf in action_leaves]
        self._action_form = [(leaf.shape, leaf.dtype) for leaf in action_leaves]
        self._table = EpisodeTable(episodes.max_open, episodes.finished_remembered, net.initial_state, self._action_form[0])
        self._trajectories = Trajectories(
            net.layout, slots=episodes.max_open, segment_steps=hand_off.segment_steps, capacity_steps=hand_off.capacity_steps
        )
        self._pending: list[Submission] = []
        self._parked: list[Submission] = []
        self._flush_scheduled = False
        self._sample: _SampleRequest | None = None
        self._idle_timers: dict[int, asyncio.TimerHandle] = {}
        self._draining = False
        self.statistics = CoreStatistics()

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
        if not owner.aliases:
            self._table.forget_owner(owner)
            return
        timeout_s = self._config.episode_idle_timeout_s
        logger.info("client %s is gone with %d open episodes; they end in %g s", owner.client_id, len(owner.aliases), timeout_s)
        self._idle_timers[owner.index] = asyncio.get_running_loop().call_later(timeout_s, self._reap_owner, owner)

    def submit(self, rows: Rows, owner: Owner) -> asyncio.Future[Replies]:
        """Take rows in; the future has their replies once all are answered. It never fails: errors are in the replies."""
        count = len(rows)
        loop = asyncio.get_running_loop()
        submission = Submission.of(rows, owner, Replies.empty(count, self._action_form), loop.create_future())
        if count == 0:
            submission.done.set_result(submission.replies)
            return submission.done
        if error := malformed(rows, self._observation_checks, self._action_checks):
            submission.replies.refusals = dict.fromkeys(range(count), error)
            self.statistics.rows_refused += count
            submission.done.set_result(submission.replies)
            return submission.done
        self._pending.append(submission)
        self._schedule_flush()
        return submission.done

    def reap(self, owner: Owner, episode_ids: list[str]) -> None:
        """End episodes of a client that is silent, as truncated at their last complete steps."""
        slots = np.array([owner.aliases[id_] for id_ in episode_ids if id_ in owner.aliases], np.int64)
        self._trajectories.abandon(slots[self._table.training[slots]])
        for slot in slots.tolist():
            self._table.close_episode(slot, idle=True)
        self.statistics.episodes_reaped += len(slots)
        self._serve_sample()

    @property
    def is_draining(self) -> bool:
        """Whether new episodes are refused."""
        return self._draining

    def finished_episode(self, client_id: str, episode_id: str) -> EpisodeFinishedError | None:
        """Return the error for whoever goes on with a finished episode, if it is remembered."""
        finished = self._table.finished_by_id(client_id, episode_id)
        return finished.error() if finished is not None else None

    # The env runner, through call_soon_threadsafe -------------------------------------------------------------------------------------

    def sample(self, want_steps: int, wait_s: float, done: Callable[[list[SegmentBlock]], None]) -> None:
        """Call `done` with everything that waits, as soon as that is `want_steps` steps, and after `wait_s` at the latest."""
        timer = asyncio.get_running_loop().call_later(wait_s, self._sample_timed_out)
        self._sample = _SampleRequest(want_steps, timer, done)
        self._serve_sample()

    def serve_weights(self, weights_seq_no: int) -> None:
        """Swap to the weights loaded last."""
        self._net.swap(weights_seq_no)

    def drain(self) -> None:
        """Refuse new episodes from now on, and answer `sample` at once."""
        self._draining = True
        if self._sample is not None:
            self._sample_timed_out()

    def fail_all(self, error: PolicyServerError) -> None:
        """Answer everything that waits with an error; for the end of the process."""
        for submission in (*self._pending, *self._parked):
            submission.replies.refusals.update(dict.fromkeys(submission.todo.tolist(), error))
            if not submission.done.done():
                submission.done.set_result(submission.replies)
        self._pending, self._parked = [], []

    def snapshot(self) -> CoreStatistics:
        """Bring the counters up to date and return them."""
        statistics, trajectories = self.statistics, self._trajectories
        statistics.episodes_open = self._table.open
        statistics.steps_handed_off = trajectories.steps_handed_off
        statistics.steps_dropped = trajectories.hand_off.steps_dropped
        statistics.steps_waiting = trajectories.hand_off.steps_waiting
        statistics.staleness_mean = trajectories.versions_behind / max(trajectories.steps_handed_off, 1)
        statistics.weights_seq_no = self._net.weights_seq_no
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
            deferred = self._apply(batch)
        except Exception:
            incident = secrets.token_hex(4)
            logger.exception("incident %s: %d rows could not be answered", incident, len(batch))
            error = ServerInternalError(f"the server failed to answer; incident {incident} in its log")
            deferred = np.empty(0, np.int64)
            for index in range(len(batch)):
                batch.refuse(index, error)
        self._answer(batch, deferred)
        self._serve_sample()

    def _apply(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Answer the rows of a batch; return those that must wait for the next one."""
        starts = batch.flags & _START != 0
        usable = np.ones(len(batch), np.bool_)

        def refuse(errors: dict[int, Any]) -> None:
            for index, error in errors.items():
                batch.refuse(index, error)
                usable[index] = False

        refuse(bad_flags(batch.flags, batch.sequences, batch.rewards))
        slots, known = self._table.slots_of(batch.handles, batch.owners)
        known &= ~starts
        for index in np.flatnonzero(~known & ~starts & usable).tolist():
            usable[index] = False
            self._answer_unknown(batch, index)
        deferred = self._check_starts(batch, np.flatnonzero(starts & usable), usable, slots, known)
        later = _later_rows_of_the_same_episode(np.flatnonzero(known & usable), slots, batch.sequences)
        if later.size:
            usable[later] = False
            deferred = np.concatenate((deferred, later))
        expected = self._table.next_sequence[slots]
        for index in np.flatnonzero(known & usable & (batch.sequences != expected)).tolist():
            usable[index] = False
            self._answer_out_of_order(batch, index, int(slots[index]), int(expected[index]))
        refuse(self._bad_values(batch, usable))
        applied = np.flatnonzero(usable)
        if applied.size:
            self._decide_and_commit(batch, applied, slots, starts)
        return deferred

    def _check_starts(self, batch: Batch, rows: Array, usable: Array, slots: Array, known: Array) -> npt.NDArray[np.int64]:
        """Sort START rows into new episodes, repeats and refusals; return those that must wait."""
        deferred: list[int] = []
        seen: set[tuple[int, str]] = set()
        room = self._table.max_open - self._table.open
        for index in rows.tolist():
            owner, episode_id = batch.origin(index).owner, batch.episode_id(index)
            slot = owner.aliases.get(episode_id)
            finished = self._table.finished_by_id(owner.client_id, episode_id)
            error: PolicyServerError | None = None
            if slot is not None:
                if self._table.next_sequence[slot] == 1 and self._table.content[slot] == batch.content[index]:
                    usable[index] = False
                    self._repeat(batch, index, slot)
                    continue
                error = EpisodeDuplicateError(f"Episode {episode_id} is already started")
            elif finished is not None:
                if finished.sequence == 0 and finished.content == int(batch.content[index]):
                    usable[index] = False
                    self._repeat_end(batch, index, finished.handle)
                    continue
                error = finished.error()
            elif self._draining:
                error = ServerUnavailableError("the server is shutting down and starts no new episodes", reason="SHUTTING_DOWN")
            elif room == 0:
                error = ServerOverloadedError(
                    f"expected at most {self._table.max_open} open episodes (episodes.max_open); end some first", reason="TOO_MANY_EPISODES"
                )
            elif (owner.index, episode_id) in seen:
                usable[index] = False
                deferred.append(index)
                continue
            if error is not None:
                batch.refuse(index, error)
                usable[index] = False
                continue
            seen.add((owner.index, episode_id))
            room -= 1
        return np.array(deferred, np.int64)

    def _bad_values(self, batch: Batch, usable: Array) -> dict[int, InvalidInputError]:
        errors: dict[int, InvalidInputError] = {}
        for check, leaf in zip(self._observation_checks, batch.observations, strict=True):
            for index in check.bad_rows(leaf).tolist():
                errors[index] = check.value_error(leaf[index])
        if batch.given.size:
            for check, leaf in zip(self._action_checks, batch.given_actions, strict=True):
                for place in check.bad_rows(leaf).tolist():
                    errors[int(batch.given[place])] = check.value_error(leaf[place])
        return {index: error for index, error in errors.items() if usable[index]}

    def _decide_and_commit(self, batch: Batch, applied: Array, slots: Array, is_new: Array) -> None:
        ends = batch.flags[applied] & _END != 0
        asking, ending = applied[~ends], applied[ends]
        given_flags = np.zeros(len(batch), np.int64)
        given_flags[batch.given] = np.arange(1, len(batch.given) + 1)
        state = self._table.states(slots[asking], is_new[asking])
        if asking.size:
            places = given_flags[asking]
            given = np.flatnonzero(places)
            given_actions = batch.given_actions[0][places[given] - 1] if given.size else np.empty(0)
            decisions, state_out = self._net.decide(batch.observations[0][asking], state, given, given_actions)
            executed = self._form.to_environment(decisions.actions)
            if given.size:
                executed[given] = given_actions
            self.statistics.batches += 1
        # From here to the end nothing fails and nothing waits.
        now_s = time.monotonic()
        for index in applied[is_new[applied]].tolist():
            training = not batch.flags[index] & _DISABLED
            slots[index] = self._table.open_episode(batch.origin(index).owner, batch.episode_id(index), training=training, now_s=now_s)
            self.statistics.episodes_started += 1
        table, own = self._table, slots[applied]
        rewards = batch.rewards[applied]
        table.returns[own] += rewards
        table.content[own] = batch.content[applied]
        table.next_sequence[own] += 1
        self._count_steps(own, rewards)
        self._note_infos(batch, applied, slots)
        if asking.size:
            self._record(batch, asking, slots, decisions, executed, state, state_out)
        if ending.size:
            self._end(batch, ending, slots, now_s)

    def _count_steps(self, own: Array, rewards: Array) -> None:
        completed = self._table.next_sequence[own] > 1
        training = self._table.training[own]
        statistics = self.statistics
        statistics.reward_sum += float(rewards.sum())
        statistics.steps_completed += int(completed.sum())
        statistics.steps_untrained += int((completed & ~training).sum())

    def _note_infos(self, batch: Batch, applied: Array, slots: Array) -> None:
        if not any(submission.rows.infos for submission in batch.submissions):
            return
        for index in applied.tolist():
            info = batch.origin(index).rows.infos.get(int(batch.row[index]))
            if info is not None and self._table.training[slots[index]]:
                self._trajectories.add_info(int(slots[index]), info)

    def _record(
        self, batch: Batch, asking: Array, slots: Array, decisions: Any, executed: Array, state: list[Array], state_out: list[Array]
    ) -> None:
        table, own = self._table, slots[asking]
        table.actions[own] = executed
        table.log_probs[own] = decisions.log_probs
        table.weights_seq_nos[own] = decisions.weights_seq_no
        for column, leaf in zip(table.state, state_out, strict=True):
            column[own] = leaf
        self.statistics.actions += len(asking)
        training = table.training[own]
        observations, rewards = batch.observations[0][asking], batch.rewards[asking]
        if training.all():
            self._trajectories.record(own, rewards, observations, decisions, state)
        elif training.any():
            part = decisions.select(training)
            self._trajectories.record(own[training], rewards[training], observations[training], part, [leaf[training] for leaf in state])
        self._reply(batch, asking, slots)

    def _end(self, batch: Batch, ending: Array, slots: Array, now_s: float) -> None:
        table, own = self._table, slots[ending]
        training = table.training[own]
        terminated = batch.flags[ending] & _TERMINATED != 0
        states = [column[own[training]] for column in table.state]
        self._trajectories.finish(
            own[training], batch.rewards[ending][training], batch.observations[0][ending][training], terminated[training], states
        )
        handles = table.handles(own)
        for place, index in enumerate(ending.tolist()):
            slot = int(own[place])
            if training[place]:
                steps = int(table.next_sequence[slot]) - 1
                self.statistics.episode_finished(steps, float(table.returns[slot]), now_s - float(table.started_s[slot]))
            self.statistics.episodes_finished += 1
            batch.origin(index).replies.handles[batch.row[index]] = handles[place]
            table.close_episode(slot, idle=False)

    # Answers -------------------------------------------------------------------------------------------------------------------------

    def _reply(self, batch: Batch, indices: Array, slots: Array) -> None:
        """Fill the replies of rows from their episodes' newest steps."""
        table, own = self._table, slots[indices]
        handles, actions = table.handles(own), table.actions[own]
        log_probs, seq_nos = table.log_probs[own], table.weights_seq_nos[own]
        origins, rows = batch.submission[indices], batch.row[indices]
        for number, submission in enumerate(batch.submissions):
            part = slice(None) if len(batch.submissions) == 1 else origins == number
            target, replies = rows[part], submission.replies
            replies.handles[target] = handles[part]
            replies.actions[0][target] = actions[part]
            replies.log_probs[target] = log_probs[part]
            replies.weights_seq_nos[target] = seq_nos[part]

    def _answer_unknown(self, batch: Batch, index: int) -> None:
        handle = int(batch.handles[index])
        owner = batch.origin(index).owner
        finished = self._table.finished(handle, owner.client_id)
        if finished is None:
            batch.refuse(index, EpisodeUnknownError(f"Episode with handle {handle} not found.", field="handles"))
        elif batch.sequences[index] == finished.sequence and int(batch.content[index]) == finished.content:
            self._repeat_end(batch, index, handle)
        else:
            batch.refuse(index, finished.error())

    def _answer_out_of_order(self, batch: Batch, index: int, slot: int, expected: int) -> None:
        sequence = int(batch.sequences[index])
        if sequence != expected - 1:
            text = f"sequences: expected {expected}, the episode's next number, received {sequence}"
            batch.refuse(index, SequenceError(text, reason="SEQUENCE_GAP", field="sequences"))
        elif batch.flags[index] & _OVERRIDE:
            self._override(batch, index, slot)
        elif int(batch.content[index]) == int(self._table.content[slot]):
            self._repeat(batch, index, slot)
        else:
            text = f"sequences: number {sequence} was applied before with another content; repeat the same row, or send {expected}"
            batch.refuse(index, SequenceError(text, reason="SEQUENCE_CONFLICT", field="sequences"))

    def _override(self, batch: Batch, index: int, slot: int) -> None:
        """Record another action for the pending step than the one that was given out."""
        place = int(np.flatnonzero(batch.given == index)[0])
        action = batch.given_actions[0][place : place + 1]
        if self._action_checks[0].bad_rows(action).size:
            batch.refuse(index, self._action_checks[0].value_error(action[0]))
            return
        own = np.array([slot])
        self._table.actions[own] = action
        if self._table.training[slot]:
            log_probs = self._net.log_probs(self._trajectories.pending_dist_inputs(own), action)
            self._trajectories.replace_pending_actions(own, self._form.from_environment(action), log_probs)
            self._table.log_probs[own] = log_probs
        self.statistics.actions_overridden += 1
        self._repeat(batch, index, slot, count=False)

    def _repeat(self, batch: Batch, index: int, slot: int, *, count: bool = True) -> None:
        self.statistics.rows_repeated += count
        slots = np.zeros(len(batch), np.int64)
        slots[index] = slot
        self._reply(batch, np.array([index]), slots)

    def _repeat_end(self, batch: Batch, index: int, handle: int) -> None:
        self.statistics.rows_repeated += 1
        batch.origin(index).replies.handles[batch.row[index]] = handle

    def _answer(self, batch: Batch, deferred: npt.NDArray[np.int64]) -> None:
        """Resolve the submissions that are complete and keep the others for the next pass."""
        waiting = batch.submission[deferred]
        for number, submission in enumerate(batch.submissions):
            submission.todo = np.sort(batch.row[deferred[waiting == number]]) if deferred.size else deferred
            if submission.todo.size:
                self._pending.append(submission)
            elif not submission.done.done():
                self.statistics.rows_refused += len(submission.replies.refusals)
                submission.done.set_result(submission.replies)
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
        submission.done.set_result(submission.replies)

    def _reap_owner(self, owner: Owner) -> None:
        del self._idle_timers[owner.index]
        count = len(owner.aliases)
        self.reap(owner, list(owner.aliases))
        self._table.forget_owner(owner)
        logger.info("client %s did not come back; its %d episodes ended as truncated", owner.client_id, count)

    def _serve_sample(self) -> None:
        request = self._sample
        if request is not None and (self._draining or self._trajectories.hand_off.steps_waiting >= request.want_steps):
            self._sample = None
            request.timer.cancel()
            self._collect([], request.done)

    def _sample_timed_out(self) -> None:
        request, self._sample = self._sample, None
        if request is not None:
            request.timer.cancel()
            self._trajectories.expire(time.monotonic() - self._hand_off_config.max_segment_age_s)
            self._collect([], request.done)

    def _collect(self, blocks: list[SegmentBlock], done: Callable[[list[SegmentBlock]], None]) -> None:
        """Copy waiting segments out, a few in each turn of the loop."""
        block = self._trajectories.collect(_SEGMENTS_PER_TURN, self._net.weights_seq_no)
        if block is not None:
            blocks.append(block)
        if block is not None and sum(block.steps for block in blocks) < self._hand_off_config.capacity_steps:
            asyncio.get_running_loop().call_soon(self._collect, blocks, done)
            return
        if self._parked and not self._trajectories.hand_off.is_full:
            self._pending, self._parked = self._parked + self._pending, []
            self._schedule_flush()
        done(blocks)


@dataclass(frozen=True, slots=True)
class _SampleRequest:
    want_steps: int
    timer: asyncio.TimerHandle
    done: Callable[[list[SegmentBlock]], None]


def _later_rows_of_the_same_episode(rows: Array, slots: Array, sequences: Array) -> Array:
    """Return the rows that must wait because the batch has an earlier one of their episode."""
    if rows.size < 2:
        return rows[:0]
    order = rows[np.lexsort((rows, sequences[rows], slots[rows]))]
    repeated = slots[order][1:] == slots[order][:-1]
    return order[1:][repeated]
