"""Every kind of space and its values travel and come back equal; a value or spec that does not fit is refused with its path."""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from policyserver.common.errors import InvalidInputError, WireError
from policyserver.common.spaces import describe, flatten, flatten_batch, from_proto, leaves, same, to_proto, unflatten, unflatten_batch
from policyserver.v1 import space_pb2, tensor_pb2
from tests.common.space_strategies import SPACES, samples


@pytest.mark.long
@given(SPACES)
def test_a_space_comes_back_equal(space: gym.Space[Any]) -> None:
    decoded = from_proto(space_pb2.Space.FromString(to_proto(space).SerializeToString()))
    assert decoded == space
    assert same(decoded, space)
    assert describe(decoded) == describe(space)


@pytest.mark.long
@given(SPACES, st.integers(0, 1000))
def test_a_value_comes_back_as_a_member_of_its_space(space: gym.Space[Any], seed: int) -> None:
    (value,) = samples(space, 1, seed)
    arrays = flatten(space, value)
    assert [(array.dtype, array.shape) for array in arrays] == [(leaf.dtype, leaf.shape) for leaf in leaves(space)]
    rebuilt = unflatten(space, arrays)
    assert space.contains(rebuilt)
    assert [array.tobytes() for array in flatten(space, rebuilt, known=leaves(space))] == [array.tobytes() for array in arrays]


@pytest.mark.long
@given(SPACES, st.integers(1, 5))
def test_a_batch_is_its_values_stacked(space: gym.Space[Any], rows: int) -> None:
    stacked = [np.stack(column) for column in zip(*(flatten(space, value) for value in samples(space, rows)), strict=True)]
    batch = unflatten_batch(space, stacked)
    assert all(np.array_equal(a, b) for a, b in zip(flatten_batch(space, batch, rows=rows), stacked, strict=True))


def test_every_kind_of_space_keeps_its_dtype() -> None:
    space = spaces.Tuple(
        [
            spaces.Discrete(3, dtype=np.int32),
            spaces.MultiDiscrete([2, 3], dtype=np.uint8, start=[1, 250]),
            spaces.MultiDiscrete(np.array([[2], [3]], np.int32), dtype=np.int32),
            spaces.MultiBinary([2, 2]),
            spaces.Box(0, 255, (2, 2, 3), np.uint8),
            spaces.Box(-1.0, 1.0, (), np.float64),
            spaces.Box(0, 1, (3,), np.bool_),  # type: ignore[arg-type]
            spaces.Box(-1.0, 1.0, (0, 3), np.float32),
        ]
    )
    expected = ["int32", "uint8", "int32", "int8", "uint8", "float64", "bool", "float32"]
    assert [str(leaf.dtype) for leaf in leaves(from_proto(to_proto(space)))] == expected
    assert from_proto(to_proto(space)) == space


def test_leaves_are_ordered_by_sorted_key_and_by_position() -> None:
    space = spaces.Dict(b=spaces.Tuple([spaces.Discrete(2), spaces.MultiBinary(3)]), a=spaces.Box(0, 1, (2,)))
    found = [(leaf.path, leaf.dtype, leaf.shape) for leaf in leaves(space)]
    assert found == [
        ("observation['a']", np.dtype("float32"), (2,)),
        ("observation['b'][0]", np.dtype("int64"), ()),
        ("observation['b'][1]", np.dtype("int8"), (3,)),
    ]


def test_spaces_that_differ_in_one_bound_or_dtype_are_not_the_same() -> None:
    space = spaces.Box(-100, 100, (10,), np.float32)
    high = np.full(10, 100, np.float32)
    high[3] = 99
    assert not same(space, spaces.Box(-100, high))
    assert not same(space, spaces.Box(-100, 100, (10,), np.float64))
    assert not same(space, spaces.Box(-100, 100, (11,), np.float32))
    assert not same(spaces.Discrete(3), spaces.Discrete(3, start=1))
    assert not same(spaces.Discrete(3), spaces.Discrete(3, dtype=np.int32))
    assert not same(spaces.MultiDiscrete([3, 3]), spaces.MultiDiscrete([3, 3], dtype=np.int32))
    assert not same(spaces.MultiDiscrete([3, 3]), spaces.MultiDiscrete([3, 3], start=[0, 1]))
    assert same(spaces.Box(0.0, 1.0, (2,)), spaces.Box(-0.0, 1.0, (2,))), "the same numbers"


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ([0.0] * 9, r"expected shape \[10\], received shape \[9\]"),
        ([[0.0] * 10], r"received shape \[1, 10\]"),
        ([0.0] * 9 + [float("nan")], "expected finite numbers of float32, received nan"),
        ([1e300] * 10, "expected finite .* received inf"),
        (["a"] * 10, r"expected float32, received \['a', .*, no number"),
        ([None] * 10, r"received \[None, .*, no number"),
        ([1j] * 10, "received complex128"),
        ([[0], [0, 1]], "received a ragged list"),
        (None, r"received shape \[\], a NoneType"),
        ({0: [0.0] * 10}, r"expected shape \[10\], received shape \[\], a dict"),
    ],
)
def test_a_bad_observation_is_refused_with_what_was_expected_and_what_came(value: Any, received: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^observation: .*{received}") as caught:
        flatten(spaces.Box(-100, 100, (10,)), value)
    assert caught.value.field == "observation"
    assert caught.value.reason == "BAD_OBSERVATION"


def test_lists_and_wider_floats_are_cast() -> None:
    (array,) = flatten(spaces.Box(-100, 100, (2,)), [1, 2.5])
    assert array.dtype == np.float32
    assert array.tolist() == [1, 2.5]


@pytest.mark.parametrize("value", [1.0, 300, -1, "1"])
def test_a_number_that_an_integer_leaf_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="uint8"):
        flatten(spaces.Box(0, 255, (), np.uint8), value)


