"""What connector pipelines leave in episodes and give as actions -> columns of one fixed layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.errors import InvalidInputError
from policyserver.common.spaces import leaves, parts
from policyserver.server.policies.policy import Array, LeafShape


class ConnectorOutputError(ValueError):
    """A connector wrote something else than what it wrote when it was tried out, or than what can be recorded."""


class RecordedObservations:
    """Take the leaves out of observations, of one structure, with one shape and dtype each."""

    def __init__(self, space: gym.Space[Any]) -> None:
        """Take the space of the recorded observations."""
        self.space = space
        self._leaves = leaves(space, "observation")

    @classmethod
    def like(cls, examples: Sequence[Any], candidates: Sequence[gym.Space[Any] | None]) -> RecordedObservations:
        """Find the space of the observations that a pipeline wrote.

        Args:
            examples: Some of them.
            candidates: Spaces that they may be of; the first whose structure, shapes and dtypes fit all of them is taken.

        Returns:
            What reads observations like these, with a space of unbounded numbers if no candidate fits.

        Raises:
            ConnectorOutputError: They can't be recorded, or not in columns, for they differ.
        """
        spaces = [space for space in candidates if space is not None]
        error: Exception | None = None
        for space in [*spaces, *(_space_like(example, "observation") for example in examples)]:
            try:
                recorded = cls(space)
                for example in examples:
                    recorded.leaves(example)
            except (ConnectorOutputError, TypeError) as misfit:
                error = misfit
            else:
                return recorded
        raise ConnectorOutputError(f"env-to-module connectors: the first and the second observation of an episode differ; {error}")

    def leaves(self, observation: Any) -> list[Array]:
        """Return the leaves of one observation.

        Raises:
            ConnectorOutputError: Its structure or the shape of a leaf is another, or the dtype of a leaf does not fit.
        """
        pairs = zip(self._leaves, self._parts(observation), strict=True)
        return [_checked(leaf.path, part, (leaf.shape, leaf.dtype)) for leaf, part in pairs]

    def columns(self, observations: list[Any]) -> list[Array]:
        """Put the leaves of n observations together, [n, ...] each.

        Raises:
            ConnectorOutputError: One of them is of another structure, shape or dtype, or has a number that is not finite.
        """
        pairs = zip(self._leaves, zip(*map(self._parts, observations), strict=True), strict=True)
        columns = [column_of(leaf.path, items, (leaf.shape, leaf.dtype)) for leaf, items in pairs]
        for leaf, column in zip(self._leaves, columns, strict=True):
            if leaf.dtype.kind == "f" and not np.isfinite(column).all():
                wrong = column[~np.isfinite(column)][0]
                raise ConnectorOutputError(f"{leaf.path}: expected finite numbers from the env-to-module connectors, received {wrong}")
        return columns

    def _parts(self, observation: Any) -> list[Any]:
        try:
            found = list(parts(self.space, observation, "observation"))
        except InvalidInputError as error:
            raise ConnectorOutputError(str(error)) from error
        for leaf, part in zip(self._leaves, found, strict=True):
            if isinstance(part, Mapping | tuple | list):
                raise ConnectorOutputError(f"{leaf.path}: expected an array, received a {type(part).__name__}")
        return found


def column_of(name: str, items: Sequence[Any], leaf_shape: LeafShape) -> Array:
    """Put the items of a column together, one array or number for each of n steps, [n, ...].

    Raises:
        ConnectorOutputError: An item has another shape, or a dtype that would not fit.
    """
    shape, dtype = leaf_shape
    if not items:
        return np.empty((0, *shape), dtype)
    try:
        column = np.array(items)
    except ValueError:  # of different shapes
        column = None
    if column is None or column.shape != (len(items), *shape) or column.dtype != dtype:
        column = np.stack([_checked(name, item, leaf_shape) for item in items])
    return column


def _checked(name: str, item: Any, leaf_shape: LeafShape) -> Array:
    """Bring an item to the dtype of its column; floats may lose precision, as they do on their way into the net and into the learner."""
    array = np.asarray(item)
    shape, dtype = leaf_shape
    fits = array.dtype == dtype or np.can_cast(array.dtype, dtype) or array.dtype.kind == dtype.kind == "f"
    if array.shape != shape or not fits:
        raise ConnectorOutputError(
            f"{name}: expected {dtype}{list(shape)}, as it was when the connectors were tried out, "
            f"received {array.dtype}{list(array.shape)}; have them give the same shape and dtype at every step"
        )
    return array.astype(dtype, copy=False)


def _space_like(example: Any, path: str) -> gym.Space[Any]:
    if isinstance(example, Mapping):
        return gym.spaces.Dict({key: _space_like(part, f"{path}[{key!r}]") for key, part in example.items()})
    if isinstance(example, tuple | list):
        return gym.spaces.Tuple([_space_like(part, f"{path}[{index}]") for index, part in enumerate(example)])
    array = np.asarray(example)
    if array.dtype.kind == "f":
        return gym.spaces.Box(-np.inf, np.inf, array.shape, array.dtype.type)
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        return gym.spaces.Box(limits.min, limits.max, array.shape, array.dtype.type)
    raise ConnectorOutputError(f"{path}: expected numbers from the env-to-module connectors, received {type(example).__name__}")
