"""An array comes back from the wire bit for bit, and bytes, dtypes and shapes that give no array are refused by their field."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policyserver.common.errors import WireError
from policyserver.common.tensors import dtype_to_proto, from_tensor, to_tensor
from policyserver.v1 import tensor_pb2

DTYPES = ["float32", "float64", "int8", "int32", "int64", "uint8", "bool"]
arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))


@pytest.mark.long
@given(arrays)
def test_an_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any]) -> None:
    tensor = tensor_pb2.Tensor.FromString(to_tensor(array).SerializeToString())
    decoded = from_tensor(tensor, "x")
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()


@pytest.mark.long
@given(arrays)
def test_layout_and_byte_order_of_the_source_do_not_show_on_the_wire(array: np.ndarray[Any, Any]) -> None:
    swapped = array.astype(array.dtype.newbyteorder(">"))
    assert to_tensor(np.asfortranarray(swapped).reshape(array.shape)) == to_tensor(array)
    assert to_tensor(np.repeat(array.reshape(1, -1), 2, axis=1)[:, ::2].reshape(array.shape)) == to_tensor(array)


def test_bytes_are_little_endian_and_row_major() -> None:
    assert to_tensor(np.array([[1, 2], [3, 4]], np.int32).T).data == b"\1\0\0\0\3\0\0\0\2\0\0\0\4\0\0\0"


def test_decoding_is_a_read_only_view() -> None:
    decoded = from_tensor(to_tensor(np.zeros(3)), "x")
    assert not decoded.flags.writeable
    assert not decoded.flags.owndata


@pytest.mark.parametrize("dtype", ["float16", "int16", "uint32", "complex64", "O", "U3", "datetime64[ns]"])
def test_a_dtype_that_does_not_travel_is_refused_by_name(dtype: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"received {np.dtype(dtype)}")):
        dtype_to_proto(np.dtype(dtype))


@pytest.mark.long
@given(st.binary(max_size=40), st.lists(st.integers(0, 6), max_size=4), st.integers(0, 20))
def test_any_bytes_give_an_array_or_a_wire_error_that_names_the_field(data: bytes, shape: list[int], code: int) -> None:
    tensor = tensor_pb2.Tensor(dtype=code, shape=shape, data=data)  # type: ignore[arg-type]
    sizes = {1: 4, 2: 8, 3: 1, 4: 4, 5: 8, 6: 1, 7: 1}
    if code in sizes and len(data) == sizes[code] * math.prod(shape) and (code != 7 or max(data, default=0) < 2):
        array = from_tensor(tensor, "observations[3]")
        assert array.shape == tuple(shape)
        assert array.tobytes() == data
    else:
        with pytest.raises(WireError, match=r"^observations\[3\]") as caught:
            from_tensor(tensor, "observations[3]")
        assert caught.value.field == "observations[3]"


def test_a_bool_other_than_0_and_1_is_refused() -> None:
    with pytest.raises(WireError, match="received 2"):
        from_tensor(tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_BOOL, shape=[2], data=b"\1\2"), "x")


@pytest.mark.parametrize("shape", [[1] * 33, [1] * 65, [0] * 65, [2**32 - 1] * 4, [2**32 - 1, 2**32 - 1, 0], [2**32 - 1] * 1_000_000])
def test_a_shape_that_no_array_has_is_refused(shape: list[int]) -> None:
    with pytest.raises(WireError, match=r"^x\.shape: expected .*, received") as caught:
        from_tensor(tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_INT8, shape=shape, data=bytes(1 in shape)), "x")
    assert caught.value.field == "x"
