"""Gymnasium spaces <-> wire specs, and values of a space <-> arrays.

The *leaves* of a space are its non-composite spaces in order: a Dict's by sorted key, a Tuple's by position, depth first. A value of the
space is one array per leaf. A *batch* of n values has the structure of one value and leaves with a leading axis n: for
`Dict(x=Box((3,)))` it is `{"x": array[n, 3]}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from policyserver.common.errors import InvalidInputError, WireError
from policyserver.common.tensors import count_elements, dtype_from_proto, dtype_to_proto, from_tensor, to_tensor
from policyserver.v1 import space_pb2, tensor_pb2

Array = np.ndarray[Any, Any]

# The spaces that one side reads of the other are bounded, because a few bytes can describe arrays that no memory holds.
_MAX_DEPTH = 16
_MAX_LEAVES = 4096
_MAX_ELEMENTS = 2**24
_KIND_RANK = {"b": 0, "u": 1, "i": 1, "f": 2}
_NO_NUMBERS = "OSUV"  # kinds of dtype: objects, bytes, texts, records


@dataclass(frozen=True, slots=True)
class Leaf:
    """One non-composite space."""

    path: str
    """Where it is, such as "observation['x'][0]"."""
    dtype: np.dtype[Any]
    """Element type on the wire: the space's own."""
    shape: tuple[int, ...]
    """Shape of one value."""
    space: gym.Space[Any]
    """The space itself."""


def leaves(space: gym.Space[Any], name: str = "observation") -> list[Leaf]:
    """List the leaves of a space in the order in which they travel.

    Raises:
        TypeError: a space or dtype that does not travel.
    """
    if isinstance(space, spaces.Dict):
        if others := [key for key in space.spaces if not isinstance(key, str)]:
            raise TypeError(f"{name}: expected texts as the keys of a Dict, received {others[0]!r}; rename it")
        return [leaf for key in sorted(space.spaces) for leaf in leaves(space.spaces[key], f"{name}[{key!r}]")]
    if isinstance(space, spaces.Tuple):
        return [leaf for index, part in enumerate(space.spaces) for leaf in leaves(part, f"{name}[{index}]")]
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise TypeError(f"{name}: expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple, received {space}")
    dtype: np.dtype[Any] = np.dtype(space.dtype)
    try:
        dtype_to_proto(dtype)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    return [Leaf(name, dtype, tuple(space.shape or ()), space)]


def bounds(space: gym.Space[Any]) -> tuple[Array, Array]:
    """Return the least and the greatest value of each element of a space that is a leaf."""
    match space:
        case spaces.Box():
            return space.low, space.high
        case spaces.Discrete():
            return np.asarray(int(space.start)), np.asarray(int(space.start) + int(space.n) - 1)
        case spaces.MultiDiscrete():
            start = space.start.astype(np.int64)
            return start, start + space.nvec.astype(np.int64) - 1
    return np.asarray(0), np.asarray(1)


