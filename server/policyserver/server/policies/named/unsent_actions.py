"""Actions of a policy that shadows whose questions wait for the learner: what is sent beside them is decided later, or never."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policyserver.server.policies.policy import Array, DrawKeys, Mask

Slots = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ComputedActions:
    """Actions that a shadow computed for the newest rows of n episodes."""

    slots: Slots
    """Of the episodes, int64[n]."""
    by: DrawKeys
    """What they were drawn by."""
    actions: Array
    """As clients would execute them, [n, ...]."""
    versions: npt.NDArray[np.int64]
    """Policy version of the shadow that computed each, int64[n]."""

    def select(self, which: Mask) -> ComputedActions:
        """Return some of them."""
        return ComputedActions(self.slots[which], self.by.select(which), self.actions[which], self.versions[which])


class UnsentActions:
    """Keep one action for each slot. Owned by the loop thread."""

    def __init__(self) -> None:
        self._waits = np.zeros(0, np.bool_)
        self._columns: list[Array] = []

    def keep(self, computed: ComputedActions) -> None:
        """Keep actions until `take` or `forget`."""
        values = [computed.by.keys, computed.by.steps, computed.actions, computed.versions]
        if not self._columns:
            self._columns = [np.zeros((0, *value.shape[1:]), value.dtype) for value in values]
        if (slots := int(computed.slots.max(initial=-1)) + 1) > len(self._waits):
            rows = max(slots, 2 * len(self._waits))
            self._waits, *self._columns = (_grown(column, rows) for column in (self._waits, *self._columns))
        self._waits[computed.slots] = True
        for column, value in zip(self._columns, values, strict=True):
            column[computed.slots] = value

    def forget(self, slots: Slots) -> None:
        """Note that episodes went on, or are over: nothing will be sent beside what was kept."""
        self._waits[slots[slots < len(self._waits)]] = False

    def take(self, slots: Slots) -> ComputedActions | None:
        """Return and forget what is kept of episodes, in the order of their slots in `slots`; None if that is nothing."""
        slots = slots[slots < len(self._waits)]
        slots = slots[self._waits[slots]]
        if not slots.size:
            return None
        self._waits[slots] = False
        keys, steps, actions, versions = (column[slots] for column in self._columns)
        return ComputedActions(slots, DrawKeys(keys, steps), actions, versions)


def _grown(column: Array, rows: int) -> Array:
    """Return a longer column that begins with what one holds, zeros behind it."""
    return np.concatenate([column, np.zeros((rows - len(column), *column.shape[1:]), column.dtype)])
