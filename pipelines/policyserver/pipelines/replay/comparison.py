"""How a replayed turn is compared with the recorded one: bit by bit, or as nearly as another machine can come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policyserver.pipelines.replay.columns import EXACT, GROUPS, ActionType, LogColumn, Values, group_columns
from policyserver.pipelines.replay.turn import Turn


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place in which a replay differs from its run."""

    group: str
    """What of a turn differs, such as "marked"."""
    field: str
    """Which number of it; "rows": there are more or fewer of them."""
    row: int | None
    """Row of the block; None where it is not of one row."""
    recorded: Any
    replayed: Any


class NotReplayableError(Exception):
    """A run can't be replayed; the text says why, in one line."""


class DifferentError(Exception):
    """A replay differs from its run."""

    def __init__(self, difference: Difference) -> None:
        """Say where."""
        super().__init__(difference)
        self.difference = difference


def compare(recorded: Turn, replayed: Turn, group: str, action: ActionType, *, exact: bool) -> None:
    """Compare a group of two turns.

    Raises:
        DifferentError: They differ.
    """
    columns = GROUPS[group]
    expected, received = (group_columns(group, [turn], action) for turn in (recorded, replayed))
    if len(expected[0]) != len(received[0]):
        raise DifferentError(Difference(group, "rows", None, expected[0].tolist(), received[0].tolist()))
    for column, left, right in zip(columns, expected, received, strict=True):
        if left.tobytes() != right.tobytes() and (exact or len(places := _apart(column, left, right))):
            place = int(_differing(left, right)[0] if exact else places[0])
            row = int(expected[0][place]) if columns[0].name == "row" else _row_of(recorded, place, group)
            raise DifferentError(Difference(group, column.name, row, _value(left[place]), _value(right[place])))


def _differing(left: Values, right: Values) -> Values:
    """Return the places whose bits differ."""
    shape = (len(left), -1)
    bits = [np.ascontiguousarray(values).reshape(shape).view(np.uint8).reshape(shape) for values in (left, right)]
    return np.flatnonzero((bits[0] != bits[1]).any(axis=1))


def _apart(column: LogColumn, left: Values, right: Values) -> Values:
    """Return the places whose values differ by more than the column's tolerance."""
    if column.tolerance == EXACT:
        return _differing(left, right)
    near = np.abs(left - right) <= column.tolerance * np.maximum(1.0, np.abs(left))
    return np.flatnonzero(~(near | (left == right) | (np.isnan(left) & np.isnan(right))))


def _row_of(recorded: Turn, place: int, group: str) -> int | None:
    return int(recorded.asked[0][place]) if group == "decided" else None


def _value(value: Any) -> Any:
    numbers = np.asarray(value)
    return numbers.item() if numbers.size == 1 else numbers.tolist()
