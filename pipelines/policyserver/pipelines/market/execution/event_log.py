"""What a broker tells of a step, gathered as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.orders import Fills, OrderEvents, Reason, State

_PartT = TypeVar("_PartT", Fills, OrderEvents)

_NO_FILLS = Fills(*(np.zeros(0, dtype=np.int64),) * 3, *(np.zeros(0),) * 4)
_NO_EVENTS = OrderEvents(*(np.zeros(0, dtype=np.int64),) * 4)


class EventLog:
    """Fills and order events since they were last taken."""

    def __init__(self) -> None:
        """Start empty."""
        self._fills: list[Fills] = []
        self._events: list[OrderEvents] = []

    def add_fills(self, fills: Fills) -> None:
        """Add fills."""
        self._fills.append(fills)

    def add(self, rows: IntArray, numbers: IntArray | FloatArray, state: State, reason: Reason | IntArray = Reason.NONE) -> None:
        """Add what became of orders."""
        if len(rows):
            count = len(rows)
            reasons = reason if isinstance(reason, np.ndarray) else np.full(count, int(reason))
            self._events.append(OrderEvents(rows, numbers.astype(np.int64), np.full(count, int(state)), reasons))

    def take_fills(self) -> Fills:
        """Return the fills and forget them."""
        taken, self._fills = self._fills, []
        return _joined(taken, _NO_FILLS)

    def take_events(self) -> OrderEvents:
        """Return the order events and forget them."""
        taken, self._events = self._events, []
        return _joined(taken, _NO_EVENTS)


def _joined(parts: Sequence[_PartT], nothing: _PartT) -> _PartT:
    if len(parts) <= 1:
        return parts[0] if parts else nothing
    return type(nothing)(*(np.concatenate([getattr(part, name) for part in parts]) for name in nothing.__slots__))
