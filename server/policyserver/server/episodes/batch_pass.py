"""One pass of a batch through the core: look up, check, decide, commit, reply.

Only the commit changes anything, and it neither waits nor fails, so a row is applied as a whole or not at all.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.acting.leaf_checks import leaf_checks
from policyserver.common.errors import (
    EpisodeDuplicateError,
    EpisodeUnknownError,
    InvalidInputError,
    PolicyServerError,
    SequenceError,
    ServerInternalError,
)
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array, leaves
from policyserver.server.episodes.batch import NO_CHOICE, Batch, Picked, later_rows_of_the_same_episode, malformed, pick, step_rows
from policyserver.server.episodes.core_statistics import CoreStatistics
from policyserver.server.episodes.ended_episodes import EndedEpisodes
from policyserver.server.episodes.episode_table import EpisodeTable, FinishedEpisode
from policyserver.server.episodes.masks import all_true, any_true, count, flatnonzero, ones
from policyserver.server.episodes.pass_failure import PassFailure
from policyserver.server.episodes.received_rows import ReceivedRows, Replies
from policyserver.server.episodes.row_checks import bad_headers, id_error
from policyserver.server.episodes.shares import Admission, EpisodeShares
from policyserver.server.episodes.start_limit import StartLimit
from policyserver.server.episodes.trajectories import Trajectories
from policyserver.server.episodes.withheld import WithheldQuestions
from policyserver.server.policies.policy import LIVE, LIVE_NAME, Policy, StepResult, StepRows

logger = logging.getLogger(__name__)

_START, _OVERRIDE = int(StepFlag.START), int(StepFlag.OVERRIDE)
_NONE = np.empty(0, np.int64)


class BatchPass:
    """Apply batches of rows to the open episodes. Owned by the loop thread."""

    def __init__(
        self,
        policy: Policy,
        table: EpisodeTable,
        trajectories: Trajectories,
        withheld: WithheldQuestions,
        statistics: CoreStatistics,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        shares: EpisodeShares,
        ended: EndedEpisodes,
    ) -> None:
        self._policy = policy
        self._ended = ended
        self._shares = shares
        self._table = table
        self._trajectories = trajectories
        self._withheld = withheld
        self._asked_again: list[tuple[int, int]] = []
        self._statistics = statistics
        self._observation_checks = leaf_checks(observation_space, "observation")
        self._action_checks = leaf_checks(action_space, "action")
        self._action_leaves = [(leaf.shape, leaf.dtype) for leaf in leaves(action_space, "action")]
        self.starts = StartLimit(statistics)
        self.learns = True  # whether there is a learner; without one each episode is as if it was not to be trained on

    def replies_to(self, rows: ReceivedRows) -> Replies:
        """Make the replies to a message, to be filled in; if it is wrong as a whole, they are its refusal and have no columns."""
        error = malformed(rows, self._observation_checks, self._action_checks)
        replies = Replies.empty(len(rows) if error is None else 0, self._action_leaves)
        replies.refusal = error
        return replies

    def apply(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Answer the rows of a batch in their submissions' replies; return those that must wait for the next pass."""
        self._asked_again = []
        starts = batch.flags & _START != 0
        usable = ones(len(batch))
        deferred: npt.NDArray[np.int64] = _NONE

        def refuse(errors: dict[int, Any]) -> None:
            for index, error in errors.items():
                batch.refuse(index, error)
                usable[index] = False

        refuse(bad_headers(batch.flags, batch.sequences, batch.rewards))
        bad_values = self._bad_values(batch)
        slots, known = self._table.slots_of(batch.handles, batch.client_indices)
        if any_true(starts):
            known &= ~starts
            refuse({index: error for index, error in bad_values.items() if starts[index] and usable[index]})  # these take no room
            deferred = self._check_starts(batch, flatnonzero(starts & usable), usable)
        if not all_true(known):
            for index in flatnonzero(~known & ~starts & usable).tolist():
                usable[index] = False
                self._answer_unknown(batch, index)
        later = later_rows_of_the_same_episode(flatnonzero(known & usable), slots, batch.sequences)
        if later.size:
            usable[later] = False
            deferred = np.concatenate((deferred, later))
        expected = self._table.next_sequence[slots]
        if any_true(off := batch.sequences != expected):
            for index in flatnonzero(known & usable & off).tolist():
                usable[index] = False
                self._answer_out_of_order(batch, index, int(slots[index]), int(expected[index]))
        refuse({index: error for index, error in bad_values.items() if usable[index]})
        if self._asked_again:  # questions that waited and were repeated in this batch
            again, slots_again = np.array(self._asked_again, np.int64).T
            self._withheld.decide(np.unique(slots_again))  # a message may repeat one several times
            self._statistics.actions += batch.count_actions(again)
            self._reply(batch, again, slots_again)
        applied = flatnonzero(usable)
        if applied.size:
            self._decide_and_commit(batch, applied, slots, starts)
        return deferred

    def _check_starts(self, batch: Batch, rows: Array, usable: Array) -> npt.NDArray[np.int64]:
        """Sort START rows into new episodes, repeats and refusals; return those that must wait."""
        deferred: list[int] = []
        seen: set[tuple[int, str]] = set()
        admission = Admission(self._shares)
        batch.add_wanted_to_content(rows)
        for index in rows.tolist():
            usable[index] = False
            client, episode_id = batch.origin(index).client, batch.episode_id(index)
            finished = self._table.finished_by_id(client.client_id, episode_id)
            if (slot := client.aliases.get(episode_id)) is not None:
                is_newest = self._table.next_sequence[slot] == 1
                if is_newest and batch.flags[index] & _OVERRIDE:
                    self._override(batch, index, slot)
                elif is_newest and self._table.content[slot] == batch.content[index]:
                    self._repeat(batch, index, slot)
                else:
                    batch.refuse(index, EpisodeDuplicateError(f"Episode {episode_id} is already started"))
            elif finished is not None:
                self._answer_finished(batch, index, finished)
            elif refusal := self.starts.refusal(beside=len(seen)):
                batch.refuse(index, refusal)
            elif (client.index, episode_id) in seen:
                deferred.append(index)
            elif error := self._no_policy(batch, index) or admission.refusal(client, episode_id):
                batch.refuse(index, error)
            else:
                usable[index] = True
                seen.add((client.index, episode_id))
        return np.array(deferred, np.int64)

    def _no_policy(self, batch: Batch, index: int) -> PolicyServerError | None:
        """Choose what decides the episode of a START row, or say why nothing can."""
        wanted = batch.wanted(index)
        if too_long := id_error("policies", wanted.name):
            return too_long
        try:
            choice = self._policy.choose(wanted.name, batch.episode_id(index), greedy=wanted.greedy)
        except PolicyServerError as error:
            return error
        if choice.number != LIVE or choice.greedy:
            batch.choices[index] = choice
        return None

    def _bad_values(self, batch: Batch) -> dict[int, InvalidInputError]:
        errors: dict[int, InvalidInputError] = {}
        for check, leaf in zip(self._observation_checks, batch.observations, strict=True):
            for index in check.bad_rows(leaf).tolist():
                errors[index] = check.value_error(leaf[index])
        if batch.given.size:
            for check, leaf in zip(self._action_checks, batch.given_actions, strict=True):
                for place in check.bad_rows(leaf).tolist():
                    errors[int(batch.given[place])] = check.value_error(leaf[place])
        return errors

    def _decide_and_commit(self, batch: Batch, applied: Array, slots: Array, starts: Array, failure: PassFailure | None = None) -> None:
        rows = step_rows(batch, applied, slots, starts, self._table, self._trajectories.waiting_infos)
        begun_s = time.perf_counter()
        if not self.learns:
            rows.training = np.zeros(len(rows), np.bool_)
        try:
            decided = self._policy.decide(rows)
        except Exception:
            self._decide_apart(batch, applied, slots, starts, failure or PassFailure.logged(len(applied)))
            return
        self._statistics.timing.took("decide", begun_s, time.perf_counter())
        asks, kept = ~rows.ends, ones(len(rows))
        if not all_true(sound := decided.decisions.sound):
            kept[asks] = sound
            self._refuse_unsound(batch, applied[~kept], decided.decisions.select(~sound).log_probs)
        waits, held = self._withheld.choose(rows, batch.flags[applied])
        rows.held = held
        # From here to the end nothing fails and nothing waits.
        now_s = time.monotonic()
        for place in flatnonzero(rows.is_new & kept).tolist():
            index = int(applied[place])
            client, name = batch.origin(index).client, batch.episode_id(index)
            rows.slots[place] = slots[index] = self._table.open_episode(
                client,
                name,
                training=bool(rows.training[place]),
                now_s=now_s,
                draw_key=int(rows.drawn_by.keys[place]),
                choice=batch.choices.get(index, NO_CHOICE),
            )
            rows.begun[place] = client.client_id, name
            self._statistics.episodes_started += 1
        self._policy.commit(rows, decided, kept)
        places = pick(kept)
        kept_slots = rows.slots[places]
        self._table.returns[kept_slots] += decided.rewards[places]  # as RLlib counts them, after connectors that change rewards
        self._table.content[kept_slots] = batch.content[applied[places]]
        self._table.next_sequence[kept_slots] += 1
        completed = self._table.next_sequence[kept_slots] > 1
        self._statistics.reward_sum += float(rows.rewards[places].sum())
        self._statistics.steps_completed += count(completed)
        self._statistics.steps_untrained += count(completed & ~rows.training[places])
        if batch.given.size:
            self._statistics.actions_given += self._table.note_given(rows.slots[rows.given[kept[rows.given]]])
        self._withheld.note(kept_slots, held[places], (waits & ~held)[places])
        for place, info in decided.infos.items():
            if kept[place] and rows.training[place]:
                self._trajectories.add_info(int(rows.slots[place]), info)
        all_ask = all_true(asks)
        if all_ask or any_true(asks):
            self._statistics.batches += 1
            self._record(batch, applied, rows, decided, pick(asks & kept), pick(kept[asks]), held)
        if not all_ask:
            self._end(batch, applied, rows, decided, flatnonzero(rows.ends), now_s)

    def _decide_apart(self, batch: Batch, applied: Array, slots: Array, starts: Array, failure: PassFailure) -> None:
        """Decide halves of rows that can't be decided together, so that one row's trouble is no other's."""
        if len(applied) > 1 and failure.tries_left > 0:
            failure.tries_left -= 2
            middle = len(applied) // 2
            self._decide_and_commit(batch, applied[:middle], slots, starts, failure)
            self._decide_and_commit(batch, applied[middle:], slots, starts, failure)
            return
        self._statistics.rows_failed += len(applied)
        batch.refuse_all(applied, ServerInternalError(f"the server failed to answer; incident {failure.incident} in its log"))

    def _refuse_unsound(self, batch: Batch, refused: Array, log_probs: Array | None) -> None:
        """Refuse the rows whose distributions are not numbers, or exclude the action that was given; the others go on."""
        version = self._policy.weights_seq_no
        excluded = np.isin(refused, batch.given) & (np.isneginf(log_probs) if log_probs is not None else False)
        text = f"action: expected one that policy version {version} may take, received one it excludes, so without a log-probability"
        for index in refused[excluded].tolist():
            batch.refuse(index, InvalidInputError(text, reason="BAD_ACTION", field="actions[0]"))
        if excluded.all():
            return
        failed = refused[~excluded]
        self._statistics.rows_failed += len(failed)
        incident = secrets.token_hex(4)
        logger.error("incident %s: policy version %d gives %d rows no finite log-probability", incident, version, len(failed))
        text = f"policy version {version} gives this step no finite log-probability; incident {incident} in its log"
        batch.refuse_all(failed, ServerInternalError(text))

    def _record(
        self, batch: Batch, applied: Array, rows: StepRows, decided: StepResult, places: Picked, sound: Picked, held: npt.NDArray[np.bool_]
    ) -> None:
        """Note the decisions of the rows at `places`, the sound ones of those that asked; the answers of those `held` are kept."""
        slots, decisions, held = rows.slots[places], decided.decisions, held[places]
        if not isinstance(sound, slice):
            decisions = decisions.select(sound)
        state = [leaf[sound] for leaf in decided.state]
        if any_true(held):
            self._withheld.keep_states(slots[held], [leaf[places][held] for leaf in rows.state])
        self._table.note_decisions(slots, decisions, decided.executed[sound], state)
        observations, rewards = [leaf[places] for leaf in decided.observations], decided.rewards[places]
        state_in, training = [leaf[sound] for leaf in decided.state_in], rows.training[places]
        if all_true(training):
            self._trajectories.record(slots, rewards, observations, decisions, state_in)
        elif any_true(training):
            observations, state_in = [leaf[training] for leaf in observations], [leaf[training] for leaf in state_in]
            self._trajectories.record(slots[training], rewards[training], observations, decisions.select(training), state_in)
        indices = applied[places]
        if any_true(held):
            self._keep_waiting(batch, indices[held], slots[held])
            indices, slots = indices[~held], slots[~held]
        self._statistics.actions += batch.count_actions(indices)
        self._reply(batch, indices, slots)

    def _end(self, batch: Batch, applied: Array, rows: StepRows, decided: StepResult, places: Array, now_s: float) -> None:
        table, slots, training = self._table, rows.slots[places], rows.training[places]
        trained, learned = slots[training], places[training]
        self._trajectories.finish(
            trained,
            decided.rewards[learned],
            [leaf[learned] for leaf in decided.observations],
            rows.terminated[learned],
            [column[trained] for column in table.state[: len(decided.state_in)]],
        )
        self._ended.note(slots, ["terminated" if each else "truncated" for each in rows.terminated[places].tolist()], now_s)
        handles = table.handles(slots)
        for number, index in enumerate(applied[places].tolist()):
            slot = int(slots[number])
            steps, return_ = int(table.next_sequence[slot]) - 1, float(table.returns[slot])
            self._statistics.finished_by(policy := table.figures_name(slot), return_, steps)
            if policy == LIVE_NAME and (training[number] or not self.learns):
                self._statistics.episode_finished(steps, return_, now_s - float(table.started_s[slot]))
            self._statistics.episodes_finished += 1
            batch.origin(index).replies.handles[batch.row[index]] = handles[number]
            table.close_episode(slot, idle=False)

    # Answers -------------------------------------------------------------------------------------------------------------------------

    def _reply(self, batch: Batch, indices: Array, slots: Array) -> None:
        """Fill the replies of rows from the newest steps of their episodes, which are in `slots`."""
        table = self._table
        handles, actions = table.handles(slots), table.actions[slots]
        log_probs, seq_nos = table.log_probs[slots], table.weights_seq_nos[slots]
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
        client = batch.origin(index).client
        finished = self._table.finished(handle, client.client_id)
        if finished is None:
            batch.refuse(index, EpisodeUnknownError(f"Episode with handle {handle} not found.", field="handles"))
        else:
            self._answer_finished(batch, index, finished)

    def _answer_finished(self, batch: Batch, index: int, finished: FinishedEpisode) -> None:
        """Repeat the answer to an episode's last row, and refuse any other row."""
        if batch.sequences[index] == finished.sequence and int(batch.content[index]) == finished.content:
            self._statistics.rows_repeated += 1
            batch.origin(index).replies.handles[batch.row[index]] = finished.handle
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
        if self._table.is_given(slot) and np.array_equal(self._table.actions[slot], action[0]):
            self._repeat(batch, index, slot)  # as its client does that has no answer
            return
        slots = np.array([slot])
        training = bool(self._table.training[slot])
        recorded, log_prob = self._policy.override(slot, self._trajectories.pending_outputs(slots) if training else {}, action)
        if log_prob is not None and not np.isfinite(log_prob).all():
            self._refuse_unsound(batch, np.array([index]), log_prob)  # a learner would fail over it
            return
        self._withheld.forget(slots)
        self._table.actions[slots] = action
        if training:
            self._trajectories.replace_pending_actions(slots, recorded, log_prob)
        if log_prob is not None:
            self._table.log_probs[slots] = log_prob
        self._statistics.actions_given += self._table.note_given(slots)
        self._table.note_overridden(slot)
        self._statistics.actions_overridden += 1
        self._repeat(batch, index, slot, count=False)

    def _keep_waiting(self, batch: Batch, indices: Array, slots: Array) -> None:
        """Tell callers to send the same rows again when there is room."""
        for index, handle in zip(indices.tolist(), self._table.handles(slots).tolist(), strict=True):
            batch.refuse(index, self._withheld.refusal())
            replies = batch.origin(index).replies
            replies.handles[batch.row[index]] = handle
            replies.waiting += 1

    def _repeat(self, batch: Batch, index: int, slot: int, *, count: bool = True) -> None:
        if self._withheld.is_withheld(slot):
            if self._withheld.may_answer(int(batch.flags[index])):
                self._asked_again.append((index, slot))
            else:
                self._keep_waiting(batch, np.array([index]), np.array([slot]))
            return
        self._statistics.rows_repeated += count
        self._reply(batch, np.array([index]), np.array([slot]))
