"""What an observer is: a function from what is known at a bar's close to a block of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from policyserver.pipelines.market.bars import FloatArray
from policyserver.pipelines.market.rows import Rows
from policyserver.pipelines.market.schemes.scheme import Scheme, Shape, View

LIMIT = 100.0
"""Bound of every number that an observer does not bound otherwise; what lies beyond is clipped."""


class Observer(Scheme):
    """A named block of an observation."""

    __slots__ = ()

    def names(self, symbols: tuple[str, ...]) -> tuple[str, ...]:
        """Return what each of its numbers is called, in their order, as "symbol.what" or "what"."""
        raise NotImplementedError

    def space(self, symbols: tuple[str, ...]) -> Box:
        """Return the space of its block, one-dimensional unless it says otherwise."""
        return Box(-LIMIT, LIMIT, (len(self.names(symbols)),), np.float32)

    def observe(self, state: Any, view: View, rows: Rows) -> FloatArray:
        """Return its numbers as of the last bar, float64 (m, ...) with the space's shape; they are clipped to its bounds."""
        raise NotImplementedError


def of_each(symbols: tuple[str, ...], whats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of `whats` for each symbol; of one symbol alone without its name."""
    return whats if len(symbols) == 1 else tuple(f"{symbol}.{what}" for symbol in symbols for what in whats)


def by_symbol(*columns: FloatArray) -> FloatArray:
    """Return columns of float64 (m, K) as one block (m, K * len(columns)), symbol by symbol, in the order of `of_each`."""
    if len(columns) == 1:
        return columns[0]
    if columns[0].shape[1] == 1:
        return np.concatenate(columns, axis=1)
    block = np.stack(columns, axis=-1)
    return block.reshape(len(block), -1)


__all__ = ["LIMIT", "Observer", "Shape", "View", "by_symbol", "of_each"]
