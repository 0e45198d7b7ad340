"""What a client encodes comes back as a member of its space, whatever the array's layout, and only finite numbers pass."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from policyserver.client import InvalidInputError
from policyserver.client.messages import SpaceCodec
from policyserver.common.tensors import column
from tests.common.space_strategies import SPACES, samples

BOX = spaces.Box(-100, 100, (10,), np.float32)


def columns_of(codec: SpaceCodec, encoded: tuple[bytes, ...], rows: int) -> list[np.ndarray[Any, Any]]:
    return [column(data, leaf.dtype).reshape(rows, *leaf.shape) for data, leaf in zip(encoded, codec.leaves, strict=True)]


@pytest.mark.long
@given(SPACES, st.integers(1, 4))
def test_values_and_batches_of_every_space_come_back(space: gym.Space[Any], rows: int) -> None:
    codec = SpaceCodec(space, "observation")
    values = samples(space, rows)
    encoded = [codec.encode(value) for value in values]
    assert all(sum(map(len, row)) == codec.row_bytes for row in encoded)
    decoded = [codec.decode(columns_of(codec, row, 1)) for row in encoded]
    assert all(space.contains(value) for value in decoded)
    assert [codec.encode(value) for value in decoded] == encoded
    joined = tuple(b"".join(parts) for parts in zip(*encoded, strict=True))
    assert codec.encode_batch(codec.decode_batch(columns_of(codec, joined, rows)), rows) == (joined, {})


def test_a_decoded_action_belongs_to_its_caller() -> None:
    codec = SpaceCodec(BOX, "action")
    columns = columns_of(codec, codec.encode(np.zeros(10, np.float32)), 1)
    codec.decode(columns)[0] = 7
    codec.decode_batch(columns)[0, 0] = 7
    assert columns[0].sum() == 0


@pytest.mark.long
@given(st.lists(st.floats(width=32), min_size=10, max_size=10))
def test_exactly_the_finite_observations_pass(numbers: list[float]) -> None:
    codec = SpaceCodec(BOX, "observation")
    value = np.array(numbers, np.float32)
    if np.isfinite(value).all():
        assert codec.encode(value) == (value.tobytes(),)
    else:
        with pytest.raises(InvalidInputError, match="expected finite numbers of float32"):
            codec.encode(value)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_layout_of_an_array_does_not_show(order: Any) -> None:
    space = spaces.Box(-100, 100, (3, 4), np.float32)
    value = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert SpaceCodec(space, "observation").encode(np.array(value, order=order)[:, ::1]) == (value.tobytes(),)
    assert SpaceCodec(space, "observation").encode(np.repeat(value, 2, axis=1)[:, ::2]) == (value.tobytes(),)
    assert SpaceCodec(space, "observation").encode(value.astype(">f4")) == (value.tobytes(),)
