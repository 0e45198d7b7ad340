"""Sell, hold, buy: one unit short or one unit long of a single symbol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from gymnasium.spaces import Discrete

from policyserver.monitoring.action import Action
from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.orders import OrderRequests
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.actions.action_scheme import (
    Actions,
    ActionScheme,
    OrderName,
    Shape,
    View,
    Withdrawal,
    filled,
    numbers_of,
    rebalance,
)

_COUNT, _HOLD = len(Action), int(Action.HOLD)


@dataclass(frozen=True, slots=True)
class SellHoldBuy(ActionScheme):
    """Discrete(3): 0 be short one unit, 1 keep what there is, 2 be long one unit; filled at the next open.

    A unit is worth a fraction of the equity when it is ordered, and keeps its number of shares until the direction changes.
    """

    unit_fraction: Annotated[float, Interval(gt=0, le=1e3)] = 1.0
    """Notional of one unit as a fraction of the equity when it is ordered."""
    order: OrderName = "market"
    """market: filled at the next open, what the volume leaves over at later ones; on_open, on_close: at the next open, or close, alone."""

    def space(self, symbols: tuple[str, ...]) -> Discrete[np.int64]:
        """See `ActionScheme`."""
        return Discrete(len(Action))

    def new_state(self, shape: Shape) -> IntArray:
        """Return the direction held or ordered last, -1, 0 or 1, int64 (n,)."""
        return np.zeros(shape.n_rows, dtype=np.int64)

    def begin(self, state: IntArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state[rows] = 0

    def orders(self, state: IntArray, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """See `ActionScheme`."""
        wanted = numbers_of(actions, _COUNT) - _HOLD
        changes = ((wanted != state.take(rows)) & (wanted != 0)).nonzero()[0]
        if not len(changes):
            return []
        rows, wanted = rows.take(changes), wanted.take(changes)
        state[rows] = wanted
        accounts = view.accounts
        units = wanted * self.unit_fraction * accounts.equity.take(rows) / accounts.price[:, 0].take(rows)
        return rebalance(view, rows, units[:, None], self.order)

    def refused(self, state: IntArray, view: View, rows: IntArray) -> None:
        """See `ActionScheme`. The direction is that of the position, so that the same action asks for the order again."""
        state[rows] = np.sign(view.accounts.position[rows, 0])

    def most_symbols(self) -> int:
        """See `ActionScheme`."""
        return 1

    def largest_exposure(self) -> float:
        """See `ActionScheme`."""
        return self.unit_fraction

    def keeping(self, state: IntArray, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return filled(len(rows), _HOLD)

    def closing(self, state: IntArray, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`. The action that trades in the direction in which a position is closed."""
        direction: IntArray = np.sign(view.accounts.position[rows, 0]).astype(np.int64)
        return int(Action.HOLD) - direction

    def label(self, action: Any) -> str:
        """See `ActionScheme`."""
        return Action(int(action)).label
