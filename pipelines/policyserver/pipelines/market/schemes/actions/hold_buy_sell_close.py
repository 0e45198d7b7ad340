"""Hold, buy, sell or close each symbol, in orders of a fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import IntArray
from policyserver.pipelines.market.orders import OrderRequests
from policyserver.pipelines.market.schemes.actions.action_scheme import (
    Actions,
    ActionScheme,
    OrderName,
    View,
    Withdrawal,
    committed_positions,
    is_expected,
    market_orders,
    numbers_of,
)


class Move(IntEnum):
    """What is done with a symbol."""

    HOLD = 0
    BUY = 1
    SELL = 2
    CLOSE = 3


@dataclass(frozen=True, slots=True)
class HoldBuySellClose(ActionScheme):
    """Discrete(4), of several symbols MultiDiscrete: 0 hold, 1 buy a unit more, 2 sell a unit more, 3 close the position."""

    unit_fraction: Annotated[float, Interval(gt=0, le=1e3)] = 0.25
    """Notional of one order as a fraction of the equity when it is ordered."""
    order: OrderName = "market"
    """market: filled at the next open, what the volume leaves over at later ones; on_open, on_close: at the next open, or close, alone."""

    def space(self, symbols: tuple[str, ...]) -> gym.Space[Any]:
        """See `ActionScheme`."""
        return gym.spaces.Discrete(len(Move)) if len(symbols) == 1 else gym.spaces.MultiDiscrete([len(Move)] * len(symbols))

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """See `ActionScheme`. Positions that are closed come first, in place of what waits of their symbols; each unit is one more."""
        moves = numbers_of(actions, len(Move)).reshape(len(rows), view.shape.n_symbols)
        accounts = view.accounts
        position = accounts.position[rows]
        unit = self.unit_fraction * accounts.equity[rows][:, None] / accounts.price[rows]
        closes, withdrawal = moves == Move.CLOSE, None
        waiting = view.live_orders.waiting(rows)
        if waiting is not None:
            closes &= ~is_expected(0.0, position, waiting)
            withdrawal = Withdrawal(rows, closes)
        closing = np.where(closes, -committed_positions(view, rows), 0.0)
        opening = np.where(moves == Move.BUY, unit, np.where(moves == Move.SELL, -unit, 0.0))
        orders = [market_orders(rows, k, quantity[:, k], self.order) for quantity in (closing, opening) for k in range(moves.shape[1])]
        return orders if withdrawal is None else [withdrawal, *orders]

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return self._all(view, rows, Move.HOLD)

    def closing(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return self._all(view, rows, Move.CLOSE)

    def label(self, action: Any) -> str:
        """See `ActionScheme`."""
        return " ".join(Move(number).name.lower() for number in np.ravel(action).tolist())

    @staticmethod
    def _all(view: View, rows: IntArray, move: Move) -> Actions:
        shape = (len(rows),) if view.shape.n_symbols == 1 else (len(rows), view.shape.n_symbols)
        return np.full(shape, int(move))
