"""A target position in steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from annotated_types import Interval

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
    numbers_of,
    rebalance,
)


@dataclass(frozen=True, slots=True)
class TargetPosition(ActionScheme):
    """Discrete(2 steps + 1): from short all, by equal steps, over flat to long all; of a single symbol.

    A position keeps its number of shares until another step is wanted.
    """

    steps: Annotated[int, Interval(ge=1, le=100)] = 2
    """Steps on each side: 2 makes -1, -1/2, 0, 1/2 and 1."""
    unit_fraction: Annotated[float, Interval(gt=0, le=1e3)] = 1.0
    """Notional of the furthest step as a fraction of the equity when it is ordered."""
    order: OrderName = "market"
    """market: filled at the next open, what the volume leaves over at later ones; on_open, on_close: at the next open, or close, alone."""

    def space(self, symbols: tuple[str, ...]) -> gym.spaces.Discrete[np.int64]:
        """See `ActionScheme`."""
        return gym.spaces.Discrete(2 * self.steps + 1)

    def new_state(self, shape: Shape) -> IntArray:
        """Return the step held or ordered last, int64 (n,)."""
        return np.zeros(shape.n_rows, dtype=np.int64)

    def begin(self, state: IntArray, view: View, rows: Rows) -> None:
        """See `Scheme`."""
        state[rows] = 0

    def orders(self, state: IntArray, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """See `ActionScheme`."""
        wanted = numbers_of(actions, 2 * self.steps + 1) - self.steps
        changes = (wanted != state.take(rows)).nonzero()[0]
        if not len(changes):
            return []
        rows, wanted = rows.take(changes), wanted.take(changes)
        state[rows] = wanted
        accounts = view.accounts
        target = wanted / self.steps * self.unit_fraction * accounts.equity[rows] / accounts.price[rows, 0]
        return rebalance(view, rows, target[:, None], self.order)

    def refused(self, state: IntArray, view: View, rows: IntArray) -> None:
        """See `ActionScheme`. The step is the one nearest to the position, so that the same action asks for the order again.

        While anything is held it is not flat: flat is to be asked for again, too.
        """
        held = view.accounts.exposure(rows)[:, 0] / self.unit_fraction
        step = np.rint(np.clip(held, -1.0, 1.0) * self.steps)
        state[rows] = np.where(step == 0, np.sign(held), step)

    def most_symbols(self) -> int:
        """See `ActionScheme`."""
        return 1

    def largest_exposure(self) -> float:
        """See `ActionScheme`."""
        return self.unit_fraction

    def keeping(self, state: IntArray, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return state[rows] + self.steps

    def closing(self, state: IntArray, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return np.full(len(rows), self.steps)

    def label(self, action: Any) -> str:
        """See `ActionScheme`. The target as a part of the furthest step."""
        return f"{int(action) / self.steps - 1:+.3g}"
