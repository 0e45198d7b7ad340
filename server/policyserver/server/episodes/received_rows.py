"""What passes between a way in and the episode core: steps of many episodes as columns, and the answers to them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from policyserver.common.errors import PolicyServerError
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import Array


class PolicyWanted(NamedTuple):
    """What an episode wants that begins."""

    name: str = ""
    """Name of a policy; empty: it names none."""
    greedy: bool = False
    """Whether it wants the most likely actions."""


@dataclass(slots=True)
class ReceivedRows:
    """Steps of n rows, decoded but not yet checked against the spaces.

    Shapes: every column has leading axis n, except `actions`, whose leading axis is the number of rows with ACTION_GIVEN.
    """

    handles: npt.NDArray[np.uint64]
    """Episode handles, 0 in START rows."""
    sequences: npt.NDArray[np.uint32]
    """Number of each observation within its episode."""
    flags: npt.NDArray[np.uint8]
    """Bits of StepFlag."""
    rewards: npt.NDArray[np.float64]
    """Sum of the rewards since the previous number's action."""
    observations: list[Array]
    """One array per leaf of the observation space."""
    actions: list[Array]
    """One array per leaf of the action space, of the rows with ACTION_GIVEN."""
    episode_ids: list[str] = field(default_factory=list)
    """Ids of the START rows, in their order."""
    infos: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Infos by row."""
    draw_ids: list[str] = field(default_factory=list)
    """By what the actions of the START rows' episodes are drawn, in their order; empty: by their ids."""
    info_bytes: int = 0
    """About how many bytes the infos take."""
    wants: list[PolicyWanted] = field(default_factory=list)
    """What the START rows' episodes want, in their order; empty: none names a policy, and all explore."""

    def __len__(self) -> int:
        return len(self.handles)

    def select_asking(self, rows: list[int]) -> ReceivedRows:
        """Take some of the rows, none of which brings an action."""
        starts = np.cumsum(self.flags & int(StepFlag.START) != 0) - 1
        begun = [int(starts[row]) for row in rows if self.flags[row] & int(StepFlag.START)]
        return ReceivedRows(
            self.handles[rows],
            self.sequences[rows],
            self.flags[rows],
            self.rewards[rows],
            [leaf[rows] for leaf in self.observations],
            [],
            [self.episode_ids[start] for start in begun],
            {place: info for place, row in enumerate(rows) if (info := self.infos.get(row)) is not None},
            [self.draw_ids[start] for start in begun] if self.draw_ids else [],
            wants=[self.wants[start] for start in begun] if self.wants else [],
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of the columns, ids and infos."""
        columns = _size_bytes(self.handles, self.sequences, self.flags, self.rewards, *self.observations, *self.actions)
        return columns + sum(map(len, self.episode_ids)) + self.info_bytes


@dataclass(slots=True)
class Replies:
    """Answers to n rows, in their order. A row without a refusal was applied."""

    handles: npt.NDArray[np.uint64]
    """The episodes' handles."""
    actions: list[Array]
    """One array per leaf of the action space, leading axis n, in the client's form; zeros for a row without an action."""
    log_probs: npt.NDArray[np.float32]
    """Log-probability of the recorded actions, nats."""
    weights_seq_nos: npt.NDArray[np.uint64]
    """Policy versions that answered."""
    refusals: dict[int, PolicyServerError]
    """Why rows were refused."""
    waiting: int = 0
    """Rows whose answers wait for the learner; they are among the refusals, though their steps are recorded."""
    refusal: PolicyServerError | None = None
    """Why all rows were refused together, as a message that is wrong as a whole; there are no columns then."""
    is_stale: bool = False
    """Whether the daemon was silent when they were answered."""

    def error_of(self, row: int) -> PolicyServerError | None:
        """Return why a row was refused, as an error of the row's own, since several rows may share a reason; None if it was applied."""
        error = self.refusal or self.refusals.get(row)
        return None if error is None else copy.copy(error)

    @property
    def size_bytes(self) -> int:
        """Bytes of the columns."""
        return _size_bytes(self.handles, *self.actions, self.log_probs, self.weights_seq_nos)

    @classmethod
    def empty(cls, count: int, action_leaves: list[tuple[tuple[int, ...], np.dtype[Any]]]) -> Replies:
        """Make the answers to `count` rows, all zero."""
        return cls(
            np.zeros(count, np.uint64),
            [np.zeros((count, *shape), dtype) for shape, dtype in action_leaves],
            np.zeros(count, np.float32),
            np.zeros(count, np.uint64),
            {},
        )


def _size_bytes(*columns: Array) -> int:
    return sum([column.nbytes for column in columns])
