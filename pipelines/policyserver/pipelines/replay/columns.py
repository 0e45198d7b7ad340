"""The columns of the event log: their names and types, and how the arrays of turns become them.

Each number is a function of its own row alone, added up in a fixed order: so it is the same in whatever batch it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policyserver.pipelines.replay.turn import Columns, Turn

Values = npt.NDArray[Any]

EXACT, CLOSE, COARSE = 0.0, 1e-9, 1e-6
"""How near a replay on another machine has to come, relative to the larger of 1 and the value; observations are float32."""


@dataclass(frozen=True, slots=True)
class LogColumn:
    """A column of a group."""

    name: str
    dtype: str
    """NumPy's name of its type; "" is the action's."""
    tolerance: float = EXACT
    """How near the values of a replay have to be where versions or processors differ."""
    reduce: Callable[[Values], Values] | None = None
    """Makes one number of each row of what a node gave."""


def first_of(values: Values) -> Values:
    """Return the mean over K symbols of what is expected, of forecasts (m, K, 3)."""
    total: Values = np.zeros(len(values))
    for symbol in range(values.shape[1]):
        total += values[:, symbol, 0]
    total /= values.shape[1]
    return total


def weighted_sum(values: Values) -> Values:
    """Return the sum of each row's numbers, each times the root of its place from 1: two that differ have other sums."""
    total = np.zeros(len(values))
    for place in range(values.shape[1]):
        total += values[:, place].astype(np.float64) * np.sqrt(place + 1.0)
    return total


ROW = LogColumn("row", "int32")

GROUPS: dict[str, tuple[LogColumn, ...]] = {
    "opened": (LogColumn("round", "int64"),),
    "begun": (ROW, LogColumn("number", "int64")),
    "fills": (
        ROW,
        LogColumn("symbol", "int32"),
        LogColumn("quantity", "float64", CLOSE),
        LogColumn("reference_price", "float64", CLOSE),
        LogColumn("price", "float64", CLOSE),
        LogColumn("fee", "float64", CLOSE),
    ),
    "orders": (ROW, LogColumn("number", "int64"), LogColumn("state", "int8"), LogColumn("reason", "int8")),
    "marked": (ROW, LogColumn("reward", "float64", CLOSE), LogColumn("equity", "float64", CLOSE), LogColumn("end", "int16")),
    "asked": (
        ROW,
        LogColumn("forecast", "float64", CLOSE, first_of),
        LogColumn("observation", "float64", COARSE, weighted_sum),
    ),
    "decided": (LogColumn("outcome", "int8"), LogColumn("weights_seq_no", "int64"), LogColumn("action", "")),
    "stopped": (ROW,),
}
"""Columns by group, in the order in which the groups of a turn come about."""


@dataclass(frozen=True, slots=True)
class ActionType:
    """What the actions of a run are made of."""

    dtype: str
    """NumPy's name of the type of their numbers."""
    shape: tuple[int, ...]
    """Shape of one action."""

    @property
    def width(self) -> int:
        """Numbers in an action."""
        return int(np.prod(self.shape, dtype=np.int64))

    def of(self, flat: Values) -> Values:
        """Return the actions out of (m, width) numbers."""
        return flat.reshape(len(flat), *self.shape)


def group_columns(group: str, turns: Sequence[Turn], action: ActionType) -> list[Values]:
    """Return the columns of a group, the turns one after another; actions as (m, width)."""
    given: list[Columns] = [columns for turn in turns if (columns := getattr(turn, group))]
    if not given:
        return [np.zeros((0, action.width), action.dtype) if not each.dtype else np.zeros(0, each.dtype) for each in GROUPS[group]]
    return [_column(each, [columns[place] for columns in given], action) for place, each in enumerate(GROUPS[group])]


def group_lengths(group: str, turns: Sequence[Turn]) -> Values:
    """Return how many rows the group has in each turn, int64 (turns,)."""
    return np.array([len(columns[0]) if (columns := getattr(turn, group)) else 0 for turn in turns], dtype=np.int64)


def _column(column: LogColumn, parts: list[Values], action: ActionType) -> Values:
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if column.reduce is not None and values.ndim > 1:
        values = column.reduce(values)
    if not column.dtype:
        values = values.reshape(len(values), action.width)
    return values.astype(column.dtype or action.dtype, copy=False)
