"""The actions of a block's episodes are kept as columns: each row's in its order, with room that grows and ends."""

from __future__ import annotations

import numpy as np
import pytest

from policyserver.pipelines import taken_actions
from policyserver.pipelines.taken_actions import TakenActions


@pytest.mark.parametrize(("shape", "dtype"), [((), np.int64), ((3,), np.float32), ((2, 2), np.float64)])
def test_each_row_has_its_own_actions_in_their_order(shape: tuple[int, ...], dtype: type) -> None:
    rng = np.random.default_rng(0)
    taken, expected = TakenActions(8), [list[np.ndarray]() for _ in range(8)]
    for _ in range(500):
        over = np.flatnonzero(rng.random(8) < 0.005)
        taken.begin(over)
        for row in over.tolist():
            expected[row] = []
        rows = np.flatnonzero(rng.random(8) < 0.8)
        actions: np.ndarray = rng.integers(100, size=(len(rows), *shape)).astype(dtype)
        taken.add(rows, actions)
        for row, action in zip(rows.tolist(), actions, strict=True):
            expected[row].append(action)
    assert max(map(len, expected)) > 200, "room has grown"
    for row in range(8):
        assert taken.of(row).dtype == dtype
        assert np.array_equal(taken.of(row), np.array(expected[row]))


def test_what_is_handed_out_does_not_change_when_the_next_episode_begins() -> None:
    taken = TakenActions(1)
    taken.add(np.array([0]), np.array([7]))
    first = taken.of(0)
    taken.begin(np.array([0]))
    taken.add(np.array([0]), np.array([9]))
    assert (first.tolist(), taken.of(0).tolist()) == ([7], [9])


def test_what_a_step_did_is_kept_with_its_action_once_one_did_not_act() -> None:
    rng = np.random.default_rng(0)
    taken, expected = TakenActions(4), [list[int]() for _ in range(4)]
    for step in range(400):
        over = np.flatnonzero(rng.random(4) < 0.005)
        taken.begin(over)
        for row in over.tolist():
            expected[row] = []
        rows = np.flatnonzero(rng.random(4) < 0.8)
        kinds = rng.integers(3, size=len(rows)).astype(np.int8) if step > 50 and rng.random() < 0.3 else None
        taken.add(rows, rng.integers(100, size=len(rows)), kinds)
        for place, row in enumerate(rows.tolist()):
            expected[row].append(0 if kinds is None else int(kinds[place]))
        for row in range(4):
            found = taken.kinds_of(row)
            assert (len(expected[row]) * [0] if found is None else found.tolist()) == expected[row]
            assert (found is None) == (not any(expected[row]))
    assert max(map(len, expected)) > 128, "room has grown"


def test_room_is_bounded_and_an_episode_of_more_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken_actions, "MOST_ACTIONS", 100)
    taken = TakenActions(2)
    for step in range(150):
        taken.add(np.array([0, 1]) if step < 100 else np.array([0]), np.full(2 if step < 100 else 1, step))
    assert taken._actions.shape == (2, 100)
    assert taken.of(0).tolist() == []
    assert taken.of(1).tolist() == list(range(100))
    taken.begin(np.array([0]))
    taken.add(np.array([0]), np.array([5]))
    assert taken.of(0).tolist() == [5]
