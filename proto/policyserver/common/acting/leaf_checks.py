"""Checks of whole columns: which rows lie outside of their space."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.errors import InvalidInputError
from policyserver.common.spaces import Array, Leaf, bounds, leaves

Mask = npt.NDArray[np.bool_]
_NONE = np.empty(0, np.int64)


class LeafCheck:
    """Check arrays of one leaf of a space."""

    def __init__(self, leaf: Leaf, reason: str, field: str) -> None:
        """Prepare the check; `reason` is the protocol's word for what it finds, `field` the message's name of the column."""
        self._leaf = leaf
        self._reason = reason
        self._field = field
        low, high = self._declared_bounds = bounds(leaf.space)
        # What is compared: bounds of the leaf's own dtype, as one number where they are the same everywhere. Between the largest finite
        # floats there is no infinity, and nothing compares to NaN.
        lowest, highest = _limits(leaf.dtype)
        self._low: Any = np.maximum(low, lowest).astype(leaf.dtype)
        self._high: Any = np.minimum(high, highest).astype(leaf.dtype)
        self._is_always_inside = leaf.dtype.kind != "f" and bool((self._low == lowest).all() and (self._high == highest).all())
        self._is_uniform = low.size > 0 and bool((low == low.flat[0]).all() and (high == high.flat[0]).all())
        if self._is_uniform:
            self._low, self._high = self._low.flat[0], self._high.flat[0]

    def column(self, array: Array, rows: int) -> InvalidInputError | None:
        """Say what is wrong with a column's shape or dtype, if anything is."""
        expected = (rows, *self._leaf.shape)
        if array.shape == expected and array.dtype == self._leaf.dtype:
            return None
        return self._error(
            f"expected {self._leaf.dtype}{list(self._leaf.shape)} for each of {rows} rows, "
            f"received {array.dtype}{list(array.shape[1:])} for {array.shape[0] if array.ndim else 'no'} rows"
        )

    def bad_rows(self, array: Array) -> npt.NDArray[np.int64]:
        """Return the rows that are not finite or lie outside the space."""
        if self._is_always_inside or not array.size:
            return _NONE
        if self._is_uniform and self._low <= np.minimum.reduce(array, axis=None) and np.maximum.reduce(array, axis=None) <= self._high:
            return _NONE
        inside = self._inside(array)
        return np.flatnonzero(~inside.reshape(len(array), -1).all(axis=1))

    def value_error(self, value: Array) -> InvalidInputError:
        """Say why one row's value is refused."""
        where = tuple(np.argwhere(~self._inside(value))[0].tolist())
        low, high = (np.broadcast_to(bound, value.shape)[where] for bound in self._declared_bounds)
        index = f" at [{', '.join(map(str, where))}]" if where else ""
        return self._error(f"expected finite values from {low} to {high}, received {value[where]}{index}")

    def _inside(self, array: Array) -> Mask:
        inside: Mask = (array >= self._low) & (array <= self._high)
        return inside

    def _error(self, text: str) -> InvalidInputError:
        return InvalidInputError(f"{self._leaf.path}: {text}", reason=self._reason, field=self._field)


def leaf_checks(space: gym.Space[Any], name: str) -> list[LeafCheck]:
    """Make the checks of a space's columns; `name` is "observation" or "action"."""
    return [LeafCheck(leaf, f"BAD_{name.upper()}", f"{name}s[{index}]") for index, leaf in enumerate(leaves(space, name))]


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the least and the greatest finite number of a dtype."""
    if dtype.kind == "b":
        return False, True
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return limits.min, limits.max
