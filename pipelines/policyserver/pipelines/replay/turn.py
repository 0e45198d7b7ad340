"""What happens to a block of episodes from one of its bars to the next: one entry of a run's event log.

The nodes fill the turn of a block as it passes them. All that a replay has to be given is in it (which episodes began, what was decided,
what was ended from outside), and all that it has to make again (fills, rewards, equity, ends, forecasts, observations).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

Columns = tuple[npt.NDArray[Any], ...]
"""Columns of one length: a group of a turn."""

NOTHING: Columns = ()
"""A group without rows."""


class StepOutcome(IntEnum):
    """What came of a row's question for an action."""

    POLICY = 0
    """The policy's answer is the action."""
    FALLBACK = 1
    """No answer in time: the step held, or flattened, as `policy.fallback` of the run says; its action is what that was reported as."""
    WAITS = 2
    """No server yet: an episode that has not begun waits for one."""
    LOST = 3
    """The server no longer knows the episode."""


@dataclass(slots=True, eq=False)
class Turn:
    """A turn, in groups of columns of m rows each; a group may be empty. The arrays belong to the turn."""

    block: int
    """Number of the block."""
    opened: Columns = NOTHING
    """In a block's first turn: (number of the next episode of each row among those of its slot,)."""
    begun: Columns = NOTHING
    """Episodes that began: (row, number)."""
    fills: Columns = NOTHING
    """Fills of the bar: (row, symbol, quantity, reference price, price, fee)."""
    orders: Columns = NOTHING
    """What became of orders without a fill: (row, number, state, reason)."""
    marked: Columns = NOTHING
    """Rows whose bar has closed: (row, reward, equity, end as in `Marked.ends`)."""
    asked: Columns = NOTHING
    """Rows that want an action: (row, forecast as in a `View`, observation)."""
    decided: Columns = NOTHING
    """What came of it, in the rows of `asked`: (outcome, weights_seq_no, action)."""
    stopped: Columns = NOTHING
    """Rows whose episodes were ended because the run ended: (row,)."""
    is_abandoned: bool = False
    """Whether a node failed with the block in hand: the turn goes no further."""
    call_s: float = 0.0
    """Seconds that the question took."""
    wall_ns: int = 0
    """When the turn was over, nanoseconds since the Unix epoch."""

    def add_orders(self, *columns: npt.NDArray[Any]) -> None:
        """Add to what became of orders."""
        self.orders = tuple(map(np.concatenate, zip(self.orders, columns, strict=True))) if self.orders else columns


class Turns(Protocol):
    """Takes the turns of a run."""

    def add(self, turn: Turn) -> None:
        """Take a turn that is over; never waits."""


class NoTurns:
    """Keeps nothing."""

    def add(self, turn: Turn) -> None:
        """Forget it."""


def decided(
    asked: IntArray, rows: IntArray, actions: npt.NDArray[Any], falls_back: npt.NDArray[np.bool_], weights_seq_nos: IntArray, lost: IntArray
) -> Columns:
    """Return the group `decided` of rows that asked.

    Args:
        asked: All of them, increasing.
        rows: Those that have an action, increasing.
        actions: Their actions.
        falls_back: Which of them are fallbacks.
        weights_seq_nos: Policy versions that acted.
        lost: Rows that the server no longer knows; the others wait for a server.
    """
    if len(rows) == len(asked):
        return falls_back.astype(np.int8), weights_seq_nos, actions
    places = np.searchsorted(asked, rows)
    outcomes = np.full(len(asked), int(StepOutcome.WAITS), dtype=np.int8)
    outcomes[np.searchsorted(asked, lost)] = StepOutcome.LOST
    outcomes[places] = falls_back
    all_actions = np.zeros((len(asked), *actions.shape[1:]), dtype=actions.dtype)
    all_actions[places] = actions
    all_weights = np.zeros(len(asked), dtype=np.int64)
    all_weights[places] = weights_seq_nos
    return outcomes, all_weights, all_actions
