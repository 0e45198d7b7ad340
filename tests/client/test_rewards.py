"""Rewards are judged where they are logged: what is taken, a step can carry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserver.client import ActionTimeoutError, BatchError, InvalidInputError, PolicyClient, ServerInternalError
from tests.client.reference_server import ReferenceServer

ZEROS = np.zeros(10, np.float32)


@pytest.mark.long
@pytest.mark.parametrize("reward", ["1", b"1", 10**400, 1e39, -1e308, float("nan"), None, np.zeros(2)], ids=lambda value: f"{value!r:.30}")
def test_what_is_no_reward_is_refused_and_changes_nothing(server: ReferenceServer, client: PolicyClient, reward: Any) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 0.25)
    errors = []
    try:
        client.log_returns(episode, reward)
    except Exception as error:
        errors.append(error)
    assert [type(error) for error in errors] == [InvalidInputError]
    client.log_returns(episode, 1)
    client.end_episode(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 1.25]


@pytest.mark.long
def test_sums_are_judged_and_not_single_rewards(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 3e38)
    with pytest.raises(InvalidInputError, match="expected a sum of at most"):
        client.log_returns(episode, 1e38)
    client.log_returns(episode, -6e38)
    client.get_action(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, -3e38]


@pytest.mark.long
def test_a_bad_reward_of_a_batch_names_its_row_and_the_others_count(server: ReferenceServer, client: PolicyClient) -> None:
    ids = client.start_episodes(4)
    client.get_actions(ids, np.zeros((4, 10)))
    caught: list[Exception] = []
    try:
        client.log_returns_batch(ids, [1.0, float("nan"), 2.0, 1e39])
    except Exception as error:
        caught.append(error)
    (failure,) = caught
    assert isinstance(failure, BatchError), f"expected a BatchError, received {failure!r}"
    assert {row: type(failed) for row, failed in failure.errors.items()} == {1: InvalidInputError, 3: InvalidInputError}
    client.end_episodes(ids, np.zeros((4, 10)))
    assert [server.servicer.episodes[episode].rewards for episode in ids] == [[0.0, 1.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]]


@pytest.mark.long
def test_a_reward_that_comes_back_with_a_refused_row_finds_room(server: ReferenceServer, client: PolicyClient) -> None:
    episode = client.start_episode()
    client.get_action(episode, ZEROS)
    client.log_returns(episode, 3e38)
    server.hold()
    server.servicer.refuse = lambda _id, sequence: ServerInternalError("incident 1") if sequence == 1 else None
    with pytest.raises(ActionTimeoutError):
        client.get_action(episode, ZEROS, timeout_s=0.05)
    with pytest.raises(InvalidInputError, match="on its way"):
        client.log_returns(episode, 1e38)
    server.release()
    with pytest.raises(ServerInternalError):
        client.get_action(episode, ZEROS)
    server.servicer.refuse = lambda _id, _sequence: None
    client.log_returns(episode, -3e38)
    client.get_action(episode, ZEROS)
    assert server.servicer.episodes[episode].rewards == [0.0, 0.0]
