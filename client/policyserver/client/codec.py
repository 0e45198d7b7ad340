"""Values of a space <-> the bytes of its leaves' columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.errors import InvalidInputError
from policyserver.common.spaces import Array, flatten, flatten_rows, leaves, unflatten, unflatten_batch

__all__ = ["SpaceCodec"]

_SMALL_BYTES = 512
"""Size up to which Python adds an observation up faster than numpy multiplies it with itself. That also gives up Python's lock meanwhile,
however little there is to do, and so wakes a thread that waits for it in vain: with many callers it is the dearest part of a step."""


class SpaceCodec:
    """Turns values of one space into bytes and back. Immutable, so that any thread may use it."""

    def __init__(self, space: gym.Space[Any], name: str) -> None:
        """Prepare a space.

        Args:
            space: the space both sides agreed on.
            name: "observation" or "action", for the errors.
        """
        self.space = space
        self.leaves = tuple(leaves(space, name))
        self.row_bytes = sum(leaf.dtype.itemsize * int(np.prod(leaf.shape)) for leaf in self.leaves)
        self._name = name
        self._wire_dtypes = tuple(leaf.dtype.newbyteorder("<") for leaf in self.leaves)
        self._shape = space.shape
        self._is_plain = isinstance(space, gym.spaces.Box) and self.leaves[0].dtype.kind == "f"
        self._is_small = self.row_bytes <= _SMALL_BYTES
        self._is_discrete = isinstance(space, gym.spaces.Discrete)

    def encode(self, value: Any) -> tuple[bytes, ...]:
        """Encode one value: the bytes of each leaf.

        Raises:
            InvalidInputError: wrong structure, shape or dtype, or not finite.
        """
        fits = self._is_plain and type(value) is np.ndarray and value.dtype == self._wire_dtypes[0] and value.shape == self._shape
        if fits and math.isfinite(sum(value.ravel().tolist()) if self._is_small else np.vdot(value, value)):  # then all elements are
            return (value.tobytes(),)
        return self._bytes(flatten(self.space, value, self._name, self.leaves))

    def encode_batch(self, values: Any, rows: int) -> tuple[tuple[bytes, ...], dict[int, InvalidInputError]]:
        """Encode a batch of exactly `rows` values.

        Returns:
            The bytes of each leaf's column, and what is wrong with those rows that can't travel, such as one that is not finite.

        Raises:
            InvalidInputError: wrong structure, shape or dtype, or another number of rows.
        """
        arrays, errors = flatten_rows(self.space, values, self._name, rows, self.leaves)
        return self._bytes(arrays), errors

    def decode(self, columns: Sequence[Array], row: int = 0) -> Any:
        """Decode one row of each leaf's column as one value that owns its memory."""
        if self._is_discrete:
            return columns[0][row]
        return unflatten(self.space, [np.array(column[row]) for column in columns])

    def decode_batch(self, columns: list[Array]) -> Any:
        """Decode each leaf's column as a batch that owns its memory."""
        return unflatten_batch(self.space, [column.copy() for column in columns])

    def zeros(self, rows: int) -> list[Array]:
        """Make columns of zeros."""
        return [np.zeros((rows, *leaf.shape), leaf.dtype) for leaf in self.leaves]

    def _bytes(self, arrays: list[Array]) -> tuple[bytes, ...]:
        return tuple(array.astype(dtype, copy=False).tobytes() for array, dtype in zip(arrays, self._wire_dtypes, strict=True))
