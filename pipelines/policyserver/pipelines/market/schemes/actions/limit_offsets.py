"""Limit orders at a distance from the last close, with a stop behind a position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Interval

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.orders import GOOD_TILL_CANCELLED, OrderKind, OrderRequests
from policyserver.pipelines.market.running_statistics import Statistic, Volatility
from policyserver.pipelines.market.schemes.actions.action_scheme import Actions, ActionScheme, View, bounded, filled


@dataclass(frozen=True, slots=True)
class LimitOffsets(ActionScheme):
    """Box(-1, 1, (3,)): target weight, limit offset, stop offset; of a single symbol.

    The orders before are cancelled. A limit order leads to the target: the offset, from -1 to 1, is how much better than the last close
    its price is, in units of `reach` volatilities; below 0 it is worse, so that it fills at once where that is more than half the spread.
    A stop closes the position that there is, or what a limit has left of it: it is reduce-only, so it never opens one, and is cancelled
    with it. An offset of -1 sets no stop, 1 sets one at `reach` volatilities.
    """

    largest: Annotated[float, Interval(gt=0, le=1e3)] = 1.0
    """Part of the equity that a target of 1 stands for."""
    reach: Annotated[float, Interval(gt=0, le=100)] = 2.0
    """Furthest offset, in volatilities of a bar."""
    tolerance: Annotated[float, Interval(ge=0, le=1)] = 0.05
    """Distance from the target, as a part of the equity, up to which no limit order is given."""
    good_for: Annotated[int, Ge(1)] = 5
    """Bars after which a limit order expires, if no other action came before."""
    volatility_bars: Annotated[int, Ge(1)] = 32
    """Returns that the volatility remembers."""

    def statistics(self) -> tuple[Statistic, ...]:
        """See `Scheme`."""
        return (Volatility(self.volatility_bars),)

    def bind(self, view: View) -> FloatArray:
        """Return the volatilities, float64 (n, K)."""
        return view.statistics[Volatility(self.volatility_bars)]

    def space(self, symbols: tuple[str, ...]) -> gym.spaces.Box:
        """See `ActionScheme`."""
        return gym.spaces.Box(-1.0, 1.0, (3,), np.float32)

    def cancels(self, state: Any, view: View, rows: IntArray, actions: Actions) -> npt.NDArray[np.bool_]:
        """See `ActionScheme`."""
        return np.ones(len(rows), dtype=np.bool_)

    def orders(self, state: FloatArray, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests]:
        """See `ActionScheme`."""
        target, better, stop = bounded(actions).T
        accounts = view.accounts
        price, position = accounts.price[rows, 0], accounts.position[rows, 0]
        reach = self.reach * state[rows, 0]
        quantity = target * self.largest * np.maximum(accounts.equity[rows], 0.0) / price - position
        far = np.abs(target * self.largest - accounts.exposure(rows)[:, 0]) > self.tolerance
        limit = price * np.exp(-np.sign(quantity) * better * reach)
        behind = price * np.exp(-np.sign(position) * (stop + 1.0) / 2.0 * reach)
        return [
            _orders(rows, OrderKind.LIMIT, quantity, limit, self.good_for, far & (quantity != 0)),
            _orders(rows, OrderKind.STOP, -position, behind, GOOD_TILL_CANCELLED, (position != 0) & (stop > -1.0), reduce_only=True),
        ]

    def most_symbols(self) -> int:
        """See `ActionScheme`."""
        return 1

    def largest_exposure(self) -> float:
        """See `ActionScheme`."""
        return self.largest

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`. The weight that there is, without a stop."""
        held = np.clip(view.accounts.exposure(rows)[:, 0] / self.largest, -1.0, 1.0)
        return np.stack([held, np.zeros_like(held), np.full_like(held, -1.0)], axis=1).astype(np.float32)

    def closing(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`. Flat, at a price that fills at once."""
        return np.tile(np.array([0.0, -1.0, -1.0], dtype=np.float32), (len(rows), 1))

    def label(self, action: Any) -> str:
        """See `ActionScheme`. Target as a part of the equity, then the offsets in volatilities."""
        return self.labels(np.asarray(action)[None])[0] if np.ndim(action) == 1 else ActionScheme.label(self, action)

    def labels(self, actions: Actions) -> list[str]:
        """See `ActionScheme`."""
        if actions.ndim != 2:  # of a scheme that is derived from this one
            return ActionScheme.labels(self, actions)
        target, better, stop = bounded(actions).T
        parts = zip(
            (target * self.largest).tolist(), (better * self.reach).tolist(), ((stop + 1.0) / 2.0 * self.reach).tolist(), strict=True
        )
        return [f"{aim:+.0%} limit {limit:+.1f} stop {f'{behind:.1f}' if behind > 0 else 'none'}" for aim, limit, behind in parts]


def _orders(
    rows: IntArray,
    kind: OrderKind,
    quantity: FloatArray,
    price: FloatArray,
    good_for: int,
    wanted: npt.NDArray[np.bool_],
    *,
    reduce_only: bool = False,
) -> OrderRequests:
    places = wanted.nonzero()[0]
    count = len(places)
    if count < len(rows):
        rows, quantity, price = rows.take(places), quantity.take(places), price.take(places)
    reduces = np.ones(count, dtype=np.bool_) if reduce_only else None
    return OrderRequests(rows, np.zeros(count, dtype=np.int64), filled(count, int(kind)), quantity, price, filled(count, good_for), reduces)
