"""A batch does the same as its rows one by one: a row that fails is named and leaves the others their actions."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from policyserver.client import BatchError, EpisodeFinishedError, EpisodeUnknownError, InvalidInputError, PolicyClient, ServerInternalError
from policyserver.common.flags import StepFlag
from tests.client.conftest import FAST
from tests.client.reference_server import ReferenceServer


@pytest.mark.long
def test_a_batch_does_the_same_as_its_rows_one_by_one(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(5)
    client.get_action(ids[2], np.zeros(10, np.float32))
    actions = client.get_actions(ids, np.arange(50, dtype=np.float32).reshape(5, 10))
    assert actions.tolist() == [0, 0, 1, 0, 0]
    assert actions.dtype == np.int64
    client.log_returns_batch(ids, np.arange(5))
    client.log_actions(ids, np.zeros((5, 10), np.float32), [0, 1, 2, 1, 0])
    client.end_episodes(ids, np.zeros((5, 10), np.float32), [True, False, True, False, False])
    served = [server.servicer.episodes[episode] for episode in ids]
    assert [sum(episode.rewards) for episode in served] == [0, 1, 2, 3, 4]
    assert [episode.observations[-3][0] for episode in served] == [0, 10, 20, 30, 40]
    assert [list(episode.given.values()) for episode in served] == [[0], [1], [2], [1], [0]]
    assert [episode.end for episode in served] == [
        StepFlag.TRUNCATED, StepFlag.TERMINATED, StepFlag.TRUNCATED, StepFlag.TERMINATED, StepFlag.TERMINATED,
    ]  # fmt: skip
    assert client.counters().episodes_open == 0


def test_a_failed_row_leaves_the_others_with_their_actions(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(["a", "b", "c", "d"])
    client.get_actions(ids, np.zeros((4, 10)))
    client.end_episode("a", [0] * 10)
    server.servicer.refuse = lambda episode_id, _: ServerInternalError("incident 9") if episode_id == "c" else None
    with pytest.raises(BatchError, match=r"^3 of 5 rows failed; the first is row 0: EpisodeFinishedError: ") as caught:
        client.get_actions([*ids, "nobody"], np.zeros((5, 10)))
    errors = caught.value.errors
    assert {row: type(error) for row, error in errors.items()} == {0: EpisodeFinishedError, 2: ServerInternalError, 4: EpisodeUnknownError}
    assert caught.value.actions.tolist() == [0, 1, 0, 1, 0]
    server.servicer.refuse = lambda episode_id, _: None
    assert client.get_action("b", [0] * 10) == 14 % 3
    assert client.get_action("c", [0] * 10) == 7 % 3
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), list(copy.errors)) == (str(caught.value), [0, 2, 4])


def test_rewards_of_a_batch_reach_the_open_episodes(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(["a", "b"])
    client.get_actions(ids, np.zeros((2, 10)))
    with pytest.raises(BatchError, match="1 of 3 rows failed"):
        client.log_returns_batch(["a", "x", "b"], [1, 2, 3])
    with pytest.raises(InvalidInputError, match="rewards: expected 2, received 1"):
        client.log_returns_batch(ids, [1.0])
    client.end_episodes(ids, np.zeros((2, 10)))
    assert [server.servicer.episodes[episode].rewards[-1] for episode in ids] == [1, 3]


def test_a_batch_that_does_not_fit_its_ids_changes_nothing(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(3)
    for bad in (np.zeros((2, 10)), np.zeros(10), np.full((3, 10), "much")):
        with pytest.raises(InvalidInputError, match="observation: expected"):
            client.get_actions(ids, bad)
    with pytest.raises(InvalidInputError, match="one of them twice"):
        client.get_actions([ids[0], ids[0]], np.zeros((2, 10)))
    with pytest.raises(InvalidInputError, match="truncated: expected one bool or 3"):
        client.end_episodes(ids, np.zeros((3, 10)), [True])
    assert server.servicer.message_rows == []


def test_an_empty_batch_is_nothing_to_do(server: ReferenceServer, client: PolicyClient) -> None:
    client.start_episode()
    assert client.get_actions([], np.zeros((0, 10))).shape == (0,)
    assert server.servicer.message_rows == []


@pytest.mark.long
def test_a_large_call_is_split_by_rows_and_comes_back_in_order(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    server.servicer.max_rows = 1000
    client = connect(replace(FAST, max_rows_per_message=64))
    ids = client.start_episodes(300)
    for step in range(3):
        for episode in ids[: 10 * step]:
            client.get_action(episode, [0] * 10)
    expected = [7 * (2 if index < 10 else 1 if index < 20 else 0) % 3 for index in range(300)]
    server.servicer.message_rows.clear()
    assert client.get_actions(ids, np.zeros((300, 10))).tolist() == expected
    assert max(server.servicer.message_rows) == 64
    assert len(server.servicer.message_rows) == 5


@pytest.mark.long
def test_a_large_call_is_split_by_bytes(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    space = gym.spaces.Box(-1, 1, (1000,), np.float32)
    server.servicer.observation_space = space
    client = connect(replace(FAST, max_message_bytes=64 * 1024))
    assert client.get_actions(client.start_episodes(100), np.zeros((100, 1000))).tolist() == [0] * 100
    assert sum(server.servicer.message_rows) == 100
    assert max(server.servicer.message_rows) * 4000 < 64 * 1024


def test_a_row_that_cannot_travel_is_named_and_the_others_have_their_actions(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(["a", "b", "c", "d"])
    client.get_action("d", np.zeros(10))
    observations = np.zeros((4, 10))
    observations[1, 3], observations[2, 0] = np.nan, 1e300
    caught: list[Exception] = []
    try:
        client.get_actions(ids, observations)
    except Exception as error:
        caught.append(error)
    (failed,) = caught
    assert isinstance(failed, BatchError), f"expected a BatchError, received {failed!r}"
    assert {row: (type(error), error.field) for row, error in failed.errors.items()} == dict.fromkeys(
        (1, 2), (InvalidInputError, "observation")
    )
    assert "2 of 4 rows failed; the first is row 1" in str(failed)
    assert failed.actions.tolist() == [0, 0, 0, 7 % 3]
    assert list(server.servicer.episodes) == ["d", "a"]
    assert client.get_actions(["b", "c"], np.zeros((2, 10))).tolist() == [0, 0]


def test_bad_rows_of_given_actions_and_of_ends_are_named_too(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(["a", "b", "c"])
    bad = np.zeros((3, 10))
    bad[0] = np.inf
    with pytest.raises(BatchError, match="1 of 3 rows failed; the first is row 0: InvalidInputError: observation: expected finite"):
        client.log_actions(ids, bad, [0, 1, 2])
    assert {name: episode.given for name, episode in server.servicer.episodes.items()} == {"b": {0: 1}, "c": {0: 2}}
    client.get_action("a", np.zeros(10))
    with pytest.raises(BatchError, match="1 of 3 rows failed; the first is row 0"):
        client.end_episodes(ids, bad)
    assert client.counters().episodes_open == 1
    client.end_episode("a", np.zeros(10))


def test_a_batch_of_nothing_but_bad_rows_sends_nothing(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(3)
    with pytest.raises(BatchError, match="3 of 3 rows failed"):
        client.get_actions(ids, np.full((3, 10), np.nan))
    assert server.servicer.message_rows == []


def test_integers_out_of_range_are_told_by_row(server: ReferenceServer, connect: Callable[..., PolicyClient]) -> None:
    server.servicer.observation_space = gym.spaces.Box(0, 255, (2,), np.uint8)
    client = connect()
    ids = client.start_episodes(3)
    with pytest.raises(BatchError, match="1 of 3 rows failed; the first is row 2") as caught:
        client.get_actions(ids, np.array([[0, 255], [1, 2], [3, 300]]))
    assert caught.value.errors[2].field == "observation"
