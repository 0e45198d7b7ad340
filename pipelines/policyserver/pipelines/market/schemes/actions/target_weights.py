"""Targets as parts of the equity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from annotated_types import Interval

from policyserver.pipelines.market.bars import FloatArray, IntArray
from policyserver.pipelines.market.orders import OrderRequests
from policyserver.pipelines.market.schemes.actions.action_scheme import (
    Actions,
    ActionScheme,
    OrderName,
    View,
    Withdrawal,
    bounded,
    rebalance,
    shortened,
)


def _rebalance(view: View, rows: IntArray, weights: FloatArray, tolerance: float, order: OrderName) -> list[OrderRequests | Withdrawal]:
    """Return the orders that bring positions to weights, float64 (m, K), those within the tolerance of theirs apart."""
    accounts = view.accounts
    equity = np.maximum(accounts.equity[rows], 0.0)[:, None]
    wanted = weights * equity / accounts.price[rows]
    near = np.abs(weights - accounts.exposure(rows)) <= tolerance
    targets = np.where(near, accounts.position[rows], wanted)
    waiting = view.live_orders.waiting(rows)
    if waiting is not None:  # what will be within the tolerance is left alone, too
        expected = accounts.position[rows] + waiting
        near = (waiting != 0.0) & (np.abs(wanted - expected) * accounts.price[rows] <= tolerance * equity)
        targets = np.where(near, expected, targets)
    return rebalance(view, rows, targets, order)


@dataclass(frozen=True, slots=True)
class TargetWeight(ActionScheme):
    """Box(-1, 1, (K,)): the value of each position as a part of the equity, at the next open; 0 is flat."""

    largest: Annotated[float, Interval(gt=0, le=1e3)] = 1.0
    """Part of the equity that an action of 1 stands for; of several symbols, that of all together."""
    tolerance: Annotated[float, Interval(ge=0, le=1)] = 0.02
    """Distance from its target, as a part of the equity, up to which a position is left alone."""
    order: OrderName = "market"
    """market: filled at the next open, what the volume leaves over at later ones; on_open, on_close: at the next open, or close, alone."""

    def space(self, symbols: tuple[str, ...]) -> gym.spaces.Box:
        """See `ActionScheme`."""
        return gym.spaces.Box(-1.0, 1.0, (len(symbols),), np.float32)

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """See `ActionScheme`."""
        weights = bounded(actions) * (self.largest / view.shape.n_symbols)
        return _rebalance(view, rows, weights, self.tolerance, self.order)

    def largest_exposure(self) -> float:
        """See `ActionScheme`."""
        return self.largest

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        weights = view.accounts.exposure(rows) * (view.shape.n_symbols / self.largest)
        return np.clip(weights, -1.0, 1.0).astype(np.float32)

    def closing(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`."""
        return np.zeros((len(rows), view.shape.n_symbols), dtype=np.float32)

    def label(self, action: Any) -> str:
        """See `ActionScheme`. The parts of the equity that are wanted."""
        return self.labels(np.asarray(action)[None])[0] if np.ndim(action) == 1 else ActionScheme.label(self, action)

    def labels(self, actions: Actions) -> list[str]:
        """See `ActionScheme`."""
        if actions.ndim != 2:  # of a scheme that is derived from this one
            return ActionScheme.labels(self, actions)
        weights = bounded(actions) * (100.0 * self.largest / actions.shape[1])
        return [shortened(" ".join([f"{weight:+d}%" for weight in row])) for row in np.rint(weights).astype(np.int64).tolist()]


@dataclass(frozen=True, slots=True)
class SimplexWeights(ActionScheme):
    """Box(-1, 1, (K + 1,)): scores of cash and of each symbol; their softmax are the parts of the equity, none of them short.

    A policy whose actions lie on the simplex would need a distribution of its own; a softmax of scores lets every algorithm play.
    """

    sharpness: Annotated[float, Interval(gt=0, le=100)] = 4.0
    """What a score is multiplied by: 4 lets one symbol have up to e**8 times another's part."""
    tolerance: Annotated[float, Interval(ge=0, le=1)] = 0.02
    """Distance from its target, as a part of the equity, up to which a position is left alone."""
    order: OrderName = "market"
    """market: filled at the next open, what the volume leaves over at later ones; on_open, on_close: at the next open, or close, alone."""

    def space(self, symbols: tuple[str, ...]) -> gym.spaces.Box:
        """See `ActionScheme`."""
        return gym.spaces.Box(-1.0, 1.0, (len(symbols) + 1,), np.float32)

    def orders(self, state: Any, view: View, rows: IntArray, actions: Actions) -> Sequence[OrderRequests | Withdrawal]:
        """See `ActionScheme`."""
        return _rebalance(view, rows, self._weights(actions)[:, 1:], self.tolerance, self.order)

    def keeping(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`. The scores of the parts that there are, as near as the space allows."""
        held = np.clip(view.accounts.exposure(rows), 0.0, 1.0)
        return self._scores(np.concatenate([np.maximum(1.0 - held.sum(axis=1, keepdims=True), 0.0), held], axis=1))

    def closing(self, state: Any, view: View, rows: IntArray) -> Actions:
        """See `ActionScheme`. All cash, as near as the space allows."""
        scores = np.full((len(rows), view.shape.n_symbols + 1), -1.0, dtype=np.float32)
        scores[:, 0] = 1.0
        return scores

    def label(self, action: Any) -> str:
        """See `ActionScheme`. The parts of the equity that are wanted, that of cash first."""
        return self.labels(np.asarray(action)[None])[0] if np.ndim(action) == 1 else ActionScheme.label(self, action)

    def labels(self, actions: Actions) -> list[str]:
        """See `ActionScheme`."""
        if actions.ndim != 2:  # of a scheme that is derived from this one
            return ActionScheme.labels(self, actions)
        parts = np.rint(100.0 * self._weights(actions)).astype(np.int64).tolist()
        return [shortened("cash " + " ".join([f"{part}%" for part in row])) for row in parts]

    def _weights(self, actions: Actions) -> FloatArray:
        scores = np.exp(self.sharpness * bounded(actions))
        weights: FloatArray = scores / scores.sum(axis=1, keepdims=True)
        return weights

    def _scores(self, weights: FloatArray) -> Actions:
        logs = np.log(np.maximum(weights, np.exp(-2.0 * self.sharpness)))
        scores: FloatArray = (logs - logs.max(axis=1, keepdims=True)) / self.sharpness + 1.0
        return np.clip(scores, -1.0, 1.0).astype(np.float32)
