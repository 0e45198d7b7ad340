"""What an action scheme is: the space of the actions, and the orders that an action asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, OrderKind, OrderRequests, Withdrawal
from policyserver.pipelines.market.schemes.scheme import Scheme, Shape, View

Actions = npt.NDArray[Any]
"""Actions of m rows, with the space's shape and dtype after the first axis."""


class ActionScheme(Scheme):
    """The meaning of an action. What a row aims at is in the scheme's state; what it holds is in its account."""

    __slots__ = ()

    def space(self, symbols: tuple[str, ...]) -> gym.Space[Any]:
        """Return the space of an action."""
        raise NotImplementedError

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """Return the orders that actions ask for at the bar's close, in the order in which they are submitted.

        An order of before may still wait for a bar of its symbol, or for volume. A scheme that orders the distance of a position from a
        target withdraws it first, as `rebalance` does; else both fill.

        Args:
            state: The scheme's.
            view: The block.
            rows: The rows that act, int64 (m,).
            actions: Their actions.
        """
        raise NotImplementedError

    def cancels(self, state: Any, view: View, rows: IntArray, actions: Actions) -> npt.NDArray[np.bool_]:
        """Return the rows whose live orders are cancelled before the new ones are submitted, bool (m,); by default no row's."""
        return np.zeros(len(rows), dtype=np.bool_)

    def refused(self, state: Any, view: View, rows: IntArray) -> None:
        """Take note of rows of which an order came to nothing: what they aim at is not on its way. By default nothing is done.

        It was refused; or, at the mark of the bar, it expired or was cut; or a margin call has closed the positions.
        """

    def most_symbols(self) -> int | None:
        """Return how many symbols an episode may trade at once; None: any number."""
        return None

    def largest_exposure(self) -> float:
        """Return the gross exposure that an action may ask for at most, as a multiple of the equity; beyond 1 it takes leverage."""
        return 1.0

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        """Return the actions nearest to changing nothing: what a step is reported as that gave no order; it is not played."""
        raise NotImplementedError

    def closing(self, state: Any, view: View, rows: IntArray) -> Actions:
        """Return the actions nearest to closing all positions: what that is reported as."""
        raise NotImplementedError

    def label(self, action: Any) -> str:
        """Return what one action is called where it is shown: by default its numbers."""
        numbers = np.asarray(action)
        form = "d" if numbers.dtype.kind in "iu" else "+.1f"
        return " ".join(format(number, form) for number in numbers.ravel().tolist())

    def labels(self, actions: Actions) -> list[str]:
        """Return what actions are called, (m, ...), in `MOST_LABEL_LETTERS` at most; of equal ones one is asked."""
        known: dict[Any, str] = {}
        keys = actions.tolist() if actions.ndim == 1 else [action.tobytes() for action in actions]
        for key, action in zip(keys, actions, strict=True):
            if key not in known:
                known[key] = shortened(self.label(action))
        return [known[key] for key in keys]


def numbers_of(actions: Actions, count: int) -> IntArray:
    """Return actions of Discrete(count), or of several, as int64.

    Raises:
        ValueError: An action is another number.
    """
    numbers = actions.astype(np.int64)
    wrong = numbers.view(np.uint64) >= count  # a negative number is far above
    if np.count_nonzero(wrong):
        raise ValueError(f"actions: expected numbers from 0 to {count - 1}, received {numbers[wrong][0]}")
    return numbers


def bounded(actions: Actions) -> FloatArray:
    """Return actions as float64 between -1 and 1, the nearest there is; what is no number counts as 0."""
    values = actions.astype(np.float64)
    unknown = np.isnan(values)
    if np.count_nonzero(unknown):
        values[unknown] = 0.0
    np.maximum(values, -1.0, out=values)
    return np.minimum(values, 1.0, out=values)


def shortened(label: str) -> str:
    """Return a label in `MOST_LABEL_LETTERS` at most."""
    return label if len(label) <= MOST_LABEL_LETTERS else f"{label[: MOST_LABEL_LETTERS - 1]}…"


MOST_LABEL_LETTERS = 64
"""Longest text of an action that is recorded: of more symbols the first are shown."""

