"""Exactly the rows outside their space are refused, by leaf and place, and the hash of a row changes with each bit of its content."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policyserver.common.acting.leaf_checks import LeafCheck, leaf_checks
from policyserver.common.flags import StepFlag
from policyserver.common.spaces import flatten, leaves, unflatten
from policyserver.server.episodes.batch import malformed
from policyserver.server.episodes.row_checks import bad_headers, content_hashes
from tests.common.space_strategies import LEAVES, SPACES, samples
from tests.server.core_harness import ACTION, OBSERVATION, Row, observation, pack, start


def check_of(space: gym.Space[Any]) -> LeafCheck:
    (check,) = leaf_checks(space, "observation")
    return check


MEMBERS: list[tuple[gym.Space[Any], list[Any], list[Any]]] = [
    (gym.spaces.Box(-1.0, 2.0, (), np.float32), [-1.0, 0.0, 2.0], [-1.1, 2.1, np.nan, np.inf, -np.inf]),
    (gym.spaces.Box(-np.inf, np.inf, (), np.float64), [-1e300, 0.0, 1e300], [np.nan, np.inf, -np.inf]),
    (gym.spaces.Box(0, 255, (), np.uint8), [0, 255], []),
    (gym.spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, 1.0], np.float32)), [[0, -9], [9, 1]], [[-1, 0], [0, 2]]),
    (gym.spaces.Discrete(3, start=-1), [-1, 0, 1], [-2, 2]),
    (gym.spaces.MultiDiscrete([2, 3]), [[0, 0], [1, 2]], [[2, 0], [0, 3], [-1, 0]]),
    (gym.spaces.MultiBinary(2), [[0, 1]], [[2, 0], [0, -1]]),
]


@pytest.mark.parametrize(("space", "good", "bad"), MEMBERS, ids=[str(space) for space, _, _ in MEMBERS])
def test_rows_outside_the_space_are_found_and_no_others(space: gym.Space[Any], good: list[Any], bad: list[Any]) -> None:
    values = np.array([*good, *bad, *good], leaves(space, "observation")[0].dtype)
    check = check_of(space)
    found = check.bad_rows(values).tolist()
    assert found == list(range(len(good), len(good) + len(bad)))
    for row in found:
        error = check.value_error(values[row])
        assert error.field == "observations[0]"
        assert "received" in error.message


@pytest.mark.long
@given(LEAVES, st.integers(0, 1000))
def test_exactly_the_members_of_a_space_that_are_finite_pass(space: gym.Space[Any], seed: int) -> None:
    (leaf,) = leaves(space)
    members = [flatten(space, value)[0] for value in samples(space, 3, seed)]
    random = np.random.default_rng(seed)
    if leaf.dtype.kind == "f":
        anything = random.choice([-np.inf, -1e30, -3.0, 0.0, 4.0, 1e30, np.inf, np.nan], (8, *leaf.shape)).astype(leaf.dtype)
    else:
        low, high = (0, 1) if leaf.dtype.kind == "b" else (np.iinfo(leaf.dtype).min, np.iinfo(leaf.dtype).max)
        anything = random.integers(low, high, (8, *leaf.shape), leaf.dtype, endpoint=True)
    close = np.stack(members) + np.ones(leaf.shape, leaf.dtype) if leaf.dtype.kind in "iu" else np.stack(members)
    rows = np.concatenate([np.stack(members), anything, close])
    check = check_of(space)
    bad = [
        row for row, value in enumerate(rows) if not (np.isfinite(value).all() and space.contains(unflatten(space, [np.asarray(value)])))
    ]
    assert check.bad_rows(rows).tolist() == bad
    for row in bad:
        assert "received" in check.value_error(rows[row]).message
    assert check.bad_rows(rows[:0]).tolist() == []


def test_a_refused_value_is_named_by_its_leaf_and_its_place_there() -> None:
    space = gym.spaces.Dict(
        a=gym.spaces.Tuple([gym.spaces.Box(0, 9, (2, 2), np.uint8), gym.spaces.MultiDiscrete([3, 2], start=[0, 5])]),
        b=gym.spaces.Box(np.array([-np.inf, 0.0]), np.array([0.0, np.inf]), dtype=np.float64),
        c=gym.spaces.Discrete(5, start=250, dtype=np.uint8),
        d=gym.spaces.MultiBinary([2, 2]),
    )
    wrong: list[tuple[Any, str]] = [
        (np.array([[0, 9], [10, 0]], np.uint8), "observation['a'][0]: expected finite values from 0 to 9, received 10 at [1, 0]"),
        (np.array([2, 7]), "observation['a'][1]: expected finite values from 5 to 6, received 7 at [1]"),
        (np.array([-1e300, np.inf]), "observation['b']: expected finite values from 0.0 to inf, received inf at [1]"),
        (np.uint8(249), "observation['c']: expected finite values from 250 to 254, received 249"),
        (np.array([[0, 1], [1, -1]], np.int8), "observation['d']: expected finite values from 0 to 1, received -1 at [1, 1]"),
    ]
    for index, (check, (value, message)) in enumerate(zip(leaf_checks(space, "observation"), wrong, strict=True)):
        assert check.bad_rows(np.stack([value])).tolist() == [0]
        error = check.value_error(value)
        assert (error.message, error.field, error.reason) == (message, f"observations[{index}]", "BAD_OBSERVATION")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (np.zeros((3, 10), np.float64), "expected float32[10] for each of 3 rows, received float64[10] for 3 rows"),
        (np.zeros((3, 9), np.float32), "received float32[9] for 3 rows"),
        (np.zeros((2, 10), np.float32), "received float32[10] for 2 rows"),
        (np.zeros(30, np.float32), "received float32[] for 30 rows"),
        (np.zeros((3, 10, 1), np.float32), "received float32[10, 1] for 3 rows"),
    ],
)
def test_a_column_of_the_wrong_shape_or_dtype_says_both_sides(column: Any, words: str) -> None:
    error = check_of(OBSERVATION).column(column, 3)
    assert error is not None
    assert words in error.message
    assert (error.reason, error.field) == ("BAD_OBSERVATION", "observations[0]")
    assert check_of(OBSERVATION).column(np.zeros((3, 10), np.float32), 3) is None


def test_messages_that_do_not_fit_together_are_refused_as_a_whole() -> None:
    observations, actions = leaf_checks(OBSERVATION, "observation"), leaf_checks(ACTION, "action")

    def problem(**changes: Any) -> str:
        rows = pack([start("a", flags=StepFlag.ACTION_GIVEN, action=1), Row(1, 1)])
        for name, value in changes.items():
            setattr(rows, name, value)
        error = malformed(rows, observations, actions)
        return f"{error.field}: {error.reason}" if error else ""

    assert problem() == ""
    assert problem(observations=[]) == "observations: BAD_MESSAGE"
    assert problem(observations=[np.zeros((2, 3), np.float32)]) == "observations[0]: BAD_OBSERVATION"
    assert problem(actions=[]) == "actions: BAD_MESSAGE"
    assert problem(actions=[np.zeros(2, np.int64)]) == "actions[0]: BAD_ACTION"
    assert problem(actions=[np.zeros(1, np.int32)]) == "actions[0]: BAD_ACTION"
    assert problem(episode_ids=[]) == "episode_ids: BAD_MESSAGE"
    assert problem(episode_ids=["a", "b"]) == "episode_ids: BAD_MESSAGE"


def test_every_combination_of_flags_is_allowed_or_refused_as_the_protocol_says() -> None:
    flags = np.arange(256, dtype=np.uint8)
    refused = bad_headers(flags, np.zeros(256, np.int64), np.zeros(256))
    for value in range(256):
        flag = StepFlag(value & 127)
        allowed = (
            value < 128
            and StepFlag.END not in flag
            and not (StepFlag.ACTION_GIVEN in flag and flag & StepFlag.END)
            and (StepFlag.OVERRIDE not in flag or StepFlag.ACTION_GIVEN in flag)
            and (StepFlag.TRAINING_DISABLED not in flag or StepFlag.START in flag)
        )
        assert (value not in refused) == allowed, flag


def hashes_of(*rows: Row) -> list[int]:
    packed = pack(rows)
    given_rows = np.flatnonzero(packed.flags & StepFlag.ACTION_GIVEN != 0)
    return [int(n) for n in content_hashes(packed.observations, packed.flags, packed.rewards, given_rows, packed.actions)]


def test_equal_rows_hash_equally_wherever_they_stand_in_a_batch() -> None:
    row = Row(flags=StepFlag.ACTION_GIVEN, reward=0.5, observation=observation(1, 2), action=2)
    (alone,) = hashes_of(row)
    others = [Row(observation=observation(n), flags=StepFlag.ACTION_GIVEN, action=n % 3) for n in range(5)]
    assert hashes_of(*others, row)[-1] == hashes_of(row, *others)[0] == alone


@pytest.mark.long
@given(arrays(np.float32, 10, elements=st.floats(-100, 100, width=32)), st.integers(0, 9), st.integers(0, 31))
def test_a_single_changed_bit_changes_the_hash(values: Any, element: int, bit: int) -> None:
    changed = values.copy()
    changed.view(np.uint32)[element] ^= np.uint32(1 << bit)
    first, second = hashes_of(Row(observation=values), Row(observation=changed))
    assert first != second


def test_a_change_of_the_action_makes_up_for_none_of_the_reward() -> None:
    """Both are hashed by sums of products, of which one must not cancel the other."""

    def row(reward_bits: int, action: int) -> Row:
        reward = float(np.array(reward_bits, np.uint64).view(np.float64))
        return Row(flags=StepFlag.ACTION_GIVEN, reward=reward, observation=observation(1), action=action)

    first, second = hashes_of(row(5, 2), row(6, 1))
    assert first != second


def one_hash(*leaves_: Any) -> int:
    """The hash of a row that consists of these leaves."""
    zeros = np.zeros(1, np.uint8), np.zeros(1)
    return int(content_hashes([np.stack([leaf]) for leaf in leaves_], *zeros, np.empty(0, np.int64), [])[0])


@pytest.mark.long
@given(SPACES, st.integers(0, 1000), st.data())
def test_a_changed_byte_of_any_leaf_of_any_space_changes_the_hash(space: gym.Space[Any], seed: int, data: st.DataObject) -> None:
    values = flatten(space, samples(space, 1, seed)[0])
    assert one_hash(*values) == one_hash(*(value.copy() for value in values))
    places = [(index, byte) for index, value in enumerate(values) for byte in range(value.nbytes)]
    if not places:
        return
    changed, byte = data.draw(st.sampled_from(places))
    flipped = bytearray(values[changed].tobytes())
    flipped[byte] ^= data.draw(st.integers(1, 255))
    if values[changed].dtype == np.bool_:
        flipped[byte] &= 1
    other = np.frombuffer(flipped, values[changed].dtype).reshape(values[changed].shape)
    assert (one_hash(*values[:changed], other, *values[changed + 1 :]) != one_hash(*values)) == (
        other.tobytes() != values[changed].tobytes()
    )


def test_images_and_rows_of_many_leaves_are_told_apart() -> None:
    image = np.random.default_rng(1).integers(0, 255, (84, 84, 4), np.uint8)
    darker, shifted = image.copy(), np.roll(image.reshape(-1), 4096 * 4).reshape(image.shape)
    darker[50, 3, 1] -= 1
    assert len({one_hash(image), one_hash(darker), one_hash(shifted), one_hash(image.T.copy())}) == 4
    many = [np.int64(number) for number in range(100)]
    swapped, changed = [*many], [*many[:-1], np.int64(7)]
    swapped[0], swapped[64] = swapped[64], swapped[0]
    assert len({one_hash(*many), one_hash(*swapped), one_hash(*changed)}) == 3
    stacked = [np.stack([image, darker]), np.arange(2)]
    both = content_hashes(stacked, np.zeros(2, np.uint8), np.zeros(2), np.empty(0, np.int64), [])
    assert both.tolist() == [one_hash(image, np.int64(0)), one_hash(darker, np.int64(1))]


def test_swapped_elements_and_other_rewards_or_actions_change_the_hash() -> None:
    rows = [
        Row(observation=observation(1, 2)),
        Row(observation=observation(2, 1)),
        Row(observation=observation(1, 2), reward=1.0),
        Row(observation=observation(1, 2), reward=-1.0),
        Row(observation=observation(1, 2), flags=StepFlag.TERMINATED),
        *(Row(observation=observation(1, 2), flags=StepFlag.ACTION_GIVEN, action=action) for action in range(3)),
    ]
    assert len(set(hashes_of(*rows))) == len(rows)