def test_a_wrong_structure_is_refused_with_its_path() -> None:
    space = spaces.Dict(a=spaces.Tuple([spaces.Discrete(2)]))
    with pytest.raises(InvalidInputError, match=r"observation: expected a mapping with the keys \['a'\], received keys \['b'\]"):
        flatten(space, {"b": (1,)})
    with pytest.raises(InvalidInputError, match=r"observation\['a'\]: expected a tuple of 1 parts, received 2"):
        flatten(space, {"a": (1, 0)})


def test_leaves_of_a_batch_must_agree_on_its_length() -> None:
    space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2))
    with pytest.raises(InvalidInputError, match=r"observation\['b'\]: expected shape \[3\], received shape \[2\]"):
        flatten_batch(space, {"a": [0, 1, 0], "b": [0, 1]})


def test_a_space_that_does_not_travel_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="Text"):
        to_proto(spaces.Dict(a=spaces.Text(3)))
    with pytest.raises(TypeError, match=r"space\['a'\]\[0\]: .* received float16"):
        to_proto(spaces.Dict(a=spaces.Tuple([spaces.Box(0, 1, (2,), np.float16)])))
    with pytest.raises(TypeError, match="int16"):
        to_proto(spaces.Discrete(3, dtype=np.int16))
    with pytest.raises(TypeError, match="expected texts as the keys of a Dict, received 1; rename it"):
        to_proto(spaces.Dict({"a": spaces.Discrete(2), 1: spaces.Discrete(2)}))  # type: ignore[dict-item]


def test_a_hostile_spec_is_refused() -> None:
    bound = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=b"\0\0\0\0")
    deep = space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=2))
    for _ in range(40):
        deep = space_pb2.Space(tuple=space_pb2.TupleSpace(spaces=[deep]))
    big = space_pb2.Space(box=space_pb2.BoxSpace(low=bound, high=bound, shape=[2**20]))
    floats = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=b"\0\0\x80\x3f")
    integers = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_INT8, shape=[1], data=b"\1")
    bad = [
        space_pb2.Space(),
        deep,
        space_pb2.Space(tuple=space_pb2.TupleSpace(spaces=[big] * 17)),
        space_pb2.Space(tuple=space_pb2.TupleSpace(spaces=[space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=2))] * 5000)),
        space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=300, dtype=tensor_pb2.DATA_TYPE_INT8)),
        space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=3, dtype=tensor_pb2.DATA_TYPE_FLOAT32)),
        space_pb2.Space(multi_discrete=space_pb2.MultiDiscreteSpace(nvec=floats)),
        space_pb2.Space(multi_discrete=space_pb2.MultiDiscreteSpace(nvec=integers, start=floats)),
        space_pb2.Space(box=space_pb2.BoxSpace(low=bound, high=bound, shape=[2**31, 2**31])),
        space_pb2.Space(box=space_pb2.BoxSpace(low=bound, shape=[2])),
        space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=-1)),
        space_pb2.Space(multi_binary=space_pb2.MultiBinarySpace(shape=[2**32 - 1])),
        space_pb2.Space(dict=space_pb2.DictSpace(keys=["b", "a"], spaces=[space_pb2.Space()] * 2)),
    ]
    for message in bad:
        with pytest.raises(WireError, match=r"^space"):
            from_proto(message)


@given(st.binary(max_size=60))
def test_any_bytes_that_parse_give_a_space_or_a_wire_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError, WireError):
        assert isinstance(from_proto(space_pb2.Space.FromString(data)), gym.Space)
