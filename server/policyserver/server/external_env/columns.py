"""Values of an ExternalEnv's spaces as columns, and columns as values."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.errors import InvalidInputError, PolicyServerError
from policyserver.common.spaces import Array, flatten, flatten_batch, unflatten

logger = logging.getLogger(__name__)


def columns_of(space: gym.Space[Any], name: str, values: Sequence[Any]) -> tuple[list[Array], dict[int, PolicyServerError]]:
    """Turn values of a space into columns, all at once if all are good.

    Returns:
        One array per leaf, of the values that fit the space but for its bounds, and the errors of the others by index.
    """
    if not values:
        return [], {}
    try:
        return flatten_batch(space, _transposed(space, values), name, len(values)), {}
    except Exception:  # whatever a value of the environment's does when it is read
        logger.debug("a value of %d does not fit; looking at each", len(values))
    good: list[list[Array]] = []
    errors: dict[int, PolicyServerError] = {}
    for index, value in enumerate(values):
        try:
            good.append(flatten(space, value, name))
        except InvalidInputError as error:
            errors[index] = error
        except Exception as error:
            text = f"{name}: expected a value of {space}, received {type(value).__name__}, which can't be read: {error!r}"
            errors[index] = InvalidInputError(text, reason="BAD_ACTION" if name == "action" else "BAD_OBSERVATION", field=name)
    return [np.stack(column) for column in zip(*good, strict=True)], errors


def values_of(space: gym.Space[Any], columns: list[Array]) -> list[Any]:
    """Turn columns, one array per leaf, into the values of a space, one per row."""
    is_simple = isinstance(space, gym.spaces.Discrete) or (space.shape and not isinstance(space, gym.spaces.Dict | gym.spaces.Tuple))
    if is_simple:
        return list(columns[0])  # which is many times faster than one by one
    return [unflatten(space, [column[row, ...] for column in columns]) for row in range(len(columns[0]))]


def _transposed(space: gym.Space[Any], values: Sequence[Any]) -> Any:
    """Turn n values into one with the structure of each, whose leaves are lists of n.

    Raises:
        ValueError: One has another structure.
    """
    if isinstance(space, gym.spaces.Dict):
        if any(not isinstance(value, Mapping) or value.keys() != space.spaces.keys() for value in values):
            raise ValueError("keys")
        return {key: _transposed(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        if any(not isinstance(value, tuple | list) or len(value) != len(space.spaces) for value in values):
            raise ValueError("length")
        return tuple(_transposed(part, [value[place] for value in values]) for place, part in enumerate(space.spaces))
    return values
