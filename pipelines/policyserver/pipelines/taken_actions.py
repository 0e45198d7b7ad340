"""What has been done in each row of a block since its episode began, as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.step_kinds import StepKind, StepKinds

MOST_ACTIONS = 200_000
"""Actions of a row that are kept: an episode with more keeps none of them."""

_FIRST_ACTIONS = 64


class TakenActions:
    """The actions of n rows. One owner at a time: not thread-safe."""

    def __init__(self, n_rows: int) -> None:
        """Have none."""
        self._counts = np.zeros(n_rows, dtype=np.int64)
        self._actions: npt.NDArray[Any] = np.zeros((n_rows, 0), dtype=np.int64)
        self._kinds: StepKinds | None = None
        """What each step did; None: all have acted."""
        self._most = 0
        """What no count is above."""

    def begin(self, rows: IntArray) -> None:
        """Forget those of rows, int64 (m,), whose episodes begin."""
        self._counts[rows] = 0

    def add(self, rows: IntArray, actions: npt.NDArray[Any], kinds: StepKinds | None = None) -> None:
        """Take the next action of each of m different rows, (m, ...), and what these steps do, (m,); None: each acts."""
        self._most += 1
        if self._most > self._actions.shape[1]:
            self._make_room(actions)
        counts = self._counts[rows]
        self._counts[rows] = counts + 1
        if self._most > MOST_ACTIONS:
            fits = counts < MOST_ACTIONS
            rows, counts, actions, kinds = rows[fits], counts[fits], actions[fits], None if kinds is None else kinds[fits]
        self._actions[rows, counts] = actions
        if kinds is not None and self._kinds is None:
            self._kinds = np.full(self._actions.shape[:2], StepKind.ACT, dtype=np.int8)
        if self._kinds is not None:
            self._kinds[rows, counts] = StepKind.ACT if kinds is None else kinds

    def of(self, row: int) -> npt.NDArray[Any]:
        """Return a copy of those of a row, (n, ...); none if there were more than are kept."""
        count = int(self._counts[row])
        return self._actions[row, : count if count <= MOST_ACTIONS else 0].copy()

    def kinds_of(self, row: int) -> StepKinds | None:
        """Return a copy of what the steps of a row did, (n,), as many as `of` has; None: all acted."""
        if self._kinds is None:
            return None
        count = int(self._counts[row])
        kinds = self._kinds[row, : count if count <= MOST_ACTIONS else 0].copy()
        return kinds if np.count_nonzero(kinds) else None

    def _make_room(self, actions: npt.NDArray[Any]) -> None:
        """Find the largest count, and make room for one more of each row where it lacks: twice as much, of the kind of the given ones."""
        self._most = 1 + int(self._counts.max())
        old, size = self._actions, self._actions.shape[1]
        if size < self._most and size < MOST_ACTIONS:
            self._actions = np.zeros((len(old), min(max(_FIRST_ACTIONS, 2 * size), MOST_ACTIONS), *actions.shape[1:]), actions.dtype)
            if size:
                self._actions[:, :size] = old
            if self._kinds is not None:
                kinds, self._kinds = self._kinds, np.full(self._actions.shape[:2], StepKind.ACT, dtype=np.int8)
                self._kinds[:, :size] = kinds
