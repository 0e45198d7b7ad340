"""The rows of one pass through the core: gathered from the messages they came in, answered back into them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from policyserver.common.acting.keyed_draws import draw_key
from policyserver.common.acting.leaf_checks import LeafCheck
from policyserver.common.errors import InvalidInputError, PolicyServerError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array
from policyserver.server.episodes.episode_table import EpisodeTable, ServedClient
from policyserver.server.episodes.masks import all_true, any_true, count, flatnonzero
from policyserver.server.episodes.received_rows import PolicyWanted, ReceivedRows, Replies
from policyserver.server.episodes.row_checks import content_hashes
from policyserver.server.episodes.waiting_infos import WaitingInfos
from policyserver.server.policies.policy import LIVE, Choice, DrawKeys, StepRows

_NOTHING_WANTED = PolicyWanted()
NO_CHOICE = Choice()
_NONE = np.empty(0, np.int64)
_START, _GIVEN = int(StepFlag.START), int(StepFlag.ACTION_GIVEN)
_TERMINATED, _END, _DISABLED = int(StepFlag.TERMINATED), int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)
_SAYS_NOTHING = np.uint8(StepFlag.OVERRIDE | StepFlag.NO_WAIT)  # of what the step was, so that a repeat may differ in it


@dataclass(slots=True, eq=False)
class Submission:
    """The rows of one message on their way through the core."""

    rows: ReceivedRows
    client: ServedClient
    replies: Replies
    done: Callable[[Replies], None]
    """Called with the replies when all rows are answered."""
    todo: npt.NDArray[np.int64]
    """Rows that are not answered yet, ascending; while they wait for one pass, those of this pass."""
    later: npt.NDArray[np.int64] = field(default_factory=lambda: _NONE)
    """Rows for a later pass, so that others have their turn."""
    _start_position: Array | None = None

    def given_position(self, rows: Array) -> Array:
        """Return the places of rows with ACTION_GIVEN among the given actions."""
        return (np.cumsum(self.rows.flags & _GIVEN != 0) - 1)[rows]

    def start_number(self, row: int) -> int:
        """Return the place of a START row among the START rows."""
        if self._start_position is None:  # counted once: a message may start thousands
            self._start_position = np.cumsum(self.rows.flags & _START != 0) - 1
        return int(self._start_position[row])


@dataclass(slots=True)
class Batch:
    """Rows of any number of submissions as columns."""

    submissions: list[Submission]
    submission: Array
    """For each row, the submission it came in."""
    row: Array
    """For each row, its place in that submission."""
    handles: Array
    sequences: Array
    flags: Array
    rewards: Array
    observations: list[Array]
    client_indices: Array
    """Numbers of the clients that sent the rows."""
    given: Array
    """Rows with a given action, indices."""
    given_actions: list[Array]
    """Their actions."""
    content: Array
    """Hash of what each row says."""
    choices: dict[int, Choice] = field(default_factory=dict)
    """What decides the episodes that rows begin, where that is not the policy that learns, exploring."""

    @classmethod
    def of(cls, submissions: list[Submission]) -> Batch:
        """Gather the unanswered rows of submissions."""
        todos = [submission.todo for submission in submissions]
        sizes = [len(todo) for todo in todos]
        everything_of_one = len(todos) == 1 and sizes[0] == len(submissions[0].rows)

        def joined(parts: Iterable[Array]) -> Array:
            """Put columns together, of each submission the rows that are to do, which mostly are all; a lone one's stay as they are."""
            if everything_of_one:
                return next(iter(parts))
            return np.concatenate([part if len(todo) == len(part) else part[todo] for part, todo in zip(parts, todos, strict=True)])

        flags = joined(submission.rows.flags for submission in submissions)
        rewards = joined(submission.rows.rewards for submission in submissions)
        leaf_count = len(submissions[0].rows.observations)
        observations = [joined(submission.rows.observations[index] for submission in submissions) for index in range(leaf_count)]
        if everything_of_one:
            observations = [leaf.copy() for leaf in observations]  # a net may want to write there, and a message is read-only
        given = flatnonzero(flags & _GIVEN != 0)
        given_actions: list[Array] = []
        if given.size:
            parts = []
            for submission, todo in zip(submissions, todos, strict=True):
                rows = todo[submission.rows.flags[todo] & _GIVEN != 0]
                if rows.size:
                    parts.append([leaf[submission.given_position(rows)] for leaf in submission.rows.actions])
            given_actions = [np.concatenate(leaf) for leaf in zip(*parts, strict=True)]
        if everything_of_one:
            submission_of, row = np.zeros(sizes[0], np.int64), todos[0]
            client_indices = submission_of + submissions[0].client.index
        else:
            submission_of, row = np.repeat(np.arange(len(submissions)), sizes), np.concatenate(todos)
            client_indices = np.repeat([submission.client.index for submission in submissions], sizes)
        return cls(
            submissions,
            submission_of,
            row,
            joined(submission.rows.handles for submission in submissions),
            joined(submission.rows.sequences for submission in submissions).astype(np.int64),
            flags,
            rewards,
            observations,
            client_indices,
            given,
            given_actions,
            content_hashes(observations, flags & ~_SAYS_NOTHING, rewards, given, given_actions),
        )

    def __len__(self) -> int:
        return len(self.handles)

    def origin(self, index: int) -> Submission:
        """Return the submission a row came in."""
        return self.submissions[int(self.submission[index])]

    def refuse(self, index: int, error: PolicyServerError) -> None:
        """Answer one row with an error."""
        self.origin(index).replies.refusals[int(self.row[index])] = error

    def refuse_all(self, indices: Array, error: PolicyServerError) -> None:
        """Answer several rows with one error."""
        for index in indices.tolist():
            self.refuse(index, error)

    def count_actions(self, indices: Array) -> int:
        """Count rows that are answered with an action as their clients'; return how many there are."""
        if len(self.submissions) == 1:
            self.submissions[0].client.counts.actions += len(indices)
        else:
            for number, count in enumerate(np.bincount(self.submission[indices], minlength=len(self.submissions)).tolist()):
                self.submissions[number].client.counts.actions += count
        return len(indices)

    def given_among(self, applied: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return which of some rows bring their own action, as places among them, and these actions."""
        if not self.given.size:
            return _NONE, _NONE
        place = np.zeros(len(self), np.int64)
        place[self.given] = np.arange(1, len(self.given) + 1)
        places = place[applied]
        given = flatnonzero(places != 0)
        return given, self.given_actions[0][places[given] - 1]

    def episode_id(self, index: int) -> str:
        """Return the id that a START row gives its episode."""
        submission = self.origin(index)
        return submission.rows.episode_ids[submission.start_number(int(self.row[index]))]

    def wanted(self, index: int) -> PolicyWanted:
        """Return what the episode wants that a START row begins."""
        submission = self.origin(index)
        wants = submission.rows.wants
        return wants[submission.start_number(int(self.row[index]))] if wants else _NOTHING_WANTED

    def add_wanted_to_content(self, starts: Array) -> None:
        """Let the hashes of START rows, whose indices are given, tell the same observation for another policy apart."""
        for index in starts.tolist() if any(submission.rows.wants for submission in self.submissions) else ():
            if (wanted := self.wanted(index)) != _NOTHING_WANTED:
                self.content[index] ^= np.uint64(draw_key(wanted.name) ^ wanted.greedy)

    def draw_key(self, index: int) -> int:
        """Return what the actions of the episode are drawn by that a START row begins."""
        submission = self.origin(index)
        names = submission.rows.draw_ids or submission.rows.episode_ids
        return draw_key(names[submission.start_number(int(self.row[index]))])


Picked = slice | Array
"""Which rows of an array are taken: indices, or a slice of all, which copies nothing."""


def pick(mask: Array) -> Picked:
    """Return which rows a mask takes."""
    return slice(None) if all_true(mask) else flatnonzero(mask)


def later_rows_of_the_same_episode(rows: Array, slots: Array, sequences: Array) -> Array:
    """Return the rows that must wait because the batch has an earlier one of their episode."""
    if rows.size < 2:
        return rows[:0]
    in_order = np.sort(slots[rows])
    if all_true(in_order[1:] != in_order[:-1]):
        return rows[:0]
    order = rows[np.lexsort((rows, sequences[rows], slots[rows]))]
    later: Array = order[1:][slots[order][1:] == slots[order][:-1]]
    return later


def malformed(rows: ReceivedRows, observation_checks: list[LeafCheck], action_checks: list[LeafCheck]) -> PolicyServerError | None:
    """Say what is wrong with a message as a whole, if anything is: a column with the wrong length, shape or dtype."""
    if not (len(rows) or rows.observations or rows.actions or rows.episode_ids):
        return None
    given = count(rows.flags & _GIVEN)
    expectations = [("observations", observation_checks, rows.observations, len(rows))]
    if given or rows.actions:
        expectations.append(("actions", action_checks, rows.actions, given))
    for name, checks, columns, length in expectations:
        if len(columns) != len(checks):
            return InvalidInputError(f"{name}: expected {len(checks)} tensors, received {len(columns)}", field=name)
        for check, column in zip(checks, columns, strict=True):
            if error := check.column(column, length):
                return error
    starts = count(rows.flags & _START)
    if len(rows.episode_ids) != starts:
        text = f"episode_ids: expected one for each of {starts} START rows, received {len(rows.episode_ids)}"
        return InvalidInputError(text, field="episode_ids")
    if rows.wants and len(rows.wants) != starts:
        return InvalidInputError(
            f"policies: expected none or {starts}, one for each START row, received {len(rows.wants)}", field="policies"
        )
    return None


def step_rows(batch: Batch, applied: Array, slots: Array, starts: Array, table: EpisodeTable, waiting_infos: WaitingInfos) -> StepRows:
    """Gather what a policy needs to know of the rows `applied`, indices; `slots` and `starts` are those of all rows of the batch."""
    applied_slots, flags, is_new = slots[applied], batch.flags[applied], starts[applied]
    actions, training, keys = table.actions[applied_slots], table.training[applied_slots], table.draw_keys[applied_slots]
    if any_true(is_new):
        actions[is_new] = 0
        keys[is_new] = [batch.draw_key(index) for index in applied[is_new].tolist()]
        training = np.where(is_new, flags & _DISABLED == 0, training)
    policies = greedy = None
    if table.unlike_most or batch.choices:
        policies, greedy = table.policies[applied_slots], table.greedy[applied_slots]
        for place in flatnonzero(is_new).tolist():
            choice = batch.choices.get(int(applied[place]), NO_CHOICE)
            policies[place], greedy[place] = choice.number, choice.greedy
            training[place] &= choice.trains
        policies, greedy = (policies if any_true(policies != LIVE) else None), (greedy if any_true(greedy) else None)
    infos = {}
    if any(submission.rows.infos for submission in batch.submissions):
        found = ((place, batch.origin(index).rows.infos.get(int(batch.row[index]))) for place, index in enumerate(applied.tolist()))
        infos = {place: kept for place, info in found if info is not None and (kept := waiting_infos.keep(info)) is not None}
    given, given_actions = batch.given_among(applied)
    return StepRows(
        slots=applied_slots,
        is_new=is_new,
        ends=flags & _END != 0,
        terminated=flags & _TERMINATED != 0,
        training=training,
        rewards=batch.rewards[applied],
        observations=batch.observations if len(applied) == len(batch) else [leaf[applied] for leaf in batch.observations],
        infos=infos,
        actions=actions,
        state=table.states(applied_slots, is_new),
        given=given,
        given_actions=given_actions,
        drawn_by=DrawKeys(keys, batch.sequences[applied]),
        policies=policies,
        greedy=greedy,
    )
