"""Values <-> messages of the driver link. What comes out of a message is data, whichever program made it: nothing is unpickled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from policyserver.common.errors import WireError
from policyserver.common.server_stats import PolicyFigures
from policyserver.common.tensors import from_tensor, to_tensor
from policyserver.server.processes.retirement_state import RetirementOrder, RetirementState
from policyserver.server.processes.rolled_back import RolledBack
from policyserver.server.processes.serving_report import ServingReport
from policyserver.server.processes.shadow_actions import ShadowActions
from policyserver.v1 import driver_link_pb2 as pb

_RECORDS: dict[str, type[Any]] = {
    record.__name__: record for record in (ServingReport, PolicyFigures, RolledBack, ShadowActions, RetirementOrder, RetirementState)
}
_SENT_AS = {"uint64": "int64", "uint32": "int32", "uint16": "uint8", "int16": "uint8", "float16": "uint8"}
"""Types that Tensor lacks, and as which their bytes travel."""
_LARGEST_WHOLE = 2**63
_MOST_DIGITS = 4000
_DEEPEST = 40
"""Levels of a value. A message has at most 100 in protobuf, and a value takes two for each of its own."""


def to_value(content: Any, depth: int = 0) -> pb.Value:
    """Encode data: None, truths, numbers, texts, bytes, arrays, lists, tuples, mappings and the records above.

    Raises:
        TypeError: Something in it is of another type, which it names.
    """
    if depth > _DEEPEST:
        raise TypeError(f"driver link: expected at most {_DEEPEST} levels, received more")
    if content is None:
        return pb.Value(none=True)
    if isinstance(content, bool):
        return pb.Value(truth=content)
    if isinstance(content, np.ndarray | np.generic):
        return pb.Value(array=_to_array(content))
    if isinstance(content, int):
        return pb.Value(whole=content) if -_LARGEST_WHOLE <= content < _LARGEST_WHOLE else pb.Value(large=str(content))
    if isinstance(content, float):
        return pb.Value(number=content)
    if isinstance(content, str):
        return pb.Value(text=content)
    if isinstance(content, bytes):
        return pb.Value(data=content)

    def inner(values: Iterable[Any]) -> list[pb.Value]:
        return [to_value(each, depth + 1) for each in values]

    name = type(content).__name__
    if _RECORDS.get(name) is type(content):
        fields = content if isinstance(content, tuple) else [getattr(content, entry.name) for entry in dataclasses.fields(content)]
        return pb.Value(record=pb.Record(name=name, fields=inner(fields)))
    if isinstance(content, tuple):
        return pb.Value(tuple=pb.Values(values=inner(content)))
    if isinstance(content, Mapping):
        return pb.Value(map=pb.Entries(keys=inner(content.keys()), values=inner(content.values())))
    if isinstance(content, list):
        return pb.Value(list=pb.Values(values=inner(content)))
    raise TypeError(f"driver link: expected numbers, texts, arrays, lists, tuples and mappings of these, received {type(content)}")


def from_value(value: pb.Value, depth: int = 0) -> Any:
    """Decode what `to_value` encoded. Arrays are views of the message's bytes, which can't be written.

    Raises:
        WireError: It is no value, a record or a type that this side doesn't know, or too deep.
    """
    kind = value.WhichOneof("value")
    if depth > _DEEPEST:
        raise WireError(f"value: expected at most {_DEEPEST} levels, received more", field="value")
    if kind in ("truth", "whole", "number", "text", "data"):
        return getattr(value, kind)
    if kind == "none":
        return None
    if kind == "array":
        return _from_array(value.array)
    if kind == "list":
        return [from_value(each, depth + 1) for each in value.list.values]
    if kind == "tuple":
        return tuple(from_value(each, depth + 1) for each in value.tuple.values)
    if kind == "map":
        keys, values = value.map.keys, value.map.values
        if len(keys) != len(values):
            raise WireError(f"map.values: expected {len(keys)}, as many as keys, received {len(values)}", field="map.values")
        try:
            return {from_value(key, depth + 1): from_value(each, depth + 1) for key, each in zip(keys, values, strict=True)}
        except TypeError as error:
            raise WireError(f"map.keys: expected keys that can be looked up, received another kind: {error}", field="map.keys") from error
    if kind == "large":
        if len(value.large) > _MOST_DIGITS or not value.large.removeprefix("-").isdecimal():
            raise WireError(f"large: expected at most {_MOST_DIGITS} decimal digits, received {value.large[:50]!r}", field="large")
        return int(value.large)
    if kind == "record":
        return _from_record(value.record, depth)
    raise WireError(f"value: expected one of the kinds of Value, received {kind}", field="value")


def _to_array(content: np.ndarray[Any, Any] | np.generic) -> pb.Array:
    array = np.asarray(content)
    name = array.dtype.newbyteorder("=").name if array.dtype.kind in "biuf" else ""
    sent_as = _SENT_AS.get(name, "")
    if sent_as:
        shape = (*array.shape, array.itemsize) if sent_as == "uint8" else array.shape
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(sent_as).reshape(shape)
    try:
        return pb.Array(tensor=to_tensor(array), dtype=name if sent_as else "", scalar=isinstance(content, np.generic))
    except TypeError as error:
        raise TypeError(f"driver link: {error}") from error


def _from_array(sent: pb.Array) -> Any:
    array = from_tensor(sent.tensor, "array")
    if sent.dtype:
        sent_as = _SENT_AS.get(sent.dtype)
        dtype = np.dtype(sent.dtype) if sent_as else None
        if dtype is None or array.dtype.name != sent_as or (sent_as == "uint8" and array.shape[-1:] != (dtype.itemsize,)):
            raise WireError(f"array.dtype: expected a known type that the tensor fits, received {sent.dtype!r}", field="array.dtype")
        shape = array.shape[:-1] if sent_as == "uint8" else array.shape
        array = array.reshape(-1).view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    if sent.scalar:
        if array.shape:
            raise WireError(f"array.scalar: expected no axes, received {list(array.shape)}", field="array.scalar")
        return array[()]
    return array


def _from_record(record: pb.Record, depth: int) -> Any:
    known = _RECORDS.get(record.name)
    if known is None:
        raise WireError(f"record.name: expected one of {', '.join(_RECORDS)}, received {record.name[:50]!r}", field="record.name")
    fields = [from_value(each, depth + 1) for each in record.fields]
    try:
        return known(*fields)
    except TypeError as error:
        raise WireError(f"record.fields: expected those of {record.name}, received {len(fields)} of them", field="record.fields") from error
