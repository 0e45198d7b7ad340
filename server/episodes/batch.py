"""The rows of one pass through the core: gathered from the messages they came in, answered back into them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.errors import InvalidInputError, PolicyServerError
from policyserver.flags import StepFlag

from .episode_table import Owner
from .row_checks import LeafCheck, content_hashes
from .rows import Replies, Rows

Array = npt.NDArray[Any]

_NONE = np.empty(0, np.int64)
_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)


@dataclass(slots=True, eq=False)
class Submission:
    """The rows of one message on their way through the core."""

    rows: Rows
    owner: Owner
    replies: Replies
    done: asyncio.Future[Replies]
    todo: npt.NDArray[np.int64]
    """Rows that are not answered yet, ascending."""
    given_position: Array
    """For each row, its place among the given actions."""
    start_position: Array
    """For each row, its place among the episode ids."""

    @classmethod
    def of(cls, rows: Rows, owner: Owner, replies: Replies, done: asyncio.Future[Replies]) -> Submission:
        """Wrap the rows of a message."""
        given, start = rows.flags & _GIVEN != 0, rows.flags & _START != 0
        return cls(rows, owner, replies, done, np.arange(len(rows)), np.cumsum(given) - 1, np.cumsum(start) - 1)

    def episode_id(self, row: int) -> str:
        """Return the id that a START row gives its episode."""
        return self.rows.episode_ids[int(self.start_position[row])]


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
    owners: Array
    """Numbers of the clients that sent the rows."""
    given: Array
    """Rows with a given action, indices."""
    given_actions: list[Array]
    """Their actions."""
    content: Array
    """Hash of what each row says."""

    @classmethod
    def of(cls, submissions: list[Submission]) -> Batch:
        """Gather the unanswered rows of submissions."""
        todos = [submission.todo for submission in submissions]
        sizes = [len(todo) for todo in todos]

        def column(name: str) -> Array:
            return _joined([getattr(submission.rows, name)[todo] for submission, todo in zip(submissions, todos, strict=True)])

        flags, rewards = column("flags"), column("rewards")
        leaf_count = len(submissions[0].rows.observations)
        observations = [
            _joined([submission.rows.observations[index][todo] for submission, todo in zip(submissions, todos, strict=True)])
            for index in range(leaf_count)
        ]
        given = np.flatnonzero(flags & _GIVEN != 0)
        given_actions: list[Array] = []
        if given.size:
            parts = []
            for submission, todo in zip(submissions, todos, strict=True):
                rows = todo[submission.rows.flags[todo] & _GIVEN != 0]
                if rows.size:
                    parts.append([leaf[submission.given_position[rows]] for leaf in submission.rows.actions])
            given_actions = [_joined([part[index] for part in parts]) for index in range(len(parts[0]))]
        return cls(
            submissions,
            np.repeat(np.arange(len(submissions)), sizes),
            _joined(todos),
            column("handles"),
            column("sequences").astype(np.int64),
            flags,
            rewards,
            observations,
            np.repeat([submission.owner.index for submission in submissions], sizes),
            given,
            given_actions,
            content_hashes(observations, flags & ~np.uint8(_OVERRIDE), rewards, given, given_actions),
        )

    def __len__(self) -> int:
        return len(self.handles)

    def origin(self, index: int) -> Submission:
        """Return the submission a row came in."""
        return self.submissions[int(self.submission[index])]

    def refuse(self, index: int, error: PolicyServerError) -> None:
        """Answer one row with an error."""
        self.origin(index).replies.refusals[int(self.row[index])] = error

    def given_among(self, applied: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return which of some rows bring their own action, as places among them, and these actions."""
        if not self.given.size:
            return _NONE, _NONE
        place = np.zeros(len(self), np.int64)
        place[self.given] = np.arange(1, len(self.given) + 1)
        places = place[applied]
        given = np.flatnonzero(places)
        return given, self.given_actions[0][places[given] - 1]

    def episode_id(self, index: int) -> str:
        """Return the id that a START row gives its episode."""
        return self.origin(index).episode_id(int(self.row[index]))


def later_rows_of_the_same_episode(rows: Array, slots: Array, sequences: Array) -> Array:
    """Return the rows that must wait because the batch has an earlier one of their episode."""
    if rows.size < 2:
        return rows[:0]
    order = rows[np.lexsort((rows, sequences[rows], slots[rows]))]
    later: Array = order[1:][slots[order][1:] == slots[order][:-1]]
    return later


def malformed(rows: Rows, observation_checks: list[LeafCheck], action_checks: list[LeafCheck]) -> PolicyServerError | None:
    """Say what is wrong with a message as a whole, if anything is: a column with the wrong length, shape or dtype."""
    given = int((rows.flags & _GIVEN != 0).sum())
    expectations = [("observations", observation_checks, rows.observations, len(rows))]
    if given or rows.actions:
        expectations.append(("actions", action_checks, rows.actions, given))
    for name, checks, columns, length in expectations:
        if len(columns) != len(checks):
            return InvalidInputError(f"{name}: expected {len(checks)} tensors, received {len(columns)}", field=name)
        for check, column in zip(checks, columns, strict=True):
            if error := check.column(column, length):
                return error
    starts = int((rows.flags & _START != 0).sum())
    if len(rows.episode_ids) != starts:
        text = f"episode_ids: expected one for each of {starts} START rows, received {len(rows.episode_ids)}"
        return InvalidInputError(text, field="episode_ids")
    return None


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
