"""Checks of whole columns: which rows break the rules of the protocol or of the spaces."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from policyserver.errors import InvalidInputError
from policyserver.flags import StepFlag
from policyserver.spaces import Leaf

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

# Odd 64-bit multipliers for the content hash; fixed, so that equal rows hash equally for the life of the process.
_MULTIPLIERS = np.random.default_rng(0).integers(0, 2**63, 4096, np.uint64) * np.uint64(2) + np.uint64(1)
_START, _GIVEN, _OVERRIDE = int(StepFlag.START), int(StepFlag.ACTION_GIVEN), int(StepFlag.OVERRIDE)
_END, _DISABLED = int(StepFlag.END), int(StepFlag.TRAINING_DISABLED)
_TERMINATED = int(StepFlag.TERMINATED)
_ALL = _START | _GIVEN | _OVERRIDE | _END | _DISABLED


class LeafCheck:
    """Check arrays of one leaf of a space."""

    def __init__(self, leaf: Leaf, reason: str) -> None:
        self._leaf = leaf
        self._reason = reason
        self._low: Array
        self._high: Array
        space: gym.Space[Any] = leaf.space
        if isinstance(space, gym.spaces.Box):
            self._low, self._high = np.asarray(space.low), np.asarray(space.high)
        elif isinstance(space, gym.spaces.Discrete):
            self._low, self._high = np.asarray(int(space.start)), np.asarray(int(space.start) + int(space.n) - 1)
        elif isinstance(space, gym.spaces.MultiDiscrete):
            start = np.asarray(space.start, np.int64)
            self._low, self._high = start, start + np.asarray(space.nvec, np.int64) - 1
        else:
            self._low, self._high = np.asarray(0), np.asarray(1)
        self._may_be_nan = leaf.dtype.kind == "f"

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
        inside = (array >= self._low) & (array <= self._high)
        if self._may_be_nan:
            inside &= np.isfinite(array)
        if inside.all():
            return np.empty(0, np.int64)
        return np.flatnonzero(~inside.reshape(len(array), -1).all(axis=1))

    def value_error(self, value: Array) -> InvalidInputError:
        """Say why one row's value is refused."""
        element = np.argwhere(~((value >= self._low) & (value <= self._high) & np.isfinite(value)))[0]
        where = tuple(element.tolist())
        low, high = (np.broadcast_to(bound, value.shape)[where] for bound in (self._low, self._high))
        index = f"[{', '.join(map(str, where))}]" if where else ""
        return self._error(f"expected finite values from {low} to {high}, received {value[where]}{' at ' + index if index else ''}")

    def _error(self, text: str) -> InvalidInputError:
        return InvalidInputError(f"{self._leaf.path}: {text}", reason=self._reason, field=self._leaf.path)


def bad_flags(flags: Array, sequences: Array, rewards: Array) -> dict[int, InvalidInputError]:
    """Find rows whose flags contradict each other, whose reward is not finite, or which start anywhere but at the beginning."""
    if np.isfinite(rewards).all() and not (flags & ~np.uint8(_TERMINATED)).any():
        return {}  # nothing but plain steps and ends, as most batches are
    start, given, end = flags & _START != 0, flags & _GIVEN != 0, flags & _END
    contradictory = (end == _END) | (given & (end != 0)) | ((flags & _OVERRIDE != 0) & ~given) | (flags & ~np.uint8(_ALL) != 0)
    contradictory |= (flags & _DISABLED != 0) & ~start
    errors: dict[int, InvalidInputError] = {}
    for row in np.flatnonzero(~np.isfinite(rewards)).tolist():
        errors[row] = InvalidInputError(f"rewards: expected a finite number, received {rewards[row]}", reason="BAD_REWARD", field="rewards")
    for row in np.flatnonzero(start & (rewards != 0.0)).tolist():
        errors[row] = InvalidInputError(
            f"rewards: expected 0 in a START row, for no action came before it, received {rewards[row]}",
            reason="BAD_REWARD", field="rewards",
        )  # fmt: skip
    for row in np.flatnonzero(start & (sequences != 0)).tolist():
        errors[row] = InvalidInputError(f"sequences: expected 0 in a START row, received {sequences[row]}", field="sequences")
    for row in np.flatnonzero(contradictory).tolist():
        errors[row] = InvalidInputError(
            f"flags: expected a combination that policy_service.proto allows, received {StepFlag(int(flags[row]) & _ALL)!r}", field="flags"
        )
    return errors


def content_hashes(observations: list[Array], flags: Array, rewards: Array, given: Array, given_actions: list[Array]) -> Array:
    """Hash what each row says, so that a repeated number can be told from a changed one.

    Args:
        observations: One array per leaf, leading axis n.
        flags: uint8[n].
        rewards: float64[n].
        given: Rows with a given action, indices.
        given_actions: Their actions, one array per leaf.

    Returns:
        uint64[n].
    """
    hashes: Array = flags.astype(np.uint64) * _MULTIPLIERS[0] + np.ascontiguousarray(rewards).view(np.uint64) * _MULTIPLIERS[1]
    for index, leaf in enumerate(observations):
        hashes += _row_hashes(leaf) * _MULTIPLIERS[2 + index % 64]
    for leaf in given_actions:
        if given.size:
            hashes[given] += _row_hashes(leaf)
    return hashes


def _row_hashes(array: Array) -> Array:
    """Hash the bytes of each row, uint64[n]: a product with fixed odd numbers, folded so that every bit matters."""
    rows = len(array)
    flat = np.ascontiguousarray(array).reshape(rows, -1).view(np.uint8) if array.size else np.zeros((rows, 1), np.uint8)
    width = flat.shape[1]
    words = flat.view(np.uint32) if width % 4 == 0 else flat
    columns = words.shape[1]
    multipliers = np.resize(_MULTIPLIERS, columns) if columns > len(_MULTIPLIERS) else _MULTIPLIERS[:columns]
    mixed = words.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(15)
    sums = (mixed * multipliers).sum(axis=1, dtype=np.uint64)
    folded: Array = sums ^ (sums >> np.uint64(29))
    return folded
