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

from policyserver.errors import InvalidInputError, WireError
from policyserver.spaces import describe, flatten, flatten_batch, from_proto, leaves, same, to_proto, unflatten, unflatten_batch
from policyserver.v1 import space_pb2, tensor_pb2

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
BOXES = st.builds(
    lambda low, width, shape, dtype: spaces.Box(low, low + width, shape, dtype),
    st.integers(-5, 5),
    st.integers(0, 9),
    SHAPES,
    st.sampled_from([np.float32, np.float64, np.int8, np.int32, np.int64]),
)
LEAVES: st.SearchStrategy[gym.Space[Any]] = st.one_of(
    BOXES,
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-3, 3)),
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(spaces.MultiDiscrete),
    st.integers(1, 4).map(spaces.MultiBinary),
)
SPACES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), parts, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(parts, min_size=1, max_size=3).map(lambda spaces_: spaces.Tuple(spaces_)),
    ),
    max_leaves=6,
)


@given(SPACES)
def test_a_space_comes_back_equal(space: gym.Space[Any]) -> None:
    decoded = from_proto(space_pb2.Space.FromString(to_proto(space).SerializeToString()))
    assert decoded == space
    assert same(decoded, space)
    assert describe(decoded) == describe(space)


@given(SPACES, st.integers(0, 1000))
def test_a_value_comes_back_as_a_member_of_its_space(space: gym.Space[Any], seed: int) -> None:
    space.seed(seed)
    value = space.sample()
    arrays = flatten(space, value)
    assert [(array.dtype, array.shape) for array in arrays] == [(leaf.dtype, leaf.shape) for leaf in leaves(space)]
    rebuilt = unflatten(space, arrays)
    assert space.contains(rebuilt)
    assert all(np.array_equal(a, b) for a, b in zip(flatten(space, rebuilt), arrays, strict=True))


@given(SPACES, st.integers(1, 5))
def test_a_batch_is_its_values_stacked(space: gym.Space[Any], rows: int) -> None:
    values = [space.sample() for _ in range(rows)]
    stacked = [np.stack(column) for column in zip(*(flatten(space, value) for value in values), strict=True)]
    batch = unflatten_batch(space, stacked)
    assert all(np.array_equal(a, b) for a, b in zip(flatten_batch(space, batch, rows=rows), stacked, strict=True))


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


@pytest.mark.parametrize(
    ("value", "received"),
    [
        ([0.0] * 9, r"expected shape \[10\], received shape \[9\]"),
        ([[0.0] * 10], r"received shape \[1, 10\]"),
        ([0.0] * 9 + [float("nan")], "expected finite numbers of float32, received nan"),
        ([1e300] * 10, "expected finite .* received inf"),
        (["a"] * 10, "received <U1"),
        ([1j] * 10, "received complex128"),
        ([[0], [0, 1]], "received a ragged list"),
        (None, r"received shape \[\]"),
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
    with pytest.raises(TypeError, match="float16"):
        to_proto(spaces.Box(0, 1, (2,), np.float16))


def test_a_hostile_spec_is_refused() -> None:
    bound = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[1], data=b"\0\0\0\0")
    deep = space_pb2.Space(discrete=space_pb2.DiscreteSpace(n=2))
    for _ in range(40):
        deep = space_pb2.Space(tuple=space_pb2.TupleSpace(spaces=[deep]))
    bad = [
        space_pb2.Space(),
        deep,
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
