"""What a step does: the orders of its action, nothing at all, or the closing of all positions."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.block import EpisodeBlock
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions

StepKinds = npt.NDArray[np.int8]
"""A `StepKind` each of some steps."""


class StepKind(IntEnum):
    """What a step does."""

    ACT = 0
    """It gives the orders that its action asks for."""
    HOLD = 1
    """It gives no order and cancels none, whatever its action says: live limits and stops stay."""
    FLATTEN = 2
    """It cancels all orders and closes all positions, whatever its action says."""


def perform(block: EpisodeBlock, rows: IntArray, actions: Actions, kinds: StepKinds | None) -> None:
    """Do what the steps of rows do, at the close of the last bar.

    Args:
        block: The episodes.
        rows: Rows that take a step, int64 (m,).
        actions: Their actions, (m, ...).
        kinds: What each does, (m,); None: each acts.
    """
    if kinds is None or not np.count_nonzero(kinds):
        if len(rows):
            block.act(rows, actions)
        return
    acting = kinds == StepKind.ACT
    if np.count_nonzero(acting):
        block.act(rows[acting], actions[acting])
    block.hold(rows[kinds == StepKind.HOLD])
    block.close_positions(rows[kinds == StepKind.FLATTEN])
