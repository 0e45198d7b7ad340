"""Numpy arrays <-> wire tensors.

One table, `_DTYPES`, lists the element types that travel; both lookups are derived from it. Decoding copies nothing: the array is a
read-only view of the message's bytes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyserver.common.errors import WireError
from policyserver.v1 import tensor_pb2

_DTYPES: tuple[tuple[str, int], ...] = (
    ("float32", tensor_pb2.DATA_TYPE_FLOAT32),
    ("float64", tensor_pb2.DATA_TYPE_FLOAT64),
    ("int8", tensor_pb2.DATA_TYPE_INT8),
    ("int32", tensor_pb2.DATA_TYPE_INT32),
    ("int64", tensor_pb2.DATA_TYPE_INT64),
    ("uint8", tensor_pb2.DATA_TYPE_UINT8),
    ("bool", tensor_pb2.DATA_TYPE_BOOL),
)
_TO_PROTO = {np.dtype(name): code for name, code in _DTYPES}
_FROM_PROTO = {code: np.dtype(name) for name, code in _DTYPES}
_NAMES = ", ".join(name for name, _ in _DTYPES)
_BIG_ENDIAN = sys.byteorder == "big"
_MAX_AXES = 32
_MAX_BYTES = 2**62  # of an array without its axes of length 0, which numpy must be able to count


def dtype_to_proto(dtype: np.dtype[Any]) -> int:
    """Look up the wire's DataType of a numpy dtype, whatever its byte order.

    Raises:
        TypeError: the dtype does not travel.
    """
    code = _TO_PROTO.get(dtype) or _TO_PROTO.get(np.dtype(dtype).newbyteorder("="))
    if code is None:
        raise TypeError(f"dtype: expected one of {_NAMES}, received {dtype}; cast the array or change the space")
    return code


def dtype_from_proto(code: int, field: str) -> np.dtype[Any]:
    """Look up the numpy dtype of a wire DataType.

    Raises:
        WireError: the number is no DataType that this side knows.
    """
    dtype = _FROM_PROTO.get(code)
    if dtype is None:
        raise WireError(f"{field}.dtype: expected the DataType of one of {_NAMES}, received {code}", field=field)
    return dtype


def to_tensor(array: np.ndarray[Any, Any]) -> tensor_pb2.Tensor:
    """Encode an array of any layout and byte order: little-endian, row-major.

    Raises:
        TypeError: the dtype does not travel.
    """
    code = dtype_to_proto(array.dtype)
    little = array if array.dtype.isnative and not _BIG_ENDIAN else array.astype(array.dtype.newbyteorder("<"), copy=False)
    return tensor_pb2.Tensor(dtype=code, shape=array.shape, data=little.tobytes())  # type: ignore[arg-type]


def from_tensor(tensor: tensor_pb2.Tensor, field: str) -> np.ndarray[Any, Any]:
    """Decode a tensor as a read-only view of its bytes.

    Args:
        tensor: what came over the wire.
        field: the name of the field that holds it, for the error.

    Raises:
        WireError: unknown dtype, a shape that no array has, a byte length other than product(shape) * itemsize, or a bool that is neither
            0 nor 1.
    """
    dtype = dtype_from_proto(tensor.dtype, field)
    shape = tuple(tensor.shape[: _MAX_AXES + 1])
    expected = count_elements(shape, field) * dtype.itemsize
    if len(tensor.data) != expected:
        raise WireError(f"{field}.data: expected {expected} bytes for {dtype}{list(shape)}, received {len(tensor.data)}", field=field)
    if dtype == np.bool_ and np.frombuffer(tensor.data, np.uint8).max(initial=0) > 1:
        raise WireError(f"{field}.data: expected bytes 0 and 1 for bool, received {max(tensor.data)}", field=field)
    return column(tensor.data, dtype).reshape(shape)


def count_elements(shape: Sequence[int], field: str) -> int:
    """Count the elements of an array of some shape.

    Raises:
        WireError: no array has that shape: too many axes, or too long ones.
    """
    if len(shape) > _MAX_AXES:
        raise WireError(f"{field}.shape: expected at most {_MAX_AXES} axes, received more", field=field)
    if math.prod(length or 1 for length in shape) > _MAX_BYTES // 8:
        raise WireError(f"{field}.shape: expected the shape of an array that memory can hold, received {list(shape)}", field=field)
    return math.prod(shape)


def column(data: bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """View little-endian bytes, whose length the caller has checked, as a vector."""
    if not _BIG_ENDIAN and dtype.isnative:
        return np.frombuffer(data, dtype)
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)