OrderName = Literal["market", "on_open", "on_close"]
"""Orders without a price: see `OrderKind`."""
_KINDS: dict[str, int] = {kind.name.lower(): int(kind) for kind in OrderKind}


def market_orders(rows: IntArray, symbol: int, quantity: FloatArray, order: OrderName = "market") -> OrderRequests:
    """Return orders of one symbol for the rows whose quantity is not 0."""
    wanted = quantity.nonzero()[0]
    if len(wanted) < len(rows):
        rows, quantity = rows.take(wanted), quantity.take(wanted)
    return market_orders_of(rows, filled(len(rows), symbol), quantity, order)


def market_orders_of(rows: IntArray, symbol: IntArray, quantity: FloatArray, order: OrderName = "market") -> OrderRequests:
    """Return orders without a price, market orders good until they are filled."""
    count = len(rows)
    return OrderRequests(rows, symbol, filled(count, _KINDS[order]), quantity, np.zeros(count), filled(count, GOOD_TILL_CANCELLED))


def filled(count: int, value: int) -> IntArray:
    """Return a column of one number, int64 (count,), at a quarter of what `numpy.full` costs for a short one."""
    column = np.empty(count, dtype=np.int64)
    column.fill(value)
    return column


def expected_positions(view: View, rows: IntArray) -> FloatArray:
    """Return the positions once all that waits to be filled at any price has been, float64 (m, K): as targets they change nothing."""
    waiting = view.live_orders.waiting(rows)
    position: FloatArray = view.accounts.position[rows]
    return position if waiting is None else position + waiting


def committed_positions(view: View, rows: IntArray) -> FloatArray:
    """Return the positions once what can't be withdrawn has been filled, float64 (m, K): what new orders begin from."""
    committed = view.live_orders.committed(rows)
    position: FloatArray = view.accounts.position[rows]
    return position if committed is None else position + committed


def is_expected(targets: FloatArray | float, position: FloatArray, waiting: FloatArray) -> npt.NDArray[np.bool_]:
    """Return where positions are at their targets, or what waits leads them there, but for rounding."""
    size = np.maximum(np.abs(position), np.abs(waiting))
    leads: npt.NDArray[np.bool_] = np.abs(targets - (position + waiting)) <= _ROUNDING * size
    return np.where(waiting == 0.0, targets == position, leads)  # what other rows wait for makes no difference


_ROUNDING = 1e-9


def rebalance(view: View, rows: IntArray, targets: FloatArray, order: OrderName = "market") -> list[OrderRequests | Withdrawal]:
    """Return orders that lead from the positions to targets, those that free money first, in place of what waits to be filled at any price.

    Where what waits leads to the target already, it goes on waiting, and nothing is ordered.

    Args:
        view: The block.
        rows: The rows, int64 (m,).
        targets: Units wanted of each symbol, float64 (m, K); `expected_positions` changes nothing.
        order: How they fill.
    """
    position = view.accounts.position[rows]
    quantity = targets - committed_positions(view, rows)
    requests: list[OrderRequests | Withdrawal] = []
    waiting = view.live_orders.waiting(rows)
    if waiting is not None:
        expected = is_expected(targets, position, waiting)
        quantity[expected] = 0.0
        requests.append(Withdrawal(rows, ~expected))
    if quantity.shape[1] == 1:
        return [*requests, market_orders(rows, 0, quantity[:, 0], order)]
    if not np.count_nonzero(quantity):
        return requests
    smaller = np.abs(targets) < np.abs(position)
    places = np.argsort(~smaller, axis=1, kind="stable")
    ordered = quantity.take(places + quantity.shape[1] * np.arange(len(rows))[:, None])
    for wanted, symbol in zip(ordered.T, places.T, strict=True):
        some = wanted.nonzero()[0]
        if len(some):
            requests.append(market_orders_of(rows.take(some), symbol.take(some), wanted.take(some), order))
    return requests


__all__ = [
    "ActionScheme",
    "Actions",
    "Shape",
    "View",
    "Withdrawal",
    "bounded",
    "committed_positions",
    "expected_positions",
    "filled",
    "is_expected",
    "market_orders",
    "market_orders_of",
    "numbers_of",
    "rebalance",
]
