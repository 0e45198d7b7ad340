"""Checks of whole columns: which rows break the rules of the protocol or of the spaces."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.common.errors import InvalidInputError
from policyserver.common.flags import StepFlag, describe_flags
from policyserver.common.rewards import REWARD_MAX
from policyserver.common.spaces import Array, Leaf, bounds, leaves
from policyserver.server.episodes.masks import Mask, all_true, any_true

MOST_ID_BYTES = 256
"""Bytes of an episode's or a client's id in UTF-8: the server keeps ids, of finished episodes too."""
_NONE = np.empty(0, np.int64)
_WIDE_BYTES = 256  # from here on Python's own hash of a row is the faster one
_FACTORS = np.random.default_rng(0).integers(0, 2**63, _WIDE_BYTES // 4, np.uint64) * np.uint64(2) + np.uint64(1)
_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)
_END, _DISABLED = int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)
_TERMINATED = int(StepFlag.TERMINATED)
_NO_WAIT = int(StepFlag.NO_WAIT)
_ALL = _START | _GIVEN | _OVERRIDE | _END | _DISABLED | _NO_WAIT


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


def bad_headers(flags: Array, sequences: Array, rewards: Array) -> dict[int, InvalidInputError]:
    """Find rows whose flags contradict each other, whose reward is no float32, or which start anywhere but at the beginning."""
    sound = np.abs(rewards) <= REWARD_MAX
    if all_true(sound) and not any_true(flags & ~np.uint8(_TERMINATED | _NO_WAIT) != 0):
        return {}  # nothing but plain steps and ends, as most batches are
    start, given, end = flags & _START != 0, flags & _GIVEN != 0, flags & _END
    contradictory = (end == _END) | (given & (end != 0)) | ((flags & _OVERRIDE != 0) & ~given) | (flags & ~np.uint8(_ALL) != 0)
    contradictory |= (flags & _DISABLED != 0) & ~start
    errors: dict[int, InvalidInputError] = {}
    for row in np.flatnonzero(~sound).tolist():
        errors[row] = InvalidInputError(
            f"rewards: expected a finite number of at most {REWARD_MAX:.2g}, received {rewards[row]}", reason="BAD_REWARD", field="rewards"
        )
    for row in np.flatnonzero(start & (rewards != 0.0)).tolist():
        errors[row] = InvalidInputError(
            f"rewards: expected 0 in a START row, for no action came before it, received {rewards[row]}",
            reason="BAD_REWARD", field="rewards",
        )  # fmt: skip
    for row in np.flatnonzero(start & (sequences != 0)).tolist():
        errors[row] = InvalidInputError(f"sequences: expected 0 in a START row, received {sequences[row]}", field="sequences")
    for row in np.flatnonzero(contradictory).tolist():
        errors[row] = InvalidInputError(
            f"flags: expected a combination that policy_service.proto allows, received {describe_flags(int(flags[row]))}", field="flags"
        )
    return errors


def content_hashes(observations: list[Array], flags: Array, rewards: Array, given: Array, given_actions: list[Array]) -> Array:
    """Hash what each row says, uint64[n], so that a repeated number can be told from a changed one.

    Args:
        observations: One array per leaf, [n, ...].
        flags: uint8[n].
        rewards: float64[n].
        given: Rows with a given action, indices.
        given_actions: Their actions, one array per leaf.
    """
    hashes = _row_hashes([rewards, flags, *observations])
    if given.size:
        hashes[given] += _row_hashes(given_actions) * _FACTORS[-1]  # so that a change here makes up for none in the row
    return hashes


def _row_hashes(columns: list[Array]) -> Array:
    """Hash the bytes of each row, uint64[n]. Equal rows hash equally for the life of the process, whatever stands beside them."""
    rows = len(columns[0])
    parts = [np.ascontiguousarray(column).reshape(rows, math.prod(column.shape[1:])).view(np.uint8) for column in columns]
    width = sum(part.shape[1] for part in parts)
    if width > _WIDE_BYTES:
        data = np.concatenate(parts, axis=1).tobytes()
        return np.array([hash(data[first : first + width]) for first in range(0, len(data), width)], np.int64).view(np.uint64)
    if missing := -width % 4:
        parts.append(np.zeros((rows, missing), np.uint8))
    # Multilinear hashing: two rows of 32-bit words meet by chance once in 2**32 choices of the 64-bit factors, or less.
    words = np.concatenate(parts, axis=1).view(np.uint32)
    hashes: Array = words @ _FACTORS[: words.shape[1]]
    return hashes


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return the least and the greatest finite number of a dtype."""
    if dtype.kind == "b":
        return False, True
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return limits.min, limits.max


def id_error(field: str, name: str) -> InvalidInputError | None:
    """Say that an id is too long, if it is."""
    if len(name) <= MOST_ID_BYTES // 4:  # no character takes more than four bytes
        return None
    size = len(name) if name.isascii() else len(name.encode())
    if size <= MOST_ID_BYTES:
        return None
    return InvalidInputError(f"{field}: expected at most {MOST_ID_BYTES} bytes of UTF-8, received {size}; choose a shorter id", field=field)
