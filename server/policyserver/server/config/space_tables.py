"""Gymnasium spaces from the tables of a configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from policyserver.common.spaces import Array, leaves

_KEYS = {
    "Box": ({"low", "high", "shape"}, {"dtype"}),
    "Discrete": ({"n"}, {"start", "dtype"}),
    "MultiDiscrete": ({"nvec"}, {"start", "dtype"}),
    "MultiBinary": ({"n"}, set()),
    "Dict": ({"spaces"}, set()),
    "Tuple": ({"spaces"}, set()),
}


def space_from_config(table: Mapping[str, Any], where: str) -> gym.Space[Any]:
    """Build a Gymnasium space from its table.

    Args:
        table: `type` (Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple) and the arguments of that space; `low` and `high` of a
            Box are numbers or nested lists of them; the `spaces` of a Dict are a table of tables, those of a Tuple a list of tables.
        where: Name of the table in error messages, e.g. "observation".

    Raises:
        ValueError: If a key is missing, unknown or has a wrong value, or if the space does not travel.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: expected a table with a `type`, received {table!r}")
    kind = table.get("type")
    if kind not in _KEYS:
        raise ValueError(f"{where}.type: expected one of {', '.join(_KEYS)}, received {kind!r}")
    required, optional = _KEYS[kind]
    given = set(table) - {"type"}
    if missing := sorted(required - given):
        raise ValueError(f"{where}: a {kind} needs {', '.join(sorted(required))}; missing: {', '.join(missing)}")
    if unknown := sorted(given - required - optional):
        raise ValueError(f"{where}.{unknown[0]}: unknown key of a {kind}, expected {', '.join(sorted(required | optional))}")
    try:
        space = _space(kind, table, where)
        leaves(space, where)
        return space
    except (TypeError, ValueError, AssertionError, OverflowError) as error:
        if str(error).startswith(where):
            raise ValueError(str(error)) from error
        raise ValueError(f"{where}: expected a valid {kind}, received {dict(table)!r} ({error})") from error


def _space(kind: str, table: Mapping[str, Any], where: str) -> gym.Space[Any]:
    if kind == "Box":
        dtype = np.dtype(table.get("dtype", "float32"))
        shape = _shape(table["shape"], f"{where}.shape")
        low, high = (np.array(np.broadcast_to(_bound(table[side], dtype, f"{where}.{side}"), shape)) for side in ("low", "high"))
        return gym.spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return gym.spaces.Discrete(table["n"], start=table.get("start", 0), dtype=_integer_dtype(table))
    if kind == "MultiDiscrete":
        dtype = _integer_dtype(table)
        start = _bound(table["start"], np.dtype(dtype), f"{where}.start") if "start" in table else None
        return gym.spaces.MultiDiscrete(_bound(table["nvec"], np.dtype(dtype), f"{where}.nvec"), dtype=dtype, start=start)
    if kind == "MultiBinary":
        n = table["n"]
        return gym.spaces.MultiBinary(n if isinstance(n, int) else _shape(n, f"{where}.n"))
    children = table["spaces"]
    if kind == "Dict":
        if not isinstance(children, Mapping):
            raise ValueError(f"{where}.spaces: expected a table of tables, received {children!r}")
        parts = {key: space_from_config(child, f"{where}.spaces.{key}") for key, child in children.items()}
        return gym.spaces.Dict(_some(parts, where))
    if not isinstance(children, Sequence) or isinstance(children, str):
        raise ValueError(f"{where}.spaces: expected a list of tables, received {children!r}")
    return gym.spaces.Tuple(_some([space_from_config(child, f"{where}.spaces[{index}]") for index, child in enumerate(children)], where))


def _some(parts: Any, where: str) -> Any:
    if not parts:
        raise ValueError(f"{where}.spaces: expected one space at least, received none")
    return parts


def _integer_dtype(table: Mapping[str, Any]) -> Any:
    return np.dtype(table.get("dtype", "int64")).type


def _shape(value: Any, where: str) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(type(size) is int and size >= 0 for size in value):
        raise ValueError(f"{where}: expected a list of whole numbers, the length of each axis, received {value!r}")
    return tuple(value)


def _bound(value: Any, dtype: np.dtype[Any], where: str) -> Array:
    """Read a number, or nested lists of them, as an array of a dtype that can hold them all; inf stands for the limit of an int dtype."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iufb" or np.isnan(numbers).any():
        raise ValueError(f"{where}: expected a number, or lists of numbers, received {value!r}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            bound: Array = numbers.astype(dtype)
        if (np.isinf(bound) & np.isfinite(numbers)).any():
            raise ValueError(f"{where}: expected numbers that {dtype} can hold, received {value!r}; inf is written inf")
        return bound
    lowest, highest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    endless = np.isinf(numbers) & (dtype.kind == "i")
    whole = np.where(endless, 0, numbers)
    if not ((whole >= lowest) & (whole <= highest) & (whole == np.trunc(whole))).all():
        raise ValueError(f"{where}: expected whole numbers from {lowest} to {highest}, which {dtype} can hold, received {value!r}")
    bound = whole.astype(dtype)
    bound[endless] = np.where(numbers > 0, highest, lowest)[endless]
    return bound
