"""Flattened observations and previous actions and rewards are what RLlib's connectors write, for any space."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.connectors.env_to_module import FlattenObservations, PrevActionsPrevRewards

from policyserver.common.acting.action_form import ActionForm
from policyserver.server.policies.vectorized.observation_connectors import VectorizedFlatten, VectorizedPreviousAction
from tests.common.space_strategies import MULTI_BINARIES, boxes
from tests.parity.rows import ACTION, OneRow, StockRows, pipeline_of, step_rows, written

spaces = gym.spaces

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
DTYPES = (np.float32, np.float64, np.int8, np.int64, np.uint8)


@st.composite
def _counted(draw: st.DrawFn) -> gym.Space[Any]:
    """A Discrete or flat MultiDiscrete that RLlib can make one-hot: from 0 on, or from below."""
    if draw(st.booleans()):
        n = draw(st.integers(1, 6))
        return spaces.Discrete(n, start=draw(st.integers(-n, 0)))
    return spaces.MultiDiscrete(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))


PARTS: st.SearchStrategy[gym.Space[Any]] = st.one_of(boxes(shapes=SHAPES, dtypes=DTYPES), _counted(), MULTI_BINARIES)
NESTED = st.recursive(
    PARTS,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["b", "a", "Z", "_", "10", "9"]), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=6,
)


def rows_of(pipeline: Any, seed: int, batches: int = 2) -> list[list[OneRow]]:
    space = pipeline.input_observation_space
    space.seed(seed)
    return list(StockRows(pipeline, np.random.default_rng(seed), space.sample).batches(batches, 7))


@pytest.mark.long
@given(NESTED, st.integers(0, 1000))
def test_any_observation_is_flattened_as_by_rllib(space: gym.Space[Any], seed: int) -> None:
    pipeline = pipeline_of(space, FlattenObservations())
    connector = VectorizedFlatten(space)
    for rows in rows_of(pipeline, seed):
        (ours,) = connector.write(step_rows(space, rows).observations, step_rows(space, rows))
        theirs = written(rows)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
        assert ours.shape[1:] == pipeline.observation_space.shape


def test_removed_keys_are_left_out() -> None:
    space = spaces.Dict(
        {
            "b": spaces.Dict({"y": spaces.Discrete(3), "x": spaces.Box(-1, 1, (2,))}),
            "a": spaces.Box(-1, 1, (3,)),
            "c": spaces.Tuple([spaces.MultiBinary(2)]),
        }
    )
    removed = ["b", "nothing"]
    pipeline = pipeline_of(space, FlattenObservations(space, ACTION, keys_to_remove=removed))
    connector = VectorizedFlatten(space, frozenset(removed))
    for rows in rows_of(pipeline, 1):
        (ours,) = connector.write(step_rows(space, rows).observations, step_rows(space, rows))
        np.testing.assert_array_equal(ours, written(rows))
        assert ours.shape[1] == 5


@pytest.mark.long
@given(NESTED, st.integers(0, 1000))
def test_the_step_before_is_added_as_by_rllib(space: gym.Space[Any], seed: int) -> None:
    pipeline = pipeline_of(space, PrevActionsPrevRewards(), FlattenObservations())
    before = pipeline.connectors[0].observation_space
    connectors = [VectorizedPreviousAction(ActionForm(ACTION, normalize=True, clip=False), ACTION), VectorizedFlatten(before)]
    for rows in rows_of(pipeline, seed):
        columns = step_rows(space, rows)
        observations = columns.observations
        for connector in connectors:
            observations = connector.write(observations, columns)
        np.testing.assert_array_equal(observations[0], written(rows))
        assert observations[0].dtype == np.float32


@pytest.mark.parametrize("start", [5, -2])
def test_actions_that_count_from_elsewhere_are_counted_from_0(start: int) -> None:
    space = spaces.Box(-1, 1, (1,))
    action: spaces.Discrete[np.int64] = spaces.Discrete(3, start=start)
    rows = [OneRow(np.zeros(1, np.float32), False, action=start + 2, reward=1.5), OneRow(np.zeros(1, np.float32), True)]
    connector = VectorizedPreviousAction(ActionForm(action, normalize=True, clip=False), action)
    _, actions, rewards = connector.write([np.zeros((2, 1), np.float32)], step_rows(space, rows))
    assert actions.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert rewards.tolist() == [[1.5], [0]]