def argument_names(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> dict[str, str]:
    """Say what callers know the columns of a message as: "observations[0]" is their "observation", or a part of it."""
    columns = ("observations", leaves(observation_space, "observation")), ("actions", leaves(action_space, "action"))
    return {f"{name}[{index}]": leaf.path for name, parts in columns for index, leaf in enumerate(parts)}


def parts(space: gym.Space[Any], value: Any, name: str) -> Iterator[Any]:
    """Walk a value beside its space, and yield what stands at each leaf.

    Raises:
        InvalidInputError: wrong structure.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space.spaces):
            received = f"keys {sorted(map(str, value))}" if isinstance(value, Mapping) else type(value).__name__
            raise InvalidInputError(f"{name}: expected a mapping with the keys {sorted(space.spaces)}, received {received}", field=name)
        for key in sorted(space.spaces):
            yield from parts(space.spaces[key], value[key], f"{name}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            received = f"{len(value)} of them" if isinstance(value, tuple | list) else type(value).__name__
            raise InvalidInputError(f"{name}: expected a tuple of {len(space.spaces)} parts, received {received}", field=name)
        for index, part in enumerate(space.spaces):
            yield from parts(part, value[index], f"{name}[{index}]")
    else:
        yield value


def flatten(space: gym.Space[Any], value: Any, name: str = "observation", known: Sequence[Leaf] | None = None) -> list[Array]:
    """Turn one value into one array per leaf, of the leaf's own shape and dtype, casting where nothing but precision is lost.

    Args:
        space: the value's space.
        value: the value.
        name: what it is, for the error.
        known: `leaves(space, name)`, if the caller has them.

    Raises:
        InvalidInputError: wrong structure, shape or dtype, or not finite. Bounds are left to the server.
    """
    pairs = zip(known or leaves(space, name), parts(space, value, name), strict=True)
    return [_converted(leaf, _shaped(leaf, part, leaf.shape)) for leaf, part in pairs]


def flatten_batch(
    space: gym.Space[Any], values: Any, name: str = "observation", rows: int | None = None, known: Sequence[Leaf] | None = None
) -> list[Array]:
    """Turn a batch into one array per leaf with a leading axis.

    Args:
        space: the space of one value.
        values: the batch: the structure of one value, with a leading axis in each leaf.
        name: what the values are, for the error.
        rows: the length of the leading axis; None takes the first leaf's.
        known: `leaves(space, name)`, if the caller has them.

    Raises:
        InvalidInputError: as `flatten`, or the leading axis differs from leaf to leaf or from `rows`.
    """
    arrays, errors = flatten_rows(space, values, name, rows, known)
    for error in errors.values():
        raise error
    return arrays


def flatten_rows(
    space: gym.Space[Any], values: Any, name: str, rows: int | None = None, known: Sequence[Leaf] | None = None
) -> tuple[list[Array], dict[int, InvalidInputError]]:
    """Turn a batch into one array per leaf, as `flatten_batch` does, but return the errors of bad rows.

    Returns:
        The arrays, with zeros in the bad rows, and what is wrong with those, by row: numbers that are not finite, or integers out of
        the leaf's range.

    Raises:
        InvalidInputError: wrong structure, shape or dtype.
    """
    arrays: list[Array] = []
    errors: dict[int, InvalidInputError] = {}
    for leaf, part in zip(known or leaves(space, name), parts(space, values, name), strict=True):
        if rows is None:
            rows = next(iter(_as_array(leaf, part).shape), 0)
        array = _shaped(leaf, part, (rows, *leaf.shape))
        try:
            arrays.append(_converted(leaf, array))
        except InvalidInputError:
            arrays.append(np.zeros(array.shape, leaf.dtype))
            for row in range(rows):
                try:
                    arrays[-1][row : row + 1] = _converted(leaf, array[row : row + 1])
                except InvalidInputError as error:
                    errors.setdefault(row, error)
    return arrays, errors


def unflatten(space: gym.Space[Any], arrays: list[Array]) -> Any:
    """Turn one array per leaf into one value: an array for a Box, a numpy integer for a Discrete."""
    return _build(space, iter(arrays), lambda leaf, array: array[()] if isinstance(leaf, spaces.Discrete) else array)


def unflatten_batch(space: gym.Space[Any], arrays: list[Array]) -> Any:
    """Turn one array per leaf, each with a leading axis, into a batch."""
    return _build(space, iter(arrays), lambda _, array: array)


def same(first: gym.Space[Any], second: gym.Space[Any]) -> bool:
    """Tell whether two spaces are the same on the wire: kind, structure, bounds and dtypes."""
    return to_proto(first) == to_proto(second)


def describe(space: gym.Space[Any]) -> str:
    """Describe a space on one line of bounded length."""
    text = " ".join(str(space).split())
    return text if len(text) <= 400 else f"{text[:397]}..."


def to_proto(space: gym.Space[Any]) -> space_pb2.Space:
    """Encode a space.

    Raises:
        TypeError: a space or dtype that does not travel.
    """
    leaves(space, "space")
    return _encode(space)


def from_proto(message: space_pb2.Space, field: str = "space") -> gym.Space[Any]:
    """Decode a space.

    Raises:
        WireError: no kind, inconsistent parts, nested too deep, or too large.
    """
    _check_size(message, field)
    try:
        return _decode(message, field)
    except (ValueError, AssertionError, TypeError, OverflowError) as error:  # what gymnasium's constructors raise
        if isinstance(error, WireError):
            raise
        raise WireError(f"{field}: expected a valid gymnasium space, received {type(error).__name__}: {error}", field=field) from error


def _as_array(leaf: Leaf, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise _refusal(leaf, f"{leaf.dtype}{list(leaf.shape)}", f"a ragged {type(value).__name__}") from error


def _shaped(leaf: Leaf, value: Any, shape: tuple[int, ...]) -> Array:
    """Make an array of a leaf's value, or of several, whose kind of number goes with the leaf's."""
    array = _as_array(leaf, value)
    kind, wanted = array.dtype.kind, leaf.dtype.kind
    if array.shape != shape:
        received = f", a {type(value).__name__}" if kind in _NO_NUMBERS else ""
        raise _refusal(leaf, f"shape {list(shape)}", f"shape {list(array.shape)}{received}")
    if array.dtype != leaf.dtype and not (kind in _KIND_RANK and _KIND_RANK[kind] <= _KIND_RANK[wanted]):
        without_loss = f"{array.dtype}, which does not convert without loss"
        raise _refusal(leaf, str(leaf.dtype), f"{array.tolist()!r:.80}, no number" if kind in _NO_NUMBERS else without_loss)
    return array


def _converted(leaf: Leaf, array: Array) -> Array:
    """Bring an array of the right kind to the leaf's dtype, and see that it is finite."""
    if array.dtype != leaf.dtype:
        array = _convert(leaf, array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _refusal(leaf, f"finite numbers of {leaf.dtype}", str(array[~np.isfinite(array)][0]))
    return array


def _convert(leaf: Leaf, array: Array) -> Array:
    """Cast to the leaf's dtype, where only precision can be lost: bool -> integer -> float, integers only within range."""
    if leaf.dtype.kind in "iu" and array.size:
        limits = np.iinfo(leaf.dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise _refusal(leaf, str(leaf.dtype), f"{array.dtype}, which does not convert without loss")
    with np.errstate(over="ignore"):
        return array.astype(leaf.dtype)


def _refusal(leaf: Leaf, expected: str, received: str) -> InvalidInputError:
    reason = "BAD_ACTION" if leaf.path.startswith("action") else "BAD_OBSERVATION"
    return InvalidInputError(f"{leaf.path}: expected {expected}, received {received}", reason=reason, field=leaf.path)


def _build(space: gym.Space[Any], arrays: Iterator[Array], finish: Callable[[gym.Space[Any], Array], Any]) -> Any:
    """Put a value together, leaf by leaf."""
    if isinstance(space, spaces.Dict):
        parts = {key: _build(space.spaces[key], arrays, finish) for key in sorted(space.spaces)}
        return {key: parts[key] for key in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(_build(part, arrays, finish) for part in space.spaces)
    return finish(space, next(arrays))


def _encode(space: gym.Space[Any]) -> space_pb2.Space:
    match space:
        case spaces.Box():
            return space_pb2.Space(box=space_pb2.BoxSpace(low=_bound(space.low), high=_bound(space.high), shape=space.shape))
        case spaces.Discrete():
            dtype = np.dtype(space.dtype)
            code = dtype_to_proto(dtype) if dtype != np.int64 else tensor_pb2.DATA_TYPE_UNSPECIFIED
            return space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=int(space.n), start=int(space.start), dtype=code))  # type: ignore[arg-type]
        case spaces.MultiDiscrete():
            encoded_start = to_tensor(space.start) if space.start.any() else None
            return space_pb2.Space(multi_discrete=space_pb2.MultiDiscreteSpace(nvec=to_tensor(space.nvec), start=encoded_start))
        case spaces.MultiBinary():
            return space_pb2.Space(multi_binary=space_pb2.MultiBinarySpace(shape=space.shape))
        case spaces.Dict():
            keys = sorted(space.spaces)
            return space_pb2.Space(dict=space_pb2.DictSpace(keys=keys, spaces=[_encode(space.spaces[key]) for key in keys]))
        case spaces.Tuple():
            return space_pb2.Space(tuple=space_pb2.TupleSpace(spaces=[_encode(part) for part in space.spaces]))
    raise TypeError(f"space: expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple, received {space}")


def _bound(bound: Array) -> tensor_pb2.Tensor:
    """Encode one bound of a Box; one element stands for all where all are equal."""
    if bound.size > 1 and (bound == bound.flat[0]).all():
        bound = bound.reshape(-1)[:1]
    return to_tensor(bound + bound.dtype.type(0) if bound.dtype.kind == "f" else bound)  # 0.0 and -0.0 are the same bound


def _check_size(message: space_pb2.Space, field: str) -> None:
    """Refuse what would take this side's memory or time, before anything is made of it."""
    parts, depth, leaf_count, elements = [message], 0, 0, 0
    while parts:
        depth += 1
        if depth > _MAX_DEPTH:
            raise WireError(f"{field}: expected at most {_MAX_DEPTH} levels of Dict and Tuple, received more", field=field)
        inner: list[space_pb2.Space] = []
        for part in parts:
            kind = part.WhichOneof("kind")
            if kind in ("dict", "tuple"):
                inner.extend(part.dict.spaces if kind == "dict" else part.tuple.spaces)
            elif kind in ("box", "multi_binary"):
                elements += count_elements(part.box.shape if kind == "box" else part.multi_binary.shape, field)
            leaf_count += kind not in ("dict", "tuple")
        if leaf_count + len(inner) > _MAX_LEAVES:
            raise WireError(f"{field}: expected at most {_MAX_LEAVES} spaces in a Dict or Tuple, received more", field=field)
        if elements > _MAX_ELEMENTS:
            raise WireError(f"{field}.shape: expected at most {_MAX_ELEMENTS} elements, received {elements}", field=field)
        parts = inner


def _decode(message: space_pb2.Space, field: str) -> gym.Space[Any]:
    match message.WhichOneof("kind"):
        case "box":
            return _decode_box(message.box, field)
        case "discrete":
            dtype = dtype_from_proto(message.discrete.dtype or tensor_pb2.DATA_TYPE_INT64, field)
            return spaces.Discrete(message.discrete.n, start=message.discrete.start, dtype=dtype.type)
        case "multi_discrete":
            nvec = from_tensor(message.multi_discrete.nvec, f"{field}.nvec")
            start = from_tensor(message.multi_discrete.start, f"{field}.start") if message.multi_discrete.HasField("start") else None
            if start is not None and start.dtype != nvec.dtype:
                raise WireError(f"{field}.start: expected the dtype of nvec, {nvec.dtype}, received {start.dtype}", field=f"{field}.start")
            return spaces.MultiDiscrete(nvec, dtype=nvec.dtype.type, start=start)
        case "multi_binary":
            shape = tuple(message.multi_binary.shape)
            return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)  # as people write it; gymnasium tells the two apart
        case "dict":
            keys, parts = list(message.dict.keys), message.dict.spaces
            if keys != sorted(set(keys)) or len(keys) != len(parts):
                raise WireError(f"{field}.dict: expected sorted keys, one per space, received {keys} for {len(parts)} spaces", field=field)
            return spaces.Dict({key: _decode(part, f"{field}[{key!r}]") for key, part in zip(keys, parts, strict=True)})
        case "tuple":
            return spaces.Tuple([_decode(part, f"{field}[{index}]") for index, part in enumerate(message.tuple.spaces)])
    raise WireError(f"{field}.kind: expected one of the kinds of a Space, received none that this side knows", field=field)


def _decode_box(message: space_pb2.BoxSpace, field: str) -> spaces.Box:
    shape = tuple(message.shape)
    low, high = from_tensor(message.low, f"{field}.low"), from_tensor(message.high, f"{field}.high")
    if low.dtype != high.dtype:
        raise WireError(f"{field}.high: expected the dtype of low, {low.dtype}, received {high.dtype}", field=f"{field}.high")
    low, high = (np.broadcast_to(bound.reshape(()) if bound.size == 1 else bound, shape).copy() for bound in (low, high))
    return spaces.Box(low, high, shape, low.dtype.type)
